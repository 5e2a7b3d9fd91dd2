"""What do the endpoints of events tell? What happened, how often, and where an event is used."""

from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.db.tables import campaigns, events, segments, workflow_steps, workflows
from plunk_relay.events.actions import REMEMBERED_SECONDS
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import faults, refusal
from tests.kit.relay import NOON, Tenant
from tests.kit.store import insert, rows

MODULE = pytest.mark.asyncio(loop_scope="module")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def contact_of(relay: Relay, tenant: Tenant, email: str = "ann@example.net") -> str:
    """Return the id of a contact, made when it is not there."""
    contact, _ = await relay.db.write(upsert_contact, tenant.id, ContactChange(email), now=relay.clock.now())
    return contact.id


async def record(
    relay: Relay, tenant: Tenant, *names: str, contact_id: str | None = None, at: datetime | None = None, data: Any = None
) -> list[str]:
    """Record events and return their ids."""
    now = at or relay.clock.now()
    return await relay.db.write(record_events, [NewEvent(tenant.id, name, contact_id, None, data, now) for name in names])


async def get(http: httpx2.AsyncClient, tenant: Tenant, path: str, **query: object) -> Any:
    """GET, expect 200 and return the answer."""
    response = await http.get(path, headers=tenant.headers, params={name: str(value) for name, value in query.items()})
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer: dict[str, Any]) -> list[str]:
    """Return the ids of listed events."""
    return [event["id"] for event in answer["events"]]


# --- GET /events


async def test_the_newest_events_come_first_with_the_contact_they_are_about(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, clock: ManualClock
) -> None:
    ann = await contact_of(relay, owner)
    [first] = await record(relay, owner, "signed_up", contact_id=ann, data={"plan": "pro"})
    clock.advance(seconds=1)
    [second] = await record(relay, owner, "email.sent")
    answer = await get(http, owner, "/events")
    assert ids(answer) == [second, first]
    assert answer["events"][1] == {
        "id": first,
        "name": "signed_up",
        "data": {"plan": "pro"},
        "projectId": owner.id,
        "contactId": ann,
        "emailId": None,
        "createdAt": "2026-03-01T12:00:00.000Z",
        "contact": {"email": "ann@example.net"},
    }
    assert answer["events"][0]["contact"] is None


