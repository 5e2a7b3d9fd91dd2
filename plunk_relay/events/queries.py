"""What events are stored?

`processed_at` tells whether workflows have had an event. In a project without workflows nobody would ever take it, so it
counts as processed from the start; where it is null the row itself is the durable order to dispatch it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import listed, unindexed
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import contacts, events, workflows
from plunk_relay.ids import new_id


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record; `data` is its JSON payload or None."""

    project_id: str
    name: str
    contact_id: str | None
    email_id: str | None
    data: Any
    created_at: datetime


_INSERT = Prepared(sa.insert(events))
_listed_projects = listed("projects").subquery()
_WITH_WORKFLOWS = Prepared(
    sa.select(_listed_projects.c.value).where(sa.exists().where(workflows.c.project_id == _listed_projects.c.value))
)


def record_events(tx: sa.Connection, new: Sequence[NewEvent]) -> list[str]:
    """Store events in order and return their ids; workflows find them as rows not yet processed."""
    if not new:
        return []
    waiting = _find_projects_with_workflows(tx, {event.project_id for event in new})
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "project_id": event.project_id,
            "name": event.name,
            "contact_id": event.contact_id,
            "email_id": event.email_id,
            "data": event.data,
            "processed_at": None if event.project_id in waiting else event.created_at,
            "dispatch_attempts": 0,
            "created_at": event.created_at,
        }
        for event in new
    ]
    _INSERT.run_many(tx, rows)
    return [str(row["id"]) for row in rows]


def _find_projects_with_workflows(tx: sa.Connection, project_ids: set[str]) -> set[str]:
    return {row[0] for row in _WITH_WORKFLOWS.fetch(tx, {"projects": dump_json(list(project_ids))})}


@dataclass(frozen=True, slots=True)
class Event:
    """What the API shows of an event; how workflows got it is the relay's own business."""

    id: str
    name: str
    data: Any
    project_id: str
    contact_id: str | None
    email_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, both included; None leaves a side open."""

    start: datetime | None = None
    end: datetime | None = None


EVER = Span()


@dataclass(frozen=True, slots=True)
class NameCount:
    """How often a name was recorded."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class NameTotals:
    """How many events have a name, and how many contacts they are about."""

    events: int
    contacts: int


_COLUMNS = [events.c[name] for name in Event.__dataclass_fields__]
_NEWEST_FIRST = (events.c.created_at.desc(), events.c.id.desc())
_NEWEST_LOOKED_THROUGH = 20_000
_COUNT = sa.func.count().label("count")
MOST_NAMES = 1000
"""Names that are told; any page may invent new ones with the public key."""


def list_events(
    tx: sa.Connection, project_id: str, *, name: str | None = None, limit: int
) -> list[tuple[Event, str | None]]:
    """Return the newest events, or those of a name, with the address of the contact they are about."""
    if name is None:
        return _with_address(tx, events.c.project_id == project_id, limit)
    ids = _find_among_newest(tx, project_id, name, limit)
    if len(ids) < limit:
        ids = _find_all_named(tx, project_id, name, limit)
    return _with_address(tx, (unindexed(events.c.project_id) == project_id) & events.c.id.in_(ids), limit)


def list_contact_events(tx: sa.Connection, project_id: str, contact_id: str, *, limit: int) -> list[Event]:
    """Return the newest events about a contact; none when it is unknown."""
    where = (events.c.contact_id == contact_id) & (events.c.project_id == project_id)
    found = sa.select(*_COLUMNS).where(where).order_by(events.c.id.desc()).limit(limit)
    return [Event(*row) for row in tx.execute(found)]


def _with_address(tx: sa.Connection, where: sa.ColumnElement[bool], limit: int) -> list[tuple[Event, str | None]]:
    joined = events.outerjoin(
        contacts, (contacts.c.project_id == events.c.project_id) & (contacts.c.id == events.c.contact_id)
    )
    found = sa.select(*_COLUMNS, contacts.c.email).select_from(joined).where(where).order_by(*_NEWEST_FIRST).limit(limit)
    return [(Event(*row[:-1]), row[-1]) for row in tx.execute(found)]


