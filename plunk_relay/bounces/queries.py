"""Which delivery is a report about, and what does the report change?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.tables import attempts, contents, deliveries, emails
from plunk_relay.emails.queries import EMAIL_COLUMNS, Email

_MOST_SIBLINGS = 10_000  # the largest max_recipients of a message


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery that left, as far as a report needs it."""

    id: str
    recipient: str
    attempts: int
    complained_at: datetime | None
    kind: str | None
    """MIME: recipients of one message may have shared a transaction and its return address; None: content is gone."""
    email: Email


_SELECT = sa.select(
    deliveries.c.id,
    deliveries.c.recipient,
    deliveries.c.attempts,
    emails.c.complained_at,
    contents.c.kind,
    *(column.label(f"email_{column.name}") for column in EMAIL_COLUMNS),
).select_from(
    deliveries.join(emails, emails.c.id == deliveries.c.email_id).outerjoin(contents, contents.c.id == emails.c.content_id)
)


def find_sent(tx: sa.Connection, delivery_id: str) -> Sent | None:
    """Look a delivery up."""
    row = tx.execute(_SELECT.where(deliveries.c.id == delivery_id)).one_or_none()
    return _sent(row) if row else None


def find_author(tx: sa.Connection, delivery_id: str) -> str | None:
    """Return the From address of a delivery's mail, or None when there is no such delivery."""
    found = sa.select(emails.c.from_address).join(deliveries, deliveries.c.email_id == emails.c.id)
    return tx.execute(found.where(deliveries.c.id == delivery_id)).scalar_one_or_none()


def list_siblings(tx: sa.Connection, sent: Sent, domains: Sequence[str]) -> list[Sent]:
    """Return the deliveries of the same message to recipients at these domains (A-labels)."""
    where = (emails.c.content_id == sent.email.content_id) & deliveries.c.domain.in_(list(domains))
    return [_sent(row) for row in tx.execute(_SELECT.where(where).order_by(deliveries.c.id).limit(_MOST_SIBLINGS))]


def is_shared(tx: sa.Connection, sent: Sent) -> bool:
    """Tell whether the same message went to other recipients, too."""
    others = sa.select(emails.c.id).where(emails.c.content_id == sent.email.content_id).limit(2)
    return len(tx.execute(others).all()) > 1


def is_recorded(tx: sa.Connection, delivery_id: str, text: str) -> bool:
    """Tell whether a report with this text is there already."""
    where = (attempts.c.delivery_id == delivery_id) & (attempts.c.conversation == text) & (attempts.c.outcome == "BOUNCED")
    return tx.execute(sa.select(attempts.c.id).where(where).limit(1)).one_or_none() is not None


def insert_report(tx: sa.Connection, row: dict[str, Any]) -> None:
    """Keep what a report says with the attempts of its delivery."""
    tx.execute(sa.insert(attempts), row)


def mark_bounced(tx: sa.Connection, sent: Sent, *, error: str, now: datetime) -> None:
    """Set the mail's status, unless it has been complained about; and end a delivery that was to be tried again."""
    status = sa.case((emails.c.status == "COMPLAINED", emails.c.status), else_="BOUNCED")
    values = {"status": status, "error": error, "bounced_at": sa.func.coalesce(emails.c.bounced_at, _moment(now))}
    tx.execute(sa.update(emails).where(emails.c.id == sent.email.id).values(**values, updated_at=now))
    _end(tx, sent, "BOUNCED", now=now)


def mark_complained(tx: sa.Connection, sent: Sent, *, now: datetime) -> None:
    """Set the mail's status; who complains has got it, so that it is not tried again."""
    values = {"status": "COMPLAINED", "complained_at": now, "updated_at": now}
    tx.execute(sa.update(emails).where(emails.c.id == sent.email.id).values(values))
    _end(tx, sent, "DELIVERED", now=now)


def _end(tx: sa.Connection, sent: Sent, state: str, *, now: datetime) -> None:
    """Finish a delivery whose outcome was unknown until now; the result of an attempt under way is then passed over."""
    waiting = (deliveries.c.id == sent.id) & deliveries.c.state.in_(["QUEUED", "HELD"])
    values = {"state": state, "finished_at": now, "lease_owner": None}
    tx.execute(sa.update(deliveries).where(waiting).values(values))


def _moment(now: datetime) -> sa.BindParameter[datetime]:
    return sa.literal(now, emails.c.bounced_at.type)


def _sent(row: Sequence[Any]) -> Sent:
    values: list[Any] = [*row[:5], Email(*row[5:])]
    return Sent(*values)
