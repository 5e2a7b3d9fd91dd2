"""What became of an attempt? The status machine: one table from outcome to states, events and the contact.

    outcome of the attempt            delivery    mail        events                        contact
    accepted by the recipient's MX    DELIVERED   DELIVERED   email.sent, email.delivery
    accepted by a smarthost           DELIVERED   SENT        email.sent
    refused, the address is bad       BOUNCED     BOUNCED     email.bounce                  unsubscribed, suppressed
    refused for another reason        BOUNCED     FAILED
    not now (4xx, no connection)      QUEUED      PENDING
    not now, and its time is over     EXPIRED     FAILED
    no reply to the final dot         QUEUED      PENDING     ("maybe delivered"; tried again)
    no reply, and never twice         FAILED      FAILED
    not its turn (provider paused)    QUEUED      PENDING     (no attempt)
    project disabled, domain gone     FAILED      FAILED
    recipient suppressed              SUPPRESSED  SUPPRESSED

Whether the address is bad says the rule for the reply (mail/classify.py). Nobody is unsubscribed for a spam block, a blocked
address of ours, a full mailbox, or a refusal that no rule knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.clock import format_time
from plunk_relay.contacts.actions import set_subscription
from plunk_relay.contacts.queries import find_contact
from plunk_relay.delivery.queries import keep_snapshots, update_statuses
from plunk_relay.delivery.retry import RetrySchedule, read_hint
from plunk_relay.emails.events import email_event
from plunk_relay.emails.queries import Email
from plunk_relay.emails.queue import Claimed, find_gone, record_outcomes
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.mail.classify import Classification, classify
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown
from plunk_relay.suppressions.queries import suppress

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


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not its turn before `until`: put back without an attempt, because its provider is paused or has had enough today."""

    until: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Not sent: the recipient is on the project's suppression list, or one of its rules caught it."""

    reason: str
    """In one line, with the repair."""
    snapshot: dict[str, Any]
    """The entry or rule as it is now, kept with the mail; see suppressions/api.py `Held`."""


Result = Outcome | Failed | Expired | Uncounted | Postponed | Suppressed


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
    address: str | None = None
    """The peer's address, to be preferred next time; None: as before."""
    provider: str | None = None
    """Whose exchangers these are, as the rules for replies know them; None: not known."""
    retry_at: datetime | None = None
    """When a deferred mail is tried again, as another way is open to it; None: the schedule says."""


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
    found: Classification | None = None
    """What the rules say of the reply; None: there was none, or the mail was taken."""

    @property
    def error(self) -> str | None:
        """What is told about the mail when it failed: the reply and its meaning."""
        if self.status not in ("BOUNCED", "FAILED", "SUPPRESSED"):
            return None
        return f"{self.text} - {self.found.meaning}" if self.found else self.text


def record(tx: "sa.Connection", finished: Sequence[Finished], schedule: RetrySchedule, *, now: datetime) -> list[Verdict]:
    """Write a batch of results: states, next times, attempts, statuses, events, bounced contacts.

    Nothing is written of a mail that is not there any more, since its contact was deleted.
    """
    verdicts = [judge(one, schedule, now=now) for one in finished]
    gone = find_gone(tx, [one.claimed.id for one in finished])
    pairs = [pair for pair in zip(finished, verdicts, strict=True) if pair[0].claimed.id not in gone]
    record_outcomes(tx, [_delivery_row(f, v, now) for f, v in pairs], [_attempt_row(f, v) for f, v in pairs if v.counted])
    update_statuses(tx, [_status_row(f, v, now) for f, v in pairs])
    keep_snapshots(tx, [_snapshot_row(f.claimed, f.result) for f, _ in pairs if isinstance(f.result, Suppressed)])
    record_events(tx, [event for f, v in pairs for event in _events(f, v, now)])
    for one, verdict in pairs:
        if verdict.status == "BOUNCED":
            _give_up_address(tx, one.claimed.email, verdict.text, now=now)
    return verdicts


def judge(finished: Finished, schedule: RetrySchedule, *, now: datetime) -> Verdict:
    """Apply the table above to one result."""
    claimed, result = finished.claimed, finished.result
    match result:
        case Delivered(reply):
            status = "DELIVERED" if finished.confirmed else "SENT"
            return Verdict("DELIVERED", status, "delivered", str(reply), now)
        case Bounced(reply, about_recipient):
            found = classify(reply, finished.provider, about_recipient=about_recipient)
            status = "BOUNCED" if found.address_is_bad else "FAILED"
            return Verdict("BOUNCED", status, "bounced", str(reply), now, found=found)
        case Unknown(text) if claimed.never_twice:
            return Verdict("FAILED", "FAILED", "failed", f"Maybe delivered: {text}", now, unknown=1)
        case Unknown(text):
            due = schedule.next_attempt(claimed.attempts + 1, now=now, expires_at=claimed.expires_at)
            return replace(_later(f"Maybe delivered: {text}", due, now), unknown=1)
        case Deferred(reply):
            return _judge_deferral(finished, reply, schedule, now)
    return replace(_judge_without_attempt(claimed, result, now), counted=0)


