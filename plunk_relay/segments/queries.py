"""What segments are stored, and who is in them? Members are rows; who fits a condition is asked of the contacts.

A segment that was deleted belongs to the relay's own project, where nobody sees it, until its memberships are gone: they
may be a million, and the writer has mail to store meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.contacts.queries import COLUMNS, Contact, Stretch, find_contacts
from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import listed, unindexed, upsert
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import campaigns, contacts, projects, segment_memberships, segments
from plunk_relay.db.types import Time
from plunk_relay.projects.queries import RELAY_PROJECT_ID

SegmentType = Literal["DYNAMIC", "STATIC"]
Test = sa.ColumnElement[bool]
_ACTIVE_CAMPAIGNS = ("DRAFT", "SCHEDULED", "SENDING")
_RARE = 100


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment. Nullable columns are None; see db/tables.py."""

    id: str
    project_id: str
    name: str
    description: str | None
    type: SegmentType
    condition: dict[str, Any] | None
    track_membership: bool
    member_count: int
    created_at: datetime
    updated_at: datetime


_NAMES = tuple(Segment.__dataclass_fields__)
_SELECT = sa.select(*(segments.c[name] for name in _NAMES))


def list_segments(tx: sa.Connection, project_id: str) -> list[Segment]:
    """Return a project's segments, newest first."""
    newest = (segments.c.created_at.desc(), segments.c.id.desc())
    return [Segment(*row) for row in tx.execute(_SELECT.where(segments.c.project_id == project_id).order_by(*newest))]


def find_segment(tx: sa.Connection, project_id: str, segment_id: str) -> Segment | None:
    """Look a segment up by id, inside the project."""
    row = tx.execute(_SELECT.where(_is(project_id, segment_id))).one_or_none()
    return Segment(*row) if row else None


def find_stale(tx: sa.Connection, *, counted_before: datetime) -> Segment | None:
    """Return the segment of an enabled project that was counted longest ago; None when all were since."""
    due = segments.c.counted_at.is_(None) | (segments.c.counted_at < sa.literal(counted_before, Time))
    enabled = sa.exists().where(projects.c.id == segments.c.project_id, projects.c.disabled.is_(False))
    oldest = _SELECT.where(due, enabled, segments.c.project_id != RELAY_PROJECT_ID)
    row = tx.execute(oldest.order_by(segments.c.counted_at.nulls_first()).limit(1)).one_or_none()
    return Segment(*row) if row else None


def insert_segment(tx: sa.Connection, segment: Segment, *, counted_at: datetime | None) -> None:
    """Store a new segment; `counted_at` None: its turn comes next."""
    tx.execute(sa.insert(segments), {name: getattr(segment, name) for name in _NAMES} | {"counted_at": counted_at})


def update_segment(tx: sa.Connection, project_id: str, segment_id: str, values: dict[str, Any]) -> bool:
    """Set columns of a segment; False when the project has no such segment."""
    return tx.execute(sa.update(segments).where(_is(project_id, segment_id)).values(values)).rowcount == 1


def store_count(tx: sa.Connection, counted: Segment, total: int, *, now: datetime) -> None:
    """Store how many are in a segment, unless it was changed, or counted, since it was read."""
    updated = sa.literal(counted.updated_at, Time)
    as_read = (segments.c.member_count == counted.member_count) & (segments.c.updated_at == updated)
    count = sa.case((as_read, total), else_=segments.c.member_count)
    update_segment(tx, counted.project_id, counted.id, {"member_count": count, "counted_at": now})


def add_to_count(tx: sa.Connection, segment: Segment, more: int) -> None:
    """Add to the number of members: counting a million of them takes the writer too long."""
    update_segment(tx, segment.project_id, segment.id, {"member_count": segments.c.member_count + more})


def discard_segment(tx: sa.Connection, project_id: str, segment_id: str) -> None:
    """Take a segment away from its project and from the campaigns that are over."""
    of_campaigns = (campaigns.c.project_id == project_id) & (campaigns.c.segment_id == segment_id)
    tx.execute(sa.update(campaigns).where(of_campaigns).values(segment_id=None))
    update_segment(tx, project_id, segment_id, {"project_id": RELAY_PROJECT_ID})


def delete_discarded(tx: sa.Connection, *, limit: int) -> bool:
    """Remove up to `limit` memberships of a discarded segment, and the segment behind the last; False: there is none."""
    discarded = sa.select(segments.c.id).where(segments.c.project_id == RELAY_PROJECT_ID).limit(1)
    segment_id = tx.execute(discarded).scalar_one_or_none()
    if segment_id is None:
        return False
    of_segment = segment_memberships.c.segment_id == segment_id
    some = sa.select(segment_memberships.c.contact_id).where(of_segment).limit(limit)
    removing = sa.delete(segment_memberships).where(of_segment, segment_memberships.c.contact_id.in_(some))
    if tx.execute(removing).rowcount < limit:
        tx.execute(sa.delete(segments).where(_is(RELAY_PROJECT_ID, segment_id)))
    return True


def list_active_campaigns(tx: sa.Connection, project_id: str, segment_id: str, *, by_condition: Sequence[str]) -> list[str]:
    """Return the names of campaigns that wait for a segment, or are being sent to it; those of a list name it otherwise."""
    named = (campaigns.c.segment_id == segment_id) | campaigns.c.id.in_(by_condition)
    active = campaigns.c.status.in_(_ACTIVE_CAMPAIGNS)
    found = sa.select(campaigns.c.name).where(campaigns.c.project_id == project_id, named, active)
    return list(tx.execute(found.order_by(campaigns.c.created_at)).scalars())


