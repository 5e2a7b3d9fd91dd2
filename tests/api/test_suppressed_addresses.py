"""To which addresses does a project send no more, and how does it look, enter and remove them?"""

from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import suppressions
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.relay import Relay
from plunk_relay.suppressions.queries import Reason, suppress
from tests.kit.api import faults, refusal, sent
from tests.kit.relay import Tenant
from tests.kit.store import rows

PATH = "/suppressions/addresses"
MOMENT = "2026-03-01T12:00:00.000Z"


async def _add(http: httpx2.AsyncClient, owner: Tenant, email: str, **fields: str) -> dict[str, Any]:
    response = await http.post(PATH, headers=owner.headers, json={"email": email, **fields})
    assert response.status_code == 201, response.text
    entry: dict[str, Any] = response.json()
    return entry


async def _list(http: httpx2.AsyncClient, owner: Tenant, **query: str) -> dict[str, Any]:
    response = await http.get(PATH, headers=owner.headers, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


async def _cause(relay: Relay, owner: Tenant, address: str, reason: Reason, detail: str | None = None) -> None:
    """Do what a bounce or a report does."""
    now = relay.clock.now()
    await relay.db.write(suppress, owner.id, address, reason=reason, detail=detail, email_id="mail", now=now)


async def test_entered_address_is_answered_and_found(http: httpx2.AsyncClient, owner: Tenant) -> None:
    entry = await _add(http, owner, " Ann@Example.net ", note="asked by phone")
    assert entry == {
        "email": "ann@example.net",
        "reason": "MANUAL",
        "detail": "asked by phone",
        "emailId": None,
        "createdAt": MOMENT,
    }
    response = await http.get(f"{PATH}/ANN@example.net", headers=owner.headers)
    assert (response.status_code, response.json()) == (200, entry)
    assert await _list(http, owner) == {"data": [entry], "total": 1, "hasMore": False}


async def test_entering_again_changes_nothing(http: httpx2.AsyncClient, clock: ManualClock, owner: Tenant) -> None:
    first = await _add(http, owner, "ann@example.net", note="first")
    clock.advance(minutes=1)
    assert await _add(http, owner, "ANN@example.net", note="second") == first


@pytest.mark.parametrize(
    ("email", "code"), [("ann", "invalid_string"), ("", "invalid_string"), ("a@b@c", "invalid_string"), (7, "invalid_type")]
)
async def test_what_is_no_address_is_not_entered(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, email: object, code: str
) -> None:
    assert faults(await http.post(PATH, headers=owner.headers, json={"email": email})) == [("email", code)]
    assert await rows(relay, suppressions) == []


async def test_removed_address_is_gone_and_a_second_time_not_found(
    http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    await _add(http, owner, "ann@example.net")
    await _add(http, other, "ann@example.net")
    response = await http.delete(f"{PATH}/Ann@example.net", headers=owner.headers)
    assert (response.status_code, response.json()) == (200, {"success": True})
    for method in ("GET", "DELETE"):
        response = await http.request(method, f"{PATH}/ann@example.net", headers=owner.headers)
        assert refusal(response) == (404, "RESOURCE_NOT_FOUND")
    assert (await _list(http, other))["total"] == 1


@pytest.mark.parametrize("email", ["a/b@example.net", "a+b@example.net", "100%@example.net", "ö@example.net"])
async def test_odd_addresses_are_asked_for_percent_encoded(http: httpx2.AsyncClient, owner: Tenant, email: str) -> None:
    await _add(http, owner, email)
    encoded = "".join(f"%{byte:02X}" for byte in email.encode())
    response = await http.get(f"{PATH}/{encoded}", headers=owner.headers)
    assert response.json()["email"] == email
    assert (await http.delete(f"{PATH}/{encoded}", headers=owner.headers)).status_code == 200


async def test_list_is_paged_newest_first(http: httpx2.AsyncClient, clock: ManualClock, owner: Tenant) -> None:
    for name in ("a", "b", "c"):
        clock.advance(seconds=1)
        await _add(http, owner, f"{name}1@example.net")
        await _add(http, owner, f"{name}2@example.net")
    first = await _list(http, owner, limit="4")
    assert [entry["email"][:2] for entry in first["data"]] == ["c2", "c1", "b2", "b1"]
    assert (first["total"], first["hasMore"], first["cursor"]) == (6, True, "b1@example.net")
    second = await _list(http, owner, limit="4", cursor=first["cursor"])
    assert [entry["email"][:2] for entry in second["data"]] == ["a2", "a1"]
    assert (second["total"], second["hasMore"], "cursor" in second) == (0, False, False)


async def test_unknown_cursor_is_an_empty_page(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    await _add(http, owner, "ann@example.net")
    await _add(http, other, "bob@example.net")
    assert await _list(http, owner, cursor="bob@example.net") == {"data": [], "total": 0, "hasMore": False}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"search": "AN"}, ["anna@example.net", "ann@example.net"]),
        ({"search": "example"}, []),
        ({"search": "a%"}, ["a%b@example.net"]),
        ({"search": "a_"}, []),
        ({"reason": "BOUNCE"}, ["ann@example.net"]),
        ({"reason": "MANUAL", "search": "anna"}, ["anna@example.net"]),
        ({"search": "", "reason": "COMPLAINT"}, []),
    ],
)
async def test_list_can_be_narrowed(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, query: dict[str, str], found: list[str]
) -> None:
    await _cause(relay, owner, "ann@example.net", "BOUNCE")
    for email in ("anna@example.net", "bob@example.net", "a%b@example.net"):
        clock.advance(seconds=1)
        await _add(http, owner, email)
    page = await _list(http, owner, **query)
    assert [entry["email"] for entry in page["data"]] == found
    assert page["total"] == len(found)


