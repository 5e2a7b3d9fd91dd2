"""What do the tests of one module share when they leave nothing behind? One server, without request limits."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio

from plunk_relay.projects.actions import create_project
from plunk_relay.relay import Relay
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay

NO_LIMITS = {"api_requests_per_minute": 0, "send_per_second": 0, "track_per_second": 0, "contacts_per_second": 0}


@dataclass(frozen=True, slots=True)
class Shared:
    """A served relay with two tenants."""

    relay: Relay
    http: httpx2.AsyncClient
    acme: Tenant
    rival: Tenant


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """Serve one relay for a whole module; its tests are marked `asyncio(loop_scope="module")`."""
    async with running_relay(tmp_path_factory.mktemp("shared"), limits=NO_LIMITS) as relay:
        acme = await make_tenant(relay)
        rival = await make_tenant(relay, "rival", domain="rival.test")
        async with running_http(relay) as http:
            yield Shared(relay, http, acme, rival)


@pytest.fixture
async def owner(relay: Relay) -> Tenant:
    """Make a project that sends nothing: it has no domain, whose keys take longer than most tests."""
    return await _make_bare_tenant(relay, "owner")


@pytest.fixture
async def other(relay: Relay) -> Tenant:
    """Make another project without a domain, which must not be touched."""
    return await _make_bare_tenant(relay, "other")


async def _make_bare_tenant(relay: Relay, name: str) -> Tenant:
    project, keys = await create_project(relay, name, owner_id=None)
    return Tenant(project.id, keys.public, keys.secret, "")
