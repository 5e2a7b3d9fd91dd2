"""What is done with submitted mail? Who may send as whom, and how a message gets into the queue."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from plunk_relay.contacts.actions import ContactChange
from plunk_relay.contents.queries import Content
from plunk_relay.domains.actions import check_sender
from plunk_relay.emails.actions import NewMail, QueuedMail, queue_mails
from plunk_relay.errors import NotFound, RelayError, SetupError, Unavailable
from plunk_relay.ids import new_id
from plunk_relay.log import get_logger
from plunk_relay.mail.address import Mailbox, normalize_address
from plunk_relay.mail.line_length import LineTooLongError, has_long_lines_in, shorten
from plunk_relay.mail.submitted import MalformedMessage, Submitted, measure_headers, prepare_large, prepare_submitted
from plunk_relay.projects.actions import get_project, identify_key, resolve_project
from plunk_relay.relay import Relay
from plunk_relay.send.actions import check_billing, choose_lifetime, send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.smtp.certificate import find_certificate
from plunk_relay.smtp.guard import COUNTER_PREFIX, LoginGuard
from plunk_relay.smtp.handler import Client, DoorOptions, Envelope
from plunk_relay.smtp.limits import check_room, door_limits
from plunk_relay.smtp.listener import Door
from plunk_relay.smtp.queries import list_counters, store_counters
from plunk_relay.smtp.replies import CANNOT_STORE, SmtpReply
from plunk_relay.spool import ByteSource, SpooledFile, spool_directory
from plunk_relay.web.binding import bind

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("smtp")
_BAD_LOGIN = SmtpReply(535, "5.7.8", "Wrong user or password; the user is plunk, the password a secret key (sk_...)")
_USER = "plunk"
_AnySubmitted = Submitted[bytes] | Submitted[ByteSource]


@dataclass(frozen=True, slots=True)
class _Accepted:
    """One message, to be stored."""

    content: Content
    mails: Sequence[NewMail]
    now: datetime


class Submission:
    """Decides for the submission doors."""

    def __init__(self, relay: Relay, guard: LoginGuard) -> None:
        self._relay = relay
        self._log = log.bind()  # once: a log line a mail is written through it
        self._guard = guard
        self._logins: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By address: one password after the other is looked at, so that none slips past the limit."""

    async def authenticate(self, client: Client, username: str, password: str) -> str | SmtpReply:
        """Return the project whose secret key the password is; the same work is done for an unknown user."""
        lock = self._logins.setdefault(client.address, asyncio.Lock())
        async with lock:
            return await self._check_password(client, username, password)

    async def _check_password(self, client: Client, username: str, password: str) -> str | SmtpReply:
        refusal = self._guard.check(client.address)
        if refusal is not None:
            return refusal
        owner = await identify_key(self._relay, password)
        fits = owner is not None and owner.kind == "secret" and username.lower() in (_USER, owner.project_id)
        if owner is None or not fits:
            self._guard.fail(client.address)
            await self._store_failures()
            log.warning("login failed", address=client.address, session=client.session_id)
            return _BAD_LOGIN
        self._guard.succeed(client.address)
        await self._store_failures()
        return owner.project_id

    async def check_sender(self, client: Client, address: str) -> SmtpReply | None:
        """Accept a sender on a verified domain of the project; the null sender is for servers, not for submission."""
        if not address:
            return SmtpReply(550, "5.7.1", "The null sender is not accepted for submission")
        return await self._check_domain(client, address)

    async def check_recipient(self, client: Client, envelope: Envelope, address: str) -> SmtpReply | None:
        """Accept any recipient while there is room to store mail."""
        del client, envelope, address
        return await check_room(self._relay)

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        """Queue the message for every recipient in one unit of work; 250 after the commit."""
        refusal = await self._check_acceptance(client, envelope)
        if refusal is not None:
            return refusal
        queue_id, now = new_id(), self._relay.clock.now()
        received = _received_field(client, envelope, self._relay.hostname, queue_id, now)
        try:
            message = await self._prepare(envelope.content, received, queue_id, now)
        except (MalformedMessage, LineTooLongError) as error:
            return SmtpReply(554, "5.6.0", f"Malformed message: {error}")
        except OSError as error:
            log.error("a large message cannot be spooled", error=error.strerror)
            return CANNOT_STORE
        sender = await self._check_message(client, envelope, message)
        if isinstance(sender, SmtpReply):
            return sender
        try:
            queued = await self._queue(client, envelope, message, sender, queue_id)
        except NotFound as error:  # the template; its own 550 5.1.1 would mean that the recipient does not exist
            return SmtpReply(554, "5.6.0", error.message)
        self._relay.wakes.deliveries.set()
        return SmtpReply(250, "2.0.0", f"queued as {queued[0].delivery_id}")

    async def _prepare(
        self, content: bytearray | SpooledFile, received: bytes, queue_id: str, now: datetime
    ) -> _AnySubmitted:
        message_id = f"{queue_id}@{self._relay.hostname}"
        if isinstance(content, SpooledFile):
            most = self._relay.settings.smtp.max_header_bytes
            return await asyncio.to_thread(_prepare_spooled, content, most, received, message_id, now)
        message = prepare_submitted(content, received=received, message_id=message_id, date=now)
        content.clear()  # the database makes a copy of its own while it stores
        return message

    async def _store_failures(self) -> None:
        """Keep the guard's counts beyond a restart; when nothing can be stored they still count until then."""
        stored, deleted = self._guard.take_changes()
        if stored or deleted:
            with suppress(Unavailable):
                await self._relay.db.write(store_counters, stored, deleted)

    async def _check_acceptance(self, client: Client, envelope: Envelope) -> SmtpReply | None:
        """Check what needs no look into the message; one that was being sent when the server began to stop is taken."""
        refusal = None if self._relay.stopping.is_set() else await check_room(self._relay)
        if refusal is not None:
            return refusal
        project = await get_project(self._relay, client.project_id or "")
        if project.disabled:
            return SmtpReply(550, "5.7.1", "This project is disabled; ask the operator of this relay")
        most = self._relay.settings.smtp.max_header_bytes
        if measure_headers(_beginning(envelope.content, most + 4)) > most:
            return SmtpReply(552, "5.3.4", f"The header block is larger than {most} bytes")
        return None

    async def _check_domain(self, client: Client, address: str) -> SmtpReply | None:
        try:
            await check_sender(self._relay, client.project_id or "", address)
        except Unavailable:
            raise
        except RelayError as error:
            return SmtpReply(550, "5.7.1", error.message)
        return None

    async def _check_message(self, client: Client, envelope: Envelope, message: _AnySubmitted) -> Mailbox | SmtpReply:
        """Check hops and the From field; return the author."""
        settings = self._relay.settings.smtp
        if message.received_count > settings.max_received_headers:
            return SmtpReply(554, "5.4.6", f"More than {settings.max_received_headers} hops: a mail loop")
        if message.from_fields != 1 or not message.senders:
            return SmtpReply(550, "5.7.1", "The message needs exactly one From header with an address (RFC 5322 3.6)")
        for sender in message.senders:
            if sender.address == envelope.sender:
                continue  # checked at MAIL
            refusal = await self._check_domain(client, sender.address)
            if refusal is not None:
                return refusal
        return message.senders[0]

    async def _queue(
        self, client: Client, envelope: Envelope, message: _AnySubmitted, sender: Mailbox, queue_id: str
    ) -> list[QueuedMail]:
        project_id = client.project_id or ""
        expires_in = _read_seconds(message.options.get("expires-in"))
        lifetime = choose_lifetime(self._relay, expires_in, field="X-Plunk-Expires-In")
        if "template" in message.options:
            return await send_message(
                self._relay,
                project_id,
                _template_request(envelope, message, sender, expires_in),
                tag=message.options.get("tag"),
                never_twice=_switch(message.options.get("never-twice")) or False,
                tls_wish=_tls_wish(envelope, message),
            )
        recipients = _distinct(envelope.recipients)
        await check_billing(self._relay, project_id, len(recipients))
        now = self._relay.clock.now()
        content = Content(new_id(), project_id, "MIME", message.message)
        ids = [queue_id, *(new_id() for _ in recipients[1:])]
        mails = [
            _new_mail(project_id, envelope, message, sender, recipient, delivery_id, content.id, now + lifetime)
            for recipient, delivery_id in zip(recipients, ids, strict=True)
        ]
        queued = await self._relay.db.write_joint(_store, _Accepted(content, mails, now))
        for mail in mails:
            self._log.info(
                "accepted",
                queue_id=mail.delivery_id,
                project=project_id,
                sender=envelope.sender,
                recipient=mail.recipient,
                size=content.size,
                session=client.session_id,
            )
        return queued


