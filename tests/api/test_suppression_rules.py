"""How does a project keep mail to some recipients to itself? By rules that are tried on every recipient: a test sink."""

from typing import Any

import httpx2
import pytest

from plunk_relay.db.tables import suppression_rules
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.relay import Relay
from tests.kit.api import faults, refusal, send, sent
from tests.kit.relay import Tenant
from tests.kit.store import rows

RULE = {"name": "Staging", "kind": "DOMAIN", "pattern": "example.net"}


async def _add(http: httpx2.AsyncClient, owner: Tenant, **fields: Any) -> dict[str, Any]:
    response = await http.post("/suppressions", headers=owner.headers, json=RULE | fields)
    assert response.status_code == 201, response.text
    rule: dict[str, Any] = response.json()
    return rule


async def _match(http: httpx2.AsyncClient, owner: Tenant, address: str) -> str | None:
    """Return the name of the rule that the preview finds."""
    response = await http.post("/suppressions/preview", headers=owner.headers, json={"address": address})
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["suppressed"] == (found["match"] is not None)
    return found["match"]["name"] if found["match"] else None


async def _deliver(relay: Relay) -> None:
    async with Deliverer(relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()


async def test_added_rule_is_answered_whole(http: httpx2.AsyncClient, owner: Tenant) -> None:
    rule = await _add(http, owner)
    moment = "2026-03-01T12:00:00.000Z"
    assert rule == RULE | {
        "id": rule["id"],
        "projectId": owner.id,
        "enabled": True,
        "createdAt": moment,
        "updatedAt": moment,
    }


async def test_rules_are_a_bare_list_oldest_first(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    made = [await _add(http, owner, name=name) for name in ("one", "two", "three")]
    await _add(http, other, name="theirs")
    assert (await http.get("/suppressions", headers=owner.headers)).json() == made


async def test_replaced_rule_keeps_its_id_and_its_place(http: httpx2.AsyncClient, owner: Tenant) -> None:
    first, second = await _add(http, owner, name="one"), await _add(http, owner, name="two")
    change = {"name": "changed", "kind": "PREFIX", "pattern": "qa-", "enabled": False}
    response = await http.put(f"/suppressions/{first['id']}", headers=owner.headers, json=change)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert (await http.get("/suppressions", headers=owner.headers)).json() == [first | change, second]


async def test_replacement_that_says_nothing_of_enabled_switches_it_on(http: httpx2.AsyncClient, owner: Tenant) -> None:
    rule = await _add(http, owner, enabled=False)
    await http.put(f"/suppressions/{rule['id']}", headers=owner.headers, json=RULE)
    [stored] = (await http.get("/suppressions", headers=owner.headers)).json()
    assert stored["enabled"] is True


async def test_deleted_rule_is_gone(http: httpx2.AsyncClient, owner: Tenant) -> None:
    rule = await _add(http, owner)
    path = f"/suppressions/{rule['id']}"
    response = await http.delete(path, headers=owner.headers)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert refusal(await http.delete(path, headers=owner.headers)) == (404, "RESOURCE_NOT_FOUND")
    assert (await http.get("/suppressions", headers=owner.headers)).json() == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_malformed_id_is_not_found(http: httpx2.AsyncClient, owner: Tenant, method: str) -> None:
    response = await http.request(method, "/suppressions/nonsense", headers=owner.headers, json=RULE)
    assert refusal(response) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": ""}, ("name", "too_small")),
        ({"name": 7}, ("name", "invalid_type")),
        ({"kind": "REGEX"}, ("kind", "invalid_enum_value")),
        ({"kind": "address"}, ("kind", "invalid_enum_value")),
        ({"pattern": ""}, ("pattern", "too_small")),
        ({"pattern": "x" * 255}, ("pattern", "too_big")),
        ({"pattern": None}, ("pattern", "invalid_type")),
        ({"enabled": "yes"}, ("enabled", "invalid_type")),
        ({"pattern": "@example.net"}, ("pattern", "invalid_string")),
        ({"kind": "ADDRESS", "pattern": "ann"}, ("pattern", "invalid_string")),
        ({"kind": "PREFIX", "pattern": "ann@"}, ("pattern", "invalid_string")),
        ({"kind": "SUFFIX", "pattern": "+test@example.net"}, ("pattern", "invalid_string")),
    ],
)
async def test_bad_field_is_named(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, fields: dict[str, Any], fault: tuple[str, str]
) -> None:
    assert faults(await http.post("/suppressions", headers=owner.headers, json=RULE | fields)) == [fault]
    assert await rows(relay, suppression_rules) == []


async def test_every_missing_field_is_named(http: httpx2.AsyncClient, owner: Tenant) -> None:
    missing = [(name, "invalid_type") for name in ("name", "kind", "pattern")]
    assert faults(await http.post("/suppressions", headers=owner.headers, json={})) == missing


