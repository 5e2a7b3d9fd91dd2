"""How is mail delivered that stays here? As the inbound door would take it from another server, without the way round.

What takes an address, and what happens there, is decided where it is for the door: in inbound/. The message gets a Received
field as at every hop (RFC 5321 4.4), so that one that goes in a circle is caught, and is not answered by a machine.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from email.utils import format_datetime

from plunk_relay.delivery.lanes import Group
from plunk_relay.errors import RelayError
from plunk_relay.inbound.actions import receive
from plunk_relay.inbound.arrival import Arrival, check_hops
from plunk_relay.inbound.mailboxes import Mailbox, ReceivingBox, ReturnBox, RoleBox, find_mailbox
from plunk_relay.inbound.own_mail import take_own_mail
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, judge_refusal
from plunk_relay.relay import Relay
from plunk_relay.spool import Held, Joined
from plunk_relay.web.meta import list_reasons

_STORED = Reply(250, "2.0.0", "stored here")
_NOTHING_NEW = Reply(250, "2.0.0", "taken here; there was nothing new to store")
_TAKEN = Reply(250, "2.0.0", "taken here")


async def deliver_here(relay: Relay, group: Group, message: bytes) -> list[Outcome]:
    """Hand a message to the mailboxes of its recipients; return an outcome for each mail of the group, in its order.

    Never raises a RelayError: it becomes the outcome that its SMTP reply stands for.
    """
    arrival = _arrival(relay, group, message)
    refusal = await _check_message(relay, arrival)
    if refusal is not None:
        return [refusal] * len(group)
    boxes = [await find_mailbox(relay, one.recipient) for one in group]
    letters = [box.address for box in boxes if isinstance(box, ReceivingBox)]
    own = [box for box in boxes if not isinstance(box, ReceivingBox | Reply)]
    received = await _judge(_receive(relay, arrival, letters)) if letters else None
    taken = await _judge(_take(relay, arrival, own)) if own else None
    return [_choose(box, received, taken) for box in boxes]


async def _check_message(relay: Relay, arrival: Arrival) -> Deferred | Bounced | None:
    """Ask what the door asks of every message: is there room, and has it not been under way for too long?"""
    reasons = [] if relay.stopping.is_set() else await list_reasons(relay)
    if reasons:
        return Deferred(Reply(452, "4.3.1", f"Cannot store mail now: {reasons[0]}"))
    beginning = arrival.beginning(2 * relay.settings.smtp.max_header_bytes)  # we have added to the header block
    looped = check_hops(relay, beginning.partition(b"\r\n\r\n")[0])
    return judge_refusal(looped, about_recipient=False) if looped is not None else None


def _choose(box: Mailbox | Reply, received: Outcome | None, taken: Outcome | None) -> Outcome:
    if isinstance(box, Reply):
        return judge_refusal(box)
    outcome = received if isinstance(box, ReceivingBox) else taken
    assert outcome is not None  # noqa: S101  there is a mailbox of this kind
    return outcome


async def _receive(relay: Relay, arrival: Arrival, recipients: Sequence[str]) -> Reply:
    stored = await receive(
        relay,
        client_address=None,
        helo=arrival.helo,
        sender=arrival.sender,
        recipients=recipients,
        message=await asyncio.to_thread(arrival.whole),
    )
    return _STORED if stored else _NOTHING_NEW


async def _take(relay: Relay, arrival: Arrival, boxes: Sequence[ReturnBox | RoleBox]) -> Reply:
    reply = await take_own_mail(relay, arrival, boxes)
    return _TAKEN if reply.code == _TAKEN.code else reply


async def _judge(work: Awaitable[Reply]) -> Outcome:
    try:
        reply = await work
    except RelayError as error:
        code, enhanced = error.smtp
        reply = Reply(code, enhanced, error.message)
    return Delivered(reply) if reply.code // 100 == 2 else judge_refusal(reply, about_recipient=False)


def _arrival(relay: Relay, group: Group, message: bytes) -> Arrival:
    first = group[0]
    received = _received_field(relay.hostname, first.id, [one.recipient for one in group], relay.clock.now())
    return Arrival(
        client_address=None,
        helo=relay.hostname,
        session_id=first.id,
        sender=first.sender,
        recipients=[one.recipient for one in group],
        content=Joined(received, Held(message), 0),
    )


def _received_field(hostname: str, queue_id: str, recipients: Sequence[str], now: datetime) -> bytes:
    lines = [f"Received: by {hostname} (Plunk Relay)", f"id {queue_id}"]
    if len(recipients) == 1 and recipients[0].isascii():
        lines.append(f"for <{recipients[0]}>")
    lines[-1] += ";"
    return ("\r\n\t".join([*lines, format_datetime(now)]) + "\r\n").encode()
