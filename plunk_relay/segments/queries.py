"""What segments are stored, and who is in them? Members are rows; who fits a condition is asked of the contacts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.contacts.queries import COLUMNS, Contact, Stretch
from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import listed, unindexed, upsert
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import campaigns, contacts, projects, segment_memberships, segments
from plunk_relay.db.types import Time

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
    enabled = sa.select(projects.c.id).where(projects.c.disabled.is_(False))
    found = _SELECT.where(due, segments.c.project_id.in_(enabled)).order_by(segments.c.counted_at).limit(1)
    row = tx.execute(found).one_or_none()
    return Segment(*row) if row else None


def insert_segment(tx: sa.Connection, segment: Segment) -> None:
    """Store a new segment."""
    tx.execute(sa.insert(segments), {name: getattr(segment, name) for name in _NAMES})


def update_segment(tx: sa.Connection, project_id: str, segment_id: str, values: dict[str, Any]) -> bool:
    """Set columns of a segment; False when the project has no such segment."""
    return tx.execute(sa.update(segments).where(_is(project_id, segment_id)).values(values)).rowcount == 1


def delete_segment(tx: sa.Connection, project_id: str, segment_id: str) -> bool:
    """Remove a segment and its memberships; False when the project has no such segment."""
    return tx.execute(sa.delete(segments).where(_is(project_id, segment_id))).rowcount == 1


def list_active_campaigns(tx: sa.Connection, project_id: str, segment_id: str) -> list[str]:
    """Return the names of campaigns that wait for a segment or are being sent to it."""
    named = (campaigns.c.project_id == project_id) & (campaigns.c.segment_id == segment_id)
    found = sa.select(campaigns.c.name).where(named, campaigns.c.status.in_(_ACTIVE_CAMPAIGNS))
    return list(tx.execute(found.order_by(campaigns.c.created_at)).scalars())


def list_conditions(tx: sa.Connection, project_id: str) -> dict[str, Any]:
    """Return the stored conditions of a project's segments by id; None for static ones."""
    found = sa.select(segments.c.id, segments.c.condition).where(segments.c.project_id == project_id)
    return {row[0]: row[1] for row in tx.execute(found)}


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
    created = contacts.c.created_at if matching * _RARE > among else unindexed(contacts.c.created_at)
    found = sa.select(*COLUMNS).where(contacts.c.project_id == project_id, test)
    ordered = found.order_by(created.desc(), contacts.c.id.desc()).limit(page.size).offset(page.offset)
    return [Contact(*row) for row in tx.execute(ordered)]


def count_members(tx: sa.Connection, segment_id: str) -> int:
    """Count the present members."""
    return tx.execute(sa.select(sa.func.count()).where(_is_inside(segment_id))).scalar_one()


def list_members(tx: sa.Connection, project_id: str, segment_id: str, page: PageOf) -> list[Contact]:
    """Return the present members, who came last first."""
    joined = segment_memberships.join(contacts, contacts.c.id == segment_memberships.c.contact_id)
    found = sa.select(*COLUMNS).select_from(joined).where(_is_inside(segment_id), contacts.c.project_id == project_id)
    newest = (segment_memberships.c.entered_at.desc(), contacts.c.id.desc())
    return [Contact(*row) for row in tx.execute(found.order_by(*newest).limit(page.size).offset(page.offset))]


_ENTER = Prepared(upsert(segment_memberships, ["segment_id", "contact_id"], ["entered_at", "exited_at"]))


def enter(tx: sa.Connection, segment_id: str, contact_ids: Sequence[str], *, now: datetime) -> None:
    """Make contacts members from now on, whether they are already or were before."""
    rows = [{"segment_id": segment_id, "contact_id": one, "entered_at": now, "exited_at": None} for one in contact_ids]
    _ENTER.run_many(tx, rows)


def leave(tx: sa.Connection, segment_id: str, contact_ids: Sequence[str], *, now: datetime) -> list[str]:
    """End the memberships of contacts; return those who were members."""
    inside = _is_inside(segment_id) & segment_memberships.c.contact_id.in_(listed("contact_ids"))
    ending = sa.update(segment_memberships).where(inside).values(exited_at=now)
    ended = ending.returning(segment_memberships.c.contact_id)
    return list(tx.execute(ended, {"contact_ids": dump_json(list(contact_ids))}).scalars())


def find_strangers(tx: sa.Connection, project_id: str, segment_id: str, contact_ids: Sequence[str]) -> list[str]:
    """Return which of these are contacts of the project and no members."""
    there = (contacts.c.project_id == project_id) & contacts.c.id.in_(listed("contact_ids"))
    found = sa.select(contacts.c.id).where(there, ~_has_membership(segment_id)).order_by(contacts.c.id)
    return list(tx.execute(found, {"contact_ids": dump_json(list(contact_ids))}).scalars())


@dataclass(frozen=True, slots=True)
class Difference:
    """Who of a stretch of contacts fits and is no member, and who is a member and does not fit."""

    entering: list[str]
    leaving: list[str]


def find_difference(tx: sa.Connection, segment_id: str, test: Test, stretch: Stretch) -> Difference:
    """Compare members with the condition, for a stretch of contacts."""
    inside = stretch.where()
    fits, is_member = sa.func.coalesce(test, sa.false()), _has_membership(segment_id)
    ids = sa.select(contacts.c.id).where(inside).order_by(contacts.c.id)
    entering = tx.execute(ids.where(fits, ~is_member)).scalars().all()
    leaving = tx.execute(ids.where(is_member, sa.not_(fits))).scalars().all()
    return Difference(list(entering), list(leaving))


def _has_membership(segment_id: str) -> Test:
    return sa.exists(
        sa.select(1).where(_is_inside(segment_id), segment_memberships.c.contact_id == contacts.c.id).correlate(contacts)
    )


def _is_inside(segment_id: str) -> Test:
    return (segment_memberships.c.segment_id == segment_id) & segment_memberships.c.exited_at.is_(None)


def _is(project_id: str, segment_id: str) -> Test:
    return (segments.c.project_id == project_id) & (segments.c.id == segment_id)
