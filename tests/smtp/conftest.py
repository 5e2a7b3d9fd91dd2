"""What do tests of the SMTP doors share? The data of three tenants, made once, and a site opened from a copy of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from plunk_relay.clock import ManualClock
from tests.kit.smtp import Site, Stage, build_stage, running_site


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run these tests on the loop that the server runs on: transports and TLS are the loop's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Make the tenants."""
    return asyncio.run(build_stage(tmp_path_factory.mktemp("stage")))


@pytest.fixture
async def site(stage: Stage, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """Open the submission door with default settings, AUTH without TLS allowed."""
    async with running_site(stage, tmp_path, clock=clock) as opened:
        yield opened
