"""What became of an attempt? The status machine: one table from outcome to states, events and the contact.

    outcome of the attempt            delivery    mail        events                        contact
    accepted by the recipient's MX    DELIVERED   DELIVERED   email.sent, email.delivery
    accepted by a smarthost           DELIVERED   SENT        email.sent
    refused, recipient is bad 5.1.x   BOUNCED     BOUNCED     email.bounce                  unsubscribed (reason: bounce)
    refused for another reason        BOUNCED     FAILED
    not now (4xx, no connection)      QUEUED      PENDING
    not now, and its time is over     EXPIRED     FAILED
    no reply to the final dot         QUEUED      PENDING     ("maybe delivered"; tried again)
    no reply, and never twice         FAILED      FAILED
    project disabled, domain gone     FAILED      FAILED

A remote refusal with 5.1.x is a permanent bounce, except 5.1.7 and 5.1.8, which are about the sender (RFC 3463 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.clock import format_time
from plunk_relay.contacts.actions import set_subscription
from plunk_relay.contacts.queries import find_contact
from plunk_relay.delivery.queries import update_statuses
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.emails.queries import Email
from plunk_relay.emails.queue import Claimed, record_outcomes
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Failed:
    """We will not send it: an outcome of ours, not of the peer."""

    text: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Its lifetime was over before it could be tried."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Put back without an attempt: the peer closed a connection that was in use, or we are stopping."""

    text: str


Result = Outcome | Failed | Expired | Uncounted


@dataclass(frozen=True, slots=True)
class Finished:
    """One delivery's attempt and its result; `conversation` is empty when nobody was talked to."""

    claimed: Claimed
    result: Result
    confirmed: bool
    """Accepted by the recipient's own exchanger, not just by a smarthost."""
    started_at: datetime
    milliseconds: int
    host: str | None = None
    tls: str | None = None
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a result means for the rows."""

    state: str
    status: str
    word: str
    """For the log: delivered, deferred, bounced, ..."""
    text: str
    due_at: datetime
    counted: int = 1
    unknown: int = 0


def record(tx: "sa.Connection", finished: Sequence[Finished], schedule: RetrySchedule, *, now: datetime) -> list[Verdict]:
    """Write a batch of results: states, next times, attempts, statuses, events, bounced contacts."""
    verdicts = [judge(one, schedule, now=now) for one in finished]
    pairs = list(zip(finished, verdicts, strict=True))
    record_outcomes(tx, [_delivery_row(f, v, now) for f, v in pairs], [_attempt_row(f, v) for f, v in pairs if v.counted])
    update_statuses(tx, [_status_row(f, v, now) for f, v in pairs])
    record_events(tx, [event for f, v in pairs for event in _events(f, v, now)])
    for one, verdict in pairs:
        if verdict.status == "BOUNCED":
            _unsubscribe_bounced(tx, one.claimed.email, now=now)
    return verdicts


def judge(finished: Finished, schedule: RetrySchedule, *, now: datetime) -> Verdict:
    """Apply the table above to one result."""
    claimed, result = finished.claimed, finished.result
    match result:
        case Delivered(reply):
            status = "DELIVERED" if finished.confirmed else "SENT"
            return Verdict("DELIVERED", status, "delivered", str(reply), now)
        case Bounced(reply):
            status = "BOUNCED" if is_recipient_failure(reply) else "FAILED"
            return Verdict("BOUNCED", status, "bounced", str(reply), now)
        case Failed(text):
            return Verdict("FAILED", "FAILED", "failed", text, now, counted=0)
        case Expired():
            text = (
                "Maybe delivered: an attempt had no reply"
                if claimed.unknown_outcomes
                else "Not delivered within its lifetime"
            )
            return Verdict("EXPIRED", "FAILED", "expired", text, now, counted=0)
        case Uncounted(text):
            return Verdict("QUEUED", "PENDING", "deferred", text, now, counted=0)
        case Unknown(text) if claimed.never_twice:
            return Verdict("FAILED", "FAILED", "failed", f"Maybe delivered: {text}", now, unknown=1)
        case Unknown(text):
            return _later(claimed, f"Maybe delivered: {text}", schedule, now=now, unknown=1)
        case Deferred(reply):
            return _later(claimed, str(reply), schedule, now=now)


def is_recipient_failure(reply: Reply) -> bool:
    """Tell whether a permanent refusal is about the recipient's address."""
    return reply.code >= 500 and (reply.enhanced or "").startswith("5.1.") and reply.enhanced not in ("5.1.7", "5.1.8")