def _beginning(content: bytearray | SpooledFile, count: int) -> bytearray | bytes:
    return content.read(0, count) if isinstance(content, SpooledFile) else content


def _prepare_spooled(
    content: SpooledFile, most_header_bytes: int, received: bytes, message_id: str, now: datetime
) -> Submitted[ByteSource]:
    """Make a large message ready; for a thread."""
    if has_long_lines_in(content):
        content.rewrite(shorten(content))
    beginning = content.read(0, 2 * most_header_bytes)  # its header block may have grown a little
    head = beginning[: measure_headers(beginning)]
    return prepare_large(content, head, received=received, message_id=message_id, date=now)


def _store(tx: "sa.Connection", batch: Sequence[_Accepted]) -> list[list[QueuedMail]]:
    contents, mails = [one.content for one in batch], [mail for one in batch for mail in one.mails]
    queued = iter(queue_mails(tx, contents, mails, now=batch[-1].now))
    return [[next(queued) for _ in one.mails] for one in batch]


def _new_mail(
    project_id: str,
    envelope: Envelope,
    message: _AnySubmitted,
    sender: Mailbox,
    recipient: str,
    delivery_id: str,
    content_id: str,
    expires_at: datetime,
) -> NewMail:
    name = message.recipient_names.get(recipient.lower())
    return NewMail(
        email_id=new_id(),
        delivery_id=delivery_id,
        project_id=project_id,
        contact=ContactChange(normalize_address(recipient), subscribed_if_new=False),
        rendered_for=None,
        recipient=recipient,
        to_name=name,
        subject=message.subject,
        from_address=sender.address,
        from_name=sender.name,
        reply_to=message.reply_to,
        headers=None,
        content_id=content_id,
        attachments_id=None,
        message_id=message.message_id,
        mail_class="transactional",
        source_type="TRANSACTIONAL",
        sender=envelope.sender,
        expires_at=expires_at,
        tag=message.options.get("tag"),
        tracked=_switch(message.options.get("track")),
        never_twice=_switch(message.options.get("never-twice")) or False,
        notify=_switch(message.options.get("notify")) is not False,
        tls_wish=_tls_wish(envelope, message),
    )


