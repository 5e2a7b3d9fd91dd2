"""How does mail that the relay itself writes get into the queue? As a message of its own project, from the null sender.

Delivery status notifications, reports, forwarded postmaster mail: they go through the same queue and ledger as all mail,
and nothing is ever sent back about them (RFC 5321 4.5.5).
"""

from datetime import datetime
from typing import TYPE_CHECKING

from plunk_relay.contacts.actions import ContactChange
from plunk_relay.contents.queries import Content
from plunk_relay.emails.actions import NewMail, queue_mails
from plunk_relay.ids import new_id
from plunk_relay.mail.address import domain_of, normalize_address
from plunk_relay.mail.dkim import split_fields
from plunk_relay.projects.queries import RELAY_PROJECT_ID

if TYPE_CHECKING:
    import sqlalchemy as sa

NULL_SENDER = ""
"""The reverse-path `<>`."""


def queue_notice(
    tx: "sa.Connection",
    *,
    recipient: str,
    sender_address: str,
    subject: str,
    message: bytes,
    now: datetime,
    expires_at: datetime,
    tls_wish: str | None = None,
) -> str:
    """Queue a whole message (CRLF lines) from `<>` to one recipient and return the delivery's id.

    `sender_address` is its From address: the mail is signed when that domain is a verified one of any project. Set
    `relay.wakes.deliveries` after the commit, else it waits for the deliverer's next look.
    """
    email_id, delivery_id = new_id(), new_id()
    content = Content(new_id(), RELAY_PROJECT_ID, "MIME", message)
    mail = NewMail(
        email_id=email_id,
        delivery_id=delivery_id,
        project_id=RELAY_PROJECT_ID,
        contact=ContactChange(normalize_address(recipient), subscribed_if_new=False),
        rendered_for=None,
        recipient=recipient,
        to_name=None,
        subject=subject,
        from_address=sender_address,
        from_name=None,
        reply_to=None,
        headers=None,
        content_id=content.id,
        attachments_id=None,
        message_id=_message_id(message) or f"{email_id}@{domain_of(sender_address)}",
        mail_class="transactional",
        source_type="TRANSACTIONAL",
        sender=NULL_SENDER,
        expires_at=expires_at,
        tracked=False,
        tls_wish=tls_wish,
    )
    queue_mails(tx, [content], [mail], now=now)
    return delivery_id


def _message_id(message: bytes) -> str | None:
    head = message.partition(b"\r\n\r\n")[0] + b"\r\n"
    values = (value for name, value in split_fields(head) if name.lower().rstrip() == b"message-id")
    return next(values, b"").decode("utf-8", "replace").strip().strip("<>") or None
