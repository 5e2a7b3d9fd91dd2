"""What happens to segments? Made, changed, counted; members added and removed by hand, or computed with their events.

Who fits is asked of a reader, however many contacts there are; what is written goes in units of few rows. Segment, contact
and membership are looked at again in the unit that writes, so that two computations at once tell no entry twice, and
nobody enters by a condition that was changed meanwhile.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.conditions import Condition, check_condition, strip_condition
from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.queries import (
    Contact,
    ContactFilter,
    count_contacts,
    find_contacts_by_email,
    find_stretch,
)
from plunk_relay.errors import BadRequest, Conflict, NotFound, Unavailable
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.mail.address import check_address, normalize_address
from plunk_relay.relay import Relay
from plunk_relay.segments import queries
from plunk_relay.segments.filters import Among, match
from plunk_relay.segments.queries import Difference, PageOf, Segment, SegmentType
from plunk_relay.usage.queries import find_field_usage

if TYPE_CHECKING:
    import sqlalchemy as sa

_COMPARED_AT_ONCE = 2_000
_WRITTEN_AT_ONCE = 50
_NOT_TRACKED = "The segment does not track its members: set trackMembership to true first."


@dataclass(frozen=True, slots=True)
class NewSegment:
    """What a request says about a segment to make."""

    name: str
    description: str | None
    type: SegmentType
    condition: Any
    """As it was sent; None: none was."""
    track_membership: bool


async def create_segment(relay: Relay, project_id: str, new: NewSegment) -> Segment:
    """Make a segment and count who fits; raises BadRequest for a condition that is wrong, missing, or out of place."""
    if new.type == "STATIC" and new.condition is not None:
        raise BadRequest("A STATIC segment has no condition: its members are added by hand.")
    if new.type == "DYNAMIC" and not isinstance(new.condition, dict):
        raise BadRequest("A DYNAMIC segment needs a condition: an object with `logic` and `groups`.")
    identifier, now = new_id(), relay.clock.now()
    members = 0 if new.type == "STATIC" else await _count(relay, project_id, identifier, check_condition(new.condition))
    segment = Segment(
        identifier,
        project_id,
        new.name,
        new.description,
        new.type,
        None if new.type == "STATIC" else strip_condition(new.condition),
        new.track_membership,
        members,
        now,
        now,
    )
    await relay.db.write(_store_new, segment)
    return segment


def _store_new(tx: "sa.Connection", segment: Segment) -> None:
    _check_references(tx, segment)
    queries.insert_segment(tx, segment, counted_at=None if segment.track_membership else segment.created_at)


def _check_references(tx: "sa.Connection", segment: Segment) -> None:
    """Raise BadRequest for a condition that names a segment that is not there, or leads back to its own."""
    if segment.condition is not None:
        _compile(tx, segment, segment.updated_at)


async def get_segment(relay: Relay, project_id: str, segment_id: str) -> Segment:
    """Return a segment; raises NotFound."""
    return await relay.db.read(_get_segment, project_id, segment_id)


def _get_segment(tx: "sa.Connection", project_id: str, segment_id: str) -> Segment:
    found = queries.find_segment(tx, project_id, segment_id)
    if found is None:
        raise NotFound.of("Segment", segment_id)
    return found


async def update_segment(relay: Relay, project_id: str, segment_id: str, changes: Mapping[str, Any]) -> Segment:
    """Set name, description, condition or tracking; a new condition is counted. The condition of a STATIC one is ignored.

    Members stay as they are until the next computation, which comes soon when tracking begins; while they are not tracked
    nothing happens to them. Raises NotFound, BadRequest for a condition that is wrong, or leads back to the segment.
    """
    before = await get_segment(relay, project_id, segment_id)
    values = {name: value for name, value in changes.items() if name != "condition" or before.type == "DYNAMIC"}
    if "condition" in values:
        values |= await _count_condition(relay, before, values["condition"])
    return await relay.db.write(store_changes, before, values | {"updated_at": relay.clock.now()})


def store_changes(tx: "sa.Connection", before: Segment, values: Mapping[str, Any]) -> Segment:
    """Set columns of a segment; what the condition refers to may have changed since it was read, and is looked at again."""
    after = replace(_get_segment(tx, before.project_id, before.id), **values)
    if "condition" in values:
        _check_references(tx, after)
    due = {"counted_at": None} if "condition" in values or "track_membership" in values else {}
    queries.update_segment(tx, before.project_id, before.id, {**values, **due})
    return after


async def _count_condition(relay: Relay, segment: Segment, condition: Any) -> dict[str, Any]:
    """Return what a new condition sets; raises BadRequest when it is wrong."""
    if not isinstance(condition, dict):
        raise BadRequest("condition must be an object with `logic` and `groups`.")
    total = await _count(relay, segment.project_id, segment.id, check_condition(condition))
    return {"condition": strip_condition(condition), "member_count": total}


async def delete_segment(relay: Relay, project_id: str, segment_id: str) -> None:
    """Remove a segment; raises NotFound, and Conflict while a campaign, a workflow or another segment needs it.

    Its memberships go later, piece by piece.
    """

    def remove(tx: "sa.Connection") -> None:
        _get_segment(tx, project_id, segment_id)
        users = find_field_usage(tx, project_id, f"segment.{segment_id}")
        named_by = [campaign.id for campaign in users.campaigns]
        campaigns = queries.list_active_campaigns(tx, project_id, segment_id, by_condition=named_by)
        if campaigns:
            raise Conflict(f"The segment is used by the campaign {campaigns[0]}, which is not over.")
        others = replace(users, campaigns=())
        if others:
            raise Conflict(f"The segment is used in a condition: {others.describe()}.")
        queries.discard_segment(tx, project_id, segment_id)

    await relay.db.write(remove)


async def list_contacts(relay: Relay, segment: Segment, page: PageOf) -> tuple[list[Contact], int]:
    """Return a page of the contacts in a segment, and how many there are: who fits now, or the members added by hand."""
    if segment.type == "STATIC":
        return await relay.db.scan(_list_members, segment, page)
    return await relay.db.scan(_list_matching, segment, page, now=relay.clock.now())


def _list_members(tx: "sa.Connection", segment: Segment, page: PageOf) -> tuple[list[Contact], int]:
    found = queries.list_members(tx, segment.project_id, segment.id, page)
    return found, queries.count_members(tx, segment.project_id, segment.id)


def _list_matching(tx: "sa.Connection", segment: Segment, page: PageOf, *, now: datetime) -> tuple[list[Contact], int]:
    test = _compile(tx, segment, now)
    matching = queries.count_matching(tx, segment.project_id, test)
    among = count_contacts(tx, segment.project_id, ContactFilter())
    found = queries.list_matching(tx, segment.project_id, test, page, matching=matching, among=among)
    return found, matching


@dataclass(frozen=True, slots=True)
class Added:
    """What became of addresses that were to be members."""

    added: int
    """Contacts that are members now, whether they were before or not."""
    created: int
    not_found: list[str]
    """As they were sent."""


async def add_members(
    relay: Relay, segment: Segment, emails: Sequence[str], *, create_missing: bool, subscribed: bool
) -> Added:
    """Make contacts members of a STATIC segment; raises BadRequest for another. No event tells of it.

    With `create_missing` an address that is valid and no contact becomes one. Existing subscriptions stay as they are.
    """
    _check_static(segment)
    now = relay.clock.now()

    def store(tx: "sa.Connection") -> Added:
        present = _get_segment(tx, segment.project_id, segment.id)
        wanted = {email: normalize_address(email) for email in emails}
        known = find_contacts_by_email(tx, segment.project_id, sorted(set(wanted.values())))
        missing = sorted({one for one in wanted.values() if one not in known and check_address(one) is None})
        created = []
        if create_missing:
            changes = [(segment.project_id, ContactChange(one, subscribed_if_new=subscribed)) for one in missing]
            created = [contact for contact, _ in upsert_contacts(tx, changes, now=now)]
        members = {contact.email: contact for contact in (*known.values(), *created)}
        ids = sorted(contact.id for contact in members.values())
        queries.add_to_count(tx, present, len(queries.find_strangers(tx, present, ids)))
        queries.enter(tx, present, ids, now=now)
        return Added(len(members), len(created), [email for email, key in wanted.items() if key not in members])

    return await relay.db.write(store)


async def remove_members(relay: Relay, segment: Segment, emails: Sequence[str]) -> int:
    """End memberships of a STATIC segment and return how many; raises BadRequest for another segment."""
    _check_static(segment)
    now = relay.clock.now()

    def store(tx: "sa.Connection") -> int:
        present = _get_segment(tx, segment.project_id, segment.id)
        known = find_contacts_by_email(tx, segment.project_id, sorted({normalize_address(email) for email in emails}))
        left = queries.leave(tx, present, [contact.id for contact in known.values()], now=now)
        queries.add_to_count(tx, present, -len(left))
        return len(left)

    return await relay.db.write(store)


def _check_static(segment: Segment) -> None:
    if segment.type != "STATIC":
        raise BadRequest("Only a STATIC segment has members that are added and removed by hand.")


@dataclass(frozen=True, slots=True)
class Computed:
    """What a computation changed."""

    added: int
    removed: int
    total: int


async def compute_members(relay: Relay, segment: Segment) -> Computed:
    """Bring the members of a tracked segment in line with its condition; each change is an event.

    Raises BadRequest for a segment that is not tracked, and for a condition that refers to what is gone; NotFound when
    the segment goes meanwhile, Unavailable when the relay stops.
    """
    if not segment.track_membership:
        raise BadRequest(_NOT_TRACKED)
    added = removed = 0
    if segment.type == "DYNAMIC":
        async for present, difference in _find_differences(relay, segment):
            entered, left = await relay.db.write(settle_members, present, difference, now=relay.clock.now())
            added, removed = added + entered, removed + left
    if added or removed:
        relay.wakes.events.set()
    total = await _recount(relay, segment, _count_members)
    return Computed(added, removed, total)


async def _find_differences(relay: Relay, segment: Segment) -> AsyncIterator[tuple[Segment, Difference]]:
    """Yield who is to enter or leave a segment, few at a time, and the segment as it was compared with them."""
    after = ""
    while compared := await relay.db.scan(_compare, segment, after, now=relay.clock.now()):
        present, difference, after = compared
        for start in range(0, difference.longest, _WRITTEN_AT_ONCE):
            if relay.stopping.is_set():
                raise Unavailable("The relay is stopping.")
            yield present, difference.piece(start, start + _WRITTEN_AT_ONCE)
            await asyncio.sleep(0)


def _compare(tx: "sa.Connection", segment: Segment, after: str, *, now: datetime) -> tuple[Segment, Difference, str] | None:
    """Compare the next contacts behind an id; return up to which; None: there are none."""
    present = _get_tracked(tx, segment)
    stretch = find_stretch(tx, segment.project_id, after, limit=_COMPARED_AT_ONCE)
    if stretch is None:
        return None
    test = _compile(tx, present, now, among="few")
    return present, queries.find_difference(tx, segment.id, test, stretch), stretch.upto


def settle_members(tx: "sa.Connection", segment: Segment, difference: Difference, *, now: datetime) -> tuple[int, int]:
    """Let contacts in and out, with events, unless the condition was changed meanwhile; return how many came and went."""
    present = _get_tracked(tx, segment)
    if present.condition != segment.condition:
        return 0, 0
    entering = queries.find_strangers(tx, present, difference.entering)
    queries.enter(tx, present, entering, now=now)
    leaving = queries.leave(tx, present, difference.leaving, now=now)
    record_events(tx, _membership_events(present, "entry", entering, now))
    record_events(tx, _membership_events(present, "exit", leaving, now))
    return len(entering), len(leaving)


def _get_tracked(tx: "sa.Connection", segment: Segment) -> Segment:
    present = _get_segment(tx, segment.project_id, segment.id)
    if not present.track_membership:
        raise BadRequest(_NOT_TRACKED)
    return present


def _membership_events(segment: Segment, word: str, contact_ids: Sequence[str], now: datetime) -> list[NewEvent]:
    name = f"segment.{slug(segment.name) or segment.id}.{word}"
    data = {"segmentId": segment.id, "segmentName": segment.name}
    return [NewEvent(segment.project_id, name, contact_id, None, data, now) for contact_id in contact_ids]


def slug(name: str) -> str:
    """Return a segment's name as its events have it: `My VIPs!` is `my-vips`; empty when nothing of it remains."""
    kept = re.sub(r"[^A-Za-z0-9_\s-]", "", name.lower().strip())
    return re.sub(r"-+", "-", re.sub(r"\s+", "-", kept)).strip("-")


