"""How does a project come to send from a domain? It adds it, publishes the records, and is looked up."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import campaigns, dkim_keys, domains
from plunk_relay.domains import worker
from plunk_relay.domains.actions import trust_domain
from plunk_relay.domains.queries import find_domain
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import create_project, disable_project
from plunk_relay.relay import Relay
from tests.kit.api import faults, refusal, send, sent
from tests.kit.dns import DnsTable, Fault, running_dns
from tests.kit.http import running_http
from tests.kit.relay import Tenant, running_relay
from tests.kit.store import add_template, insert, rows


@dataclass(frozen=True, slots=True)
class Site:
    """A served relay that asks the test's own DNS, and a project without domains."""

    relay: Relay
    http: httpx2.AsyncClient
    dns: DnsTable
    owner: Tenant

    async def add(self, name: str = "shop.test") -> dict[str, Any]:
        """Add a domain and return the answer."""
        response = await self.http.post("/domains", headers=self.owner.headers, json={"domain": name})
        assert response.status_code == 201, response.text
        added: dict[str, Any] = response.json()
        return added

    def publish(self, domain: dict[str, Any], *purposes: str) -> None:
        """Put the records of these purposes into the DNS; none: all."""
        for record in domain["records"]:
            if not purposes or record["purpose"] in purposes:
                value = f"{record['priority']} {record['value']}." if record["type"] == "MX" else record["value"]
                self.dns.set(record["name"], record["type"], value)

    async def verify(self, domain: dict[str, Any]) -> dict[str, Any]:
        """Ask for a look-up now."""
        response = await self.http.get(f"/domains/{domain['id']}/verify", headers=self.owner.headers)
        assert response.status_code == 200, response.text
        verdict: dict[str, Any] = response.json()
        return verdict


