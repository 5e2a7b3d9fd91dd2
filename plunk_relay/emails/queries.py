"""What mails are stored?"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import attempts, captured, deliveries, emails


@dataclass(frozen=True, slots=True)
class Email:
    """One mail to one recipient, as the API knows it. Nullable columns are None; see db/tables.py."""

    id: str
    project_id: str
    contact_id: str
    recipient: str
    to_name: str | None
    subject: str
    from_address: str
    from_name: str | None
    reply_to: str | None
    headers: dict[str, str] | None
    content_id: str | None
    attachments_id: str | None
    message_id: str
    mail_class: str
    tag: str | None
    tracked: bool | None
    source_type: str
    template_id: str | None
    campaign_id: str | None
    status: str
    error: str | None
    sent_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


EMAIL_COLUMNS = [emails.c[name] for name in Email.__dataclass_fields__]
_INSERT_EMAIL = Prepared(sa.insert(emails))


def insert_emails(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Store mails; `actions.queue_mails` makes the rows."""
    _INSERT_EMAIL.run_many(tx, rows)


def belongs_to_contact(tx: sa.Connection, email_id: str, contact_id: str) -> bool:
    """Tell whether a mail went to a contact."""
    found = sa.select(emails.c.id).where(emails.c.id == email_id, emails.c.contact_id == contact_id)
    return tx.execute(found).one_or_none() is not None


def belongs_to_project(tx: sa.Connection, email_id: str, project_id: str) -> bool:
    """Tell whether a mail is the project's."""
    found = sa.select(emails.c.id).where(emails.c.id == email_id, emails.c.project_id == project_id)
    return tx.execute(found).one_or_none() is not None


def count_created_since(tx: sa.Connection, project_id: str, since: datetime, source_type: str) -> int:
    """Count a project's mails of one source since a moment, failed ones left out."""
    where = (
        (emails.c.project_id == project_id)
        & (emails.c.created_at >= since)
        & (emails.c.source_type == source_type)
        & (emails.c.status != "FAILED")
    )
    return tx.execute(sa.select(sa.func.count()).select_from(emails).where(where)).scalar_one()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver, with both sides' lines."""

    number: int
    started_at: datetime
    milliseconds: int
    host: str | None
    tls: str | None
    outcome: str
    reply: str
    conversation: str
    reply_class: str | None
    """None: the mail was taken, or nothing was answered."""
    rule: str | None
    """Name of the rule that classified the reply; None: none did."""


def list_attempts(tx: sa.Connection, delivery_id: str) -> list[Attempt]:
    """Return a delivery's attempts, first one first."""
    columns = [attempts.c[name] for name in Attempt.__dataclass_fields__]
    found = sa.select(*columns).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.id).limit(1000)
    return [Attempt(*row) for row in tx.execute(found)]


def load_captured(tx: sa.Connection, delivery_id: str) -> bytes | None:
    """Return the message that the route `capture` kept, or None."""
    found = sa.select(captured.c.message).where(captured.c.delivery_id == delivery_id)
    return tx.execute(found).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class CapturedMail:
    """A line of the list of captured mails."""

    delivery_id: str
    sender: str
    recipient: str
    subject: str
    created_at: datetime


def list_captured(tx: sa.Connection, *, limit: int = 100) -> list[CapturedMail]:
    """Return the captured mails of the whole relay, newest first."""
    join = captured.join(deliveries, deliveries.c.id == captured.c.delivery_id).join(
        emails, emails.c.id == deliveries.c.email_id
    )
    found = sa.select(
        captured.c.delivery_id, emails.c.from_address, deliveries.c.recipient, emails.c.subject, captured.c.created_at
    ).select_from(join)
    return [CapturedMail(*row) for row in tx.execute(found.order_by(captured.c.delivery_id.desc()).limit(limit))]
