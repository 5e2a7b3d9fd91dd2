"""What does the queue hold that fits a filter, and how is it changed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.tables import deliveries, emails


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which deliveries; what is None does not matter."""

    deliveries: Sequence[str] | None = None
    """Their own ids, or those of their mails."""
    project_id: str | None = None
    domain: str | None = None
    status: str | None = None
    created_before: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A delivery with what people know it by."""

    id: str
    email_id: str
    project_id: str
    state: str
    sender: str
    recipient: str
    attempts: int
    unknown_outcomes: int
    last_reply: str | None
    due_at: datetime
    created_at: datetime
    finished_at: datetime | None
    subject: str
    status: str


_NAMES = tuple(Entry.__dataclass_fields__)
_SELECT = sa.select(*(deliveries.c[name] for name in _NAMES[:12]), emails.c.subject, emails.c.status).select_from(
    deliveries.join(emails, emails.c.id == deliveries.c.email_id)
)
_FREE = deliveries.c.lease_owner.is_(None)


def list_entries(tx: sa.Connection, chosen: QueueFilter) -> list[Entry]:
    """Return deliveries that fit, newest first."""
    found = _SELECT.where(*_conditions(chosen)).order_by(deliveries.c.id.desc()).limit(chosen.limit)
    return [_entry(row) for row in tx.execute(found)]


def find_entry(tx: sa.Connection, delivery_id: str) -> Entry | None:
    """Look a delivery up by its own id or the mail's."""
    where = (deliveries.c.id == delivery_id) | (deliveries.c.email_id == delivery_id)
    row = tx.execute(_SELECT.where(where)).one_or_none()
    return _entry(row) if row else None


def retry(tx: sa.Connection, chosen: QueueFilter, *, now: datetime) -> int:
    """Make queued deliveries due now; those in a worker's hands are left alone."""
    where = [deliveries.c.state == "QUEUED", _FREE, *_conditions(chosen)]
    return tx.execute(sa.update(deliveries).where(*where).values(due_at=now)).rowcount


def hold(tx: sa.Connection, chosen: QueueFilter, *, now: datetime) -> int:
    """Put queued deliveries on HELD."""
    del now
    where = [deliveries.c.state == "QUEUED", _FREE, *_conditions(chosen)]
    return tx.execute(sa.update(deliveries).where(*where).values(state="HELD")).rowcount


def release(tx: sa.Connection, chosen: QueueFilter, *, now: datetime) -> int:
    """Put held deliveries back into the queue, due now."""
    where = [deliveries.c.state == "HELD", *_conditions(chosen)]
    return tx.execute(sa.update(deliveries).where(*where).values(state="QUEUED", due_at=now)).rowcount


def cancel(tx: sa.Connection, chosen: QueueFilter, *, now: datetime) -> int:
    """Give up queued and held deliveries; what is in a worker's hands is too late to cancel."""
    where = [deliveries.c.state.in_(["QUEUED", "HELD"]), _FREE, *_conditions(chosen)]
    mails = sa.select(deliveries.c.email_id).where(*where)
    failed = {"status": "FAILED", "error": "Cancelled by the operator", "updated_at": now}
    tx.execute(sa.update(emails).where(emails.c.id.in_(mails)).values(failed))
    return tx.execute(sa.update(deliveries).where(*where).values(state="CANCELLED", finished_at=now)).rowcount


def read_stats(tx: sa.Connection, *, now: datetime) -> dict[str, Any]:
    """Count deliveries by state, the busiest queued domains, and the age of the oldest queued one in seconds."""
    states = sa.select(deliveries.c.state, sa.func.count()).group_by(deliveries.c.state)
    queued = deliveries.c.state == "QUEUED"
    count = sa.func.count().label("count")
    busiest = sa.select(deliveries.c.domain, count).where(queued).group_by(deliveries.c.domain).order_by(count.desc())
    oldest = tx.execute(sa.select(sa.func.min(deliveries.c.id)).where(queued)).scalar_one_or_none()
    created = sa.select(deliveries.c.created_at).where(deliveries.c.id == oldest)
    since = tx.execute(created).scalar_one_or_none()
    return {
        "states": {state.lower(): number for state, number in tx.execute(states)},
        "domains": {row[0]: row[1] for row in tx.execute(busiest.limit(20))},
        "oldest_queued_seconds": int((now - since).total_seconds()) if since else None,
    }


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(*row)


def _conditions(chosen: QueueFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.deliveries is not None:
        either = list(chosen.deliveries)
        conditions.append(deliveries.c.id.in_(either) | deliveries.c.email_id.in_(either))
    if chosen.project_id is not None:
        conditions.append(deliveries.c.project_id == chosen.project_id)
    if chosen.domain is not None:
        conditions.append(deliveries.c.domain == chosen.domain.lower())
    if chosen.status is not None:
        conditions.append(deliveries.c.state == chosen.status.upper())
    if chosen.created_before is not None:
        conditions.append(deliveries.c.created_at < chosen.created_before)
    return conditions
