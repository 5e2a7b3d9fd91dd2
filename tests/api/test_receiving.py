"""How does a domain come to receive mail? A switch, and one DNS record more."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.inbound.actions import find_receiver
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from tests.kit.api import faults, refusal
from tests.kit.dns import DnsTable, running_dns
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay


@dataclass(frozen=True, slots=True)
class Site:
    """A served relay with its own DNS, and a project with a verified domain."""

    relay: Relay
    http: httpx2.AsyncClient
    dns: DnsTable
    acme: Tenant

    async def domain(self) -> dict[str, Any]:
        """Return the project's domain as it is listed."""
        listed = (await self.http.get("/domains/project/x", headers=self.acme.headers)).json()
        domain: dict[str, Any] = listed[0]
        return domain

    async def change(self, body: object) -> httpx2.Response:
        """Change it."""
        path = f"/domains/{(await self.domain())['id']}"
        return await self.http.patch(path, headers=self.acme.headers, json=body)


@pytest.fixture
async def site(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    table = DnsTable()
    async with (
        running_dns(table) as resolver,
        running_relay(tmp_path, clock=clock, delivery={"resolvers": [resolver]}) as relay,
        running_http(relay) as http,
    ):
        yield Site(relay, http, table, await make_tenant(relay))


def _inbound(domain: dict[str, Any]) -> list[tuple[str, str, str, int, bool, str]]:
    names = ("type", "name", "value", "priority", "required", "status")
    return [tuple(r[name] for name in names) for r in domain["records"] if r["purpose"] == "inbound"]


async def test_a_domain_does_not_receive_at_first(site: Site) -> None:
    domain = await site.domain()
    assert (domain["receiving"], _inbound(domain)) == (False, [])
    assert await find_receiver(site.relay, "acme.test") is None


async def test_switched_on_it_receives_and_shows_the_record_to_publish(site: Site) -> None:
    response = await site.change({"receiving": True})
    assert response.status_code == 200
    assert response.json() == await site.domain()
    assert response.json()["receiving"] is True
    assert _inbound(response.json()) == [("MX", "acme.test", "relay.test", 10, False, "NotStarted")]
    found = await find_receiver(site.relay, "ACME.test")
    assert found is not None
    assert found.project_id == site.acme.id


async def test_switched_off_again_everything_is_as_before(site: Site) -> None:
    before = await site.domain()
    await site.change({"receiving": True})
    after = (await site.change({"receiving": False})).json()
    assert after == before | {"updatedAt": after["updatedAt"]}
    assert await find_receiver(site.relay, "acme.test") is None


@pytest.mark.parametrize(
    ("exchangers", "status"),
    [((), "Pending"), (("10 other.test.",), "Failed"), (("5 b.test.", "10 relay.test."), "Success")],
)
async def test_the_record_is_looked_up_with_the_others(site: Site, exchangers: tuple[str, ...], status: str) -> None:
    site.dns.set("acme.test", "TXT", "x")
    if exchangers:
        site.dns.set("acme.test", "MX", *exchangers)
    domain = (await site.change({"receiving": True})).json()
    verdict = (await site.http.get(f"/domains/{domain['id']}/verify", headers=site.acme.headers)).json()
    assert [record["status"] for record in verdict["records"] if record["purpose"] == "inbound"] == [status]
    assert verdict["verified"] is True


@pytest.mark.parametrize(
    ("body", "code"), [({}, "invalid_type"), ({"receiving": "yes"}, "invalid_type"), ({"receiving": None}, "invalid_type")]
)
async def test_anything_but_true_or_false_is_refused(site: Site, body: object, code: str) -> None:
    assert faults(await site.change(body)) == [("receiving", code)]
    assert (await site.domain())["receiving"] is False


async def test_a_disabled_project_cannot_switch(site: Site) -> None:
    await disable_project(site.relay, site.acme.id)
    assert refusal(await site.change({"receiving": True})) == (403, "PROJECT_DISABLED")


async def test_an_id_that_is_none_is_refused(site: Site) -> None:
    response = await site.http.patch("/domains/x", headers=site.acme.headers, json={"receiving": True})
    assert faults(response) == [("id", "invalid_string")]