def _judge_without_attempt(
    claimed: Claimed, result: Failed | Expired | Suppressed | Uncounted | Postponed, now: datetime
) -> Verdict:
    match result:
        case Failed(text):
            return Verdict("FAILED", "FAILED", "failed", text, now)
        case Expired():
            maybe = "Maybe delivered: an attempt had no reply"
            text = maybe if claimed.unknown_outcomes else "Not delivered within its lifetime"
            return Verdict("EXPIRED", "FAILED", "expired", text, now)
        case Suppressed(reason):
            return Verdict("SUPPRESSED", "SUPPRESSED", "suppressed", reason, now)
        case Uncounted(text):
            return Verdict("QUEUED", "PENDING", "deferred", text, now)
        case Postponed(until, text):
            return Verdict("QUEUED", "PENDING", "postponed", text, min(until, claimed.expires_at))


def _judge_deferral(finished: Finished, reply: Reply, schedule: RetrySchedule, now: datetime) -> Verdict:
    claimed, hint = finished.claimed, read_hint(reply.text)
    due = schedule.next_attempt(claimed.attempts + 1, now=now, expires_at=claimed.expires_at, hint=hint)
    return replace(_later(str(reply), finished.retry_at or due, now), found=classify(reply, finished.provider))


def _later(text: str, due: datetime | None, now: datetime) -> Verdict:
    if due is None:
        return Verdict("EXPIRED", "FAILED", "expired", f"Not delivered within its lifetime: {text}", now)
    return Verdict("QUEUED", "PENDING", "deferred", text, due)


def _delivery_row(finished: Finished, verdict: Verdict, now: datetime) -> dict[str, Any]:
    return {
        "row_id": finished.claimed.id,
        "new_state": verdict.state,
        "new_due_at": verdict.due_at,
        "counted": verdict.counted,
        "unknown": verdict.unknown,
        "reply": verdict.text,
        "peer_address": finished.address or finished.claimed.last_address,
        "new_finished_at": None if verdict.state == "QUEUED" else now,
    }


_WORDS = {Delivered: "DELIVERED", Bounced: "BOUNCED", Unknown: "UNKNOWN", Deferred: "DEFERRED"}


def _attempt_row(finished: Finished, verdict: Verdict) -> dict[str, Any]:
    found = verdict.found
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
        "reply_class": "infrastructure" if isinstance(finished.result, Unknown) else found and found.reply_class,
        "rule": found and found.rule,
    }


def _status_row(finished: Finished, verdict: Verdict, now: datetime) -> dict[str, Any]:
    accepted = verdict.status in ("SENT", "DELIVERED")
    return {
        "row_id": finished.claimed.email.id,
        "new_status": verdict.status,
        "new_error": verdict.error,
        "sent": now if accepted else None,
        "delivered": now if verdict.status == "DELIVERED" else None,
        "bounced": now if verdict.status == "BOUNCED" else None,
        "now": now,
    }


def _snapshot_row(claimed: Claimed, result: Suppressed) -> dict[str, Any]:
    return {"row_id": claimed.email.id, "snapshot": result.snapshot}


def _events(finished: Finished, verdict: Verdict, now: datetime) -> list[NewEvent]:
    email, moment = finished.claimed.email, format_time(now)
    match verdict.status:
        case "SENT":
            return [email_event(email, "email.sent", now, sentAt=moment)]
        case "DELIVERED":
            sent = email_event(email, "email.sent", now, sentAt=moment)
            return [sent, email_event(email, "email.delivery", now, deliveredAt=moment)]
        case "BOUNCED":
            return [email_event(email, "email.bounce", now, bounceType="Permanent", bouncedAt=moment)]
    return []


def _give_up_address(tx: "sa.Connection", email: Email, reply: str, *, now: datetime) -> None:
    """Nobody can be reached there: unsubscribe the contact and put the address on the suppression list."""
    contact = find_contact(tx, email.project_id, email.contact_id)
    if contact is not None:
        set_subscription(tx, contact, subscribed=False, reason="bounce", email_id=email.id, now=now)
    suppress(tx, email.project_id, email.recipient, reason="BOUNCE", detail=reply, email_id=email.id, now=now)
