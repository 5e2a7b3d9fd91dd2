"""What is done with mail from other servers? Bounces and complaints have their effect, the operator and projects get theirs.

Only `mailboxes` decides what is taken, at RCPT; what was taken is never bounced later. A message is either for us (bounces,
complaints, the operator) or for receiving projects, so that all it does is one unit of work.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from plunk_relay.accounts.queries import list_users
from plunk_relay.bounces.actions import Noted, record_bounce, record_complaint
from plunk_relay.delivery.notices import Postmaster
from plunk_relay.emails.notices import queue_notice
from plunk_relay.ids import new_id
from plunk_relay.inbound.actions import receive
from plunk_relay.log import get_logger
from plunk_relay.mail.arf import FeedbackReport, read_feedback_report
from plunk_relay.mail.dsn import DeliveryReport, read_delivery_report
from plunk_relay.mail.forwarded import Forwarding, compose_forwarded, was_forwarded
from plunk_relay.mail.parts import MOST_BYTES
from plunk_relay.mail.verp import MAC_PURPOSE, ReturnAddress, read_return_address
from plunk_relay.relay import Relay
from plunk_relay.smtp.handler import Client, DoorOptions, Envelope
from plunk_relay.smtp.limits import check_room, door_limits
from plunk_relay.smtp.listener import Certificate, Door
from plunk_relay.smtp.mailboxes import Mailbox, ReceivingBox, ReturnBox, RoleBox, find_mailbox
from plunk_relay.smtp.replies import SmtpReply
from plunk_relay.spool import spool_directory

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("inbound")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_TAKEN = SmtpReply(250, "2.0.0", "Thank you")
_SEPARATELY = SmtpReply(452, "4.5.3", "Send to this recipient separately")
_ONE_BOUNCE_EACH = SmtpReply(550, "5.5.3", "A message from <> has one recipient")
_CHANGED = SmtpReply(451, "4.2.1", "A mailbox has just changed; try again later")
_NOBODY = SmtpReply(550, "5.2.1", "Nobody reads this mailbox: the operator of this relay has no address yet")
_LOOP = SmtpReply(554, "5.4.6", "This message has been here before: a mail loop")


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


class Inbound:
    """Decides for the door of other servers' mail."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._postmaster = Postmaster.of(relay)

    async def authenticate(self, client: Client, username: str, password: str) -> str | SmtpReply:
        """Refuse: nobody logs in here."""
        del client, username, password
        return SmtpReply(502, "5.5.1", "AUTH is not offered here")

    async def check_sender(self, client: Client, address: str) -> SmtpReply | None:
        """Accept every sender, the null sender of bounces too: the recipient decides."""
        del client, address
        return None

    async def check_recipient(self, client: Client, envelope: Envelope, address: str) -> SmtpReply | None:
        """Accept what a mailbox of ours takes."""
        refusal = await check_room(self._relay)
        if refusal is not None:
            return refusal
        box = await find_mailbox(self._relay, address)
        if isinstance(box, RoleBox) and await self._find_operator() is None:
            box = _NOBODY
        if isinstance(box, SmtpReply):
            log.info("recipient refused", address=client.address, recipient=address, reply=str(box.code))
            return box
        return await self._check_company(envelope, box)

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        """Let the message have its effect in one unit of work; 250 after the commit."""
        refusal = None if self._relay.stopping.is_set() else await check_room(self._relay)
        refusal = refusal or self._check_head(envelope)
        if refusal is not None:
            return refusal
        boxes = [await find_mailbox(self._relay, recipient) for recipient in envelope.recipients]
        found = [box for box in boxes if not isinstance(box, SmtpReply)]
        if len(found) != len(boxes):
            return _CHANGED
        if isinstance(found[0], ReceivingBox):
            await self._receive(client, envelope)
            return _TAKEN
        return await self._take(client, envelope, found)

    async def _check_company(self, envelope: Envelope, box: Mailbox) -> SmtpReply | None:
        """Refuse a second recipient of a bounce (RFC 5321 4.5.5), and one of another kind than the first."""
        if not envelope.recipients:
            return None
        if not envelope.sender:
            return _ONE_BOUNCE_EACH
        first = await find_mailbox(self._relay, envelope.recipients[0])
        return _SEPARATELY if isinstance(first, ReceivingBox) != isinstance(box, ReceivingBox) else None

    def _check_head(self, envelope: Envelope) -> SmtpReply | None:
        settings = self._relay.settings.smtp
        head, _, rest = _beginning(envelope, settings.max_header_bytes + 4).partition(b"\r\n\r\n")
        if not rest and len(head) > settings.max_header_bytes:
            return SmtpReply(552, "5.3.4", f"The header block is larger than {settings.max_header_bytes} bytes")
        if len(_RECEIVED.findall(head)) > settings.max_received_headers:
            return SmtpReply(554, "5.4.6", f"More than {settings.max_received_headers} hops: a mail loop")
        return None

    async def _receive(self, client: Client, envelope: Envelope) -> None:
        await receive(
            self._relay,
            client_address=client.address,
            helo=client.helo,
            sender=envelope.sender,
            recipients=envelope.recipients,
            message=await asyncio.to_thread(_whole, envelope),
        )

    async def _take(self, client: Client, envelope: Envelope, boxes: Sequence[Mailbox]) -> SmtpReply:
        """Read reports and pass on the rest; what is no report has no effect at a bounce address."""
        beginning = _beginning(envelope, MOST_BYTES)
        reports = await asyncio.to_thread(self._read_reports, beginning)
        returned = [box.address for box in boxes if isinstance(box, ReturnBox)]
        roles = list(dict.fromkeys(box for box in boxes if isinstance(box, RoleBox)))
        if reports.named is not None:  # a complaint that a provider sends to abuse@: it is recorded, nobody need read it
            returned, roles = returned or [reports.named], []
        if roles and was_forwarded(beginning, self._relay.hostname):
            return _LOOP
        forwards = [await self._make_forward(client, envelope, box) for box in roles]
        now = self._relay.clock.now()
        expires_at = now + timedelta(hours=self._relay.settings.delivery.lifetime_hours)

        def act(tx: "sa.Connection") -> list[Noted]:
            for forward in forwards:
                _queue(tx, forward, now=now, expires_at=expires_at)
            return [noted for address in returned for noted in self._record(tx, address, reports, now=now)]

        noted = await self._relay.db.write(act)
        if forwards or noted:
            self._relay.wakes.deliveries.set()
        _tell(client, envelope, noted)
        return _TAKEN

    def _record(self, tx: "sa.Connection", address: ReturnAddress, reports: _Reports, *, now: datetime) -> list[Noted]:
        """Let the report have its effect on the delivery whose address it came to."""
        if reports.feedback is not None:
            return record_complaint(tx, address.delivery_id, reports.feedback, now=now)
        if reports.delivery is not None and address.kind == "bounce":
            return record_bounce(tx, address.delivery_id, reports.delivery, postmaster=self._postmaster, now=now)
        return [Noted(address.delivery_id, "dropped", "neither a bounce nor a complaint")]

    def _read_reports(self, message: bytes) -> _Reports:
        """Read a message; for a thread."""
        feedback = read_feedback_report(message)
        if feedback is None:
            return _Reports(read_delivery_report(message), None, None)
        return _Reports(None, feedback, self._find_named(feedback))

    def _find_named(self, feedback: FeedbackReport) -> ReturnAddress | None:
        """Return the delivery that a report names by a return address of ours: only who got the mail knows it."""
        key = self._relay.secrets.mac_key(MAC_PURPOSE)
        read = (read_return_address(sender.partition("@")[0], key=key) for sender in feedback.senders)
        return next((address for address in read if address is not None), None)

    async def _find_operator(self) -> str | None:
        chosen = self._relay.settings.smtp.postmaster
        if chosen is not None:
            return chosen
        users = await self._relay.db.read(list_users, limit=1)
        return users[0].email if users else None

    async def _make_forward(self, client: Client, envelope: Envelope, box: RoleBox) -> _Forward:
        forwarding = Forwarding(
            role=box.role,
            operator=await self._find_operator() or box.role,
            sender=envelope.sender,
            client=f"{client.helo} [{client.address}]",
            message_id=f"{new_id()}@{self._relay.hostname}",
            date=self._relay.clock.now(),
        )
        subject, message = await asyncio.to_thread(lambda: compose_forwarded(forwarding, _whole(envelope)))
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


