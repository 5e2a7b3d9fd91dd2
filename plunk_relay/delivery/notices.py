"""Who is told that mail did not arrive? The envelope sender of submitted mail, by a delivery status notification.

On final failure, and once when a mail is still waiting after `delivery.delay_notice_hours`. The notice is queued in the
unit of work that records the outcome; emails/status_notices writes it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from plunk_relay.delivery import queries
from plunk_relay.delivery.outcomes import Expired, Failed, Finished, Suppressed, Verdict
from plunk_relay.emails.queue import Claimed
from plunk_relay.emails.status_notices.actions import (
    Original,
    Postmaster,
    may_be_told,
    queue_status_notice,
    report_reply,
)
from plunk_relay.mail.classify import explain
from plunk_relay.mail.notices import Action, RecipientReport
from plunk_relay.mail.outcome import Bounced, Deferred, Reply, Unknown

if TYPE_CHECKING:
    import sqlalchemy as sa

_TOLD = frozenset({"BOUNCED", "EXPIRED", "FAILED", "SUPPRESSED"})
_ASK_OPERATOR = "Ask the operator of this mail system."


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


def _action(claimed: Claimed, verdict: Verdict, postmaster: Postmaster, now: datetime) -> Action | None:
    if not may_be_told(notify=claimed.notify, sender=claimed.sender, project_id=claimed.project_id):
        return None
    if verdict.state in _TOLD:
        return "failed"
    waiting = verdict.state == "QUEUED" and claimed.delay_notified_at is None
    late = postmaster.delay is not None and now - claimed.created_at >= postmaster.delay
    return "delayed" if waiting and late else None


def _queue_group(
    tx: "sa.Connection", postmaster: Postmaster, action: Action, group: Sequence[tuple[Finished, Verdict]], now: datetime
) -> str:
    claimed = group[0][0].claimed
    email = claimed.email
    original = Original(
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
    reports = [_report(tx, one, verdict) for one, verdict in group]
    return queue_status_notice(tx, postmaster, action, original, reports, now=now)


def _report(tx: "sa.Connection", one: Finished, verdict: Verdict) -> RecipientReport:
    """Put a result into words."""
    recipient, host, final = one.claimed.recipient, _name_of(one.host), verdict.state != "QUEUED"
    who = host or "The mail system"
    match one.result:
        case Bounced(reply):
            return _report_reply(one, reply, happened=f"{who} refused it for good.", host=host)
        case Deferred(reply):
            if final:
                happened = f"{who} could not take it in all the time it was tried."
                return _report_reply(one, reply, happened=happened, host=host, status="4.4.7")
            return _report_reply(one, reply, happened=f"{who} could not take it so far.", host=host)
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
    one: Finished, reply: Reply, *, happened: str, host: str | None, status: str | None = None
) -> RecipientReport:
    whole = isinstance(one.result, Bounced) and not one.result.about_recipient
    return report_reply(
        one.claimed.recipient,
        reply,
        one.provider,
        happened=happened,
        host=host,
        queue_id=one.claimed.id,
        about_recipient=not whole,
        last_attempt=one.started_at,
        status=status,
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