async def test_unknown_keys_are_refused_with_400_and_named(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    rule = await _add(http, owner)
    before = await rows(relay, suppression_rules)
    wrong = RULE | {"patern": "x", "active": False}
    for method, path in (("POST", "/suppressions"), ("PUT", f"/suppressions/{rule['id']}")):
        response = await http.request(method, path, headers=owner.headers, json=wrong)
        assert refusal(response) == (400, "BAD_REQUEST")
        assert "active, patern" in response.json()["error"]["message"]
    preview = {"address": "ann@example.net", "email": "ann@example.net"}
    response = await http.post("/suppressions/preview", headers=owner.headers, json=preview)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert await rows(relay, suppression_rules) == before


async def test_a_hundred_rules_are_enough(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    for number in range(100):
        await _add(http, owner, name=f"rule {number}")
    response = await http.post("/suppressions", headers=owner.headers, json=RULE)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert "at most 100" in response.json()["error"]["message"]
    await _add(http, other)
    [first, *_] = (await http.get("/suppressions", headers=owner.headers)).json()
    await http.delete(f"/suppressions/{first['id']}", headers=owner.headers)
    await _add(http, owner)


async def test_preview_names_the_first_rule_that_is_on(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    await _add(http, other, name="theirs")
    assert await _match(http, owner, "ann@example.net") is None
    off = await _add(http, owner, name="off", enabled=False)
    await _add(http, owner, name="second", kind="PREFIX", pattern="ann")
    await _add(http, owner, name="third")
    assert await _match(http, owner, "Ann@Example.NET") == "second"
    await http.put(f"/suppressions/{off['id']}", headers=owner.headers, json=RULE | {"name": "on"})
    assert await _match(http, owner, "ann@example.net") == "on"
    assert await _match(http, owner, "bob@example.org") is None


async def test_caught_mail_is_kept_with_the_rule_as_it_was(http: httpx2.AsyncClient, relay: Relay, acme: Tenant) -> None:
    rule = await _add(http, acme)
    [mail] = await sent(http, acme, {"subject": "Code {{ code }}", "data": {"code": 7}, "body": "<p>Hello {{ code }}</p>"})
    await _deliver(relay)
    await http.put(f"/suppressions/{rule['id']}", headers=acme.headers, json=RULE | {"name": "Other"})
    expected = {
        "id": mail["email"],
        "createdAt": "2026-03-01T12:00:00.000Z",
        "recipientAddress": "ann@example.net",
        "subject": "Code 7",
        "renderedSubject": "Code 7",
        "status": "SUPPRESSED",
        "suppression": {"source": "RULE", "id": rule["id"]} | RULE | dict.fromkeys(("reason", "detail", "since")),
    }
    page = (await http.get("/suppressions/emails", headers=acme.headers)).json()
    assert page == {"emails": [expected], "nextCursor": None}
    shown = (await http.get(f"/suppressions/emails/{mail['email']}", headers=acme.headers)).json()
    assert shown == expected | {
        "from": "no-reply@acme.test",
        "error": "Caught by the suppression rule Staging (DOMAIN example.net): the mail is kept, not sent",
        "renderedBody": "<p>Hello 7</p>",
        "message": None,
    }


async def test_mail_that_was_not_held_is_not_among_the_caught(http: httpx2.AsyncClient, relay: Relay, acme: Tenant) -> None:
    await _add(http, acme)
    [mail] = await sent(http, acme, {"to": "bob@example.org"})
    await _deliver(relay)
    assert (await http.get("/suppressions/emails", headers=acme.headers)).json() == {"emails": [], "nextCursor": None}
    response = await http.get(f"/suppressions/emails/{mail['email']}", headers=acme.headers)
    assert refusal(response) == (404, "RESOURCE_NOT_FOUND")


async def test_caught_mails_are_paged_newest_first(
    http: httpx2.AsyncClient, relay: Relay, acme: Tenant, rival: Tenant
) -> None:
    await _add(http, acme)
    mails = [(await sent(http, acme))[0]["email"] for _ in range(5)]
    await _deliver(relay)
    seen: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2", "cursor": cursor}
        page = (await http.get("/suppressions/emails", headers=acme.headers, params=query)).json()
        seen.append([mail["id"] for mail in page["emails"]])
        cursor = page["nextCursor"]
    assert seen == [[mails[4], mails[3]], [mails[2], mails[1]], [mails[0]]]
    foreign = await http.get("/suppressions/emails", headers=rival.headers, params={"cursor": mails[4]})
    assert foreign.json() == {"emails": [], "nextCursor": None}


@pytest.mark.parametrize(("limit", "count"), [("0", 3), ("-4", 1), ("many", 3), ("2", 2), ("9999", 3)])
async def test_limit_is_read_leniently(http: httpx2.AsyncClient, relay: Relay, acme: Tenant, limit: str, count: int) -> None:
    await _add(http, acme)
    for _ in range(3):
        await sent(http, acme)
    await _deliver(relay)
    page = (await http.get("/suppressions/emails", headers=acme.headers, params={"limit": limit})).json()
    assert len(page["emails"]) == count


async def test_a_disabled_rule_and_one_that_was_just_deleted_hold_nothing(
    http: httpx2.AsyncClient, relay: Relay, acme: Tenant
) -> None:
    rule = await _add(http, acme)
    await sent(http, acme)
    await _deliver(relay)
    await http.put(f"/suppressions/{rule['id']}", headers=acme.headers, json=RULE | {"enabled": False})
    await sent(http, acme)
    await _deliver(relay)
    assert len((await http.get("/suppressions/emails", headers=acme.headers)).json()["emails"]) == 1
    another = await _add(http, acme)
    await sent(http, acme)
    await _deliver(relay)
    await http.delete(f"/suppressions/{another['id']}", headers=acme.headers)
    await send(http, acme)
    await _deliver(relay)
    assert len((await http.get("/suppressions/emails", headers=acme.headers)).json()["emails"]) == 2
