"""What can every test ask for? A relay with a clock that stands still, two tenants, and an HTTP client."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.relay import Relay
from tests.groups import put_into_groups
from tests.kit.http import running_http
from tests.kit.relay import NOON, Tenant, make_tenant, running_relay


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `-m tls` choose the tests of a group."""
    put_into_groups(items)


@pytest.fixture
def clock() -> ManualClock:
    """Return the clock of the `relay` fixture."""
    return ManualClock(NOON)


@pytest.fixture
async def relay(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Relay]:
    """Open a relay that captures mail; no worker runs."""
    async with running_relay(tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
async def acme(relay: Relay) -> Tenant:
    """Make the tenant that the test is about."""
    return await make_tenant(relay)


@pytest.fixture
async def rival(relay: Relay) -> Tenant:
    """Make another tenant, which must not be touched."""
    return await make_tenant(relay, "rival", domain="rival.test")


@pytest.fixture
async def http(relay: Relay) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the API of the `relay` fixture; every answer is checked against its OpenAPI document."""
    async with running_http(relay) as client:
        yield client
