"""What may be done with segments over HTTP? Made, changed, counted, deleted; who is in them; entry and exit events."""

from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.db.tables import campaigns, contacts, events, segment_memberships, segments
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.segments.actions import slug
from tests.kit.api import faults, refusal
from tests.kit.relay import Tenant
from tests.kit.store import insert, rows

Condition = dict[str, Any]


def where(field: str, operator: str, value: Any = None, **more: Any) -> Condition:
    """Return a condition of one filter."""
    return {"logic": "AND", "groups": [{"filters": [{"field": field, "operator": operator, "value": value} | more]}]}


PRO = where("data.plan", "equals", "pro")


async def _contacts(relay: Relay, owner: Tenant, **plans: str | None) -> dict[str, str]:
    """Make or change contacts: a name and a plan each; return their ids by name."""
    for name, plan in plans.items():
        change = ContactChange(f"{name}@example.net", {"plan": plan})
        await relay.db.write(upsert_contacts, [(owner.id, change)], now=relay.clock.now())
    return {row["email"].partition("@")[0]: row["id"] for row in await rows(relay, contacts, project_id=owner.id)}


async def _make(http: httpx2.AsyncClient, owner: Tenant, **fields: Any) -> dict[str, Any]:
    response = await http.post("/segments", headers=owner.headers, json={"name": "It"} | fields)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def _ask(http: httpx2.AsyncClient, owner: Tenant, method: str, path: str, **body: Any) -> Any:
    response = await http.request(method, f"/segments/{path}", headers=owner.headers, json=body or None)
    assert response.status_code == 200, response.text
    return response.json()


async def _compute(http: httpx2.AsyncClient, owner: Tenant, segment: dict[str, Any]) -> tuple[int, int, int]:
    done = await _ask(http, owner, "POST", f"{segment['id']}/compute")
    return done["added"], done["removed"], done["total"]


async def test_a_segment_is_made_and_counted(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant) -> None:
    await _contacts(relay, owner, ann="pro", bob="free", cleo="pro")
    await _contacts(relay, other, eve="pro")
    made = await _make(http, owner, name="Pros", description="who pays", condition=PRO)
    assert {name: value for name, value in made.items() if name != "id"} == {
        "name": "Pros",
        "description": "who pays",
        "type": "DYNAMIC",
        "condition": PRO,
        "trackMembership": False,
        "memberCount": 2,
        "projectId": owner.id,
        "createdAt": "2026-03-01T12:00:00.000Z",
        "updatedAt": "2026-03-01T12:00:00.000Z",
    }
    assert await _ask(http, owner, "GET", made["id"]) == made
    assert (await rows(relay, events), await rows(relay, segment_memberships)) == ([], [])


