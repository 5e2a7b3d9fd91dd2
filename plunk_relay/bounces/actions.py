"""What does a bounce or a complaint do? One table from report to mail, event and contact (contract 8.3).

    report                                   mail         event                                     contact
    failed, the address is bad               BOUNCED      email.bounce Permanent, bouncedAt         unsubscribed, suppressed
    failed for another reason that we know   -            email.bounce Transient, transientBounce   -
    failed, nobody knows why                 -            email.bounce Undetermined, bouncedAt      -
    delayed, relayed, delivered, expanded    -            -                                         -
    complaint (abuse, fraud)                 COMPLAINED   email.complaint, complainedAt             unsubscribed, suppressed
    opt-out                                  -            -                                         unsubscribed
    not spam, virus, other                   -            -                                         -

A status only rises: SENT, DELIVERED, OPENED, CLICKED, BOUNCED, COMPLAINED. The same report twice has one effect.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from plunk_relay.bounces import queries
from plunk_relay.bounces.queries import Sent
from plunk_relay.clock import format_time
from plunk_relay.contacts.actions import set_subscription
from plunk_relay.contacts.queries import find_contact
from plunk_relay.emails.events import email_event
from plunk_relay.emails.status_notices.actions import LateFailure, Postmaster, queue_late_notice
from plunk_relay.events.queries import record_events
from plunk_relay.ids import new_id
from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.arf import COMPLAINTS, OPT_OUTS, FeedbackReport
from plunk_relay.mail.classify import Classification, classify
from plunk_relay.mail.dsn import DeliveryReport, ReportedRecipient, same_mailbox
from plunk_relay.mail.outcome import Reply
from plunk_relay.mail.providers import provider_of
from plunk_relay.suppressions.queries import Reason, suppress

if TYPE_CHECKING:
    import sqlalchemy as sa

BounceType = Literal["Permanent", "Transient", "Undetermined"]
_NO_REASON = "unknown-refusal"
_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\.?\Z")
_UNREADABLE = Reply(550, None, "a bounce that cannot be understood")


@dataclass(frozen=True, slots=True)
class Noted:
    """What a report did to one delivery, for the log."""

    delivery_id: str
    what: str
    """Permanent, Transient, Undetermined, complaint, opt-out, or why there was no effect."""
    reason: str


def record_bounce(
    tx: "sa.Connection", delivery_id: str, report: DeliveryReport, *, postmaster: Postmaster, now: datetime
) -> list[Noted]:
    """Let a report that came to a delivery's bounce address have its effect, for each recipient in it.

    A sender who wants notices gets one about all of them.
    """
    sent = queries.find_sent(tx, delivery_id)
    if sent is None:
        return []
    if not report.recipients:
        unread = ReportedRecipient((), failed=True, reply=_UNREADABLE, fields=report.summary)
        return [_record_failure(tx, sent, unread, report, "Undetermined", now=now)]
    noted: dict[str, Noted] = {}
    failures: list[LateFailure] = []
    for one in report.recipients:
        whose = _find_recipient(tx, sent, one.addresses)
        about = whose or sent
        if not one.failed or about.id in noted:
            continue
        provider = _find_provider(one, report)
        bounce_type = _judge(one.reply, classify(one.reply, provider)) if whose else "Undetermined"
        noted[about.id] = _record_failure(tx, about, one, report, bounce_type, now=now)
        if noted[about.id].what == bounce_type:
            named = None if whose else next(iter(one.addresses), None)
            failures.append(LateFailure(about.id, one.reply, named, provider))
    queue_late_notice(tx, postmaster, failures, remote_host=report.reporter, now=now)
    return list(noted.values()) or [Noted(sent.id, "no failure", report.recipients[0].fields)]


def record_complaint(tx: "sa.Connection", delivery_id: str, report: FeedbackReport, *, now: datetime) -> list[Noted]:
    """Let a feedback report about a delivery have its effect; the caller has seen a return address with a valid MAC."""
    sent = queries.find_sent(tx, delivery_id)
    if sent is None:
        return []
    whose = _find_recipient(tx, sent, report.recipients)
    kind, said = report.feedback_type, f"{report.feedback_type} reported by {report.reporter or 'a provider'}"
    if whose is None:
        return [Noted(sent.id, "ignored", f"{said}; it names none of the message's recipients")]
    if kind in OPT_OUTS:
        _unsubscribe(tx, whose, reason=None, now=now)
        return [Noted(whose.id, "opt-out", said)]
    if kind not in COMPLAINTS or whose.complained_at is not None:
        return [Noted(whose.id, "ignored" if kind not in COMPLAINTS else "known already", said)]
    queries.mark_complained(tx, whose, now=now)
    record_events(tx, [email_event(whose.email, "email.complaint", now, complainedAt=format_time(now))])
    _unsubscribe(tx, whose, reason="complaint", now=now)
    _suppress(tx, whose, "COMPLAINT", said, now=now)
    return [Noted(whose.id, "complaint", said)]


def _find_recipient(tx: "sa.Connection", sent: Sent, addresses: Sequence[str]) -> Sent | None:
    """Find which recipient of a message is meant, when several shared a transaction; None: it cannot be told.

    A mail that went alone is meant in any case: a forwarder or an alias may report another address than ours.
    """
    if any(same_mailbox(address, sent.recipient) for address in addresses):
        return sent
    if sent.kind != "MIME" or not queries.is_shared(tx, sent):
        return sent
    domains = {to_ascii_domain(domain_of(address)) for address in addresses}
    siblings = queries.list_siblings(tx, sent, sorted(domains)) if domains else []
    return next((one for one in siblings for address in addresses if same_mailbox(address, one.recipient)), None)


def _find_provider(one: ReportedRecipient, report: DeliveryReport) -> str | None:
    """Tell whose server gave the reason, as rules may be for one provider's words: the remote one, else the reporter."""
    host = one.remote_host or report.reporter
    return provider_of(host) if host is not None and _HOST_NAME.match(host) else None