def _tell(client: Client, envelope: Envelope, noted: Sequence[Noted]) -> None:
    log.info("mail received", address=client.address, session=client.session_id, recipients=envelope.recipients)
    for one in noted:
        log.info("report", queue_id=one.delivery_id, effect=one.what, reason=one.reason, session=client.session_id)


def _beginning(envelope: Envelope, count: int) -> bytes:
    content = envelope.content
    return bytes(content[:count]) if isinstance(content, bytearray) else content.read(0, count)


def _whole(envelope: Envelope) -> bytes:
    content = envelope.content
    return bytes(content) if isinstance(content, bytearray) else b"".join(content.pieces())


def inbound_doors(relay: Relay) -> list[Door]:
    """Return the door for other servers' mail, not yet listening; none when it is switched off."""
    settings = relay.settings.smtp
    if settings.inbound_port == 0:
        return []
    certificate = (
        Certificate(settings.tls_certificate, settings.tls_key)
        if settings.tls_certificate is not None and settings.tls_key is not None
        else None
    )
    options = DoorOptions(
        relay.hostname,
        auth=False,
        open_to_strangers=True,
        proxies=settings.trusted_proxies,
        spool=spool_directory(relay.settings.server.data_dir),
    )
    host, port = settings.inbound_host or settings.host, settings.inbound_port
    return [
        Door(Inbound(relay), options, door_limits(settings), name="inbound", host=host, port=port, certificate=certificate)
    ]
