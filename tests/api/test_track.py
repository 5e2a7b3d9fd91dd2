"""What does `POST /v1/track` do? It makes or merges the contact and records the event, together."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts, events, idempotency_keys, workflows
from plunk_relay.errors import BadRequest
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from plunk_relay.track.actions import Occurrence, track
from plunk_relay.web.endpoint import KeyHold
from plunk_relay.web.idempotency import claim_key
from tests.api.conftest import Shared
from tests.db.units import StatementTrace
from tests.kit.api import faults, refusal, send
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay
from tests.kit.store import insert, rows

MODULE = pytest.mark.asyncio(loop_scope="module")
EVENT: dict[str, Any] = {"event": "signed_up", "email": "ann@example.net"}


async def post(
    http: httpx2.AsyncClient, tenant: Tenant, fields: dict[str, Any] | None = None, *, key: str | None = None
) -> httpx2.Response:
    """POST the event with `fields` set; those that are given as `...` are left out."""
    body = {name: value for name, value in (EVENT | (fields or {})).items() if value is not ...}
    headers = tenant.headers | ({"Idempotency-Key": key} if key else {})
    return await http.post("/v1/track", headers=headers, json=body)


async def tracked(http: httpx2.AsyncClient, tenant: Tenant, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Track, expect 200 and return the `data` of the answer."""
    response = await post(http, tenant, fields)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def names(relay: Relay) -> list[str]:
    """Return the names of all events in their order."""
    return [row["name"] for row in await rows(relay, events)]


