"""What is done with mail from other servers? It is taken for mailboxes of ours, and for nobody else.

Only `inbound/mailboxes.py` decides what is taken, at RCPT; what was taken is never bounced later. A message is either for us
(bounces, complaints, the operator) or for receiving projects, so that all it does is one unit of work.
"""

import asyncio

from plunk_relay.inbound.actions import receive
from plunk_relay.inbound.arrival import Arrival, check_hops
from plunk_relay.inbound.mailboxes import Mailbox, ReceivingBox, find_mailbox
from plunk_relay.inbound.own_mail import TAKEN, take_own_mail
from plunk_relay.log import get_logger
from plunk_relay.mail.outcome import Reply
from plunk_relay.relay import Relay
from plunk_relay.smtp.certificate import find_certificate
from plunk_relay.smtp.handler import Client, DoorOptions, Envelope
from plunk_relay.smtp.limits import check_room, door_limits
from plunk_relay.smtp.listener import Door
from plunk_relay.smtp.replies import SmtpReply
from plunk_relay.spool import Held, spool_directory

log = get_logger("inbound")
_SEPARATELY = SmtpReply(452, "4.5.3", "Send to this recipient separately")
_ONE_BOUNCE_EACH = SmtpReply(550, "5.5.3", "A message from <> has one recipient")
_CHANGED = SmtpReply(451, "4.2.1", "A mailbox has just changed; try again later")


class Inbound:
    """Decides for the door of other servers' mail."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

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
        if isinstance(box, Reply):
            log.info("recipient refused", address=client.address, recipient=address, reply=str(box.code))
            return SmtpReply.of(box)
        return await self._check_company(envelope, box)

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        """Let the message have its effect in one unit of work; 250 after the commit."""
        arrival = _arrival(client, envelope)
        refusal = None if self._relay.stopping.is_set() else await check_room(self._relay)
        refusal = refusal or self._check_head(arrival)
        if refusal is not None:
            return refusal
        boxes = [await find_mailbox(self._relay, recipient) for recipient in envelope.recipients]
        found = [box for box in boxes if not isinstance(box, Reply)]
        if len(found) != len(boxes):
            return _CHANGED
        own = [box for box in found if not isinstance(box, ReceivingBox)]
        if own:
            return SmtpReply.of(await take_own_mail(self._relay, arrival, own))
        await self._receive(arrival)
        return SmtpReply.of(TAKEN)

    async def _check_company(self, envelope: Envelope, box: Mailbox) -> SmtpReply | None:
        """Refuse a second recipient of a bounce (RFC 5321 4.5.5), and one of another kind than the first."""
        if not envelope.recipients:
            return None
        if not envelope.sender:
            return _ONE_BOUNCE_EACH
        first = await find_mailbox(self._relay, envelope.recipients[0])
        return _SEPARATELY if isinstance(first, ReceivingBox) != isinstance(box, ReceivingBox) else None

    def _check_head(self, arrival: Arrival) -> SmtpReply | None:
        most = self._relay.settings.smtp.max_header_bytes
        head, _, rest = arrival.beginning(most + 4).partition(b"\r\n\r\n")
        if not rest and len(head) > most:
            return SmtpReply(552, "5.3.4", f"The header block is larger than {most} bytes")
        refusal = check_hops(self._relay, head)
        return SmtpReply.of(refusal) if refusal is not None else None

    async def _receive(self, arrival: Arrival) -> None:
        await receive(
            self._relay,
            client_address=arrival.client_address,
            helo=arrival.helo,
            sender=arrival.sender,
            recipients=arrival.recipients,
            message=await asyncio.to_thread(arrival.whole),
        )


def _arrival(client: Client, envelope: Envelope) -> Arrival:
    content = envelope.content
    return Arrival(
        client_address=client.address,
        helo=client.helo,
        session_id=client.session_id,
        sender=envelope.sender,
        recipients=envelope.recipients,
        content=Held(content) if isinstance(content, bytearray) else content,
    )


def inbound_doors(relay: Relay) -> list[Door]:
    """Return the door for other servers' mail, not yet listening; none when it is switched off."""
    settings = relay.settings.smtp
    if settings.inbound_port == 0:
        return []
    certificate = find_certificate(relay.settings)
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
