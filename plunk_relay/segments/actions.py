"""What happens to segments? Made, changed, counted; members added and removed by hand, or computed with their events.

Who fits is asked of a reader, however many contacts there are; what is written goes in units of a few hundred rows. A
membership is looked at again in the unit that changes it, so that two computations at once tell no entry twice.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.conditions import Condition, check_condition, list_segment_ids
from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.queries import (
    Contact,
    ContactFilter,
    Stretch,
    count_contacts,
    find_contacts_by_email,
    find_stretch,
)
from plunk_relay.errors import BadRequest, Conflict, NotFound
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.mail.address import check_address, normalize_address
from plunk_relay.relay import Relay
from plunk_relay.segments import queries
from plunk_relay.segments.filters import match
from plunk_relay.segments.queries import PageOf, Segment, SegmentType
from plunk_relay.usage.queries import find_field_usage

if TYPE_CHECKING:
    import sqlalchemy as sa

_COMPARED_AT_ONCE = 20_000
_WRITTEN_AT_ONCE = 200


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
        new.condition,
        new.track_membership,
        members,
        now,
        now,
    )
    await relay.db.write(_store_new, segment)
    return segment


def _store_new(tx: "sa.Connection", segment: Segment) -> None:
    _check_references(tx, segment)
    queries.insert_segment(tx, segment)


async def get_segment(relay: Relay, project_id: str, segment_id: str) -> Segment:
    """Return a segment; raises NotFound."""
    found = await relay.db.read(queries.find_segment, project_id, segment_id)
    if found is None:
        raise NotFound.of("Segment", segment_id)
    return found


async def update_segment(relay: Relay, project_id: str, segment_id: str, changes: Mapping[str, Any]) -> Segment:
    """Set name, description, condition or tracking; a new condition is counted. The condition of a STATIC one is ignored.

    Memberships stay as they are until the next computation, also while they are not tracked. Raises NotFound,
    BadRequest for a condition that is wrong, or leads back to the segment.
    """
    before = await get_segment(relay, project_id, segment_id)
    values = {name: value for name, value in changes.items() if name != "condition" or before.type == "DYNAMIC"}
    if "condition" in values:
        if not isinstance(values["condition"], dict):
            raise BadRequest("condition must be an object with `logic` and `groups`.")
        condition = check_condition(values["condition"])
        values["member_count"] = await _count(relay, project_id, segment_id, condition)
    values["updated_at"] = relay.clock.now()

    def store(tx: "sa.Connection") -> Segment:
        present = queries.find_segment(tx, project_id, segment_id)
        if present is None:
            raise NotFound.of("Segment", segment_id)
        after = replace(present, **values)
        if "condition" in values:
            _check_references(tx, after)
        queries.update_segment(tx, project_id, segment_id, values)
        return after

    return await relay.db.write(store)


def _check_references(tx: "sa.Connection", segment: Segment) -> None:
    """Raise BadRequest when a condition names a segment that is not there, or leads back to its own."""
    conditions = queries.list_conditions(tx, segment.project_id) | {segment.id: segment.condition}
    seen: set[str] = set()
    waiting = _referred(segment.condition)
    while waiting:
        one = waiting.pop()
        if one == segment.id:
            raise BadRequest("The condition leads back to this segment: a segment cannot depend on itself.")
        if one not in conditions:
            raise BadRequest(f"The condition names the segment {one}, which this project does not have.")
        if one not in seen:
            seen.add(one)
            waiting |= _referred(conditions[one])


def _referred(condition: Any) -> set[str]:
    return set() if condition is None else list_segment_ids(check_condition(condition))


async def delete_segment(relay: Relay, project_id: str, segment_id: str) -> None:
    """Remove a segment; raises NotFound, and Conflict while a campaign or another segment needs it."""

    def remove(tx: "sa.Connection") -> None:
        if queries.find_segment(tx, project_id, segment_id) is None:
            raise NotFound.of("Segment", segment_id)
        campaigns = queries.list_active_campaigns(tx, project_id, segment_id)
        if campaigns:
            raise Conflict(f"The segment is used by the campaign {campaigns[0]}, which is not over.")
        users = find_field_usage(tx, project_id, f"segment.{segment_id}").segments
        if users:
            raise Conflict(f"The segment is used by the condition of the segment {users[0].name}.")
        queries.delete_segment(tx, project_id, segment_id)

    await relay.db.write(remove)


async def list_contacts(relay: Relay, segment: Segment, page: PageOf) -> tuple[list[Contact], int]:
    """Return a page of the contacts in a segment, and how many there are: who fits now, or the members added by hand."""
    if segment.type == "STATIC":
        total = await relay.db.read(queries.count_members, segment.id)
        return await relay.db.read(queries.list_members, segment.project_id, segment.id, page), total
    return await relay.db.scan(_list_matching, segment, page, now=relay.clock.now())


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
        wanted = {email: normalize_address(email) for email in emails}
        known = find_contacts_by_email(tx, segment.project_id, sorted(set(wanted.values())))
        missing = sorted({one for one in wanted.values() if one not in known and check_address(one) is None})
        created = []
        if create_missing:
            changes = [(segment.project_id, ContactChange(one, subscribed_if_new=subscribed)) for one in missing]
            created = [contact for contact, _ in upsert_contacts(tx, changes, now=now)]
        members = {contact.email: contact for contact in (*known.values(), *created)}
        queries.enter(tx, segment.id, sorted(contact.id for contact in members.values()), now=now)
        _store_count(tx, segment, queries.count_members(tx, segment.id), now)
        return Added(len(members), len(created), [email for email, key in wanted.items() if key not in members])

    return await relay.db.write(store)


async def remove_members(relay: Relay, segment: Segment, emails: Sequence[str]) -> int:
    """End memberships of a STATIC segment and return how many; raises BadRequest for another segment."""
    _check_static(segment)
    now = relay.clock.now()

    def store(tx: "sa.Connection") -> int:
        known = find_contacts_by_email(tx, segment.project_id, sorted({normalize_address(email) for email in emails}))
        left = queries.leave(tx, segment.id, [contact.id for contact in known.values()], now=now)
        _store_count(tx, segment, queries.count_members(tx, segment.id), now)
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

    Raises BadRequest for a segment that is not tracked, and for a condition that refers to what is gone.
    """
    if not segment.track_membership:
        raise BadRequest("The segment does not track its members: set trackMembership to true first.")
    added = removed = 0
    if segment.type == "DYNAMIC":
        after = ""
        while stretch := await relay.db.scan(find_stretch, segment.project_id, after, limit=_COMPARED_AT_ONCE):
            difference = await relay.db.scan(_compare, segment, stretch, now=relay.clock.now())
            added += await _write_changes(relay, _let_in, segment, difference.entering)
            removed += await _write_changes(relay, _let_out, segment, difference.leaving)
            after = stretch.upto
    total = await relay.db.read(queries.count_members, segment.id)
    await relay.db.write(_store_count, segment, total, relay.clock.now())
    return Computed(added, removed, total)