async def test_segments_are_listed_newest_first_without_pages(
    http: httpx2.AsyncClient, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await _make(http, other, condition=PRO)
    made = []
    for _ in range(25):
        clock.advance(seconds=1)
        made.append(await _make(http, owner, type="STATIC"))
    assert (await http.get("/segments", headers=owner.headers)).json() == made[::-1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"condition": None},
        {"condition": "text"},
        {"condition": []},
        {"condition": {}},
        {"condition": {"logic": "AND", "groups": []}},
        {"condition": where("login", "equals", 1)},
        {"type": "STATIC", "condition": PRO},
        {"condition": where(f"segment.{new_id()}", "memberOfSegment")},
    ],
)
async def test_a_condition_that_is_missing_wrong_or_out_of_place_is_a_bad_request(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, fields: dict[str, Any]
) -> None:
    response = await http.post("/segments", headers=owner.headers, json={"name": "It"} | fields)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert await rows(relay, segments) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": None}, [("name", "invalid_type")]),
        ({"name": ""}, [("name", "too_small")]),
        ({"name": "x" * 101}, [("name", "too_big")]),
        ({"description": "x" * 501}, [("description", "too_big")]),
        ({"type": "OTHER"}, [("type", "invalid_enum_value")]),
        ({"trackMembership": "yes"}, [("trackMembership", "invalid_type")]),
    ],
)
async def test_a_field_of_another_shape_is_named(
    http: httpx2.AsyncClient, owner: Tenant, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    body = {"name": "It", "condition": PRO} | fields
    assert faults(await http.post("/segments", headers=owner.headers, json=body)) == expected


async def test_a_patch_changes_what_it_names_and_counts_a_new_condition(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    await _contacts(relay, owner, ann="pro", bob="free", cleo="free")
    made = await _make(http, owner, description="note", condition=PRO)
    clock.advance(seconds=1)
    free = where("data.plan", "equals", "free")
    changed = await _ask(http, owner, "PATCH", made["id"], condition=free, type="STATIC", id="x")
    assert changed == made | {"condition": free, "memberCount": 2, "updatedAt": "2026-03-01T12:00:01.000Z"}
    renamed = await _ask(http, owner, "PATCH", made["id"], name="Other", description=None, trackMembership=True)
    assert renamed == changed | {"name": "Other", "description": None, "trackMembership": True}
    assert (await rows(relay, events), await rows(relay, segment_memberships)) == ([], [])


async def test_the_condition_of_a_static_segment_is_ignored(http: httpx2.AsyncClient, owner: Tenant) -> None:
    made = await _make(http, owner, type="STATIC")
    assert await _ask(http, owner, "PATCH", made["id"], condition="nonsense", name="New") == made | {"name": "New"}


@pytest.mark.parametrize("condition", [None, "text", {"logic": "AND"}])
async def test_a_patch_with_a_wrong_condition_changes_nothing(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, condition: Any
) -> None:
    made = await _make(http, owner, condition=PRO)
    before = await rows(relay, segments)
    body = {"name": "New", "condition": condition}
    response = await http.patch(f"/segments/{made['id']}", headers=owner.headers, json=body)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert await rows(relay, segments) == before


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3])
async def test_a_segment_never_leads_back_to_itself(
    http: httpx2.AsyncClient, owner: Tenant, length: int, tracked: bool
) -> None:
    first = last = await _make(http, owner, condition=PRO, trackMembership=tracked)
    for _ in range(length - 1):
        condition = where(f"segment.{last['id']}", "memberOfSegment")
        last = await _make(http, owner, condition=condition, trackMembership=tracked)
    back = {"condition": where(f"segment.{last['id']}", "notMemberOfSegment")}
    response = await http.patch(f"/segments/{first['id']}", headers=owner.headers, json=back)
    assert refusal(response) == (400, "BAD_REQUEST")


async def test_another_projects_segment_cannot_be_referred_to(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant
) -> None:
    theirs = await _make(http, other, condition=PRO)
    body = {"name": "It", "condition": where(f"segment.{theirs['id']}", "notMemberOfSegment")}
    assert refusal(await http.post("/segments", headers=owner.headers, json=body)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("status", "answer"), [("DRAFT", 409), ("SCHEDULED", 409), ("SENDING", 409), ("SENT", 204), ("CANCELLED", 204)]
)
async def test_a_segment_that_a_campaign_needs_stays(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, status: str, answer: int
) -> None:
    made = await _make(http, owner, condition=PRO)
    now = relay.clock.now()
    blank = {column.name: 0 for column in campaigns.c if not column.nullable}
    words = dict.fromkeys(("subject", "body", "from_address", "name"), "Spring") | {"type": "MARKETING"}
    refers = {"audience_type": "SEGMENT", "segment_id": made["id"], "status": status, "archived": False}
    times = {"id": new_id(), "project_id": owner.id, "created_at": now, "updated_at": now}
    await insert(relay, campaigns, **(blank | words | refers | times))
    response = await http.delete(f"/segments/{made['id']}", headers=owner.headers)
    assert response.status_code == answer
    if answer == 409:
        assert refusal(response) == (409, "CONFLICT")
        assert "Spring" in response.json()["error"]["message"]
    else:
        assert [row["segment_id"] for row in await rows(relay, campaigns)] == [None]