def count_matching(tx: sa.Connection, project_id: str, test: Test) -> int:
    """Count the contacts that fit."""
    counting = sa.select(sa.func.count()).select_from(contacts)
    return tx.execute(counting.where(contacts.c.project_id == project_id, test)).scalar_one()


@dataclass(frozen=True, slots=True)
class PageOf:
    """Which page of a list."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        """How many items stand before it."""
        return (self.number - 1) * self.size


def list_matching(
    tx: sa.Connection, project_id: str, test: Test, page: PageOf, *, matching: int, among: int
) -> list[Contact]:
    """Return contacts that fit, newest first; `matching` of `among` contacts do.

    Where many fit, a walk in that order finds a page soon; where few do, they are found first and sorted then.
    """
    if page.offset >= matching:
        return []
    created = contacts.c.created_at if matching * _RARE > among else unindexed(contacts.c.created_at)
    found = sa.select(*COLUMNS).where(contacts.c.project_id == project_id, test)
    ordered = found.order_by(created.desc(), contacts.c.id.desc()).limit(page.size).offset(page.offset)
    return [Contact(*row) for row in tx.execute(ordered)]


def count_members(tx: sa.Connection, project_id: str, segment_id: str) -> int:
    """Count the present members."""
    return tx.execute(sa.select(sa.func.count()).where(_is_inside(project_id, segment_id))).scalar_one()


def list_members(tx: sa.Connection, project_id: str, segment_id: str, page: PageOf) -> list[Contact]:
    """Return the present members, who came last first."""
    newest = (segment_memberships.c.entered_at.desc(), segment_memberships.c.contact_id.desc())
    chosen = sa.select(segment_memberships.c.contact_id).where(_is_inside(project_id, segment_id)).order_by(*newest)
    ids = tx.execute(chosen.limit(page.size).offset(page.offset)).scalars().all()
    found = {contact.id: contact for contact in find_contacts(tx, project_id, ids)}
    return [found[one] for one in ids if one in found]


_ENTER = Prepared(upsert(segment_memberships, ["segment_id", "contact_id"], ["entered_at", "exited_at"]))


def enter(tx: sa.Connection, segment: Segment, contact_ids: Sequence[str], *, now: datetime) -> None:
    """Make contacts members from now on, whether they are already or were before."""
    rows = [{"segment_id": segment.id, "contact_id": one, "entered_at": now, "exited_at": None} for one in contact_ids]
    _ENTER.run_many(tx, rows)


def leave(tx: sa.Connection, segment: Segment, contact_ids: Sequence[str], *, now: datetime) -> list[str]:
    """End the memberships of contacts; return those who were members."""
    if not contact_ids:
        return []
    inside = _is_inside(segment.project_id, segment.id) & segment_memberships.c.contact_id.in_(listed("contact_ids"))
    ending = sa.update(segment_memberships).where(inside).values(exited_at=now)
    ended = ending.returning(segment_memberships.c.contact_id)
    return list(tx.execute(ended, {"contact_ids": dump_json(list(contact_ids))}).scalars())


def find_strangers(tx: sa.Connection, segment: Segment, contact_ids: Sequence[str]) -> list[str]:
    """Return which of these are contacts of the segment's project and no members."""
    if not contact_ids:
        return []
    there = (contacts.c.project_id == segment.project_id) & contacts.c.id.in_(listed("contact_ids"))
    found = sa.select(contacts.c.id).where(there, ~_has_membership(segment.id)).order_by(contacts.c.id)
    return list(tx.execute(found, {"contact_ids": dump_json(list(contact_ids))}).scalars())


@dataclass(frozen=True, slots=True)
class Difference:
    """Who fits and is no member, and who is a member and does not fit."""

    entering: list[str]
    leaving: list[str]

    @property
    def longest(self) -> int:
        """How many are in the longer list."""
        return max(len(self.entering), len(self.leaving))

    def piece(self, start: int, end: int) -> "Difference":
        """Return a part of both lists."""
        return Difference(self.entering[start:end], self.leaving[start:end])


def find_difference(tx: sa.Connection, segment_id: str, test: Test, stretch: Stretch) -> Difference:
    """Compare members with the condition, for a stretch of contacts."""
    fits, is_member = sa.func.coalesce(test, sa.false()), _has_membership(segment_id)
    differing = sa.select(contacts.c.id, is_member).where(stretch.where(), fits != is_member).order_by(contacts.c.id)
    found = tx.execute(differing).all()
    return Difference([row[0] for row in found if not row[1]], [row[0] for row in found if row[1]])


def _has_membership(segment_id: str) -> Test:
    of_contact = segment_memberships.c.contact_id == contacts.c.id
    present = (segment_memberships.c.segment_id == segment_id) & segment_memberships.c.exited_at.is_(None)
    return sa.exists(sa.select(1).where(present, of_contact).correlate(contacts))


def _is_inside(project_id: str, segment_id: str) -> Test:
    of_project = sa.select(segments.c.id).where(_is(project_id, segment_id)).scalar_subquery()
    return (segment_memberships.c.segment_id == of_project) & segment_memberships.c.exited_at.is_(None)


def _is(project_id: str, segment_id: str) -> Test:
    return (segments.c.project_id == project_id) & (segments.c.id == segment_id)