async def refresh_count(relay: Relay, segment: Segment) -> int:
    """Count who is in a segment, store the number and return it; nothing else changes."""
    return await _recount(relay, segment, _count_members if segment.type == "STATIC" else _count_matching)


async def _recount(relay: Relay, segment: Segment, count: Callable[["sa.Connection", Segment, datetime], int]) -> int:
    now = relay.clock.now()

    def read(tx: "sa.Connection") -> tuple[Segment, int]:
        present = _get_segment(tx, segment.project_id, segment.id)
        return present, count(tx, present, now)

    present, total = await relay.db.scan(read)
    await relay.db.write(queries.store_count, present, total, now=now)
    return total


def _count_members(tx: "sa.Connection", segment: Segment, now: datetime) -> int:
    return queries.count_members(tx, segment.project_id, segment.id)


def _count_matching(tx: "sa.Connection", segment: Segment, now: datetime) -> int:
    return queries.count_matching(tx, segment.project_id, _compile(tx, segment, now))


async def _count(relay: Relay, project_id: str, segment_id: str, condition: Condition) -> int:
    now = relay.clock.now()

    def count(tx: "sa.Connection") -> int:
        test = match(tx, project_id, condition, now=now, within=frozenset({segment_id}))
        return queries.count_matching(tx, project_id, test)

    return await relay.db.scan(count)


def _compile(tx: "sa.Connection", segment: Segment, now: datetime, *, among: Among = "all") -> "sa.ColumnElement[bool]":
    condition = check_condition(segment.condition)
    return match(tx, segment.project_id, condition, now=now, within=frozenset({segment.id}), among=among)
