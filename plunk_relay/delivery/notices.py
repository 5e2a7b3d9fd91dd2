"""Who is told that mail did not arrive? The envelope sender of submitted mail, by a delivery status notification.

On final failure, and once when a mail is still waiting after `delivery.delay_notice_hours`. The notice is queued in the
unit of work that records the outcome. Nobody is told about mail from `<>`, or about what the relay itself writes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from plunk_relay.delivery import queries
from plunk_relay.delivery.outcomes import Expired, Failed, Finished, Suppressed, Verdict
from plunk_relay.emails.notices import queue_notice
from plunk_relay.emails.queue import Claimed
from plunk_relay.ids import new_id
from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.classify import classify, explain
from plunk_relay.mail.notices import DAEMON, Action, Notice, RecipientReport, compose_notice, notice_subject
from plunk_relay.mail.outcome import Bounced, Deferred, Reply, Unknown
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

_TOLD = frozenset({"BOUNCED", "EXPIRED", "FAILED", "SUPPRESSED"})
_ASK_OPERATOR = "Ask the operator of this mail system."


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
class _Original:
    """The message that a notice is about, and what to say of each recipient."""

    sender: str
    subject: str
    message_id: str
    content_id: str | None
    content: bytes | None
    arrived_at: datetime
    expires_at: datetime


def queue_notices(
    tx: "sa.Connection", postmaster: Postmaster, finished: Sequence[Finished], verdicts: Sequence[Verdict], *, now: datetime
) -> list[str]:
    """Tell the senders of a batch of results, once a message; return the queue ids of the notices."""
    groups: dict[tuple[str | None, str, Action], list[tuple[Finished, Verdict]]] = {}
    for one, verdict in zip(finished, verdicts, strict=True):
        action = _action(one.claimed, verdict, postmaster, now)
        if action is not None:
            groups.setdefault((one.claimed.email.content_id, one.claimed.sender, action), []).append((one, verdict))
    return [_queue_group(tx, postmaster, key[2], group, now) for key, group in groups.items()]


@dataclass(frozen=True, slots=True)
class LateFailure:
    """A recipient of a message that was handed over, and why it came back."""

    delivery_id: str
    reply: Reply
    recipient: str | None = None
    """As the report names it; None: the delivery's own."""


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
    original = _Original(
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
        _report_reply(
            failure.recipient or row.recipient,
            failure.reply,
            None,
            happened=happened,
            host=remote_host,
            queue_id=failure.delivery_id,
        )
        for row, failure in told
    ]
    return _queue(tx, postmaster, "failed", original, reports, now)


def _is_told(row: queries.Notified) -> bool:
    return _may_be_told(notify=row.notify, sender=row.sender, project_id=row.project_id)


def _action(claimed: Claimed, verdict: Verdict, postmaster: Postmaster, now: datetime) -> Action | None:
    if not _may_be_told(notify=claimed.notify, sender=claimed.sender, project_id=claimed.project_id):
        return None
    if verdict.state in _TOLD:
        return "failed"
    waiting = verdict.state == "QUEUED" and claimed.delay_notified_at is None
    late = postmaster.delay is not None and now - claimed.created_at >= postmaster.delay
    return "delayed" if waiting and late else None


def _may_be_told(*, notify: bool, sender: str, project_id: str) -> bool:
    return notify and sender != "" and project_id != RELAY_PROJECT_ID


def _queue_group(
    tx: "sa.Connection", postmaster: Postmaster, action: Action, group: Sequence[tuple[Finished, Verdict]], now: datetime
) -> str:
    claimed = group[0][0].claimed
    email = claimed.email
    original = _Original(
        claimed.sender,
        email.subject,
        email.message_id,
        email.content_id if claimed.kind == "MIME" else None,
        claimed.content if claimed.kind == "MIME" else None,
        arrived_at=claimed.created_at,
        expires_at=claimed.expires_at,
    )
    if action == "delayed":
        queries.mark_delay_notified(tx, [one.claimed.id for one, _ in group], now=now)
    return _queue(tx, postmaster, action, original, [_report(tx, one, verdict) for one, verdict in group], now)


def _queue(
    tx: "sa.Connection",
    postmaster: Postmaster,
    action: Action,
    original: _Original,
    reports: Iterable[RecipientReport],
    now: datetime,
) -> str:
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


def _report(tx: "sa.Connection", one: Finished, verdict: Verdict) -> RecipientReport:
    """Put a result into words."""
    recipient, host, final = one.claimed.recipient, _name_of(one.host), verdict.state != "QUEUED"
    who = host or "The mail system"
    match one.result:
        case Bounced(reply):
            return _report_reply(recipient, reply, one, happened=f"{who} refused it for good.", host=host)
        case Deferred(reply):
            if final:
                happened = f"{who} could not take it in all the time it was tried."
                return _report_reply(recipient, reply, one, happened=happened, host=host, status="4.4.7")
            return _report_reply(recipient, reply, one, happened=f"{who} could not take it so far.", host=host)
        case Unknown(text):
            return RecipientReport(
                recipient,
                status="5.4.2" if final else "4.4.2",
                happened="The message was handed over, but the connection ended before the server confirmed it.",
                meaning="It may have arrived.",
                advice="Ask the recipient before you send it again." if final else "Nothing: it is tried again.",
                reply=text,
                last_attempt=one.started_at,
                queue_id=one.claimed.id,
            )
        case Expired():
            return _report_expired(tx, one)
        case Suppressed():
            happened, status = "It was not sent: the address is on the suppression list.", "5.7.1"
            advice = "If mail to this address works again, have it taken off the list, then send the message again."
        case Failed():
            happened, status, advice = "It was not sent.", "5.3.0", _ASK_OPERATOR
        case _:
            happened, status, advice = "It still waits for its turn.", "4.3.0", "Nothing: it is tried again."
    return RecipientReport(
        recipient, status=status, happened=happened, meaning=verdict.text, advice=advice, queue_id=one.claimed.id
    )


def _report_reply(
    recipient: str,
    reply: Reply,
    one: Finished | None,
    *,
    happened: str,
    host: str | None,
    status: str | None = None,
    queue_id: str | None = None,
) -> RecipientReport:
    whole = one is not None and isinstance(one.result, Bounced) and not one.result.about_recipient
    found = classify(reply, one.provider if one else None, about_recipient=not whole)
    return RecipientReport(
        recipient,
        status=status or reply.enhanced or f"{reply.code // 100}.0.0",
        happened=happened,
        meaning=found.meaning,
        advice=found.action,
        reply=str(reply),
        remote_host=host,
        last_attempt=one.started_at if one else None,
        queue_id=one.claimed.id if one else queue_id,
    )


def _report_expired(tx: "sa.Connection", one: Finished) -> RecipientReport:
    """Tell of a mail whose time ran out between two attempts: the last one's words count."""
    last = queries.find_last_attempt(tx, one.claimed.id)
    found = explain(last.rule, permanent=False) if last and last.rule else None
    return RecipientReport(
        one.claimed.recipient,
        status="4.4.7",
        happened="It could not be delivered in all the time it was tried.",
        meaning=found.meaning if found else "Its lifetime is over.",
        advice="Check the address, or try another way to reach the recipient.",
        reply=last.reply if last else None,
        remote_host=_name_of(last.host) if last else None,
        last_attempt=last.started_at if last else None,
        queue_id=one.claimed.id,
    )


def _name_of(host: str | None) -> str | None:
    """Return the name of a peer written as `name[address]:port`."""
    return host.partition("[")[0] if host else None
