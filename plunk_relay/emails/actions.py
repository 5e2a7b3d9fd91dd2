"""What happens when a mail is accepted? Content, contact, mail and due delivery are written in one unit of work.

Whatever door a mail came through, success is answered only after this unit's commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.queries import Contact
from plunk_relay.contents.queries import Content, insert_contents
from plunk_relay.emails import queries, queue
from plunk_relay.mail.address import domain_of, to_ascii_domain

if TYPE_CHECKING:
    import sqlalchemy as sa

PRIORITY_TRANSACTIONAL, PRIORITY_WORKFLOW, PRIORITY_CAMPAIGN = 1, 5, 10


class ContactMovedError(Exception):
    """The contact a text was rendered for is another row by now: render again."""


@dataclass(frozen=True, slots=True)
class NewMail:
    """One mail to one recipient, ready to be queued."""

    email_id: str
    delivery_id: str
    project_id: str
    contact: ContactChange
    rendered_for: str | None
    """Id of the contact whose links are in the text; None: the text does not depend on it."""
    recipient: str
    to_name: str | None
    subject: str
    from_address: str
    from_name: str | None
    reply_to: str | None
    headers: dict[str, str] | None
    content_id: str
    attachments_id: str | None
    message_id: str
    mail_class: str
    source_type: str
    sender: str
    """Envelope reverse-path."""
    expires_at: datetime
    template_id: str | None = None
    tag: str | None = None
    tracked: bool | None = None
    never_twice: bool = False
    tls_wish: str | None = None
    """REQUIRED or OPTIONAL (RFC 8689); None: the policies decide."""
    notify: bool = False
    """The envelope sender hears of failure and delay by mail."""
    priority: int = PRIORITY_TRANSACTIONAL


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """What became of a NewMail."""

    email_id: str
    delivery_id: str
    contact_id: str
    contact_email: str


def queue_mails(
    tx: "sa.Connection", contents: Sequence[Content], mails: Sequence[NewMail], *, now: datetime
) -> list[QueuedMail]:
    """Write contents, contacts, mails (PENDING) and deliveries due now; return ids in the order of `mails`.

    Raises BadRequest for contact data that cannot be stored, ContactMovedError when a text must be rendered again.
    """
    insert_contents(tx, contents, now=now)
    upserted = upsert_contacts(tx, [(mail.project_id, mail.contact) for mail in mails], now=now)
    queued = [_queued(mail, contact) for mail, (contact, _) in zip(mails, upserted, strict=True)]
    queries.insert_emails(tx, [_email_row(mail, done.contact_id, now) for mail, done in zip(mails, queued, strict=True)])
    queue.insert_deliveries(tx, [_delivery_row(mail, now) for mail in mails])
    return queued


def _queued(mail: NewMail, contact: Contact) -> QueuedMail:
    if mail.rendered_for is not None and mail.rendered_for != contact.id:
        raise ContactMovedError
    return QueuedMail(mail.email_id, mail.delivery_id, contact.id, contact.email)


def _email_row(mail: NewMail, contact_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": mail.email_id,
        "project_id": mail.project_id,
        "contact_id": contact_id,
        "recipient": mail.recipient,
        "to_name": mail.to_name,
        "subject": mail.subject,
        "from_address": mail.from_address,
        "from_name": mail.from_name,
        "reply_to": mail.reply_to,
        "headers": mail.headers,
        "content_id": mail.content_id,
        "attachments_id": mail.attachments_id,
        "message_id": mail.message_id,
        "mail_class": mail.mail_class,
        "tag": mail.tag,
        "tracked": mail.tracked,
        "source_type": mail.source_type,
        "template_id": mail.template_id,
        "status": "PENDING",
        "opens": 0,
        "clicks": 0,
        "created_at": now,
        "updated_at": now,
    }


def _delivery_row(mail: NewMail, now: datetime) -> dict[str, Any]:
    return {
        "id": mail.delivery_id,
        "email_id": mail.email_id,
        "project_id": mail.project_id,
        "priority": mail.priority,
        "sender": mail.sender,
        "recipient": mail.recipient,
        "domain": to_ascii_domain(domain_of(mail.recipient)),
        "state": "QUEUED",
        "due_at": now,
        "attempts": 0,
        "unknown_outcomes": 0,
        "never_twice": mail.never_twice,
        "expires_at": mail.expires_at,
        "tls_wish": mail.tls_wish,
        "notify": mail.notify,
        "created_at": now,
    }
