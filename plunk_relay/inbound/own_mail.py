"""What is done with mail for the relay itself? Bounces and complaints have their effect, the operator gets the rest.

What `mailboxes` lets in is never bounced later. All that a message does is one unit of work.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from plunk_relay.bounces.actions import Noted, record_bounce, record_complaint
from plunk_relay.emails.notices import queue_notice
from plunk_relay.emails.status_notices.actions import Postmaster
from plunk_relay.ids import new_id
from plunk_relay.inbound.arrival import Arrival
from plunk_relay.inbound.mailboxes import ReturnBox, RoleBox
from plunk_relay.log import get_logger
from plunk_relay.mail.arf import FeedbackReport, read_feedback_report
from plunk_relay.mail.dsn import DeliveryReport, read_delivery_report
from plunk_relay.mail.forwarded import Forwarding, compose_forwarded, was_forwarded
from plunk_relay.mail.outcome import Reply
from plunk_relay.mail.parts import MOST_BYTES
from plunk_relay.mail.verp import MAC_PURPOSE, ReturnAddress, read_return_address
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("inbound")
TAKEN = Reply(250, "2.0.0", "Thank you")
_LOOP = Reply(554, "5.4.6", "This message has been here before: a mail loop")


@dataclass(frozen=True, slots=True)
class _Reports:
    """What a message is, as far as it is about deliveries of ours."""

    delivery: DeliveryReport | None
    feedback: FeedbackReport | None
    named: ReturnAddress | None
    """The delivery that the feedback report itself names, with a valid MAC."""


@dataclass(frozen=True, slots=True)
class _Forward:
    """A message for the operator, ready to be queued."""

    recipient: str
    sender_address: str
    subject: str
    message: bytes


async def take_own_mail(relay: Relay, arrival: Arrival, boxes: Sequence[ReturnBox | RoleBox]) -> Reply:
    """Read reports and pass on the rest; what is no report has no effect at a bounce address. 250 after the commit."""
    beginning = arrival.beginning(MOST_BYTES)
    reports = await asyncio.to_thread(_read_reports, relay, beginning)
    returned = [box.address for box in boxes if isinstance(box, ReturnBox)]
    roles = list(dict.fromkeys(box for box in boxes if isinstance(box, RoleBox)))
    if reports.named is not None:  # a complaint that a provider sends to abuse@: it is recorded, nobody need read it
        returned, roles = returned or [reports.named], []
    if roles and was_forwarded(beginning, relay.hostname):
        return _LOOP
    forwards = [await _make_forward(relay, arrival, box) for box in roles]
    now, postmaster = relay.clock.now(), Postmaster.of(relay)
    expires_at = now + timedelta(hours=relay.settings.delivery.lifetime_hours)

    def act(tx: "sa.Connection") -> list[Noted]:
        for forward in forwards:
            _queue(tx, forward, now=now, expires_at=expires_at)
        return [noted for address in returned for noted in _record(tx, address, reports, postmaster, now=now)]

    noted = await relay.db.write(act)
    if forwards or noted:
        relay.wakes.deliveries.set()
    _tell(arrival, noted)
    return TAKEN


def _record(
    tx: "sa.Connection", address: ReturnAddress, reports: _Reports, postmaster: Postmaster, *, now: datetime
) -> list[Noted]:
    """Let the report have its effect on the delivery whose address it came to."""
    if reports.feedback is not None:
        return record_complaint(tx, address.delivery_id, reports.feedback, now=now)
    if reports.delivery is not None and address.kind == "bounce":
        return record_bounce(tx, address.delivery_id, reports.delivery, postmaster=postmaster, now=now)
    return [Noted(address.delivery_id, "dropped", "neither a bounce nor a complaint")]


def _read_reports(relay: Relay, message: bytes) -> _Reports:
    """Read a message; for a thread."""
    feedback = read_feedback_report(message)
    if feedback is None:
        return _Reports(read_delivery_report(message), None, None)
    return _Reports(None, feedback, _find_named(relay, feedback))


def _find_named(relay: Relay, feedback: FeedbackReport) -> ReturnAddress | None:
    """Return the delivery that a report names by a return address of ours: only who got the mail knows it."""
    key = relay.secrets.mac_key(MAC_PURPOSE)
    read = (read_return_address(sender.partition("@")[0], key=key) for sender in feedback.senders)
    return next((address for address in read if address is not None), None)


async def _make_forward(relay: Relay, arrival: Arrival, box: RoleBox) -> _Forward:
    forwarding = Forwarding(
        role=box.role,
        operator=box.operator,
        sender=arrival.sender,
        client=arrival.client,
        message_id=f"{new_id()}@{relay.hostname}",
        date=relay.clock.now(),
    )
    subject, message = await asyncio.to_thread(lambda: compose_forwarded(forwarding, arrival.whole()))
    return _Forward(forwarding.operator, box.role, subject, message)


def _queue(tx: "sa.Connection", forward: _Forward, *, now: datetime, expires_at: datetime) -> str:
    return queue_notice(
        tx,
        recipient=forward.recipient,
        sender_address=forward.sender_address,
        subject=forward.subject,
        message=forward.message,
        now=now,
        expires_at=expires_at,
    )


def _tell(arrival: Arrival, noted: Sequence[Noted]) -> None:
    session = arrival.session_id
    log.info("mail received", address=arrival.client_address, session=session, recipients=list(arrival.recipients))
    for one in noted:
        log.info("report", queue_id=one.delivery_id, effect=one.what, reason=one.reason, session=session)
