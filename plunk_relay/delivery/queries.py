"""What does delivery store beside the queue? The mails' statuses, warm-up; and what does a notice need to know?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.portable import upsert
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import attempts, deliveries, emails, warmup_counts

_STATUS = Prepared(
    sa.update(emails)
    .where(emails.c.id == sa.bindparam("row_id"), (emails.c.status == "PENDING") | (emails.c.status == "SENDING"))
    .values(
        status=sa.bindparam("new_status"),
        error=sa.bindparam("new_error"),
        sent_at=sa.bindparam("sent"),
        delivered_at=sa.bindparam("delivered"),
        bounced_at=sa.bindparam("bounced"),
        updated_at=sa.bindparam("now"),
    )
)
_SNAPSHOT = Prepared(
    sa.update(emails)
    .where(emails.c.id == sa.bindparam("row_id"), emails.c.status == "SUPPRESSED")
    .values(suppression=sa.bindparam("snapshot"))
)


def update_statuses(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Move mails on from PENDING or SENDING; a mail that was opened meanwhile keeps its better status."""
    _STATUS.run_many(tx, rows)


def keep_snapshots(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Note with suppressed mails what held them."""
    if rows:
        _SNAPSHOT.run_many(tx, rows)


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """What the latest try to deliver came to."""

    started_at: datetime
    host: str | None
    reply: str
    rule: str | None


def find_last_attempt(tx: sa.Connection, delivery_id: str) -> LastAttempt | None:
    """Return a delivery's latest attempt, or None."""
    columns = [attempts.c[name] for name in LastAttempt.__dataclass_fields__]
    found = sa.select(*columns).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.id.desc()).limit(1)
    row = tx.execute(found).one_or_none()
    return LastAttempt(*row) if row else None


def mark_delay_notified(tx: sa.Connection, delivery_ids: list[str], *, now: datetime) -> None:
    """Note that the sender was told that these are late."""
    tx.execute(sa.update(deliveries).where(deliveries.c.id.in_(delivery_ids)).values(delay_notified_at=now))


def load_warmup_counts(tx: sa.Connection, *, day: str, first_use: str) -> list[tuple[str, str, str, int]]:
    """Return the counts of one day, and the days of first use: (source address, provider, day, sent)."""
    columns = [warmup_counts.c[name] for name in ("source_address", "provider", "day", "sent")]
    where = (warmup_counts.c.day == day) | (warmup_counts.c.provider == first_use)
    return [(row[0], row[1], row[2], row[3]) for row in tx.execute(sa.select(*columns).where(where))]


def store_warmup_counts(tx: sa.Connection, counts: Sequence[tuple[str, str, str, int]], *, first_use: str) -> None:
    """Write counts as they are now; those of earlier days go, the days of first use stay as they were."""
    save = upsert(warmup_counts, ["source_address", "provider", "day"], ["sent"])
    names = ("source_address", "provider", "day", "sent")
    tx.execute(save, [dict(zip(names, count, strict=True)) for count in counts])
    today = max(day for _, _, day, _ in counts)
    old = (warmup_counts.c.day < today) & (warmup_counts.c.provider != first_use)
    tx.execute(sa.delete(warmup_counts).where(old))