async def test_the_answer_names_contact_and_event(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    response = await post(http, owner)
    [contact], [event] = await rows(relay, contacts), await rows(relay, events)
    assert response.json() == {
        "success": True,
        "data": {"contact": contact["id"], "event": event["id"], "timestamp": "2026-03-01T12:00:00.000Z"},
    }
    assert (contact["email"], contact["subscribed"], contact["data"]) == ("ann@example.net", True, None)
    assert (event["name"], event["contact_id"], event["email_id"], event["data"]) == ("signed_up", contact["id"], None, None)
    assert event["project_id"] == contact["project_id"] == owner.id


@pytest.mark.parametrize("key", ["public", "secret"])
async def test_both_keys_open_it(http: httpx2.AsyncClient, owner: Tenant, key: str) -> None:
    headers = {"Authorization": f"Bearer {getattr(owner, key)}"}
    response = await http.post("/v1/track", headers=headers, json=EVENT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"


async def test_the_public_key_opens_nothing_else(http: httpx2.AsyncClient, owner: Tenant) -> None:
    headers = {"Authorization": f"Bearer {owner.public}"}
    for path in ("/v1/send", "/v1/verify", "/events/track"):
        assert refusal(await http.post(path, headers=headers, json={})) == (401, "INVALID_API_KEY")


async def test_a_browser_may_ask_before(http: httpx2.AsyncClient) -> None:
    response = await http.options("/v1/track", headers={"Origin": "https://shop.example"})
    assert response.status_code == 200
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "Authorization" in response.headers["access-control-allow-headers"]


async def test_every_call_records_a_new_event(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    first, second = [await tracked(http, owner) for _ in range(2)]
    assert first["contact"] == second["contact"]
    assert first["event"] != second["event"]
    assert len(await rows(relay, contacts)) == 1


async def test_the_address_is_trimmed_of_case(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    first, second = await tracked(http, owner), await tracked(http, owner, {"email": "ANN@Example.NET"})
    assert first["contact"] == second["contact"]


async def test_the_same_address_of_two_projects_is_two_contacts(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    await tracked(http, owner, {"data": {"plan": "pro"}})
    await tracked(http, other)
    mine, theirs = await rows(relay, contacts, project_id=owner.id), await rows(relay, contacts, project_id=other.id)
    assert [row["data"] for row in mine + theirs] == [{"plan": "pro"}, None]


async def test_the_event_keeps_the_data_as_sent_and_the_contact_what_lasts(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    await tracked(http, owner, {"data": {"old": 1, "kept": "yes", "gone": "soon"}})
    data = {
        "old": 2,
        "kept": "",
        "gone": None,
        "code": {"value": 4711, "persistent": False},
        "plan": {"value": "pro", "persistent": True},
        "nested": {"a": [1, None, ""]},
        "email": "other@example.net",
        "id": "mine",
        "subscribed": False,
    }
    await tracked(http, owner, {"data": data})
    [contact] = await rows(relay, contacts)
    assert contact["data"] == {"old": 2, "kept": "yes", "plan": "pro", "nested": {"a": [1, None, ""]}}
    assert (contact["email"], contact["subscribed"]) == ("ann@example.net", True)
    assert (await rows(relay, events))[-1]["data"] == data


@pytest.mark.parametrize(
    ("before", "fields", "after", "recorded"),
    [
        (None, {}, True, []),
        (None, {"subscribed": False}, False, []),
        (None, {"subscribed": True}, True, []),
        (True, {}, True, []),
        (False, {}, False, []),
        (True, {"subscribed": True}, True, []),
        (True, {"subscribed": False}, False, ["contact.unsubscribed"]),
        (False, {"subscribed": True}, True, ["contact.subscribed"]),
        (None, {"subscribed": False, "preserveExistingSubscription": True}, False, []),
        (None, {"preserveExistingSubscription": True}, True, []),
        (True, {"subscribed": False, "preserveExistingSubscription": True}, True, []),
        (False, {"subscribed": True, "preserveExistingSubscription": True}, False, []),
        (True, {"subscribed": False, "preserveExistingSubscription": False}, False, ["contact.unsubscribed"]),
    ],
)
async def test_a_flip_of_the_subscription_is_an_event_before_the_tracked_one(
    relay: Relay,
    http: httpx2.AsyncClient,
    owner: Tenant,
    before: bool | None,
    fields: dict[str, Any],
    after: bool,
    recorded: list[str],
) -> None:
    if before is not None:
        await tracked(http, owner, {"event": "first", "subscribed": before})
    await tracked(http, owner, fields)
    [contact] = await rows(relay, contacts)
    assert contact["subscribed"] is after
    assert [name for name in await names(relay) if name != "first"] == [*recorded, "signed_up"]


@MODULE
@pytest.mark.parametrize(
    "name",
    [
        "email.",
        "email.open",
        "email.anything",
        "contact.subscribed",
        "contact.unsubscribed",
        "segment.vip.entry",
        "segment.a.b.exit",
    ],
)
@pytest.mark.parametrize(("path", "field"), [("/v1/track", "event"), ("/events/track", "event"), ("/events/track", "name")])
async def test_a_reserved_name_is_refused(shared: Shared, name: str, path: str, field: str) -> None:
    body = {field: name} | ({"email": "reserved@example.net"} if field == "event" else {})
    response = await shared.http.post(path, headers=shared.acme.headers, json=body)
    [fault] = response.json()["error"]["errors"]
    assert faults(response) == [(field, "reserved_event")]
    assert fault["received"] == name
    assert response.json()["error"]["details"] == {"errors": [fault]}
    assert await rows(shared.relay, events, name=name) == []
    assert await rows(shared.relay, contacts, email="reserved@example.net") == []


FREE_NAMES = (
    "Email.open email contact.created contact.Subscribed segment.vip segment.vip.Entry form.submitted a/b stats null"
)


@MODULE
@pytest.mark.parametrize("name", [*FREE_NAMES.split(), " ", "purchase: 3 €", "x" * 1000])
async def test_any_other_name_is_free(shared: Shared, name: str) -> None:
    stored = await tracked(shared.http, shared.acme, {"event": name})
    assert [row["name"] for row in await rows(shared.relay, events, id=stored["event"])] == [name]


@MODULE
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"event": ...}, [("event", "invalid_type")]),
        ({"event": ""}, [("event", "too_small")]),
        ({"event": "x" * 1001}, [("event", "too_big")]),
        ({"event": 7}, [("event", "invalid_type")]),
        ({"event": None}, [("event", "invalid_type")]),
        ({"email": ...}, [("email", "invalid_type")]),
        ({"email": "ann"}, [("email", "invalid_string")]),
        ({"email": " ann@example.net"}, [("email", "invalid_string")]),
        ({"email": ["ann@example.net"]}, [("email", "invalid_type")]),
        ({"subscribed": "yes"}, [("subscribed", "invalid_type")]),
        ({"subscribed": 1}, [("subscribed", "invalid_type")]),
        ({"preserveExistingSubscription": "no"}, [("preserveExistingSubscription", "invalid_type")]),
        ({"data": [1]}, [("data", "invalid_type")]),
        ({"data": "text"}, [("data", "invalid_type")]),
        ({"data": 5}, [("data", "invalid_type")]),
        (
            {"event": 7, "email": "ann", "data": 5},
            [("event", "invalid_type"), ("email", "invalid_string"), ("data", "invalid_type")],
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/track", "/events/track"])
async def test_a_bad_field_is_named(shared: Shared, path: str, fields: dict[str, Any], said: list[tuple[str, str]]) -> None:
    body = {name: value for name, value in (EVENT | fields).items() if value is not ...}
    assert faults(await shared.http.post(path, headers=shared.acme.headers, json=body)) == said


@MODULE
@pytest.mark.parametrize("fields", [{"data": None}, {"subscribed": None}, {"data": {}}, {"more": [1]}])
async def test_null_is_like_nothing_and_unknown_fields_are_ignored(shared: Shared, fields: dict[str, Any]) -> None:
    assert (await post(shared.http, shared.acme, fields)).status_code == 200


@MODULE
@pytest.mark.parametrize("locale", [7, True, ["en"], {"value": 7, "persistent": True}])
async def test_a_locale_that_is_no_text_is_a_bad_request(shared: Shared, locale: object) -> None:
    fields = {"email": "locale@example.net", "data": {"locale": locale}}
    assert refusal(await post(shared.http, shared.acme, fields)) == (400, "BAD_REQUEST")
    assert await rows(shared.relay, contacts, email="locale@example.net") == []


@MODULE
async def test_data_nested_too_deeply_is_refused(shared: Shared) -> None:
    deep: Any = 1
    for _ in range(101):
        deep = [deep]
    assert faults(await post(shared.http, shared.acme, {"data": {"deep": deep}})) == [("data", "custom")]


async def test_a_disabled_project_tracks_nothing(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    await disable_project(relay, owner.id)
    assert refusal(await post(http, owner)) == (403, "PROJECT_DISABLED")
    assert await rows(relay, events) == []


async def test_nothing_is_taken_while_the_server_stops(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    relay.stopping.set()
    for path, body in (("/v1/track", EVENT), ("/events/track", {"name": "signed_up"})):
        assert (await http.post(path, headers=owner.headers, json=body)).status_code == 503
    assert await rows(relay, events) == []


async def test_the_bucket_of_track_is_spent_by_it_alone(tmp_path: Path) -> None:
    async with running_relay(tmp_path, limits={"track_per_second": 1, "track_burst": 2}) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            answers = [await post(http, acme) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert answers[0].headers["ratelimit-limit"] == "2"
            assert int(answers[2].headers["retry-after"]) >= 1
            assert (await http.post("/events/track", headers=acme.headers, json=EVENT)).status_code == 200
            assert (await send(http, acme)).status_code == 200


# --- Idempotency-Key


async def test_a_second_call_with_the_same_key_is_refused(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    assert (await post(http, owner, key="one")).status_code == 200
    response = await post(http, owner, key="one")
    assert refusal(response) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert response.json()["error"]["details"]["originalRequest"] == "POST /v1/track"
    assert response.json()["error"]["details"]["originalStatusCode"] == 200
    assert len(await rows(relay, events)) == 1


async def test_a_key_of_track_is_a_key_of_send(http: httpx2.AsyncClient, acme: Tenant) -> None:
    assert (await post(http, acme, key="one")).status_code == 200
    assert refusal(await send(http, acme, Idempotency_Key="one")) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (await send(http, acme, Idempotency_Key="two")).status_code == 200
    assert refusal(await post(http, acme, key="two")) == (409, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize(
    ("fields", "status"), [({"event": "email.open"}, 422), ({"email": "ann"}, 422), ({"data": {"locale": 7}}, 400)]
)
async def test_a_refused_call_frees_its_key(
    http: httpx2.AsyncClient, owner: Tenant, fields: dict[str, Any], status: int
) -> None:
    assert (await post(http, owner, fields, key="one")).status_code == status
    assert (await post(http, owner, key="one")).status_code == 200


async def test_event_and_key_are_settled_in_one_unit(relay: Relay, owner: Tenant) -> None:
    hold = KeyHold(owner.id, "one", new_id())
    await claim_key(relay, hold, method="POST", path="/v1/track")
    await track(relay, owner.id, Occurrence("signed_up", "ann@example.net"), hold=hold)
    [row] = await rows(relay, idempotency_keys)
    assert row["status_code"] == 200


async def test_the_alias_passes_the_header_over(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    headers = owner.headers | {"Idempotency-Key": "one"}
    for _ in range(2):
        assert (await http.post("/events/track", headers=headers, json=EVENT)).status_code == 200
    assert await rows(relay, idempotency_keys) == []


# --- many at once


async def test_many_at_once_are_all_taken_in_one_unit(relay: Relay, owner: Tenant, other: Tenant) -> None:
    told = [
        track(relay, (owner, other)[number % 2].id, Occurrence("signed_up", f"user{number % 5}@example.net", {"n": number}))
        for number in range(100)
    ]
    stored = await asyncio.gather(*told)
    assert len({one.event_id for one in stored}) == len(await rows(relay, events)) == 100
    assert len({one.contact_id for one in stored}) == len(await rows(relay, contacts)) == 10
    for number, one in enumerate(stored):
        [event] = await rows(relay, events, id=one.event_id)
        assert (event["data"], event["contact_id"]) == ({"n": number}, one.contact_id)
        assert event["project_id"] == (owner, other)[number % 2].id


async def test_flips_of_one_contact_at_once_are_recorded_one_by_one(relay: Relay, owner: Tenant) -> None:
    wanted = (True, False, False, True)
    await asyncio.gather(
        *(track(relay, owner.id, Occurrence("seen", "ann@example.net", subscribed=subscribed)) for subscribed in wanted)
    )
    recorded = await names(relay)
    assert [name for name in recorded if name != "seen"] == ["contact.unsubscribed", "contact.subscribed"]
    assert recorded.count("seen") == 4


async def test_a_bad_one_among_many_does_not_spoil_the_others(http: httpx2.AsyncClient, owner: Tenant) -> None:
    wanted = [{"data": {"locale": 7}} if number == 3 else {"email": f"user{number}@example.net"} for number in range(8)]
    answers = await asyncio.gather(*(post(http, owner, fields) for fields in wanted))
    assert [answer.status_code for answer in answers] == [400 if number == 3 else 200 for number in range(8)]


async def test_a_bad_one_does_not_take_the_unit_of_the_others_apart(relay: Relay, owner: Tenant) -> None:
    trace = StatementTrace()
    await trace.watch(relay.db)
    told = [track(relay, owner.id, Occurrence("seen", f"{n}@example.net", {"locale": n or "de"})) for n in range(3)]
    outcomes = await asyncio.gather(*told, return_exceptions=True)
    assert [isinstance(outcome, BadRequest) for outcome in outcomes] == [False, True, True]
    assert trace.begun
    assert [text for text in trace.begun if text.startswith("SAVEPOINT")] == []


# --- workflows


async def test_an_event_waits_for_the_workflows_of_its_project_alone(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    await insert(relay, workflows, **workflow(owner, relay))
    relay.wakes.events.clear()
    for tenant in (owner, other):
        await tracked(http, tenant, {"subscribed": True})
        await tracked(http, tenant, {"subscribed": False})
    waiting, done = await rows(relay, events, project_id=owner.id), await rows(relay, events, project_id=other.id)
    assert [row["name"] for row in waiting] == ["signed_up", "contact.unsubscribed", "signed_up"]
    assert {row["processed_at"] for row in waiting} == {None}
    assert all(row["processed_at"] == row["created_at"] for row in done)
    assert relay.wakes.events.is_set()


def workflow(tenant: Tenant, relay: Relay) -> dict[str, Any]:
    """Return the row of a workflow."""
    now = relay.clock.now()
    return {
        "id": new_id(),
        "project_id": tenant.id,
        "name": "Welcome",
        "enabled": True,
        "trigger_type": "EVENT",
        "trigger_event": "signed_up",
        "allow_reentry": False,
        "created_at": now,
        "updated_at": now,
    }


async def test_an_event_outlives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    async with running_relay(tmp_path, clock=clock) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            stored = await tracked(http, acme)
    async with running_relay(tmp_path, clock=clock) as relay:
        [event] = await rows(relay, events)
        assert event["id"] == stored["event"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODY = JSON | st.fixed_dictionaries(
    {},
    optional={
        "event": JSON | st.text(min_size=1),
        "email": JSON | st.just("fuzz@example.net"),
        "name": JSON | st.text(min_size=1),
        "contactId": JSON,
        "emailId": JSON,
        "subscribed": JSON | st.booleans(),
        "preserveExistingSubscription": JSON | st.booleans(),
        "data": JSON | st.dictionaries(st.text(), JSON, max_size=3),
    },
)


@MODULE
@pytest.mark.parametrize("path", ["/v1/track", "/events/track"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODY)
async def test_any_body_is_stored_or_refused(shared: Shared, path: str, body: Any) -> None:
    response = await shared.http.post(path, headers=shared.acme.headers, json=body)
    assert response.status_code in (200, 201, 400, 404, 422)
    assert await rows(shared.relay, events, project_id=shared.rival.id) == []
