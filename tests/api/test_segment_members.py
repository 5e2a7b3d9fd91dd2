"""Who is in a segment, asked over HTTP? Pages of contacts, members by hand, and computations with their events."""

from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts, events, segment_memberships
from plunk_relay.relay import Relay
from plunk_relay.segments.actions import slug
from tests.kit.api import faults, refusal
from tests.kit.relay import Tenant
from tests.kit.segments import PRO, ask, make_segment, put_contacts, where
from tests.kit.store import delete, rows


async def _compute(http: httpx2.AsyncClient, owner: Tenant, segment: dict[str, Any]) -> tuple[int, int, int]:
    done = await ask(http, owner, "POST", f"{segment['id']}/compute")
    return done["added"], done["removed"], done["total"]


async def test_contacts_of_a_dynamic_segment_are_who_fits_now(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    made = await make_segment(http, owner, condition=PRO)
    for name in "abcde":
        clock.advance(seconds=1)
        await put_contacts(relay, owner, **{name: "free" if name == "c" else "pro"})
    page = await ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=3&page=1")
    rest = await ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=3&page=2")
    assert [one["email"][0] for one in (*page.pop("data"), *rest.pop("data"))] == ["e", "d", "b", "a"]
    assert page == {"total": 4, "page": 1, "pageSize": 3, "totalPages": 2}
    assert rest == page | {"page": 2}


@pytest.mark.parametrize("kind", ["DYNAMIC", "STATIC"])
async def test_a_page_behind_the_last_one_is_empty(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, kind: str) -> None:
    await put_contacts(relay, owner, ann="pro", bob="pro", cleo="pro")
    made = await make_segment(http, owner, type=kind, condition=PRO if kind == "DYNAMIC" else None)
    if kind == "STATIC":
        emails = [f"{name}@example.net" for name in ("ann", "bob", "cleo")]
        await ask(http, owner, "POST", f"{made['id']}/members", emails=emails)
    for number in (3, 10_000, 10**30):
        page = await ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=2&page={number}")
        assert (page["data"], page["total"], page["totalPages"]) == ([], 3, 2)
    assert len((await ask(http, owner, "GET", f"{made['id']}/contacts?pageSize=2&page=2"))["data"]) == 1


async def test_members_who_left_or_are_deleted_are_not_listed(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    ids = await put_contacts(relay, owner, ann="pro", bob="pro", cleo="pro")
    made = await make_segment(http, owner, type="STATIC")
    await ask(http, owner, "POST", f"{made['id']}/members", emails=[f"{name}@example.net" for name in ids])
    await ask(http, owner, "DELETE", f"{made['id']}/members", emails=["ann@example.net"])
    await delete(relay, contacts, id=ids["bob"])
    page = await ask(http, owner, "GET", f"{made['id']}/contacts")
    assert ([one["id"] for one in page["data"]], page["total"]) == ([ids["cleo"]], 1)
    assert await ask(http, owner, "POST", f"{made['id']}/refresh") == {"memberCount": 1}


async def test_members_are_added_and_removed_by_address(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await put_contacts(relay, owner, ann="pro", bob="pro")
    await put_contacts(relay, other, eve="pro")
    made = await make_segment(http, owner, type="STATIC")
    place = f"{made['id']}/members"
    emails = ["Bob@example.net", "bob@example.net", "eve@example.net", "new@example.net", "no address"]
    first = await ask(http, owner, "POST", place, emails=emails)
    assert first == {"added": 1, "created": 0, "notFound": ["eve@example.net", "new@example.net", "no address"]}
    clock.advance(seconds=1)
    second = await ask(http, owner, "POST", place, emails=["ANN@example.net", *emails], createMissing=True, subscribed=False)
    assert second == {"added": 4, "created": 2, "notFound": ["no address"]}
    listed = await ask(http, owner, "GET", f"{made['id']}/contacts")
    assert {one["email"]: one["subscribed"] for one in listed["data"]} == {
        "ann@example.net": True,
        "bob@example.net": True,
        "eve@example.net": False,
        "new@example.net": False,
    }
    assert (await ask(http, owner, "GET", made["id"]))["memberCount"] == 4
    removed = await ask(http, owner, "DELETE", place, emails=["ann@example.net", "ann@EXAMPLE.net", "nobody@example.net"])
    again = await ask(http, owner, "DELETE", place, emails=["ann@example.net"])
    assert (removed, again) == ({"removed": 1}, {"removed": 0})
    assert (await ask(http, owner, "GET", made["id"]))["memberCount"] == 3
    assert await rows(relay, events) == []


async def test_who_was_added_last_is_listed_first(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    await put_contacts(relay, owner, ann="pro", bob="pro", cleo="pro")
    made = await make_segment(http, owner, type="STATIC")
    for name in ("ann", "cleo", "bob", "ann"):
        clock.advance(seconds=1)
        await ask(http, owner, "POST", f"{made['id']}/members", emails=[f"{name}@example.net"])
    listed = await ask(http, owner, "GET", f"{made['id']}/contacts")
    assert [one["email"].partition("@")[0] for one in listed["data"]] == ["ann", "bob", "cleo"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_dynamic_segment_has_no_members_by_hand(http: httpx2.AsyncClient, owner: Tenant, method: str) -> None:
    made = await make_segment(http, owner, condition=PRO)
    body = {"emails": ["ann@example.net"]}
    response = await http.request(method, f"/segments/{made['id']}/members", headers=owner.headers, json=body)
    assert refusal(response) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("emails", "code"), [([], "too_small"), (["a@example.net"] * 501, "too_big"), ("a", "invalid_type")]
)
async def test_one_to_five_hundred_addresses_are_taken(
    http: httpx2.AsyncClient, owner: Tenant, emails: Any, code: str
) -> None:
    made = await make_segment(http, owner, type="STATIC")
    for method in ("POST", "DELETE"):
        response = await http.request(
            method, f"/segments/{made['id']}/members", headers=owner.headers, json={"emails": emails}
        )
        assert faults(response) == [("emails", code)]


async def test_computing_tells_of_every_entry_and_exit_once(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    await put_contacts(relay, other, eve="pro")
    ids = await put_contacts(relay, owner, ann="pro", bob="free", cleo="pro")
    made = await make_segment(http, owner, name="  My (best) Pros!", condition=PRO, trackMembership=True)
    assert await _compute(http, owner, made) == (2, 0, 2)
    assert await _compute(http, owner, made) == (0, 0, 2)
    clock.advance(seconds=1)
    await put_contacts(relay, owner, ann="free", bob="pro")
    assert await _compute(http, owner, made) == (1, 1, 2)
    clock.advance(seconds=1)
    await put_contacts(relay, owner, ann="pro")
    assert await _compute(http, owner, made) == (1, 0, 3)
    told = [(row["name"], row["contact_id"]) for row in await rows(relay, events)]
    entry, leaving = "segment.my-best-pros.entry", "segment.my-best-pros.exit"
    assert sorted(told[:2]) == sorted([(entry, ids["ann"]), (entry, ids["cleo"])])
    assert told[2:] == [(entry, ids["bob"]), (leaving, ids["ann"]), (entry, ids["ann"])]
    assert {str(row["data"]) for row in await rows(relay, events)} == {
        str({"segmentId": made["id"], "segmentName": "  My (best) Pros!"})
    }
    assert (await ask(http, owner, "GET", made["id"]))["memberCount"] == 3


async def test_members_wait_while_they_are_not_tracked(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    """When tracking begins again, the events tell what became of them in the meantime, and no more."""
    ids = await put_contacts(relay, owner, ann="pro", bob="pro", cleo="free")
    made = await make_segment(http, owner, condition=PRO, trackMembership=True)
    assert await _compute(http, owner, made) == (2, 0, 2)
    await ask(http, owner, "PATCH", made["id"], trackMembership=False)
    clock.advance(seconds=1)
    await put_contacts(relay, owner, ann="free", cleo="pro")
    assert [row["exited_at"] for row in await rows(relay, segment_memberships)] == [None, None]
    await ask(http, owner, "PATCH", made["id"], trackMembership=True)
    assert await _compute(http, owner, made) == (1, 1, 2)
    told = [(row["name"], row["contact_id"]) for row in (await rows(relay, events))[2:]]
    assert told == [("segment.it.entry", ids["cleo"]), ("segment.it.exit", ids["ann"])]


async def test_a_new_condition_moves_the_members_with_the_next_computation(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    await put_contacts(relay, owner, ann="pro", bob="free", cleo="free")
    made = await make_segment(http, owner, name="Old", condition=PRO, trackMembership=True)
    assert await _compute(http, owner, made) == (1, 0, 1)
    changed = await ask(http, owner, "PATCH", made["id"], name="New", condition=where("data.plan", "equals", "free"))
    assert changed["memberCount"] == 2
    assert await _compute(http, owner, made) == (2, 1, 2)
    names = [row["name"] for row in await rows(relay, events)]
    assert names == ["segment.old.entry", "segment.new.entry", "segment.new.entry", "segment.new.exit"]


async def test_events_of_a_computation_wake_the_workflows(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    made = await make_segment(http, owner, condition=PRO, trackMembership=True)
    await _compute(http, owner, made)
    assert not relay.wakes.events.is_set()
    await put_contacts(relay, owner, ann="pro")
    await _compute(http, owner, made)
    assert relay.wakes.events.is_set()


async def test_only_a_tracked_segment_is_computed(http: httpx2.AsyncClient, owner: Tenant) -> None:
    for fields in ({"condition": PRO}, {"type": "STATIC"}):
        made = await make_segment(http, owner, **fields)
        response = await http.post(f"/segments/{made['id']}/compute", headers=owner.headers)
        assert refusal(response) == (400, "BAD_REQUEST")
    static = await make_segment(http, owner, type="STATIC", trackMembership=True)
    assert await _compute(http, owner, static) == (0, 0, 0)


async def test_a_refresh_counts_and_does_nothing_else(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    made = await make_segment(http, owner, condition=PRO, trackMembership=True)
    await put_contacts(relay, owner, ann="pro", bob="free")
    assert await ask(http, owner, "POST", f"{made['id']}/refresh") == {"memberCount": 1}
    assert (await ask(http, owner, "GET", made["id"]))["memberCount"] == 1
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
    await put_contacts(relay, owner, ann="pro")
    made = await make_segment(http, owner, name="会員", condition=PRO, trackMembership=True)
    await _compute(http, owner, made)
    assert [row["name"] for row in await rows(relay, events)] == [f"segment.{made['id']}.entry"]
