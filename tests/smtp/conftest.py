"""What do tests of the SMTP doors share? The data of three tenants, made once, and a site opened from a copy of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from tests.kit.smtp import Site, Stage, build_stage, running_site


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Make the tenants."""
    return asyncio.run(build_stage(tmp_path_factory.mktemp("stage")))


@pytest.fixture
async def site(stage: Stage, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """Open the submission door with default settings, AUTH without TLS allowed."""
    async with running_site(stage, tmp_path, clock=clock) as opened:
        yield opened