async def test_a_segment_that_another_one_refers_to_stays(http: httpx2.AsyncClient, owner: Tenant) -> None:
    inner = await _make(http, owner, condition=PRO)
    outer = await _make(http, owner, name="Outer", condition=where(f"segment.{inner['id']}", "memberOfSegment"))
    response = await http.delete(f"/segments/{inner['id']}", headers=owner.headers)
    assert refusal(response) == (409, "CONFLICT")
    assert "Outer" in response.json()["error"]["message"]
    assert (await http.delete(f"/segments/{outer['id']}", headers=owner.headers)).status_code == 204
    assert (await http.delete(f"/segments/{inner['id']}", headers=owner.headers)).status_code == 204


async def test_contacts_of_a_dynamic_segment_are_who_fits_now(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    made = await _make(http, owner, condition=PRO)
    for name in "abcde":
        clock.advance(seconds=1)
        await _contacts(relay, owner, **{name: "free" if name == "c" else "pro"})
    page = await _ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=3&page=1")
    rest = await _ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=3&page=2")
    assert [one["email"][0] for one in (*page.pop("data"), *rest.pop("data"))] == ["e", "d", "b", "a"]
    assert page == {"total": 4, "page": 1, "pageSize": 3, "totalPages": 2}
    assert rest == page | {"page": 2}


async def test_members_are_added_and_removed_by_address(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await _contacts(relay, owner, ann="pro", bob="pro")
    await _contacts(relay, other, eve="pro")
    made = await _make(http, owner, type="STATIC")
    place = f"{made['id']}/members"
    emails = ["Bob@example.net", "bob@example.net", "eve@example.net", "new@example.net", "no address"]
    first = await _ask(http, owner, "POST", place, emails=emails)
    assert first == {"added": 1, "created": 0, "notFound": ["eve@example.net", "new@example.net", "no address"]}
    clock.advance(seconds=1)
    second = await _ask(
        http, owner, "POST", place, emails=["ANN@example.net", *emails], createMissing=True, subscribed=False
    )
    assert second == {"added": 4, "created": 2, "notFound": ["no address"]}
    listed = await _ask(http, owner, "GET", f"{made['id']}/contacts")
    assert {one["email"]: one["subscribed"] for one in listed["data"]} == {
        "ann@example.net": True,
        "bob@example.net": True,
        "eve@example.net": False,
        "new@example.net": False,
    }
    assert (await _ask(http, owner, "GET", made["id"]))["memberCount"] == 4
    removed = await _ask(http, owner, "DELETE", place, emails=["ann@example.net", "ann@EXAMPLE.net", "nobody@example.net"])
    again = await _ask(http, owner, "DELETE", place, emails=["ann@example.net"])
    assert (removed, again) == ({"removed": 1}, {"removed": 0})
    assert (await _ask(http, owner, "GET", made["id"]))["memberCount"] == 3
    assert await rows(relay, events) == []


async def test_who_was_added_last_is_listed_first(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    await _contacts(relay, owner, ann="pro", bob="pro", cleo="pro")
    made = await _make(http, owner, type="STATIC")
    for name in ("cleo", "ann", "bob", "cleo"):
        clock.advance(seconds=1)
        await _ask(http, owner, "POST", f"{made['id']}/members", emails=[f"{name}@example.net"])
    listed = await _ask(http, owner, "GET", f"{made['id']}/contacts")
    assert [one["email"].partition("@")[0] for one in listed["data"]] == ["cleo", "bob", "ann"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_dynamic_segment_has_no_members_by_hand(http: httpx2.AsyncClient, owner: Tenant, method: str) -> None:
    made = await _make(http, owner, condition=PRO)
    body = {"emails": ["ann@example.net"]}
    response = await http.request(method, f"/segments/{made['id']}/members", headers=owner.headers, json=body)
    assert refusal(response) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("emails", "code"), [([], "too_small"), (["a@example.net"] * 501, "too_big"), ("a", "invalid_type")]
)
async def test_one_to_five_hundred_addresses_are_taken(
    http: httpx2.AsyncClient, owner: Tenant, emails: Any, code: str
) -> None:
    made = await _make(http, owner, type="STATIC")
    for method in ("POST", "DELETE"):
        response = await http.request(
            method, f"/segments/{made['id']}/members", headers=owner.headers, json={"emails": emails}
        )
        assert faults(response) == [("emails", code)]


async def test_computing_tells_of_every_entry_and_exit_once(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await _contacts(relay, other, eve="pro")
    ids = await _contacts(relay, owner, ann="pro", bob="free", cleo="pro")
    made = await _make(http, owner, name="  My (best) Pros!", condition=PRO, trackMembership=True)
    assert await _compute(http, owner, made) == (2, 0, 2)
    assert await _compute(http, owner, made) == (0, 0, 2)
    clock.advance(seconds=1)
    await _contacts(relay, owner, ann="free", bob="pro")
    assert await _compute(http, owner, made) == (1, 1, 2)
    clock.advance(seconds=1)
    await _contacts(relay, owner, ann="pro")
    assert await _compute(http, owner, made) == (1, 0, 3)
    told = [(row["name"], row["contact_id"]) for row in await rows(relay, events)]
    entry, leaving = "segment.my-best-pros.entry", "segment.my-best-pros.exit"
    assert sorted(told[:2]) == sorted([(entry, ids["ann"]), (entry, ids["cleo"])])
    assert told[2:] == [(entry, ids["bob"]), (leaving, ids["ann"]), (entry, ids["ann"])]
    assert {str(row["data"]) for row in await rows(relay, events)} == {
        str({"segmentId": made["id"], "segmentName": "  My (best) Pros!"})
    }
    assert (await _ask(http, owner, "GET", made["id"]))["memberCount"] == 3


async def test_only_a_tracked_segment_is_computed(http: httpx2.AsyncClient, owner: Tenant) -> None:
    for fields in ({"condition": PRO}, {"type": "STATIC"}):
        made = await _make(http, owner, **fields)
        response = await http.post(f"/segments/{made['id']}/compute", headers=owner.headers)
        assert refusal(response) == (400, "BAD_REQUEST")
    static = await _make(http, owner, type="STATIC", trackMembership=True)
    assert await _compute(http, owner, static) == (0, 0, 0)


async def test_a_refresh_counts_and_does_nothing_else(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    made = await _make(http, owner, condition=PRO, trackMembership=True)
    await _contacts(relay, owner, ann="pro", bob="free")
    assert await _ask(http, owner, "POST", f"{made['id']}/refresh") == {"memberCount": 1}
    assert (await _ask(http, owner, "GET", made["id"]))["memberCount"] == 1
    assert (await rows(relay, events), await rows(relay, segment_memberships)) == ([], [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("VIP", "vip"),
        ("  My  VIPs! ", "my-vips"),
        ("a--b - c", "a-b-c"),
        ("-x-", "x"),
        ("under_score 9", "under_score-9"),
        ("Ünïcode", "ncode"),
        ("会員", ""),
        ("!?", ""),
    ],
)
def test_the_events_of_a_segment_are_named_by_its_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


async def test_a_name_without_ascii_letters_gives_events_named_by_id(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    await _contacts(relay, owner, ann="pro")
    made = await _make(http, owner, name="会員", condition=PRO, trackMembership=True)
    await _compute(http, owner, made)
    assert [row["name"] for row in await rows(relay, events)] == [f"segment.{made['id']}.entry"]