async def test_unknown_reason_is_a_fault(http: httpx2.AsyncClient, owner: Tenant) -> None:
    response = await http.get(PATH, headers=owner.headers, params={"reason": "SPAM"})
    assert faults(response) == [("reason", "invalid_enum_value")]


@pytest.mark.parametrize(
    ("causes", "left"),
    [
        (["BOUNCE", "COMPLAINT"], "BOUNCE"),
        (["MANUAL", "COMPLAINT"], "MANUAL"),
        (["MANUAL", "BOUNCE"], "MANUAL"),
        (["BOUNCE", "MANUAL"], "BOUNCE"),
        (["COMPLAINT", "BOUNCE"], "BOUNCE"),
        (["COMPLAINT", "MANUAL"], "MANUAL"),
        (["COMPLAINT", "COMPLAINT"], "COMPLAINT"),
    ],
)
async def test_no_cause_is_weakened_by_a_later_one(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, causes: list[Reason], left: str
) -> None:
    for number, reason in enumerate(causes):
        await _cause(relay, owner, "Ann@Example.net", reason, f"cause {number}")
    [entry] = (await _list(http, owner))["data"]
    place = causes.index(left)  # type: ignore[arg-type]  # one of them
    assert (entry["reason"], entry["detail"]) == (left, f"cause {place}")


async def test_a_reply_of_any_length_is_kept_in_part(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    await _cause(relay, owner, "ann@example.net", "BOUNCE", "x" * 100_000)
    [entry] = (await _list(http, owner))["data"]
    assert entry["detail"] == "x" * 1000


async def test_mail_to_a_listed_address_is_told_with_the_entry(http: httpx2.AsyncClient, relay: Relay, acme: Tenant) -> None:
    await _cause(relay, acme, "ann@example.net", "BOUNCE", "550 5.1.1 no such user")
    [mail] = await sent(http, acme)
    async with Deliverer(relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()
    shown = (await http.get(f"/suppressions/emails/{mail['email']}", headers=acme.headers)).json()
    nothing = dict.fromkeys(("id", "name", "kind", "pattern"))
    held = {"source": "LIST", "reason": "BOUNCE", "detail": "550 5.1.1 no such user", "since": MOMENT}
    assert shown["suppression"] == held | nothing
    assert shown["status"] == "SUPPRESSED"
    assert shown["error"] == (
        "ann@example.net is on the suppression list (BOUNCE, 2026-03-01): 550 5.1.1 no such user; "
        f"remove it with `plunk-relay suppressions remove ann@example.net --project {acme.id}`"
    )


async def test_suppressed_mail_is_a_figure_of_the_metrics(http: httpx2.AsyncClient, relay: Relay, acme: Tenant) -> None:
    await _add(http, acme, "ann@example.net")
    await sent(http, acme)
    async with Deliverer(relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()
    assert 'plunk_relay_ledger_mails{state="suppressed"} 1.0' in (await http.get("/metrics")).text


async def test_the_document_says_how_an_entry_is_lifted(http: httpx2.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert "subscribes again does not lift an entry" in " ".join(paths[PATH]["get"]["description"].split())
