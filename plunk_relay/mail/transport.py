"""How is a message handed to another server? A connection that is opened once and carries many transactions.

aiosmtplib connects, greets, encrypts and signs in; `pipeline` then carries the transactions: MAIL, RCPT and DATA in one
packet where PIPELINING is offered, the body in one write (a large one as fast as the peer takes it), each recipient with
an outcome of its own (RFC 5321, 2920).
"""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from plunk_relay.mail.address import to_ascii_domain
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown, judge_refusal
from plunk_relay.mail.pipeline import PipelineProtocol
from plunk_relay.mail.session import Peer, Session, Timeouts, open_session

_CHUNK_BYTES = 131072
"""How much of a message is written at once."""
_LIMIT = re.compile(r"\b(RCPTMAX|MAILMAX)=([1-9][0-9]{0,5})(?!\S)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction: a whole message with CRLF lines for recipients on one server."""

    sender: str
    recipients: tuple[str, ...]
    message: bytes
    require_tls: bool = False
    """Every server on the way must keep to verified TLS (RFC 8689)."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What came of an envelope, recipient by recipient."""

    outcomes: dict[str, Outcome]
    """A recipient that is not here was not asked about: the peer takes only so many in one transaction."""
    host_refused: Deferred | Bounced | None = None
    """Set when this host does not take the message at all: another of the domain's hosts may."""


class Connection:
    """An open session with a peer."""

    def __init__(self, peer: Peer, session: Session, timeouts: Timeouts) -> None:
        self.peer = peer
        self.messages_sent = 0
        self.tls = session.tls
        self.tls_description = session.tls.describe(peer.policy)
        self._timeouts = timeouts
        self._extensions = session.extensions
        self._limits = {name.upper(): int(most) for name, most in _LIMIT.findall(session.extensions.get("limits", ""))}
        self._transactions = 0
        self._smtp = session.smtp
        self._pipeline = PipelineProtocol(session.transport)
        session.transport.set_protocol(self._pipeline)
        self._needs_reset = False
        self._leaving = False

    @classmethod
    async def open(
        cls,
        peer: Peer,
        conversation: Conversation,
        *,
        local_hostname: str,
        timeouts: Timeouts | None = None,
        sock: socket.socket | None = None,
    ) -> Self:
        """Begin a session with the peer, on `sock` when that is connected to it already; raises ConnectionFailed."""
        chosen = timeouts or Timeouts()
        session = await open_session(peer, conversation, local_hostname=local_hostname, timeouts=chosen, sock=sock)
        return cls(peer, session, chosen)

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return not self._leaving and self._pipeline.failure is None

    @property
    def exhausted(self) -> bool:
        """Whether it carried as many transactions as the peer said that it takes on one connection (RFC 9422 4.1)."""
        return self._transactions >= self._limits.get("MAILMAX", self._transactions + 1)

    def takes(self, message: bytes) -> bool:
        """Tell whether the peer takes the octets as they are; else they must be converted (RFC 6152, 6531)."""
        if message.isascii():
            return True
        head = message[: message.find(b"\r\n\r\n")]
        return "8bitmime" in self._extensions and (head.isascii() or ("smtputf8" in self._extensions and _is_utf8(head)))

    async def send(
        self, envelope: Envelope, conversation: Conversation, *, before_dot: Callable[[], None] | None = None
    ) -> Transaction:
        """Carry one transaction; `before_dot` is called before the final dot is written."""
        outcomes = self._check_abilities(envelope)
        wanted = [address for address in envelope.recipients if address not in outcomes]
        if not wanted:
            refusal = next(o for o in outcomes.values() if isinstance(o, Bounced))
            return Transaction(outcomes, host_refused=refusal)
        wanted = wanted[: self._limits.get("RCPTMAX")]
        try:
            mail, replies, data = await self._announce(envelope, wanted, conversation)
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return Transaction(outcomes | dict.fromkeys(wanted, Deferred(_lost(error))))
        if mail.code // 100 != 2:
            verdict = self._refusal(mail, about_recipient=False)
            self._leave_refused(data)
            return Transaction(
                outcomes | dict.fromkeys(wanted, verdict), host_refused=verdict if mail.code // 100 == 5 else None
            )
        outcomes |= {address: self._refusal(reply) for address, reply in replies.items() if reply.code // 100 != 2}
        accepted = [address for address in wanted if address not in outcomes]
        if accepted:
            ending = await self._transfer(envelope.message, data, conversation, before_dot)
            if isinstance(ending, Bounced) and len(accepted) > 1:
                ending = replace(ending, about_recipient=False)  # which of them it means is not said
            return Transaction(outcomes | dict.fromkeys(accepted, ending))
        if data is not None and data.code == 354:
            await self._send_nothing(conversation)
        return Transaction(outcomes)

    async def close(self) -> None:
        """Say QUIT and leave; never raises. A peer that does not answer soon is left without an answer."""
        try:
            if self._pipeline.failure is None:
                self._pipeline.write(b"QUIT\r\n")
                await self._pipeline.read(1, self._timeouts.farewell)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._pipeline.close()
            self._smtp.close()

    def abort(self) -> None:
        """Drop the connection without a word; what was not written yet does not leave any more."""
        self._leaving = True
        self._pipeline.abort()
        self._smtp.close()

    def _check_abilities(self, envelope: Envelope) -> dict[str, Outcome]:
        """Refuse what the peer cannot take: better a clear bounce than mangled mail (RFC 6152, 6531, 1870)."""
        refusal: Reply | None = None
        limit = self._extensions.get("size", "")
        fits = self.takes(envelope.message)
        if not fits and "8bitmime" not in self._extensions:
            refusal = Reply(554, "5.6.3", f"{self.peer.host} does not support 8-bit messages")
        elif not fits:
            refusal = Reply(554, "5.6.9", f"{self.peer.host} does not support internationalised headers")
        elif envelope.require_tls and not (self.tls.verified and "requiretls" in self._extensions):
            refusal = Reply(550, "5.7.30", f"{self.peer.host} does not support REQUIRETLS, which the message asks for")
        elif limit.isdigit() and 0 < int(limit) < len(envelope.message):
            refusal = Reply(552, "5.3.4", f"the message is larger than the {limit} octets that {self.peer.host} takes")
        if refusal is not None:
            return dict.fromkeys(envelope.recipients, Bounced(refusal))
        if "smtputf8" in self._extensions:
            return {}
        utf8 = Bounced(Reply(553, "5.6.7", f"{self.peer.host} does not support internationalised addresses"))
        sender_fits = _to_wire(envelope.sender).isascii()
        return {a: utf8 for a in envelope.recipients if not (sender_fits and _to_wire(a).isascii())}

    def _mail_command(self, envelope: Envelope, recipients: Sequence[str]) -> str:
        sender = _to_wire(envelope.sender)
        parameters = f" SIZE={len(envelope.message)}" if "size" in self._extensions else ""
        utf8 = not (sender.isascii() and all(_to_wire(address).isascii() for address in recipients))
        if not envelope.message.isascii():
            parameters += " BODY=8BITMIME"
            utf8 = utf8 or not envelope.message[: envelope.message.find(b"\r\n\r\n")].isascii()
        if utf8:
            parameters += " SMTPUTF8"
        if envelope.require_tls:
            parameters += " REQUIRETLS"
        return f"MAIL FROM:<{sender}>{parameters}"

    async def _announce(
        self, envelope: Envelope, recipients: Sequence[str], conversation: Conversation
    ) -> tuple[Reply, dict[str, Reply], Reply | None]:
        """Send MAIL, RCPTs and DATA; return their replies (None: DATA was not answered or not sent)."""
        commands = [
            self._mail_command(envelope, recipients),
            *(f"RCPT TO:<{_to_wire(address)}>" for address in recipients),
            "DATA",
        ]
        if self._needs_reset:
            await self._exchange(["RSET"], conversation)
            self._needs_reset = False
        self._transactions += 1
        mail, *rest = await self._exchange(commands, conversation)
        lost = _lost(self._pipeline.failure)
        replies = {address: rest[index] if index < len(rest) else lost for index, address in enumerate(recipients)}
        return mail, replies, rest[len(recipients)] if len(rest) > len(recipients) else None

    async def _exchange(self, commands: Sequence[str], conversation: Conversation) -> list[Reply]:
        if "pipelining" not in self._extensions:
            return await self._exchange_one_by_one(commands, conversation)
        for command in commands:
            conversation.client(command)
        self._pipeline.write("".join(f"{command}\r\n" for command in commands).encode())
        replies = await self._pipeline.read(len(commands), self._timeouts.reply)
        for reply in replies:
            conversation.server_reply(str(reply))
        if len(replies) < len(commands):
            conversation.remark(str(self._pipeline.failure))
        return replies

    async def _exchange_one_by_one(self, commands: Sequence[str], conversation: Conversation) -> list[Reply]:
        """Without PIPELINING: wait for each reply; a refused MAIL ends it, DATA needs an accepted recipient."""
        replies: list[Reply] = []
        for command in commands:
            if command == "DATA" and not any(reply.code // 100 == 2 for reply in replies[1:]):
                break
            conversation.client(command)
            self._pipeline.write(f"{command}\r\n".encode())
            try:
                replies += await self._pipeline.read(1, self._timeouts.reply)
            except (ConnectionError, TimeoutError) as error:
                if not replies:
                    raise
                conversation.remark(str(error))
                break
            conversation.server_reply(str(replies[-1]))
            if (len(replies) == 1 and replies[0].code // 100 != 2) or replies[-1].code == 421:
                break
        return replies

    async def _transfer(
        self, message: bytes, data: Reply | None, conversation: Conversation, before_dot: Callable[[], None] | None
    ) -> Outcome:
        """Send the body after a 354 and return the verdict for the accepted recipients."""
        if data is None or data.code != 354:
            return self._refusal(data or _lost(self._pipeline.failure))
        conversation.client(f"[{len(message)} octets]")
        end = await self._upload(message) if len(message) > _CHUNK_BYTES else message
        if self._pipeline.failure is not None or self._pipeline.answered:
            return await self._break_off_upload(conversation)
        if before_dot is not None:
            before_dot()
        self._pipeline.write(_stuff(end) + (b".\r\n" if end.endswith(b"\r\n") else b"\r\n.\r\n"))
        try:
            if end is not message:
                await self._pipeline.drain(self._timeouts.reply)
            reply = (await self._pipeline.read(1, self._timeouts.final_reply))[0]
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return Unknown(f"no reply to the final dot: {error}")
        conversation.server_reply(str(reply))
        self.messages_sent += 1
        return Delivered(reply) if reply.code // 100 == 2 else self._refusal(reply)

    async def _upload(self, message: bytes) -> bytes:
        """Send a large message as fast as the peer takes it, but for its end, which is returned.

        Stops when the connection ends or the peer answers: it does not wait for the rest then.
        """
        self._pipeline.limit_buffer()
        self._pipeline.expect()
        start = 0
        while 1 < (after := message.find(b"\r\n", start + _CHUNK_BYTES) + 2) < len(message):
            self._pipeline.write(_stuff(message[start:after]))
            await self._pipeline.drain(self._timeouts.reply)
            if self._pipeline.failure is not None or self._pipeline.answered:
                break
            start = after
        return message[start:]

    async def _break_off_upload(self, conversation: Conversation) -> Deferred | Bounced:
        """Say what it means that the peer did not wait for the final dot: it did not take the message."""
        try:
            reply = (await self._pipeline.read(1, self._timeouts.reply))[0]
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return Deferred(_lost(error))
        conversation.server_reply(str(reply))
        self.abort()
        return self._refusal(reply)

    async def _send_nothing(self, conversation: Conversation) -> None:
        """End a transaction whose recipients were all refused although DATA was let through (RFC 2920 3.1)."""
        conversation.client(".")
        self._pipeline.write(b".\r\n")
        try:
            reply = (await self._pipeline.read(1, self._timeouts.reply))[0]
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return
        conversation.server_reply(str(reply))
        self._leaving = self._leaving or reply.code == 421

    def _leave_refused(self, data: Reply | None) -> None:
        """Drop a peer that waits for a message although it refused MAIL: it may have kept recipients for an empty one."""
        if data is not None and data.code == 354:
            self.abort()

    def _refusal(self, reply: Reply, *, about_recipient: bool = True) -> Deferred | Bounced:
        self._needs_reset = True
        if reply.code == 421:
            self._leaving = True
        return judge_refusal(reply, about_recipient=about_recipient)


def _lost(error: Exception | None) -> Reply:
    return Reply(421, "4.4.2", f"connection lost: {error}" if error else "connection lost")


def _to_wire(address: str) -> str:
    """Write the domain in A-labels where the local part is ASCII: such an address needs no SMTPUTF8 (RFC 6531 3.2)."""
    local, at, domain = address.rpartition("@")
    return f"{local}@{to_ascii_domain(domain)}" if at and local.isascii() and not domain.isascii() else address


def _stuff(lines: bytes) -> bytes:
    """Double leading dots (RFC 5321 4.5.2)."""
    stuffed = lines.replace(b"\r\n.", b"\r\n..") if b"\r\n." in lines else lines
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError:
        return False
    return True
