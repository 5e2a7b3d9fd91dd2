"""Who is told that mail did not arrive, and in whose name? The envelope sender of submitted mail, by the postmaster.

Nobody is told about mail from `<>`, or about what the relay itself writes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from plunk_relay.emails.notices import queue_notice
from plunk_relay.emails.status_notices import queries
from plunk_relay.ids import new_id
from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.classify import classify
from plunk_relay.mail.notices import DAEMON, Action, Notice, RecipientReport, compose_notice, notice_subject
from plunk_relay.mail.outcome import Reply
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Postmaster:
    """In whose name notices are written, and when."""

    hostname: str
    lifetime: timedelta
    delay: timedelta | None
    """How long mail may wait before its sender is told; None: there are no delay notices."""

    @classmethod
    def of(cls, relay: Relay) -> Self:
        """Read the settings."""
        settings = relay.settings.delivery
        hours = settings.delay_notice_hours
        return cls(relay.hostname, timedelta(hours=settings.lifetime_hours), timedelta(hours=hours) if hours else None)


@dataclass(frozen=True, slots=True)
class Original:
    """The message that a notice is about."""

    sender: str
    subject: str
    message_id: str
    content_id: str | None
    content: bytes | None
    """None: its beginning is read when the notice is written."""
    arrived_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LateFailure:
    """A recipient of a message that was handed over, and why it came back."""

    delivery_id: str
    reply: Reply
    recipient: str | None = None
    """As the report names it; None: the delivery's own."""
    provider: str | None = None
    """Whose server gave the reason, as the rules for replies know them; None: not known."""


def may_be_told(*, notify: bool, sender: str, project_id: str) -> bool:
    """Tell whether somebody wants to hear of a delivery by mail."""
    return notify and sender != "" and project_id != RELAY_PROJECT_ID


def queue_late_notice(
    tx: "sa.Connection",
    postmaster: Postmaster,
    failures: Sequence[LateFailure],
    *,
    remote_host: str | None,
    now: datetime,
) -> str | None:
    """Tell the sender what a bounce said that came by mail, about recipients of one message.

    Returns the notice's queue id; None: this sender is not told, or there was no failure.
    """
    found = [(queries.find_notified(tx, failure.delivery_id), failure) for failure in failures]
    told = [(row, failure) for row, failure in found if row is not None and _is_told(row)]
    if not told:
        return None
    first = told[0][0]
    original = Original(
        first.sender,
        first.subject,
        first.message_id,
        first.content_id,
        None,
        arrived_at=first.created_at,
        expires_at=first.expires_at,
    )
    happened = f"{remote_host or 'A server behind the next one'} took the message first and reported this later."
    reports = [
        report_reply(
            failure.recipient or row.recipient,
            failure.reply,
            failure.provider,
            happened=happened,
            host=remote_host,
            queue_id=failure.delivery_id,
        )
        for row, failure in told
    ]
    return queue_status_notice(tx, postmaster, "failed", original, reports, now=now)


def _is_told(row: queries.Notified) -> bool:
    return may_be_told(notify=row.notify, sender=row.sender, project_id=row.project_id)


def queue_status_notice(
    tx: "sa.Connection",
    postmaster: Postmaster,
    action: Action,
    original: Original,
    reports: Iterable[RecipientReport],
    *,
    now: datetime,
) -> str:
    """Write a notice to the sender of a message and queue it; return its queue id."""
    domain = to_ascii_domain(domain_of(original.sender))
    headers = original.content
    if headers is None and original.content_id is not None:
        headers = queries.load_content_start(tx, original.content_id)
    notice = Notice(
        action=action,
        reporting_host=postmaster.hostname,
        message_id=f"{new_id()}@{domain}",
        date=now,
        sender=f"{DAEMON}@{domain}",
        recipient=original.sender,
        subject=original.subject,
        original_id=original.message_id,
        original_headers=headers or b"",
        arrived_at=original.arrived_at,
        retry_until=original.expires_at if action == "delayed" else None,
        recipients=tuple(reports),
    )
    return queue_notice(
        tx,
        recipient=notice.recipient,
        sender_address=notice.sender,
        subject=notice_subject(action, notice.subject),
        message=compose_notice(notice),
        now=now,
        expires_at=now + postmaster.lifetime,
    )


def report_reply(
    recipient: str,
    reply: Reply,
    provider: str | None,
    *,
    happened: str,
    host: str | None,
    queue_id: str,
    about_recipient: bool = True,
    last_attempt: datetime | None = None,
    status: str | None = None,
) -> RecipientReport:
    """Put into words what a server said of a recipient; `status`, where it is not the reply's own (RFC 3463)."""
    found = classify(reply, provider, about_recipient=about_recipient)
    return RecipientReport(
        recipient,
        status=status or reply.enhanced or f"{reply.code // 100}.0.0",
        happened=happened,
        meaning=found.meaning,
        advice=found.action,
        reply=str(reply),
        remote_host=host,
        last_attempt=last_attempt,
        queue_id=queue_id,
    )