def _tls_wish(envelope: Envelope, message: _AnySubmitted) -> str | None:
    """Return what is stored as `tls_wish`; REQUIRETLS wins over the header (RFC 8689 4.1)."""
    return "REQUIRED" if envelope.require_tls else "OPTIONAL" if message.tls_optional else None


def _distinct(recipients: Sequence[str]) -> list[str]:
    """Return each mailbox once, as first written: to us, as to nearly every server, upper and lower case are one."""
    found: dict[str, str] = {}
    for recipient in recipients:
        found.setdefault(normalize_address(recipient), recipient)
    return list(found.values())


def _switch(value: str | None) -> bool | None:
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
    return None if value is None else words.get(value.lower())


def _read_seconds(value: str | None) -> int | None:
    """Read a whole number; what is none becomes 0, which is out of all bounds."""
    if value is None:
        return None
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0


def _template_request(envelope: Envelope, message: _AnySubmitted, sender: Mailbox, expires_in: int | None) -> SendRequest:
    """Make the send request for a message that names a template: its body is the template's, not the message's."""
    body = {
        "to": [
            {"email": recipient, **({"name": name} if (name := message.recipient_names.get(recipient.lower())) else {})}
            for recipient in _distinct(envelope.recipients)
        ],
        "template": message.options["template"],
        "from": {"email": sender.address, **({"name": sender.name} if sender.name else {})},
        **({"subject": message.subject} if message.subject else {}),
        **({"reply": message.reply_to} if message.reply_to else {}),
        "tracking": _switch(message.options.get("track")),
        "expiresIn": expires_in,
    }
    return bind(SendRequest, body)


def _received_field(client: Client, envelope: Envelope, hostname: str, queue_id: str, now: datetime) -> bytes:
    """Write the trace field (RFC 5321 4.4, RFC 3848, RFC 6531); the client's address stays out of what strangers read."""
    protocol = "SMTP"
    if client.extended:
        protocol = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
        protocol += ("S" if client.tls else "") + ("A" if client.authenticated else "")
    lines = [f"Received: by {hostname} (Plunk Relay)", f"with {protocol} id {queue_id}"]
    if len(envelope.recipients) == 1 and envelope.recipients[0].isascii():
        lines.append(f"for <{envelope.recipients[0]}>")
    lines[-1] += ";"
    return ("\r\n\t".join([*lines, format_datetime(now)]) + "\r\n").encode()


async def _trusted_project(relay: Relay, name_or_id: str) -> str:
    try:
        return (await resolve_project(relay, name_or_id)).id
    except RelayError as error:
        raise SetupError(f"setting `smtp.trusted`: {error.message}: {name_or_id}") from error


async def submission_doors(relay: Relay) -> list[Door]:
    """Return the doors of the settings, not yet listening; raises SetupError for a trusted project that is unknown."""
    settings = relay.settings.smtp
    certificate = find_certificate(relay.settings)
    trusted = [(entry.network, await _trusted_project(relay, entry.project)) for entry in settings.trusted]
    limits = door_limits(settings)
    guard = LoginGuard(relay.clock.now, await relay.db.read(list_counters, COUNTER_PREFIX))
    handler = Submission(relay, guard)
    doors = []
    for name, port, implicit in (
        ("submission", settings.submission_port, False),
        ("submissions", settings.submissions_port, True),
    ):
        if port == 0 or (implicit and certificate is None):
            continue
        options = DoorOptions(
            relay.hostname,
            implicit_tls=implicit,
            auth_without_tls=settings.auth_without_tls,
            trusted=trusted,
            proxies=settings.trusted_proxies,
            spool=spool_directory(relay.settings.server.data_dir),
        )
        doors.append(Door(handler, options, limits, name=name, host=settings.host, port=port, certificate=certificate))
    return doors
