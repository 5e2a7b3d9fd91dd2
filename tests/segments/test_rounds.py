"""Do members follow the contacts, whatever happens to these, and are all segments visited in turn?"""

import asyncio
import random
from typing import Any

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, delete_contacts, upsert_contacts
from plunk_relay.db.tables import events, segment_memberships, segments
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from plunk_relay.segments import worker
from plunk_relay.segments.actions import NewSegment, compute_members, create_segment, get_segment
from plunk_relay.segments.queries import Segment
from plunk_relay.segments.worker import INTERVAL
from tests.kit.relay import Tenant
from tests.kit.store import change, rows

PRO = {"logic": "AND", "groups": [{"filters": [{"field": "data.plan", "operator": "equals", "value": "pro"}]}]}


@pytest.fixture
def owner(acme: Tenant) -> Tenant:
    """Return the project that has the segments."""
    return acme


async def _contacts(relay: Relay, owner: Tenant, plans: dict[int, str]) -> dict[int, str]:
    changes = [(owner.id, ContactChange(f"{number}@example.net", {"plan": plan})) for number, plan in plans.items()]
    done = await relay.db.write(upsert_contacts, changes, now=relay.clock.now())
    return {int(contact.email.partition("@")[0]): contact.id for contact, _ in done}


async def _segment(relay: Relay, owner: Tenant, *, tracked: bool = True, condition: Any = PRO) -> Segment:
    return await create_segment(relay, owner.id, NewSegment("Pros", None, "DYNAMIC", condition, tracked))


async def _visit_all(relay: Relay) -> int:
    visited = 0
    while await worker.run_once(relay, set()):
        visited += 1
    return visited


async def test_each_round_counts_every_segment_once(relay: Relay, clock: ManualClock, owner: Tenant) -> None:
    await _contacts(relay, owner, {1: "pro", 2: "free"})
    tracked, plain = await _segment(relay, owner), await _segment(relay, owner, tracked=False)
    assert await _visit_all(relay) == 1  # the plain one was counted when it was made
    assert [row["member_count"] for row in await rows(relay, segments)] == [1, 1]
    assert [row["segment_id"] for row in await rows(relay, segment_memberships)] == [tracked.id]
    assert [row["name"] for row in await rows(relay, events)] == ["segment.pros.entry"]
    clock.advance(seconds=INTERVAL.total_seconds() - 1)
    assert await _visit_all(relay) == 0
    clock.advance(seconds=2)
    await _contacts(relay, owner, {2: "pro"})
    assert await _visit_all(relay) == 2
    assert (await get_segment(relay, owner.id, plain.id)).member_count == 2


async def test_segments_of_a_disabled_project_rest(relay: Relay, owner: Tenant) -> None:
    await _segment(relay, owner)
    await disable_project(relay, owner.id)
    assert await _visit_all(relay) == 0


async def test_a_condition_that_names_what_is_gone_stops_nobody(relay: Relay, clock: ManualClock, owner: Tenant) -> None:
    broken, fine = await _segment(relay, owner, tracked=True), await _segment(relay, owner)
    gone = {"field": "segment.gone", "operator": "memberOfSegment"}
    await change(relay, segments, broken.id, condition={"logic": "AND", "groups": [{"filters": [gone]}]})
    await _contacts(relay, owner, {1: "pro"})
    assert await _visit_all(relay) == 2
    assert (await get_segment(relay, owner.id, fine.id)).member_count == 1
    clock.advance(seconds=INTERVAL.total_seconds() + 1)
    assert await _visit_all(relay) == 2


async def test_two_computations_at_once_tell_of_nobody_twice(relay: Relay, owner: Tenant) -> None:
    await _contacts(relay, owner, dict.fromkeys(range(600), "pro"))
    segment = await _segment(relay, owner)
    done = await asyncio.gather(*(compute_members(relay, segment) for _ in range(3)))
    assert (sum(one.added for one in done), {one.total for one in done}) == (600, {600})
    assert len(await rows(relay, events)) == 600


async def test_more_contacts_than_are_written_at_once_are_all_let_in_and_out(relay: Relay, owner: Tenant) -> None:
    ids = await _contacts(relay, owner, {number: "pro" if number % 2 else "free" for number in range(1, 1302)})
    segment = await _segment(relay, owner)
    assert (await compute_members(relay, segment)).added == 651
    await _contacts(relay, owner, {number: "free" for number in ids if number % 2})
    done = await compute_members(relay, segment)
    assert (done.added, done.removed, done.total) == (0, 651, 0)


@pytest.mark.parametrize("seed", range(6))
async def test_events_tell_exactly_who_came_and_who_left(relay: Relay, clock: ManualClock, owner: Tenant, seed: int) -> None:
    """Random changes, deletions and new contacts: the sum of the events is who is inside."""
    dice = random.Random(seed)
    segment = await _segment(relay, owner)
    plans: dict[int, str] = {}
    ids: dict[int, str] = {}
    for _ in range(8):
        clock.advance(seconds=1)
        changed = {dice.randrange(30): dice.choice(["pro", "free"]) for _ in range(dice.randrange(12))}
        plans |= changed
        ids |= await _contacts(relay, owner, changed)
        gone = dice.sample(sorted(plans), min(2, len(plans)))
        await relay.db.write(delete_contacts, owner.id, [ids[number] for number in gone])
        for number in gone:
            del plans[number], ids[number]
        done = await compute_members(relay, segment)
        inside = {ids[number] for number, plan in plans.items() if plan == "pro"}
        assert done.total == len(inside)
        assert _balance(await rows(relay, events)) == inside


def _balance(told: list[dict[str, Any]]) -> set[str]:
    """Return who entered and did not leave since; nobody enters twice, or leaves without having entered."""
    inside: set[str] = set()
    for event in sorted(told, key=lambda one: (one["created_at"], one["id"])):
        if event["name"].endswith(".entry"):
            assert event["contact_id"] not in inside
            inside.add(event["contact_id"])
        else:
            inside.remove(event["contact_id"])
    return inside