def _judge(reply: Reply, found: Classification) -> BounceType:
    """Only what is wrong with the address is permanent: a spam block or a full mailbox says nothing against it."""
    if found.address_is_bad:
        return "Permanent"
    return "Undetermined" if reply.code >= 500 and found.rule == _NO_REASON else "Transient"


def _record_failure(
    tx: "sa.Connection",
    sent: Sent,
    one: ReportedRecipient,
    report: DeliveryReport,
    bounce_type: BounceType,
    *,
    now: datetime,
) -> Noted:
    if queries.is_recorded(tx, sent.id, one.fields):
        return Noted(sent.id, "known already", str(one.reply))
    queries.insert_report(tx, _report_row(sent, one, report, now))
    record_events(tx, [email_event(sent.email, "email.bounce", now, **_event_data(bounce_type, now))])
    if bounce_type == "Permanent":
        queries.mark_bounced(tx, sent, error=str(one.reply), now=now)
        _unsubscribe(tx, sent, reason="bounce", now=now)
        _suppress(tx, sent, "BOUNCE", str(one.reply), now=now)
    return Noted(sent.id, bounce_type, str(one.reply))


def _event_data(bounce_type: BounceType, now: datetime) -> dict[str, object]:
    if bounce_type == "Transient":
        return {"bounceType": bounce_type, "transientBounce": True}
    return {"bounceType": bounce_type, "bouncedAt": format_time(now)}


def _report_row(sent: Sent, one: ReportedRecipient, report: DeliveryReport, now: datetime) -> dict[str, Any]:
    """Write a report down as what followed the last attempt: who wrote it, the reason, and its fields."""
    found = classify(one.reply, _find_provider(one, report))
    return {
        "id": new_id(),
        "delivery_id": sent.id,
        "number": max(sent.attempts, 1),
        "started_at": now,
        "milliseconds": 0,
        "host": report.reporter,
        "tls": None,
        "outcome": "BOUNCED",
        "reply": str(one.reply),
        "conversation": one.fields,
        "reply_class": found.reply_class,
        "rule": found.rule,
    }


def _unsubscribe(tx: "sa.Connection", sent: Sent, *, reason: Literal["bounce", "complaint"] | None, now: datetime) -> None:
    contact = find_contact(tx, sent.email.project_id, sent.email.contact_id)
    if contact is not None:
        set_subscription(tx, contact, subscribed=False, reason=reason, email_id=sent.email.id, now=now)


def _suppress(tx: "sa.Connection", sent: Sent, reason: Reason, detail: str, *, now: datetime) -> None:
    project_id, email_id = sent.email.project_id, sent.email.id
    suppress(tx, project_id, sent.recipient, reason=reason, detail=detail, email_id=email_id, now=now)
