"""Do members follow the contacts, whatever happens to these, and are all segments visited in turn?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, delete_contacts, upsert_contacts
from plunk_relay.db.tables import contacts, events, segment_memberships, segments
from plunk_relay.errors import BadRequest, NotFound, Unavailable
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import create_project, disable_project
from plunk_relay.relay import Relay
from plunk_relay.segments import queries, worker
from plunk_relay.segments.actions import (
    NewSegment,
    add_members,
    compute_members,
    create_segment,
    delete_segment,
    get_segment,
    remove_members,
    settle_members,
    update_segment,
)
from plunk_relay.segments.queries import Difference, Segment
from plunk_relay.segments.worker import INTERVAL
from tests.kit.relay import running_relay
from tests.kit.segments import PRO, where
from tests.kit.store import change, delete, rows

BROKEN = where("segment.gone", "memberOfSegment")
PLANS = st.sampled_from(["pro", "free", None, "deleted"])
ROUNDS = st.lists(st.tuples(st.dictionaries(st.integers(0, 9), PLANS, max_size=6), st.integers(1, 2)), max_size=6)


@pytest.fixture
async def owner(relay: Relay) -> str:
    """Return the id of the project that has the segments."""
    return await _project(relay)


async def _project(relay: Relay) -> str:
    project, _ = await create_project(relay, "owner", owner_id=None)
    return project.id


async def _contacts(relay: Relay, owner: str, plans: Mapping[int, str | None]) -> dict[int, str]:
    changes = [(owner, ContactChange(f"{number}@example.net", {"plan": plan})) for number, plan in plans.items()]
    done = await relay.db.write(upsert_contacts, changes, now=relay.clock.now())
    return {int(contact.email.partition("@")[0]): contact.id for contact, _ in done}


async def _segment(relay: Relay, owner: str, *, tracked: bool = True, condition: Any = PRO) -> Segment:
    return await create_segment(relay, owner, NewSegment("Pros", None, "DYNAMIC", condition, tracked))


async def _static(relay: Relay, owner: str) -> Segment:
    return await create_segment(relay, owner, NewSegment("Friends", None, "STATIC", None, track_membership=False))


async def _visit_all(relay: Relay, reported: worker.Reported | None = None) -> int:
    visited = 0
    while await worker.run_once(relay, set() if reported is None else reported):
        visited += 1
    return visited


async def _member_count(relay: Relay, segment: Segment) -> int:
    return (await get_segment(relay, segment.project_id, segment.id)).member_count


async def test_each_round_counts_every_segment_once(relay: Relay, clock: ManualClock, owner: str) -> None:
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
    assert await _member_count(relay, plain) == 2


async def test_the_segment_that_was_counted_longest_ago_is_next(relay: Relay, clock: ManualClock, owner: str) -> None:
    made = [await _segment(relay, owner, tracked=False) for _ in range(3)]
    for segment, seconds in zip(made, (20, 30, 10), strict=True):
        counted_at = clock.now()
        clock.advance(seconds=INTERVAL.total_seconds() + seconds)
        await change(relay, segments, segment.id, counted_at=counted_at)
    clock.advance(seconds=INTERVAL.total_seconds())
    await change(relay, segments, made[2].id, counted_at=None)
    visited = []
    while (due := await relay.db.read(queries.find_stale, counted_before=clock.now() - INTERVAL)) is not None:
        visited.append(due.id)
        assert await worker.run_once(relay, set())
    assert visited == [made[2].id, made[0].id, made[1].id]


async def test_what_is_changed_or_tracked_anew_is_visited_before_its_time(relay: Relay, owner: str) -> None:
    await _contacts(relay, owner, {1: "pro"})
    segment = await _segment(relay, owner, tracked=False)
    await update_segment(relay, owner, segment.id, {"name": "Other"})
    assert await _visit_all(relay) == 0
    await update_segment(relay, owner, segment.id, {"track_membership": True})
    assert await _visit_all(relay) == 1
    assert [row["name"] for row in await rows(relay, events)] == ["segment.other.entry"]
    await update_segment(relay, owner, segment.id, {"condition": where("data.plan", "equals", "free")})
    assert await _visit_all(relay) == 1
    assert [row["name"] for row in await rows(relay, events)] == ["segment.other.entry", "segment.other.exit"]


async def test_segments_of_a_disabled_project_rest(relay: Relay, owner: str) -> None:
    await _segment(relay, owner)
    await disable_project(relay, owner)
    assert await _visit_all(relay) == 0


async def test_a_condition_that_names_what_is_gone_stops_nobody_and_is_told_once(
    relay: Relay, clock: ManualClock, owner: str
) -> None:
    broken, fine = await _segment(relay, owner), await _segment(relay, owner)
    await change(relay, segments, broken.id, condition=BROKEN)
    await _contacts(relay, owner, {1: "pro"})
    reported: worker.Reported = set()
    told = []
    for _ in range(3):
        with capture_logs() as lines:
            assert await _visit_all(relay, reported) == 2
        told += [line["segment"] for line in lines if line["log_level"] == "warning"]
        clock.advance(seconds=INTERVAL.total_seconds() + 1)
    assert told == [broken.id]
    assert await _member_count(relay, fine) == 1


async def test_whatever_is_wrong_with_a_segment_the_others_are_counted(relay: Relay, clock: ManualClock, owner: str) -> None:
    broken = await _segment(relay, owner, tracked=False, condition=where("event.signup", "notTriggered"))
    fine = await _segment(relay, owner, tracked=False)
    await _contacts(relay, owner, {1: "pro"})
    await relay.db.migrate(lambda raw: raw.execute("DROP TABLE events") and None)
    clock.advance(seconds=INTERVAL.total_seconds() + 1)
    with capture_logs() as lines:
        assert await _visit_all(relay) == 2
    assert [line["segment"] for line in lines if line["log_level"] == "error"] == [broken.id]
    assert await _member_count(relay, fine) == 1


async def test_a_computation_ends_when_the_relay_stops(relay: Relay, owner: str) -> None:
    await _contacts(relay, owner, {1: "pro"})
    segment = await _segment(relay, owner)
    relay.stopping.set()
    with pytest.raises(Unavailable):
        await compute_members(relay, segment)
    assert not await worker.run_once(relay, set())
    relay.stopping.clear()
    assert await _visit_all(relay) == 1  # it is still due


async def test_two_computations_at_once_tell_of_nobody_twice(relay: Relay, owner: str) -> None:
    await _contacts(relay, owner, dict.fromkeys(range(600), "pro"))
    segment = await _segment(relay, owner)
    done = await asyncio.gather(*(compute_members(relay, segment) for _ in range(3)))
    assert (sum(one.added for one in done), {one.total for one in done}) == (600, {600})
    assert len(await rows(relay, events)) == 600


async def test_a_computation_goes_through_all_contacts(relay: Relay, owner: str) -> None:
    """More than are compared at once, and far more than are written at once."""
    ids = await _contacts(relay, owner, {number: "free" if number % 5 else "pro" for number in range(2_500)})
    segment = await _segment(relay, owner)
    done = await compute_members(relay, segment)
    assert (done.added, done.removed, done.total) == (500, 0, 500)
    assert await _told(relay) == {("segment.pros.entry", ids[number]): 1 for number in range(0, 2_500, 5)}
    await _contacts(relay, owner, {number: "pro" if number % 5 else "free" for number in range(2_500)})
    done = await compute_members(relay, segment)
    assert (done.added, done.removed, done.total) == (2_000, 500, 2_000)
    assert set((await _told(relay)).values()) == {1}
    assert len(await rows(relay, events)) == 3_000


async def _told(relay: Relay) -> dict[tuple[str, str], int]:
    told: dict[tuple[str, str], int] = {}
    for event in await rows(relay, events):
        key = (event["name"], event["contact_id"])
        told[key] = told.get(key, 0) + 1
    return told


async def test_what_was_found_is_looked_at_again_where_it_is_written(relay: Relay, owner: str) -> None:
    """Another computation, a deletion or a change may have come in between."""
    rival = await _project(relay)
    mine, theirs = await _contacts(relay, owner, {1: "pro", 2: "pro"}), await _contacts(relay, rival, {3: "pro"})
    segment = await _segment(relay, owner)
    found = Difference([mine[1], mine[2], theirs[3], new_id()], [])
    await delete(relay, contacts, id=mine[2])
    assert await relay.db.write(settle_members, segment, found, now=relay.clock.now()) == (1, 0)
    assert await relay.db.write(settle_members, segment, found, now=relay.clock.now()) == (0, 0)
    assert await _told(relay) == {("segment.pros.entry", mine[1]): 1}
    left = Difference([], [mine[1], theirs[3]])
    assert await relay.db.write(settle_members, segment, left, now=relay.clock.now()) == (0, 1)
    assert await relay.db.write(settle_members, segment, left, now=relay.clock.now()) == (0, 0)
    await update_segment(relay, owner, segment.id, {"condition": where("data.plan", "exists")})
    assert await relay.db.write(settle_members, segment, found, now=relay.clock.now()) == (0, 0)
    await update_segment(relay, owner, segment.id, {"track_membership": False})
    with pytest.raises(BadRequest):
        await relay.db.write(settle_members, segment, found, now=relay.clock.now())


async def test_a_segment_that_is_deleted_meanwhile_is_not_found(relay: Relay, owner: str) -> None:
    await _contacts(relay, owner, {1: "pro"})
    dynamic, static = await _segment(relay, owner), await _static(relay, owner)
    for segment in (dynamic, static):
        await delete_segment(relay, owner, segment.id)
    with pytest.raises(NotFound):
        await compute_members(relay, dynamic)
    with pytest.raises(NotFound):
        await add_members(relay, static, ["1@example.net"], create_missing=False, subscribed=True)
    with pytest.raises(NotFound):
        await remove_members(relay, static, ["1@example.net"])
    assert await rows(relay, segment_memberships) == []


async def test_a_count_that_was_overtaken_is_not_stored(relay: Relay, owner: str) -> None:
    await _contacts(relay, owner, {1: "pro", 2: "pro"})
    static, dynamic = await _static(relay, owner), await _segment(relay, owner, tracked=False)
    await add_members(relay, static, ["1@example.net", "2@example.net"], create_missing=False, subscribed=True)
    await relay.db.write(queries.store_count, static, 0, now=relay.clock.now())
    assert await _member_count(relay, static) == 2
    assert isinstance(relay.clock, ManualClock)
    relay.clock.advance(seconds=1)
    await update_segment(relay, owner, dynamic.id, {"condition": where("data.plan", "exists")})  # as many fit
    await relay.db.write(queries.store_count, dynamic, 7, now=relay.clock.now())
    assert await _member_count(relay, dynamic) == 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    """Keep one relay for many examples; each has a project of its own."""
    async with running_relay(tmp_path_factory.mktemp("lasting")) as relay:
        yield relay


@pytest.mark.asyncio(loop_scope="module")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=ROUNDS)
async def test_events_tell_exactly_who_came_and_who_left(
    lasting: Relay, rounds: list[tuple[dict[int, str | None], int]]
) -> None:
    """Changes, deletions and new contacts, and one or two computations at once: the sum of the events is who is inside."""
    owner = await _project(lasting)
    segment = await _segment(lasting, owner)
    inside: set[str] = set()
    ids: dict[int, str] = {}
    for changes, at_once in rounds:
        gone = [ids.pop(number) for number, plan in changes.items() if plan == "deleted" and number in ids]
        await lasting.db.write(delete_contacts, owner, gone)
        ids |= await _contacts(lasting, owner, {number: plan for number, plan in changes.items() if plan != "deleted"})
        before = len(await rows(lasting, events, project_id=owner))
        done = await asyncio.gather(*(compute_members(lasting, segment) for _ in range(at_once)))
        told = await rows(lasting, events, project_id=owner)
        pros = {
            row["id"] for row in await rows(lasting, contacts, project_id=owner) if (row["data"] or {}).get("plan") == "pro"
        }
        came, left = pros - inside, (inside & set(ids.values())) - pros
        new = sorted((event["name"].rpartition(".")[2], event["contact_id"]) for event in told[before:])
        assert new == sorted([("entry", one) for one in came] + [("exit", one) for one in left])
        assert (sum(one.added for one in done), sum(one.removed for one in done)) == (len(came), len(left))
        assert {one.total for one in done} == {len(pros)}
        inside = pros
