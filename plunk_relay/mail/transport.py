"""How is a message handed to another server? A connection that is opened once and carries many transactions.

aiosmtplib connects, greets, encrypts and signs in; `pipeline` then carries the transactions: MAIL, RCPT and DATA in one
packet where PIPELINING is offered, the body in one write, each recipient with an outcome of its own (RFC 5321, 2920).
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, cast

import aiosmtplib
from aiosmtplib import SMTPResponseException

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown, read_reply
from plunk_relay.mail.pipeline import PipelineProtocol

TlsMode = Literal["off", "may", "required", "implicit"]
_QUIT_SECONDS = 2.0
_CONNECTION_TROUBLE = (OSError, aiosmtplib.SMTPException, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to talk to: `host` is its name (for TLS and logs), `address` where to connect."""

    host: str
    address: str
    port: int
    tls: TlsMode = "may"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    verify: bool = False
    source_address: str | None = None

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest waits in seconds: for a connection, a reply to a command, the reply to the final dot."""

    connect: float = 30.0
    reply: float = 300.0
    final_reply: float = 600.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction: a whole message with CRLF lines for recipients on one server."""

    sender: str
    recipients: tuple[str, ...]
    message: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """What came of an envelope, recipient by recipient."""

    outcomes: dict[str, Outcome]
    conversation: str
    sender_refused: bool = False
    """The peer refused at MAIL: another of its hosts may not."""


class ConnectionFailed(Exception):
    """No session came about; `outcome` is what it means for the mail if no other host does better."""

    def __init__(self, outcome: Deferred | Bounced, conversation: str) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome
        self.conversation = conversation


