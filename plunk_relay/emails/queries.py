"""What mails and contents are stored?"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import attempts, captured, content_parts, contents, deliveries, emails
from plunk_relay.spool import ByteSource

ContentKind = Literal["MIME", "HTML", "ATTACHMENTS"]


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to send: a message as submitted (MIME), a rendered body (HTML), or a JSON list (ATTACHMENTS).

    What is not held in memory is stored in parts, the first of them in the content's own row.
    """

    id: str
    project_id: str
    kind: ContentKind
    data: bytes | ByteSource

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.size


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
_INSERT_CONTENT = Prepared(sa.insert(contents))
_INSERT_EMAIL = Prepared(sa.insert(emails))
_INSERT_PART = Prepared(sa.insert(content_parts))
_CONTENT = sa.select(contents.c.size, contents.c.data).where(contents.c.id == sa.bindparam("content_id"))
_PART = Prepared(
    sa.select(content_parts.c.data).where(
        content_parts.c.content_id == sa.bindparam("content_id"), content_parts.c.number == sa.bindparam("number")
    )
)


def insert_contents(tx: sa.Connection, new: Sequence[Content], *, now: datetime) -> None:
    """Store contents."""
    rows = [
        {
            "id": content.id,
            "project_id": content.project_id,
            "kind": content.kind,
            "data": content.data if isinstance(content.data, bytes) else next(iter(content.data.pieces())),
            "size": content.size,
            "created_at": now,
        }
        for content in new
    ]
    _INSERT_CONTENT.run_many(tx, rows)
    for content in new:
        if not isinstance(content.data, bytes):
            for number, data in enumerate(content.data.pieces()):
                if number:
                    _INSERT_PART.run(tx, {"content_id": content.id, "number": number, "data": data})


def insert_emails(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Store mails; `actions.queue_mails` makes the rows."""
    _INSERT_EMAIL.run_many(tx, rows)


def load_content(tx: sa.Connection, content_id: str) -> bytes | None:
    """Return the bytes of a content, or None when it is gone."""
    pieces = list(read_content(tx, content_id))
    return b"".join(pieces) if pieces else None


def read_content(tx: sa.Connection, content_id: str) -> Iterator[bytes]:
    """Yield the bytes of a content as they are stored, a large one in parts; nothing at all when it is gone."""
    row = tx.execute(_CONTENT, {"content_id": content_id}).one_or_none()
    if row is None:
        return
    yield row.data
    missing = row.size - len(row.data)
    for number in itertools.count(1):
        if not missing or not (part := _PART.fetch(tx, {"content_id": content_id, "number": number})):
            return
        missing -= len(part[0][0])
        yield part[0][0]


def belongs_to_contact(tx: sa.Connection, email_id: str, contact_id: str) -> bool:
    """Tell whether a mail went to a contact."""
    found = sa.select(emails.c.id).where(emails.c.id == email_id, emails.c.contact_id == contact_id)
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