def _later(claimed: Claimed, text: str, schedule: RetrySchedule, *, now: datetime, unknown: int = 0) -> Verdict:
    due = schedule.next_attempt(claimed.attempts + 1, now=now, expires_at=claimed.expires_at)
    if due is None:
        return Verdict("EXPIRED", "FAILED", "expired", f"Not delivered within its lifetime: {text}", now, unknown=unknown)
    return Verdict("QUEUED", "PENDING", "deferred", text, due, unknown=unknown)


def _delivery_row(finished: Finished, verdict: Verdict, now: datetime) -> dict[str, Any]:
    return {
        "row_id": finished.claimed.id,
        "new_state": verdict.state,
        "new_due_at": verdict.due_at,
        "counted": verdict.counted,
        "unknown": verdict.unknown,
        "reply": verdict.text,
        "new_finished_at": None if verdict.state == "QUEUED" else now,
    }


_WORDS = {Delivered: "DELIVERED", Bounced: "BOUNCED", Unknown: "UNKNOWN", Deferred: "DEFERRED"}


def _attempt_row(finished: Finished, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": new_id(),
        "delivery_id": finished.claimed.id,
        "number": finished.claimed.attempts + 1,
        "started_at": finished.started_at,
        "milliseconds": finished.milliseconds,
        "host": finished.host,
        "tls": finished.tls,
        "outcome": _WORDS.get(type(finished.result), "FAILED"),
        "reply": verdict.text,
        "conversation": finished.conversation,
    }


def _status_row(finished: Finished, verdict: Verdict, now: datetime) -> dict[str, Any]:
    accepted = verdict.status in ("SENT", "DELIVERED")
    return {
        "row_id": finished.claimed.email.id,
        "new_status": verdict.status,
        "new_error": verdict.text if verdict.status in ("BOUNCED", "FAILED") else None,
        "sent": now if accepted else None,
        "delivered": now if verdict.status == "DELIVERED" else None,
        "bounced": now if verdict.status == "BOUNCED" else None,
        "now": now,
    }


def _events(finished: Finished, verdict: Verdict, now: datetime) -> list[NewEvent]:
    email, moment = finished.claimed.email, format_time(now)
    match verdict.status:
        case "SENT":
            return [_event(email, "email.sent", now, sentAt=moment)]
        case "DELIVERED":
            sent = _event(email, "email.sent", now, sentAt=moment)
            return [sent, _event(email, "email.delivery", now, deliveredAt=moment)]
        case "BOUNCED":
            return [_event(email, "email.bounce", now, bounceType="Permanent", bouncedAt=moment)]
    return []


def _event(email: Email, name: str, now: datetime, **extra: str) -> NewEvent:
    data = {
        "subject": email.subject,
        "from": email.from_address,
        "fromName": email.from_name,
        "messageId": email.message_id,
        "emailId": email.id,
        "templateId": email.template_id,
        "campaignId": email.campaign_id,
        "sourceType": email.source_type,
        **extra,
    }
    return NewEvent(email.project_id, name, email.contact_id, email.id, data, now)


def _unsubscribe_bounced(tx: "sa.Connection", email: Email, *, now: datetime) -> None:
    contact = find_contact(tx, email.project_id, email.contact_id)
    if contact is not None:
        set_subscription(tx, contact, subscribed=False, reason="bounce", email_id=email.id, now=now)
