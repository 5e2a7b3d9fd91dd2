"""What can every delivery test ask for? A peer that takes everything, and an outbox that delivers to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from tests.kit.outbox import Outbox, Prepared, prepare_tenants, running_outbox
from tests.kit.peer import Peer, running_peer


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Make the data directory with two tenants that every outbox copies."""
    return asyncio.run(prepare_tenants(tmp_path_factory.mktemp("tenants")))


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    """Fail a test that leaves an exception that nobody looked at, or a task that was destroyed at its work."""
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(repr(context)))
    yield
    assert complaints == []


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """Run the exchanger of example.org; set its `script` to let it misbehave."""
    async with running_peer() as running:
        yield running


@pytest.fixture
async def outbox(prepared: Prepared, tmp_path: Path, clock: ManualClock, peer: Peer) -> AsyncIterator[Outbox]:
    """Open an outbox with the default settings; example.org leads to `peer`."""
    async with running_outbox(prepared, tmp_path / "data", clock=clock, port=peer.port) as opened:
        yield opened