class Connection:
    """An open session with a peer."""

    def __init__(self, peer: Peer, smtp: aiosmtplib.SMTP, timeouts: Timeouts, conversation: Conversation) -> None:
        self.peer = peer
        self.messages_sent = 0
        self.tls_description = _describe_tls(smtp, peer)
        self._timeouts = timeouts
        self._opening: Conversation | None = conversation
        self._extensions = dict(smtp.esmtp_extensions)
        self._smtp = smtp
        transport = cast("asyncio.Transport", smtp.transport)
        self._pipeline = PipelineProtocol(transport)
        transport.set_protocol(self._pipeline)
        self._needs_reset = False
        self._leaving = False

    @classmethod
    async def open(cls, peer: Peer, *, local_hostname: str, timeouts: Timeouts | None = None) -> Self:
        """Connect, greet, encrypt as the peer's mode says, sign in; raises ConnectionFailed.

        Mode `may` uses STARTTLS where offered, unverified, and starts again in clear when the handshake fails.
        """
        chosen = timeouts or Timeouts()
        conversation = Conversation()
        conversation.remark(f"connecting to {peer}")
        try:
            smtp = await _open_session(peer, local_hostname, chosen, conversation)
        except _CONNECTION_TROUBLE as error:
            raise _failed(error, conversation) from error
        return cls(peer, smtp, chosen, conversation)

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return not self._leaving and not self._pipeline.failed

    async def send(self, envelope: Envelope, *, before_dot: Callable[[], None] | None = None) -> Transaction:
        """Carry one transaction; `before_dot` is called before the body and its final dot are written."""
        conversation = self._opening or Conversation()
        self._opening = None
        refusal = self._check_abilities(envelope)
        if refusal is not None:
            return Transaction(dict.fromkeys(envelope.recipients, Bounced(refusal)), str(conversation))
        try:
            mail, recipients, data = await self._announce(envelope, conversation)
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            trouble = Deferred(Reply(421, "4.4.2", f"connection lost: {error}"))
            return Transaction(dict.fromkeys(envelope.recipients, trouble), str(conversation))
        if mail.code // 100 != 2:
            refused: dict[str, Outcome] = dict.fromkeys(envelope.recipients, self._refusal(mail))
            return Transaction(refused, str(conversation), sender_refused=mail.code // 100 == 5)
        outcomes: dict[str, Outcome] = {
            address: self._refusal(reply) for address, reply in recipients.items() if reply.code // 100 != 2
        }
        accepted = [address for address in envelope.recipients if address not in outcomes]
        verdict = await self._transfer(envelope.message, accepted, data, conversation, before_dot)
        return Transaction(outcomes | dict.fromkeys(accepted, verdict), str(conversation))

    async def close(self) -> None:
        """Say QUIT and leave; never raises."""
        try:
            if not self._pipeline.failed:
                self._pipeline.write(b"QUIT\r\n")
                await self._pipeline.read(1, _QUIT_SECONDS)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._pipeline.close()
            self._smtp.close()

    def abort(self) -> None:
        """Drop the connection without a word."""
        self._leaving = True
        self._pipeline.close()
        self._smtp.close()

    def _check_abilities(self, envelope: Envelope) -> Reply | None:
        """Refuse what the peer cannot take: better a clear bounce than mangled mail (RFC 6152, 6531, 1870)."""
        utf8 = not (envelope.sender.isascii() and all(map(str.isascii, envelope.recipients)))
        if utf8 and "smtputf8" not in self._extensions:
            return Reply(553, "5.6.7", f"{self.peer.host} does not support internationalised addresses")
        if "8bitmime" not in self._extensions and not envelope.message.isascii():
            return Reply(554, "5.6.3", f"{self.peer.host} does not support 8-bit messages")
        limit = self._extensions.get("size", "")
        if limit.isdigit() and 0 < int(limit) < len(envelope.message):
            return Reply(552, "5.3.4", f"the message is larger than the {limit} octets that {self.peer.host} takes")
        return None

    def _mail_command(self, envelope: Envelope) -> str:
        parameters = f" SIZE={len(envelope.message)}" if "size" in self._extensions else ""
        if "8bitmime" in self._extensions and not envelope.message.isascii():
            parameters += " BODY=8BITMIME"
        if not (envelope.sender.isascii() and all(map(str.isascii, envelope.recipients))):
            parameters += " SMTPUTF8"
        return f"MAIL FROM:<{envelope.sender}>{parameters}"

    async def _announce(
        self, envelope: Envelope, conversation: Conversation
    ) -> tuple[Reply, dict[str, Reply], Reply | None]:
        """Send MAIL, RCPTs and DATA; return their replies (None: DATA was not answered or not sent)."""
        commands = [
            self._mail_command(envelope),
            *(f"RCPT TO:<{address}>" for address in envelope.recipients),
            "DATA",
        ]
        if self._needs_reset:
            await self._exchange(["RSET"], conversation)
            self._needs_reset = False
        replies = await self._exchange(commands, conversation)
        mail, rest = replies[0], replies[1:]
        lost = Reply(421, "4.4.2", "connection lost")
        recipients = {
            address: rest[index] if index < len(rest) else lost for index, address in enumerate(envelope.recipients)
        }
        return mail, recipients, rest[len(recipients)] if len(rest) > len(recipients) else None

    async def _exchange(self, commands: Sequence[str], conversation: Conversation) -> list[Reply]:
        if "pipelining" in self._extensions:
            for command in commands:
                conversation.client(command)
            self._pipeline.write("".join(f"{command}\r\n" for command in commands).encode())
            replies = await self._pipeline.read(len(commands), self._timeouts.reply)
            for reply in replies:
                conversation.server_reply(str(reply))
            return replies
        return await self._exchange_one_by_one(commands, conversation)

    async def _exchange_one_by_one(self, commands: Sequence[str], conversation: Conversation) -> list[Reply]:
        """Without PIPELINING: wait for each reply; a refused MAIL ends it, DATA needs an accepted recipient."""
        replies: list[Reply] = []
        for command in commands:
            if command == "DATA" and not any(reply.code // 100 == 2 for reply in replies[1:]):
                break
            conversation.client(command)
            self._pipeline.write(f"{command}\r\n".encode())
            replies += await self._pipeline.read(1, self._timeouts.reply)
            conversation.server(str(replies[-1]))
            if (len(replies) == 1 and replies[0].code // 100 != 2) or replies[-1].code == 421:
                break
        return replies

    async def _transfer(
        self,
        message: bytes,
        accepted: Sequence[str],
        data: Reply | None,
        conversation: Conversation,
        before_dot: Callable[[], None] | None,
    ) -> Outcome:
        """Send the body after a 354 and return the verdict for the accepted recipients."""
        if data is None or data.code != 354:
            self._needs_reset = True
            return self._refusal(data or Reply(421, "4.4.2", "connection lost"))
        if not accepted:
            return await self._send_nothing(conversation)
        if before_dot is not None:
            before_dot()
        conversation.client(f"[{len(message)} octets]")
        self._pipeline.write(_stuff(message))
        try:
            reply = (await self._pipeline.read(1, self._timeouts.final_reply))[0]
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return Unknown(f"no reply to the final dot: {error}")
        conversation.server(str(reply))
        self.messages_sent += 1
        return Delivered(reply) if reply.code // 100 == 2 else self._refusal(reply)

    async def _send_nothing(self, conversation: Conversation) -> Outcome:
        """End a transaction whose recipients were all refused although DATA was let through (RFC 2920 3.1)."""
        self._pipeline.write(b".\r\n")
        try:
            reply = (await self._pipeline.read(1, self._timeouts.reply))[0]
            conversation.server(str(reply))
        except (ConnectionError, TimeoutError):
            self._leaving = True
            reply = Reply(421, "4.4.2", "connection lost")
        return Deferred(reply)

    def _refusal(self, reply: Reply) -> Deferred | Bounced:
        self._needs_reset = True
        if reply.code == 421:
            self._leaving = True
        return _refused(reply)


def _refused(reply: Reply) -> Deferred | Bounced:
    """5xx is for good, 4xx for now; an answer out of place is a temporary error."""
    if reply.code // 100 == 5:
        return Bounced(reply)
    if reply.code // 100 == 4:
        return Deferred(reply)
    return Deferred(Reply(451, "4.5.0", f"unexpected reply: {reply}"))


def _stuff(message: bytes) -> bytes:
    """Double leading dots and add the final one (RFC 5321 4.5.2)."""
    stuffed = message.replace(b"\r\n.", b"\r\n..") if b"\r\n." in message else message
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")


async def _open_session(peer: Peer, local_hostname: str, timeouts: Timeouts, conversation: Conversation) -> aiosmtplib.SMTP:
    smtp = await _greet(peer, local_hostname, timeouts, conversation)
    try:
        if peer.tls in ("may", "required"):
            try:
                await _encrypt(smtp, peer, conversation)
            except (ssl.SSLError, aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError) as error:
                if peer.tls == "required":
                    raise
                conversation.remark(f"TLS handshake failed, once more in clear: {error}")
                smtp.close()
                smtp = await _greet(peer, local_hostname, timeouts, conversation)
        if peer.username is not None:
            await _sign_in(smtp, peer, conversation)
    except BaseException:
        smtp.close()
        raise
    return smtp


async def _greet(peer: Peer, local_hostname: str, timeouts: Timeouts, conversation: Conversation) -> aiosmtplib.SMTP:
    smtp = aiosmtplib.SMTP(
        hostname=peer.host,
        sock=await _connect(peer, timeouts.connect),
        local_hostname=local_hostname,
        timeout=timeouts.reply,
        use_tls=peer.tls == "implicit",
        start_tls=False,
        tls_context=_tls_context(peer.verify),
    )
    banner = await smtp.connect()
    conversation.server(f"{banner.code} {banner.message}")
    conversation.client(f"EHLO {local_hostname}")
    try:
        answer = await smtp.ehlo()
    except SMTPResponseException as error:
        if error.code // 100 != 5:
            raise
        conversation.server(f"{error.code} {error.message}")
        conversation.client(f"HELO {local_hostname}")
        answer = await smtp.helo()
    conversation.server(f"{answer.code} {answer.message}")
    return smtp


async def _connect(peer: Peer, timeout_seconds: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in peer.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if peer.source_address:
            sock.bind((peer.source_address, 0))
        async with asyncio.timeout(timeout_seconds):
            await asyncio.get_running_loop().sock_connect(sock, (peer.address, peer.port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _encrypt(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> None:
    if not smtp.supports_extension("starttls"):
        if peer.tls == "required":
            raise aiosmtplib.SMTPException(f"{peer.host} does not offer STARTTLS, which the settings require")
        return
    conversation.client("STARTTLS")
    await smtp.starttls(server_hostname=peer.host)
    conversation.remark(f"TLS: {_describe_tls(smtp, peer)}")
    answer = await smtp.ehlo()
    conversation.server(f"{answer.code} {answer.message}")


async def _sign_in(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> None:
    """Send the password over TLS or on this machine only."""
    loopback = peer.address.startswith("127.") or peer.address == "::1"
    if smtp.get_transport_info("sslcontext") is None and not loopback:
        raise aiosmtplib.SMTPException(f"{peer.host} offers no TLS: the password is not sent in clear")
    conversation.client("AUTH (credentials not shown)")
    answer = await smtp.login(peer.username or "", peer.password or "")
    conversation.server(f"{answer.code} {answer.message}")


@functools.cache
def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _describe_tls(smtp: aiosmtplib.SMTP, peer: Peer) -> str:
    tls = smtp.get_transport_info("ssl_object")
    return "none" if tls is None else f"{tls.version()} {'verified' if peer.verify else 'unverified'}"


def _failed(error: Exception, conversation: Conversation) -> ConnectionFailed:
    if isinstance(error, SMTPResponseException) and not isinstance(error, aiosmtplib.SMTPAuthenticationError):
        reply = read_reply(error.code, str(error.message))
        conversation.server(str(reply))
        return ConnectionFailed(_refused(reply), str(conversation))
    text = "connection timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    conversation.remark(text)
    return ConnectionFailed(Deferred(read_reply(451, f"4.4.1 {text}")), str(conversation))