@pytest.fixture
async def site(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """Serve a relay with a DNS server of its own."""
    table = DnsTable()
    async with (
        running_dns(table) as resolver,
        running_relay(tmp_path, clock=clock, delivery={"resolvers": [resolver]}) as relay,
        running_http(relay) as http,
    ):
        yield Site(relay, http, table, await _owner(relay, "shop"))


async def _owner(relay: Relay, name: str) -> Tenant:
    project, keys = await create_project(relay, name, owner_id=None)
    return Tenant(project.id, keys.public, keys.secret, "")


async def test_added_domain_is_unverified_and_shows_what_to_publish(site: Site) -> None:
    added = await site.add()
    assert (added["domain"], added["verified"], added["status"]) == ("shop.test", False, "NotStarted")
    assert (added["projectId"], added["project"]) == (site.owner.id, {"name": "shop"})
    rsa, ed25519 = added["dkimTokens"]
    shown = [(r["type"], r["name"], r["priority"], r["required"], r["purpose"], r["status"]) for r in added["records"]]
    assert shown == [
        ("TXT", f"{rsa}._domainkey.shop.test", None, True, "dkim-rsa", "NotStarted"),
        ("TXT", f"{ed25519}._domainkey.shop.test", None, False, "dkim-ed25519", "NotStarted"),
        ("TXT", "shop.test", None, False, "spf", "NotStarted"),
        ("MX", "bounce.shop.test", 10, False, "return-path", "NotStarted"),
        ("TXT", "bounce.shop.test", None, False, "return-path-spf", "NotStarted"),
        ("TXT", "_dmarc.shop.test", None, False, "dmarc", "NotStarted"),
    ]
    values = [record["value"] for record in added["records"]]
    assert values[0].startswith("v=DKIM1; k=rsa; p=")
    assert values[1].startswith("v=DKIM1; k=ed25519; p=")
    assert values[2:] == ["v=spf1 a:relay.test ~all", "relay.test", "v=spf1 a:relay.test ~all", "v=DMARC1; p=none;"]


async def test_domain_can_send_once_its_records_are_published(site: Site) -> None:
    added = await site.add()
    site.publish(added)
    verdict = await site.verify(added)
    assert (verdict["domain"], verdict["status"], verdict["verified"]) == ("shop.test", "Success", True)
    assert verdict["tokens"] == added["dkimTokens"]
    assert {record["status"] for record in verdict["records"]} == {"Success"}
    await sent(site.http, site.owner, {"from": "hello@shop.test"})


async def test_rsa_key_alone_decides(site: Site) -> None:
    added = await site.add()
    site.publish(added, "dkim-ed25519", "spf", "return-path", "return-path-spf", "dmarc")
    assert (await site.verify(added))["verified"] is False
    site.publish(added, "dkim-rsa")
    for purpose in ("dkim-ed25519", "spf", "dmarc"):
        record = next(r for r in added["records"] if r["purpose"] == purpose)
        site.dns.remove(record["name"], record["type"])
    verdict = await site.verify(added)
    assert verdict["verified"] is True
    assert _statuses(verdict) == {
        "dkim-rsa": "Success",
        "dkim-ed25519": "Pending",
        "spf": "Pending",
        "return-path": "Success",
        "return-path-spf": "Success",
        "dmarc": "Pending",
    }


@pytest.mark.parametrize(
    ("published", "status"),
    [
        pytest.param(None, "Pending", id="no record"),
        pytest.param("", "Pending", id="name without TXT"),
        pytest.param("v=DKIM1; k=rsa; p=MIIB", "Failed", id="another key"),
        pytest.param("v=DKIM1; k=rsa; p=", "Failed", id="revoked key"),
        pytest.param("hello", "Failed", id="no key record"),
    ],
)
async def test_wrong_key_record_is_told_apart_from_a_missing_one(site: Site, published: str | None, status: str) -> None:
    added = await site.add()
    if published is not None:
        site.dns.set(added["records"][0]["name"], "TXT", *([published] if published else []))
    verdict = await site.verify(added)
    assert (verdict["status"], verdict["verified"], _statuses(verdict)["dkim-rsa"]) == (status, False, status)


async def test_key_record_counts_in_any_spelling(site: Site) -> None:
    added = await site.add()
    key = added["records"][0]["value"].partition("p=")[2]
    site.dns.set(added["records"][0]["name"], "TXT", f"k=rsa ;p={key[:50]} {key[50:]}; t=s; v=DKIM1;")
    assert (await site.verify(added))["verified"] is True


@pytest.mark.parametrize(
    ("purpose", "values", "status"),
    [
        ("spf", ["v=spf1 include:other.test a:relay.test -all"], "Success"),
        ("spf", ["V=SPF1 A:RELAY.TEST -all"], "Success"),
        ("spf", ["v=spf1 include:other.test -all"], "Failed"),
        ("spf", ["site-verification=1"], "Pending"),
        ("dmarc", ["v=DMARC1; p=reject; rua=mailto:d@shop.test"], "Success"),
        ("dmarc", ["v=DMARC1; p=none", "v=DMARC1; p=reject"], "Failed"),
        ("return-path", ["10 mx.other.test."], "Failed"),
        ("return-path", ["10 mx.other.test.", "20 RELAY.test."], "Success"),
    ],
)
async def test_advice_is_judged_by_what_it_is_for(site: Site, purpose: str, values: list[str], status: str) -> None:
    added = await site.add()
    record = next(r for r in added["records"] if r["purpose"] == purpose)
    site.dns.set(record["name"], record["type"], *values)
    assert _statuses(await site.verify(added))[purpose] == status


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED"])
async def test_resolver_error_never_unverifies(site: Site, fault: Fault) -> None:
    added = await site.add()
    site.publish(added)
    await site.verify(added)
    site.dns.fail(added["records"][0]["name"], "TXT", fault)
    verdict = await site.verify(added)
    assert (verdict["status"], verdict["verified"]) == ("TemporaryFailure", True)
    await sent(site.http, site.owner, {"from": "hello@shop.test"})


async def test_resolver_error_verifies_nothing_either(site: Site) -> None:
    added = await site.add()
    site.dns.fail(added["records"][0]["name"], "TXT", "SERVFAIL")
    verdict = await site.verify(added)
    assert (verdict["status"], verdict["verified"]) == ("TemporaryFailure", False)


async def test_removed_record_unverifies_and_sending_stops(site: Site) -> None:
    added = await site.add()
    site.publish(added)
    await site.verify(added)
    site.dns.remove(added["records"][0]["name"], "TXT")
    verdict = await site.verify(added)
    assert (verdict["status"], verdict["verified"]) == ("Pending", False)
    assert refusal(await send(site.http, site.owner, {"from": "hello@shop.test"})) == (403, "FORBIDDEN")


async def test_new_domain_is_looked_up_in_the_background_at_once(site: Site) -> None:
    site.relay.wakes.domains.clear()
    added = await site.add()
    assert site.relay.wakes.domains.is_set()
    site.publish(added)
    assert await worker.run_once(site.relay) is False
    assert await _stored(site) == (True, "Success")


async def test_every_domain_is_looked_up_again_after_five_minutes(site: Site, clock: ManualClock) -> None:
    added = await site.add()
    await worker.run_once(site.relay)
    site.publish(added)
    clock.advance(minutes=4)
    await worker.run_once(site.relay)
    assert await _stored(site) == (False, "Pending")
    clock.advance(minutes=1, seconds=1)
    await worker.run_once(site.relay)
    assert await _stored(site) == (True, "Success")
    site.dns.remove(added["records"][0]["name"], "TXT")
    clock.advance(minutes=5, seconds=1)
    await worker.run_once(site.relay)
    assert await _stored(site) == (False, "Pending")


async def test_background_look_up_with_a_broken_resolver_changes_no_flag(site: Site, clock: ManualClock) -> None:
    added = await site.add()
    site.publish(added)
    await worker.run_once(site.relay)
    site.dns.fail(added["records"][0]["name"], "TXT", "SERVFAIL")
    clock.advance(minutes=6)
    await worker.run_once(site.relay)
    assert await _stored(site) == (True, "TemporaryFailure")


async def test_trusted_domain_needs_no_dns(site: Site, clock: ManualClock) -> None:
    added = await site.add()
    found = await site.relay.db.read(find_domain, site.owner.id, added["id"])
    assert found is not None
    await trust_domain(site.relay, found)
    clock.advance(minutes=6)
    await worker.run_once(site.relay)
    assert (await site.verify(added))["verified"] is True
    assert await _stored(site) == (True, "Success")


async def test_domains_are_listed_newest_first_and_only_the_own(site: Site) -> None:
    rival = await _owner(site.relay, "rival")
    first, second = await site.add("first.test"), await site.add("second.test")
    for path in (site.owner.id, rival.id, "anything"):
        response = await site.http.get(f"/domains/project/{path}", headers=site.owner.headers)
        assert [domain["id"] for domain in response.json()] == [second["id"], first["id"]]
    assert (await site.http.get(f"/domains/project/{site.owner.id}", headers=rival.headers)).json() == []


async def test_listed_domain_shows_the_last_verdict(site: Site) -> None:
    added = await site.add()
    site.publish(added, "dkim-rsa")
    await site.verify(added)
    [listed] = (await site.http.get("/domains/project/x", headers=site.owner.headers)).json()
    assert (listed["verified"], listed["dkimTokens"]) == (True, added["dkimTokens"])
    assert _statuses(listed)["dkim-rsa"] == "Success"
    assert _statuses(listed)["spf"] == "Pending"


async def test_same_domain_again_is_a_bad_request(site: Site) -> None:
    await site.add()
    response = await site.http.post("/domains", headers=site.owner.headers, json={"domain": "SHOP.test"})
    assert refusal(response) == (400, "BAD_REQUEST")


async def test_domain_of_another_project_is_forbidden_without_naming_it(site: Site) -> None:
    await site.add()
    rival = await _owner(site.relay, "rival")
    response = await site.http.post("/domains", headers=rival.headers, json={"domain": "shop.test"})
    assert refusal(response) == (403, "FORBIDDEN")
    assert site.owner.id not in response.text
    assert '"shop"' not in response.text


async def test_foreign_domain_is_not_found_and_stays(site: Site) -> None:
    added, rival = await site.add(), await _owner(site.relay, "rival")
    for method, path in (("GET", f"/domains/{added['id']}/verify"), ("DELETE", f"/domains/{added['id']}")):
        assert refusal(await site.http.request(method, path, headers=rival.headers)) == (404, "RESOURCE_NOT_FOUND")
    assert len(await rows(site.relay, domains)) == 1
    assert site.dns.questions == []


async def test_malformed_id_is_a_field_error(site: Site) -> None:
    for method, path in (("GET", "/domains/nonsense/verify"), ("DELETE", "/domains/nonsense")):
        assert faults(await site.http.request(method, path, headers=site.owner.headers)) == [("id", "invalid_string")]


async def test_deleted_domain_is_gone_with_its_keys_and_free_for_others(site: Site) -> None:
    added, rival = await site.add(), await _owner(site.relay, "rival")
    response = await site.http.delete(f"/domains/{added['id']}", headers=site.owner.headers)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert await rows(site.relay, domains) == await rows(site.relay, dkim_keys) == []
    assert refusal(await send(site.http, site.owner, {"from": "a@shop.test"})) == (403, "FORBIDDEN")
    taken = await site.http.post("/domains", headers=rival.headers, json={"domain": "shop.test"})
    assert taken.status_code == 201


async def test_domain_of_a_template_is_in_use(site: Site) -> None:
    added = await site.add()
    await add_template(site.relay, site.owner.id, name="welcome", from_address="Hi@Shop.test")
    response = await site.http.delete(f"/domains/{added['id']}", headers=site.owner.headers)
    assert refusal(response) == (409, "CONFLICT")
    assert "welcome" in response.json()["error"]["message"]
    assert len(await rows(site.relay, domains)) == 1


@pytest.mark.parametrize(
    ("status", "answer"), [("DRAFT", 409), ("SCHEDULED", 409), ("SENDING", 409), ("SENT", 200), ("CANCELLED", 200)]
)
async def test_domain_of_an_unfinished_campaign_is_in_use(site: Site, status: str, answer: int) -> None:
    added = await site.add()
    await _add_campaign(site, status=status, from_address="news@shop.test")
    assert (await site.http.delete(f"/domains/{added['id']}", headers=site.owner.headers)).status_code == answer


@pytest.mark.parametrize("address", ["a@shop.test.au", "a@mail.shop.test", "a@myshop.test"])
async def test_similar_domains_are_not_in_use(site: Site, address: str) -> None:
    added = await site.add()
    await add_template(site.relay, site.owner.id, from_address=address)
    assert (await site.http.delete(f"/domains/{added['id']}", headers=site.owner.headers)).status_code == 200


async def test_disabled_project_may_look_and_not_write(site: Site) -> None:
    added = await site.add()
    await disable_project(site.relay, site.owner.id)
    post = await site.http.post("/domains", headers=site.owner.headers, json={"domain": "b.test"})
    delete = await site.http.delete(f"/domains/{added['id']}", headers=site.owner.headers)
    assert refusal(post) == refusal(delete) == (403, "PROJECT_DISABLED")
    assert (await site.http.get("/domains/project/x", headers=site.owner.headers)).status_code == 200
    assert (await site.verify(added))["status"] == "Pending"


async def test_private_keys_are_sealed_in_the_database_file(site: Site) -> None:
    await site.add()
    keys = await rows(site.relay, dkim_keys)
    data = b"".join(path.read_bytes() for path in site.relay.settings.server.data_dir.glob("relay.db*"))
    assert [key["algorithm"] for key in keys] == ["rsa-sha256", "ed25519-sha256"]
    for key in keys:
        pem = site.relay.secrets.open(key["private_sealed"], purpose="dkim key")
        assert pem.startswith("-----BEGIN PRIVATE KEY-----")
        assert key["selector"].encode() in data
        assert pem.splitlines()[1].encode() not in data
    assert b"PRIVATE KEY" not in data


async def test_every_domain_has_keys_of_its_own(site: Site) -> None:
    first, second = await site.add("first.test"), await site.add("second.test")
    assert first["records"][0]["value"] != second["records"][0]["value"]
    assert not set(first["dkimTokens"]) & set(second["dkimTokens"])


def _statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {record["purpose"]: record["status"] for record in shown["records"]}


async def _stored(site: Site) -> tuple[bool, str]:
    [domain] = await rows(site.relay, domains)
    return domain["verified"], domain["status"]


async def _add_campaign(site: Site, *, status: str, from_address: str) -> None:
    now = site.relay.clock.now()
    counts = {
        column.name: 0 for column in campaigns.c if column.name.endswith("_count") or column.name == "total_recipients"
    }
    await insert(
        site.relay,
        campaigns,
        id=new_id(),
        project_id=site.owner.id,
        name="news",
        status=status,
        subject="News",
        body="<p>News</p>",
        from_address=from_address,
        type="MARKETING",
        audience_type="ALL",
        archived=False,
        created_at=now,
        updated_at=now,
        **counts,
    )