def _compare(tx: "sa.Connection", segment: Segment, stretch: Stretch, *, now: datetime) -> queries.Difference:
    return queries.find_difference(tx, segment.id, _compile(tx, segment, now), stretch)


async def _write_changes(relay: Relay, change: Any, segment: Segment, contact_ids: Sequence[str]) -> int:
    changed = 0
    for start in range(0, len(contact_ids), _WRITTEN_AT_ONCE):
        some = contact_ids[start : start + _WRITTEN_AT_ONCE]
        changed += await relay.db.write(change, segment, some, now=relay.clock.now())
        await asyncio.sleep(0)
    return changed


def _let_in(tx: "sa.Connection", segment: Segment, contact_ids: Sequence[str], *, now: datetime) -> int:
    entering = queries.find_strangers(tx, segment.project_id, segment.id, contact_ids)
    queries.enter(tx, segment.id, entering, now=now)
    record_events(tx, _membership_events(segment, "entry", entering, now))
    return len(entering)


def _let_out(tx: "sa.Connection", segment: Segment, contact_ids: Sequence[str], *, now: datetime) -> int:
    leaving = queries.leave(tx, segment.id, contact_ids, now=now)
    record_events(tx, _membership_events(segment, "exit", leaving, now))
    return len(leaving)


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
    if segment.type == "STATIC" or segment.condition is None:
        total = await relay.db.read(queries.count_members, segment.id)
    else:
        total = await _count(relay, segment.project_id, segment.id, check_condition(segment.condition))
    await relay.db.write(_store_count, segment, total, relay.clock.now())
    return total


async def _count(relay: Relay, project_id: str, segment_id: str, condition: Condition) -> int:
    now = relay.clock.now()

    def count(tx: "sa.Connection") -> int:
        test = match(tx, project_id, condition, now=now, within=frozenset({segment_id}))
        return queries.count_matching(tx, project_id, test)

    return await relay.db.scan(count)


def _compile(tx: "sa.Connection", segment: Segment, now: datetime) -> "sa.ColumnElement[bool]":
    condition = check_condition(segment.condition)
    return match(tx, segment.project_id, condition, now=now, within=frozenset({segment.id}))


def _store_count(tx: "sa.Connection", segment: Segment, total: int, now: datetime) -> None:
    queries.update_segment(tx, segment.project_id, segment.id, {"member_count": total, "counted_at": now})
