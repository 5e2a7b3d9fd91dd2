"""What does `POST /events/track` take? An event by itself, with ids, or the form of `/v1/track`."""

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from plunk_relay.db.tables import emails, events
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import faults, refusal, sent
from tests.kit.relay import Tenant
from tests.kit.store import rows

MODULE = pytest.mark.asyncio(loop_scope="module")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def newest(http: httpx2.AsyncClient, tenant: Tenant) -> dict[str, Any]:
    """Return the newest event as it is listed."""
    [event] = (await http.get("/events", headers=tenant.headers, params={"limit": 1})).json()["events"]
    found: dict[str, Any] = event
    return found


async def plain(http: httpx2.AsyncClient, tenant: Tenant, **fields: object) -> httpx2.Response:
    """POST an event in the form with ids."""
    return await http.post("/events/track", headers=tenant.headers, json=fields)


async def test_an_event_by_itself_is_answered_with_its_row(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    [mail] = await sent(http, acme)
    contact_id, email_id = mail["contact"]["id"], mail["email"]
    response = await plain(
        http, acme, name="seen", contactId=contact_id, emailId=email_id, data={"locale": 7, "plan": "pro"}
    )
    [event] = [row for row in await rows(relay, events) if row["name"] == "seen"]
    assert response.status_code == 201
    assert response.json() == {
        "id": event["id"],
        "name": "seen",
        "data": {"locale": 7, "plan": "pro"},
        "projectId": acme.id,
        "contactId": contact_id,
        "emailId": email_id,
        "createdAt": "2026-03-01T12:00:00.000Z",
    }
    assert await newest(http, acme) == response.json() | {"contact": {"email": "ann@example.net"}}


@MODULE
@pytest.mark.parametrize("data", [None, {}, [1, "a", None], "text", 5, 0.5, False, {"a": {"b": [{}]}}])
async def test_its_data_is_any_json(shared: Shared, data: object) -> None:
    response = await plain(shared.http, shared.acme, name="seen", data=data)
    assert response.json()["data"] == data
    assert (await newest(shared.http, shared.acme))["data"] == data


async def test_a_contact_or_mail_of_another_project_is_not_found(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    [theirs] = await sent(http, rival, {"from": "app@rival.test"})
    for contact_id in (theirs["contact"]["id"], UNKNOWN, "x"):
        assert refusal(await plain(http, acme, name="seen", contactId=contact_id)) == (404, "CONTACT_NOT_FOUND")
    for email_id in (theirs["email"], UNKNOWN, "x"):
        assert refusal(await plain(http, acme, name="seen", emailId=email_id)) == (404, "RESOURCE_NOT_FOUND")
    assert await rows(relay, events) == []
    assert len(await rows(relay, emails)) == 1


@MODULE
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, [("name", "invalid_type")]),
        ({"name": ""}, [("name", "too_small")]),
        ({"name": 5}, [("name", "invalid_type")]),
        ({"name": "seen", "contactId": 5, "emailId": []}, [("contactId", "invalid_type"), ("emailId", "invalid_type")]),
        ({"email": "ann@example.net"}, [("event", "invalid_type")]),
        ([], [("", "invalid_type")]),
        ("name", [("", "invalid_type")]),
    ],
)
async def test_a_bad_field_is_named(shared: Shared, body: object, said: Sequence[tuple[str, str]]) -> None:
    response = await shared.http.post("/events/track", headers=shared.acme.headers, json=body)
    assert faults(response) == said


async def test_the_form_of_track_answers_like_track(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    response = await plain(http, owner, event="seen", email="ann@example.net", name="ignored", data={"plan": "pro"})
    [event] = await rows(relay, events)
    assert response.status_code == 200
    assert response.json()["data"] == {
        "contact": event["contact_id"],
        "event": event["id"],
        "timestamp": "2026-03-01T12:00:00.000Z",
    }
    assert event["name"] == "seen"