async def test_events_of_one_moment_are_in_the_order_they_came(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    stored = await record(relay, owner, *["seen"] * 5)
    assert ids(await get(http, owner, "/events")) == stored[::-1]
    assert ids(await get(http, owner, "/events", eventName="seen")) == stored[::-1]


async def test_events_of_one_name_are_listed_alone(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    _, wanted, _ = await record(relay, owner, "a", "b", "ab")
    assert ids(await get(http, owner, "/events", eventName="b")) == [wanted]
    assert ids(await get(http, owner, "/events", eventName="B")) == []
    assert len(ids(await get(http, owner, "/events", eventName=""))) == 3


async def test_a_rare_event_is_found_behind_many_newer_ones(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    older = await record(relay, owner, "rare", at=NOON - timedelta(days=2))
    newer = await record(relay, owner, "rare", at=NOON - timedelta(days=1))
    for _ in range(3):
        await record(relay, owner, *["frequent"] * 7_000)
    assert ids(await get(http, owner, "/events", eventName="rare")) == newer + older
    assert len(ids(await get(http, owner, "/events", eventName="frequent", limit=1000))) == 1000


@pytest.mark.parametrize(
    ("limit", "told"), [("2", 2), ("0", 100), ("x", 100), ("", 100), ("-3", 1), ("5000", 1000), ("1000", 1000)]
)
async def test_the_limit_is_read_leniently(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, limit: str, told: int
) -> None:
    await record(relay, owner, *["seen"] * 1100)
    assert len(ids(await get(http, owner, "/events", limit=limit))) == told


async def test_events_of_another_project_are_not_told(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    theirs = await contact_of(relay, other)
    await record(relay, other, "secret", contact_id=theirs)
    assert await get(http, owner, "/events") == {"events": []}
    assert await get(http, owner, "/events", eventName="secret") == {"events": []}
    assert await get(http, owner, f"/events/contact/{theirs}") == {"events": []}
    assert await get(http, owner, "/events/names") == {"eventNames": []}
    assert await get(http, owner, "/events/stats") == []
    usage = await get(http, owner, "/events/secret/usage")
    assert (usage["totalCount"], usage["uniqueContacts"]) == (0, 0)
    assert (await http.delete("/events/secret", headers=owner.headers)).json() == {"deletedCount": 0}
    assert len(await rows(relay, events, project_id=other.id)) == 1


# --- GET /events/contact/:id


async def test_events_of_a_contact_are_told_newest_first(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    ann, bob = await contact_of(relay, owner), await contact_of(relay, owner, "bob@example.net")
    mine = await record(relay, owner, "a", "b", contact_id=ann)
    await record(relay, owner, "a", contact_id=bob)
    answer = await get(http, owner, f"/events/contact/{ann}")
    assert ids(answer) == mine[::-1]
    assert "contact" not in answer["events"][0]


@pytest.mark.parametrize(("limit", "told"), [("2", 2), ("0", 50), ("-1", 1), ("5000", 60)])
async def test_the_limit_of_a_contact_s_events_is_read_leniently(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, limit: str, told: int
) -> None:
    ann = await contact_of(relay, owner)
    await record(relay, owner, *["seen"] * 60, contact_id=ann)
    assert len(ids(await get(http, owner, f"/events/contact/{ann}", limit=limit))) == told


@MODULE
@pytest.mark.parametrize("contact_id", [UNKNOWN, "nobody", "a%2Fb"])
async def test_a_contact_that_is_unknown_has_no_events(shared: Shared, contact_id: str) -> None:
    assert await get(shared.http, shared.acme, f"/events/contact/{contact_id}") == {"events": []}


# --- GET /events/names and /events/stats


async def test_names_and_stats_are_told_by_frequency(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    await record(relay, owner, "b", "a", "c", "c", "c", "b", "email.sent")
    assert await get(http, owner, "/events/names") == {"eventNames": ["c", "b", "a", "email.sent"]}
    assert await get(http, owner, "/events/stats") == [
        {"name": "c", "count": 3},
        {"name": "b", "count": 2},
        {"name": "a", "count": 1},
        {"name": "email.sent", "count": 1},
    ]


@pytest.mark.parametrize(
    ("query", "counted"),
    [
        ({"startDate": "2026-03-02T12:00:00.000Z"}, [2, 3]),
        ({"startDate": "2026-03-02T12:00:00.001Z"}, [3]),
        ({"endDate": "2026-03-02T12:00:00Z"}, [1, 2]),
        ({"endDate": "2026-03-02T11:59:59.999Z"}, [1]),
        ({"endDate": "2026-03-02"}, [1, 2]),
        ({"startDate": "2026-03-02", "endDate": "2026-03-02"}, [2]),
        ({"startDate": "2026-03-02T14:00:00+02:00", "endDate": "2026-03-02T14:00:00+02:00"}, [2]),
        ({"startDate": "2026-03-02T12:00:00"}, [2, 3]),
        ({"startDate": "2027-01-01", "endDate": "2026-01-01"}, []),
        ({"startDate": "", "endDate": ""}, [1, 2, 3]),
        ({"startDate": "0001-01-01", "endDate": "9999-12-31"}, [1, 2, 3]),
    ],
)
async def test_stats_count_a_time_with_both_its_ends(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, query: dict[str, str], counted: list[int]
) -> None:
    for day in (1, 2, 3):
        await record(relay, owner, f"day {day}", at=datetime.fromisoformat(f"2026-03-0{day}T12:00:00Z"))
    assert [one["name"] for one in await get(http, owner, "/events/stats", **query)] == [f"day {day}" for day in counted]


@MODULE
@pytest.mark.parametrize("field", ["startDate", "endDate"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-03-01T25:00", "0", "null", "0001-01-01T00:00:00+14:00"])
async def test_a_date_that_is_none_is_a_validation_error(shared: Shared, field: str, text: str) -> None:
    response = await shared.http.get("/events/stats", headers=shared.acme.headers, params={field: text})
    assert faults(response) == [(field, "invalid_string")]


async def test_a_thousand_names_are_told_at_most(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    await record(relay, owner, *(f"name {number}" for number in range(1100)), "often", "often")
    told = (await get(http, owner, "/events/names"))["eventNames"]
    assert (len(told), told[0]) == (1000, "often")


async def test_many_events_are_counted_through_the_index_of_names_and_remembered(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, clock: ManualClock
) -> None:
    ann = await contact_of(relay, owner)
    for _ in range(3):
        await record(relay, owner, *["frequent"] * 7_000, contact_id=ann)
    await record(relay, owner, "rare", at=NOON + timedelta(days=1))

    async def counts() -> list[object]:
        usage = await get(http, owner, "/events/frequent/usage")
        ever, later = (
            await get(http, owner, "/events/stats"),
            await get(http, owner, "/events/stats", startDate="2026-03-02"),
        )
        return [usage["totalCount"], usage["uniqueContacts"], ever, later]

    before = [
        21_000,
        1,
        [{"name": "frequent", "count": 21_000}, {"name": "rare", "count": 1}],
        [{"name": "rare", "count": 1}],
    ]
    assert await counts() == before
    await record(relay, owner, "frequent")
    assert await counts() == before
    clock.advance(seconds=REMEMBERED_SECONDS)
    after = await counts()
    assert after[:2] == [21_001, 1]
    assert after[2] == [{"name": "frequent", "count": 21_001}, {"name": "rare", "count": 1}]
    assert (await http.delete("/events/frequent", headers=owner.headers)).json() == {"deletedCount": 21_001}
    assert await counts() == [0, 0, [{"name": "rare", "count": 1}], [{"name": "rare", "count": 1}]]


# --- usage and removal


async def use(relay: Relay, tenant: Tenant, by: str, name: str) -> str:
    """Let something use an event; return its id."""
    now, one_id = relay.clock.now(), new_id()
    condition = {
        "logic": "AND",
        "groups": [
            {
                "filters": [{"field": "email", "operator": "contains", "value": "a"}],
                "conditions": {
                    "logic": "OR",
                    "groups": [{"filters": [{"field": f"event.{name}", "operator": "triggered"}]}],
                },
            }
        ],
    }
    shared = {"id": one_id, "project_id": tenant.id, "name": by, "created_at": now, "updated_at": now}
    if by == "segment":
        more = {"type": "DYNAMIC", "condition": condition, "track_membership": False, "member_count": 0}
        await insert(relay, segments, **shared, **more)
    elif by == "campaign":
        counts = "total_recipients sent delivered opened clicked bounced complained unsubscribed".split()
        zeros = {one if one == "total_recipients" else f"{one}_count": 0 for one in counts}
        more = {"status": "DRAFT", "subject": "s", "body": "b", "from_address": "a@acme.test", "type": "MARKETING"}
        audience = {"audience_type": "FILTERED", "audience_condition": condition, "archived": False}
        await insert(relay, campaigns, **shared, **more, **audience, **zeros)
    else:
        trigger = name if by == "trigger" else "other"
        more = {"enabled": True, "trigger_type": "EVENT", "trigger_event": trigger, "allow_reentry": False}
        await insert(relay, workflows, **shared, **more)
        configs: dict[str, tuple[str, dict[str, Any]]] = {
            "wait": ("WAIT_FOR_EVENT", {"eventName": name}),
            "condition": ("CONDITION", condition),
        }
        for kind, config in [configs[by]] * 2 if by in configs else []:
            step = {"name": "step", "position": {}, "config": config, "created_at": now, "updated_at": now}
            await insert(relay, workflow_steps, id=new_id(), workflow_id=one_id, type=kind, **step)
    return one_id


USERS = {
    "segment": "usedInSegments",
    "campaign": "usedInCampaigns",
    "trigger": "usedInWorkflows",
    "wait": "usedInWorkflows",
    "condition": "usedInWorkflows",
}


@pytest.mark.parametrize("by", USERS)
async def test_an_event_that_is_used_cannot_be_deleted(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant, by: str
) -> None:
    await use(relay, other, by, "signed_up")
    user = await use(relay, owner, by, "signed_up")
    await use(relay, owner, by, "signed")
    await record(relay, owner, "signed_up")
    usage = await get(http, owner, "/events/signed_up/usage")
    expected: dict[str, Any] = {answer: [] for answer in USERS.values()}
    assert usage == expected | {
        USERS[by]: [{"id": user, "name": by}],
        "totalCount": 1,
        "uniqueContacts": 0,
        "canDelete": False,
    }
    response = await http.delete("/events/signed_up", headers=owner.headers)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert by in response.json()["error"]["message"] or USERS[by] == "usedInWorkflows"
    assert len(await rows(relay, events)) == 1


async def test_usage_counts_events_and_contacts(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    ann, bob = await contact_of(relay, owner), await contact_of(relay, owner, "bob@example.net")
    await record(relay, owner, "seen", "seen", "other", contact_id=ann)
    await record(relay, owner, "seen", contact_id=bob)
    await record(relay, owner, "seen")
    usage = await get(http, owner, "/events/seen/usage")
    assert (usage["totalCount"], usage["uniqueContacts"], usage["canDelete"]) == (4, 2, True)


@MODULE
async def test_a_name_that_was_never_recorded_may_be_deleted(shared: Shared) -> None:
    usage = await get(shared.http, shared.acme, "/events/never/usage")
    assert (usage["totalCount"], usage["uniqueContacts"], usage["canDelete"]) == (0, 0, True)
    assert (await shared.http.delete("/events/never", headers=shared.acme.headers)).json() == {"deletedCount": 0}


@MODULE
@pytest.mark.parametrize(
    "name", ["email.sent", "email.x", "contact.subscribed", "contact.unsubscribed", "segment.vip.entry"]
)
async def test_a_reserved_event_cannot_be_deleted(shared: Shared, name: str) -> None:
    await record(shared.relay, shared.acme, name)
    response = await shared.http.delete(f"/events/{name}", headers=shared.acme.headers)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert (await get(shared.http, shared.acme, f"/events/{name}/usage"))["canDelete"] is False
    assert len(await rows(shared.relay, events, name=name)) == 1


async def test_all_events_of_a_name_are_deleted_and_no_others(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    await record(relay, owner, *["gone"] * 1200, "gone.not", "Gone", "kept")
    await record(relay, other, "gone")
    response = await http.delete("/events/gone", headers=owner.headers)
    assert (response.status_code, response.json()) == (200, {"deletedCount": 1200})
    assert sorted(row["name"] for row in await rows(relay, events, project_id=owner.id)) == ["Gone", "gone.not", "kept"]
    assert len(await rows(relay, events, project_id=other.id)) == 1


ODD_NAMES = {
    "a b": "a%20b",
    "a.b.c": "a.b.c",
    "a/b": "a%2Fb",
    "a/usage": "a%2Fusage",
    "/": "%2F",
    "100%": "100%25",
    "a?b#c": "a%3Fb%23c",
    "müll": "m%C3%BCll",
    "stats": "stats",
    "names": "names",
    "track": "track",
    "usage": "usage",
    "contact": "contact",
}


@MODULE
@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_may_be_anything_in_a_path(shared: Shared, name: str) -> None:
    """Literal paths go first: only the usage of an event called `contact` is not told."""
    await record(shared.relay, shared.acme, name, name, f"{name}.kept")
    if name != "contact":
        assert (await get(shared.http, shared.acme, f"/events/{ODD_NAMES[name]}/usage"))["totalCount"] == 2
    response = await shared.http.delete(f"/events/{ODD_NAMES[name]}", headers=shared.acme.headers)
    assert response.json() == {"deletedCount": 2}
    assert len(await rows(shared.relay, events, name=f"{name}.kept")) == 1


@MODULE
async def test_a_method_that_no_path_has_is_not_allowed(shared: Shared) -> None:
    for path in ("/events/stats", "/events/other"):
        response = await shared.http.put(path, headers=shared.acme.headers)
        assert refusal(response) == (405, "BAD_REQUEST")
