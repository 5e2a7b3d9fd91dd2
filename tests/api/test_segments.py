"""What may be done with segments over HTTP? Made, listed, changed, referred to, deleted."""

import asyncio
from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import campaigns, events, segment_memberships, segments, workflow_steps
from plunk_relay.errors import BadRequest
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.segments import worker
from plunk_relay.segments.actions import get_segment, store_changes
from tests.kit.api import faults, refusal
from tests.kit.relay import Tenant
from tests.kit.segments import PRO, ask, make_segment, put_contacts, where
from tests.kit.store import add_step, add_template, change, insert, rows


async def test_a_segment_is_made_and_counted(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant) -> None:
    await put_contacts(relay, owner, ann="pro", bob="free", cleo="pro")
    await put_contacts(relay, other, eve="pro")
    made = await make_segment(http, owner, name="Pros", description="who pays", condition=PRO)
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
    assert await ask(http, owner, "GET", made["id"]) == made
    assert (await rows(relay, events), await rows(relay, segment_memberships)) == ([], [])


async def test_segments_are_listed_newest_first_without_pages(
    http: httpx2.AsyncClient, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await make_segment(http, other, condition=PRO)
    made = []
    for _ in range(25):
        clock.advance(seconds=1)
        made.append(await make_segment(http, owner, type="STATIC"))
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


async def test_what_the_grammar_does_not_know_is_not_kept(http: httpx2.AsyncClient, owner: Tenant) -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    known: dict[str, Any] = {"field": "data.plan", "operator": "equals", "value": {"a": [None]}}
    window: dict[str, Any] = {"field": "createdAt", "operator": "within", "value": 1.5, "unit": "days"}
    inner = {"logic": "OR", "groups": [{"filters": [window]}]}
    sent = {
        "logic": "AND",
        "groups": [
            {"filters": [known | {"unit": deep, "note": deep}], "conditions": inner | {"id": 1}, "name": deep},
            {"filters": [window], "conditions": None},
        ],
        "note": deep,
    }
    kept = {"logic": "AND", "groups": [{"filters": [known], "conditions": inner}, {"filters": [window]}]}
    made = await make_segment(http, owner, condition=sent)
    assert made["condition"] == kept
    assert (await ask(http, owner, "PATCH", made["id"], condition=sent))["condition"] == kept
    assert (await ask(http, owner, "GET", made["id"]))["condition"] == kept


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
    await put_contacts(relay, owner, ann="pro", bob="free", cleo="free")
    made = await make_segment(http, owner, description="note", condition=PRO)
    clock.advance(seconds=1)
    free = where("data.plan", "equals", "free")
    changed = await ask(http, owner, "PATCH", made["id"], condition=free, type="STATIC", id="x")
    assert changed == made | {"condition": free, "memberCount": 2, "updatedAt": "2026-03-01T12:00:01.000Z"}
    renamed = await ask(http, owner, "PATCH", made["id"], name="Other", description=None, trackMembership=True)
    assert renamed == changed | {"name": "Other", "description": None, "trackMembership": True}
    assert (await rows(relay, events), await rows(relay, segment_memberships)) == ([], [])


async def test_the_condition_of_a_static_segment_is_ignored(http: httpx2.AsyncClient, owner: Tenant) -> None:
    made = await make_segment(http, owner, type="STATIC")
    assert await ask(http, owner, "PATCH", made["id"], condition="nonsense", name="New") == made | {"name": "New"}


@pytest.mark.parametrize("condition", [None, "text", {"logic": "AND"}])
async def test_a_patch_with_a_wrong_condition_changes_nothing(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, condition: Any
) -> None:
    made = await make_segment(http, owner, condition=PRO)
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
    first = last = await make_segment(http, owner, condition=PRO, trackMembership=tracked)
    for _ in range(length - 1):
        condition = where(f"segment.{last['id']}", "memberOfSegment")
        last = await make_segment(http, owner, condition=condition, trackMembership=tracked)
    back = {"condition": where(f"segment.{last['id']}", "notMemberOfSegment")}
    response = await http.patch(f"/segments/{first['id']}", headers=owner.headers, json=back)
    assert refusal(response) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("tracked", [False, True])
async def test_two_segments_that_are_changed_at_once_do_not_lead_to_each_other(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, tracked: bool
) -> None:
    """Each change alone would be right; which of them comes first does not matter."""
    pair = [await make_segment(http, owner, condition=PRO, trackMembership=tracked) for _ in range(2)]

    async def refer(one: dict[str, Any], to: dict[str, Any]) -> int:
        body = {"condition": where(f"segment.{to['id']}", "memberOfSegment")}
        return (await http.patch(f"/segments/{one['id']}", headers=owner.headers, json=body)).status_code

    assert sorted(await asyncio.gather(refer(pair[0], pair[1]), refer(pair[1], pair[0]))) == [200, 400]
    assert sum(row["condition"] == PRO for row in await rows(relay, segments)) == 1


async def test_a_circle_is_noticed_where_it_is_stored(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    """It may have closed since the reader looked."""
    first, second = [await make_segment(http, owner, condition=PRO) for _ in range(2)]
    to_first = where(f"segment.{first['id']}", "memberOfSegment")
    to_second = where(f"segment.{second['id']}", "memberOfSegment")
    stale = await get_segment(relay, owner.id, first["id"])
    await change(relay, segments, second["id"], condition=to_first)
    with pytest.raises(BadRequest, match="depend on itself"):
        await relay.db.write(store_changes, stale, {"condition": to_second})
    assert (await get_segment(relay, owner.id, first["id"])).condition == PRO


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_another_projects_segment_cannot_be_referred_to(
    http: httpx2.AsyncClient, owner: Tenant, other: Tenant, method: str
) -> None:
    theirs = await make_segment(http, other, condition=PRO)
    mine = await make_segment(http, owner, condition=PRO)
    path = "/segments" if method == "POST" else f"/segments/{mine['id']}"
    for named in (theirs["id"], new_id(), "x"):
        body = {"name": "It", "condition": where(f"segment.{named}", "notMemberOfSegment")}
        response = await http.request(method, path, headers=owner.headers, json=body)
        assert refusal(response) == (400, "BAD_REQUEST")
        assert named in response.json()["error"]["message"]


@pytest.mark.parametrize("audience", ["SEGMENT", "FILTERED"])
@pytest.mark.parametrize(
    ("status", "answer"), [("DRAFT", 409), ("SCHEDULED", 409), ("SENDING", 409), ("SENT", 204), ("CANCELLED", 204)]
)
async def test_a_segment_that_a_campaign_needs_stays(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, status: str, answer: int, audience: str
) -> None:
    made = await make_segment(http, owner, condition=PRO)
    if audience == "SEGMENT":
        named: dict[str, Any] = {"segment_id": made["id"]}
    else:
        named = {"audience_condition": where(f"segment.{made['id']}", "memberOfSegment")}
    now = relay.clock.now()
    blank = {column.name: 0 for column in campaigns.c if not column.nullable}
    words = dict.fromkeys(("subject", "body", "from_address", "name"), "Spring") | {"type": "MARKETING"}
    refers = {"audience_type": audience, "status": status, "archived": False} | named
    times = {"id": new_id(), "project_id": owner.id, "created_at": now, "updated_at": now}
    await insert(relay, campaigns, **(blank | words | refers | times))
    response = await http.delete(f"/segments/{made['id']}", headers=owner.headers)
    assert response.status_code == answer
    if answer == 409:
        assert refusal(response) == (409, "CONFLICT")
        assert "Spring" in response.json()["error"]["message"]
    else:
        assert [row["segment_id"] for row in await rows(relay, campaigns)] == [None]


async def test_a_segment_that_a_workflow_asks_for_stays(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    made = await make_segment(http, owner, condition=PRO)
    step = await add_step(relay, owner.id, await add_template(relay, owner.id), workflow="Onboarding")
    asks = where(f"segment.{made['id']}", "memberOfSegment")
    await change(relay, workflow_steps, step, type="CONDITION", template_id=None, config=asks)
    response = await http.delete(f"/segments/{made['id']}", headers=owner.headers)
    assert refusal(response) == (409, "CONFLICT")
    assert "workflow Onboarding" in response.json()["error"]["message"]


async def test_a_deleted_segment_is_gone_at_once_and_its_memberships_soon(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    emails = [f"{number}@example.net" for number in range(1100)]
    gone, stays = [await make_segment(http, owner, type="STATIC") for _ in range(2)]
    for start, segment in ((0, gone), (500, gone), (1000, gone), (1000, stays)):
        await ask(http, owner, "POST", f"{segment['id']}/members", emails=emails[start : start + 500], createMissing=True)
    assert (await http.delete(f"/segments/{gone['id']}", headers=owner.headers)).status_code == 204
    for method, end in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/contacts"), ("POST", "/refresh")):
        response = await http.request(method, f"/segments/{gone['id']}{end}", headers=owner.headers, json={})
        assert refusal(response) == (404, "RESOURCE_NOT_FOUND")
    assert [one["id"] for one in (await http.get("/segments", headers=owner.headers)).json()] == [stays["id"]]
    rounds = 0
    while await worker.run_once(relay, set()):
        rounds += 1
    assert rounds > 1
    assert [row["id"] for row in await rows(relay, segments)] == [stays["id"]]
    assert {row["segment_id"] for row in await rows(relay, segment_memberships)} == {stays["id"]}
    assert (await ask(http, owner, "GET", f"{stays['id']}/contacts"))["total"] == 100


async def test_a_segment_that_another_one_refers_to_stays(http: httpx2.AsyncClient, owner: Tenant) -> None:
    inner = await make_segment(http, owner, condition=PRO)
    outer = await make_segment(http, owner, name="Outer", condition=where(f"segment.{inner['id']}", "memberOfSegment"))
    response = await http.delete(f"/segments/{inner['id']}", headers=owner.headers)
    assert refusal(response) == (409, "CONFLICT")
    assert "Outer" in response.json()["error"]["message"]
    assert (await http.delete(f"/segments/{outer['id']}", headers=owner.headers)).status_code == 204
    assert (await http.delete(f"/segments/{inner['id']}", headers=owner.headers)).status_code == 204
