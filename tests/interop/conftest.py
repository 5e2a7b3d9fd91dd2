"""What do the interop tests share? One mail server and one relay for all of them: starting these takes seconds."""

from collections.abc import Iterator

import pytest

from tests.interop.site import Internet, Site, running_internet, running_site


@pytest.fixture(scope="session")
def internet() -> Iterator[Internet]:
    """Run DNS, Postfix and opendkim."""
    with running_internet() as outside:
        yield outside


@pytest.fixture(scope="session")
def site(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a relay that delivers to the mail exchangers it finds."""
    with running_site(internet, tmp_path_factory.mktemp("relay"), port=internet.postfix.smtp_port) as running:
        yield running