def _find_among_newest(tx: sa.Connection, project_id: str, name: str, limit: int) -> list[str]:
    """Look through the newest events for those of a name: a frequent one is soon found, and nothing is sorted."""
    newest = (
        sa.select(events.c.id, events.c.name, events.c.created_at)
        .where(events.c.project_id == project_id)
        .order_by(*_NEWEST_FIRST)
        .limit(_NEWEST_LOOKED_THROUGH)
        .subquery()
    )
    found = sa.select(newest.c.id).where(newest.c.name == name)
    return list(tx.execute(found.order_by(newest.c.created_at.desc(), newest.c.id.desc()).limit(limit)).scalars())


def _find_all_named(tx: sa.Connection, project_id: str, name: str, limit: int) -> list[str]:
    """Look through all events of a name, in their index alone."""
    found = sa.select(events.c.id).where(events.c.project_id == project_id, events.c.name == name)
    newest = found.order_by(unindexed(events.c.created_at).desc(), events.c.id.desc())
    return list(tx.execute(newest.limit(limit)).scalars())


def count_up_to(tx: sa.Connection, project_id: str, most: int, *, span: Span = EVER, name: str | None = None) -> int:
    """Count the events of a time or a name, at most `most`."""
    first = sa.select(events.c.id).where(*_within(project_id, span))
    if name is not None:
        first = first.where(events.c.name == name)
    return tx.execute(sa.select(sa.func.count()).select_from(first.limit(most).subquery())).scalar_one()


def count_names_by_time(tx: sa.Connection, project_id: str, span: Span) -> list[NameCount]:
    """Count the events of each name, most frequent first; row by row, for a time that holds few."""
    name = unindexed(events.c.name)
    return _count_names(tx, sa.select(name.label("name"), _COUNT).where(*_within(project_id, span)).group_by(name))


def count_names(tx: sa.Connection, project_id: str, span: Span) -> list[NameCount]:
    """Do `count_names_by_time` through the whole index of names: 0.15 s for a million events, whatever the time."""
    moment = unindexed(events.c.created_at)
    return _count_names(
        tx, sa.select(events.c.name, _COUNT).where(*_within(project_id, span, moment)).group_by(events.c.name)
    )


def count_named(tx: sa.Connection, project_id: str, name: str) -> NameTotals:
    """Count the events of a name, and the contacts they are about; 0.2 s for a million."""
    counts = sa.select(sa.func.count(), sa.func.count(events.c.contact_id.distinct())).select_from(events)
    return NameTotals(*tx.execute(counts.where(events.c.project_id == project_id, events.c.name == name)).one())


def delete_named(tx: sa.Connection, project_id: str, name: str, *, until: datetime, limit: int) -> int:
    """Remove some events of a name that were recorded up to a moment; return how many."""
    mine = (events.c.project_id == project_id) & (events.c.name == name) & (unindexed(events.c.created_at) <= until)
    some = sa.select(events.c.id).where(mine).limit(limit)
    return tx.execute(sa.delete(events).where(events.c.id.in_(some))).rowcount


def _count_names(tx: sa.Connection, counts: sa.Select[Any]) -> list[NameCount]:
    most_frequent_first = counts.order_by(sa.desc("count"), sa.asc("name")).limit(MOST_NAMES)
    return [NameCount(*row) for row in tx.execute(most_frequent_first)]


def _within(
    project_id: str, span: Span, moment: sa.ColumnElement[datetime] = events.c.created_at
) -> list[sa.ColumnElement[bool]]:
    bounds = [events.c.project_id == project_id]
    bounds += [moment >= span.start] if span.start is not None else []
    return bounds + ([moment <= span.end] if span.end is not None else [])
