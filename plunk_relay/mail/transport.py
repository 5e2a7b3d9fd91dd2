"""How is a message handed to another server? A connection that is opened once and carries many transactions.

aiosmtplib connects, greets, encrypts and signs in; `pipeline` then carries the transactions: MAIL, RCPT and DATA in one
packet where PIPELINING is offered, the body in one write, each recipient with an outcome of its own (RFC 5321, 2920).
"""

import asyncio
import base64
import functools
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, cast

import aiosmtplib
from aiosmtplib import SMTPResponseException

from plunk_relay.mail.address import to_ascii_domain
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown, read_reply, sanitize
from plunk_relay.mail.pipeline import PipelineProtocol

TlsMode = Literal["off", "may", "required", "implicit"]


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
    """Longest waits in seconds: for a connection, a reply to a command, to the final dot, to QUIT."""

    connect: float = 30.0
    reply: float = 300.0
    final_reply: float = 600.0
    farewell: float = 2.0


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
    host_refused: Deferred | Bounced | None = None
    """Set when this host does not take the message at all: another of the domain's hosts may."""


class ConnectionFailed(Exception):
    """No session came about; `outcome` is what it means for the mail if no other host does better."""

    def __init__(self, outcome: Deferred | Bounced) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


class _TlsFailed(Exception):
    """The session could not be encrypted."""


_CONNECTION_TROUBLE = (OSError, aiosmtplib.SMTPException, _TlsFailed, TimeoutError, ValueError)


class Connection:
    """An open session with a peer."""

    def __init__(self, peer: Peer, smtp: aiosmtplib.SMTP, timeouts: Timeouts) -> None:
        self.peer = peer
        self.messages_sent = 0
        self.tls_description = _describe_tls(smtp, peer)
        self._timeouts = timeouts
        self._extensions = dict(smtp.esmtp_extensions)
        self._smtp = smtp
        transport = cast("asyncio.Transport", smtp.transport)
        self._pipeline = PipelineProtocol(transport)
        transport.set_protocol(self._pipeline)
        self._needs_reset = False
        self._leaving = False

    @classmethod
    async def open(
        cls, peer: Peer, conversation: Conversation, *, local_hostname: str, timeouts: Timeouts | None = None
    ) -> Self:
        """Connect, greet, encrypt as the peer's mode says, sign in; raises ConnectionFailed.

        Mode `may` uses STARTTLS where offered, unverified, and starts again in clear when that fails.
        """
        chosen = timeouts or Timeouts()
        conversation.remark(f"connecting to {peer}")
        try:
            smtp = await _open_session(peer, local_hostname, chosen, conversation)
            return cls(peer, smtp, chosen)
        except _CONNECTION_TROUBLE as error:
            raise ConnectionFailed(_explain(error, peer, conversation)) from error

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return not self._leaving and self._pipeline.failure is None

    async def send(
        self, envelope: Envelope, conversation: Conversation, *, before_dot: Callable[[], None] | None = None
    ) -> Transaction:
        """Carry one transaction; `before_dot` is called before the body and its final dot are written."""
        outcomes = self._check_abilities(envelope)
        wanted = [address for address in envelope.recipients if address not in outcomes]
        if not wanted:
            refusal = next(o for o in outcomes.values() if isinstance(o, Bounced))
            return Transaction(outcomes, host_refused=refusal)
        try:
            mail, replies, data = await self._announce(envelope, wanted, conversation)
        except (ConnectionError, TimeoutError) as error:
            self._leaving = True
            conversation.remark(str(error))
            return Transaction(outcomes | dict.fromkeys(wanted, Deferred(_lost(error))))
        if mail.code // 100 != 2:
            verdict = self._refusal(mail)
            self._leave_refused(data)
            return Transaction(
                outcomes | dict.fromkeys(wanted, verdict), host_refused=verdict if mail.code // 100 == 5 else None
            )
        outcomes |= {address: self._refusal(reply) for address, reply in replies.items() if reply.code // 100 != 2}
        accepted = [address for address in wanted if address not in outcomes]
        if accepted:
            ending = await self._transfer(envelope.message, data, conversation, before_dot)
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
        if "8bitmime" not in self._extensions and not envelope.message.isascii():
            refusal = Reply(554, "5.6.3", f"{self.peer.host} does not support 8-bit messages")
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
        if "8bitmime" in self._extensions and not envelope.message.isascii():
            parameters += " BODY=8BITMIME"
        if not (sender.isascii() and all(_to_wire(address).isascii() for address in recipients)):
            parameters += " SMTPUTF8"
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
        conversation.server_reply(str(reply))
        self.messages_sent += 1
        return Delivered(reply) if reply.code // 100 == 2 else self._refusal(reply)

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


def _lost(error: Exception | None) -> Reply:
    return Reply(421, "4.4.2", f"connection lost: {error}" if error else "connection lost")


def _to_wire(address: str) -> str:
    """Write the domain in A-labels where the local part is ASCII: such an address needs no SMTPUTF8 (RFC 6531 3.2)."""
    local, at, domain = address.rpartition("@")
    return f"{local}@{to_ascii_domain(domain)}" if at and local.isascii() and not domain.isascii() else address


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
            except _TlsFailed as error:
                if peer.tls == "required":
                    raise
                conversation.remark(f"{error}, once more in clear")
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
    try:
        banner = await smtp.connect()
        conversation.server(f"{banner.code} {banner.message}")
        _check_quiet(smtp, peer)
        await _say_hello(smtp, peer, local_hostname, conversation)
    except BaseException:
        smtp.close()
        raise
    return smtp


async def _say_hello(smtp: aiosmtplib.SMTP, peer: Peer, local_hostname: str, conversation: Conversation) -> None:
    conversation.client(f"EHLO {local_hostname}")
    try:
        answer = await smtp.ehlo()
    except SMTPResponseException as refusal:
        if refusal.code // 100 != 5:
            raise
        conversation.server(f"{refusal.code} {refusal.message}")
        conversation.client(f"HELO {local_hostname}")
        try:
            answer = await smtp.helo()
        except aiosmtplib.SMTPServerDisconnected:
            raise refusal from None  # a peer that refuses and hangs up has said what it thinks
    conversation.server(f"{answer.code} {answer.message}")
    _check_quiet(smtp, peer)


def _check_quiet(smtp: aiosmtplib.SMTP, peer: Peer) -> None:
    """Give up on a peer that sent more than its reply: the rest would be taken for the answer to the next command."""
    rest = bytes(smtp.protocol._buffer) if smtp.protocol else b""  # noqa: SLF001  aiosmtplib has no public way to it
    text = rest.decode("utf-8", "replace")
    if text.startswith("421"):
        raise SMTPResponseException(421, text[4:])
    if text:
        raise aiosmtplib.SMTPException(f"{peer.host} sent what nobody asked for: {text[:100]!r}")


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
    """Start TLS where it is offered, or raise _TlsFailed."""
    if not smtp.supports_extension("starttls"):
        if peer.tls == "required":
            raise _TlsFailed(f"{peer.host} does not offer STARTTLS, which the settings require")
        return
    conversation.client("STARTTLS")
    try:
        await smtp.starttls(server_hostname=peer.host)
        conversation.remark(f"TLS: {_describe_tls(smtp, peer)}")
        answer = await smtp.ehlo()
    except SMTPResponseException as error:
        raise _TlsFailed(f"STARTTLS refused: {read_reply(error.code, error.message)}") from error
    except (OSError, ValueError) as error:  # ValueError: a host name that TLS cannot ask for
        raise _TlsFailed(f"TLS handshake failed: {error}") from error
    conversation.server(f"{answer.code} {answer.message}")
    _check_quiet(smtp, peer)


async def _sign_in(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> None:
    """Send the password over TLS or on this machine only."""
    loopback = peer.address.startswith("127.") or peer.address == "::1"
    if smtp.get_transport_info("sslcontext") is None and not loopback:
        raise aiosmtplib.SMTPException(f"{peer.host} offers no TLS: the password is not sent in clear")
    conversation.client("AUTH (credentials not shown)")
    answer = await smtp.login(peer.username or "", peer.password or "")
    conversation.server(f"{answer.code} {_redact(answer.message, peer)}")
    _check_quiet(smtp, peer)


def _redact(text: str, peer: Peer) -> str:
    """Take the credentials out of an answer: some servers repeat the command that they do not like."""
    user, password = peer.username or "", peer.password or ""
    plain = [f"\0{user}\0{password}", user, password]
    for secret in [*(base64.b64encode(text.encode()).decode() for text in plain), password]:
        text = text.replace(secret, "...") if secret else text
    return text


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


def _explain(error: Exception, peer: Peer, conversation: Conversation) -> Deferred | Bounced:
    """Say what the failure to open a session means; only a reply of the peer to what every client says is for good."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        reply = read_reply(error.code, _redact(error.message, peer))
        conversation.server(str(reply))
        return Deferred(Reply(451, "4.7.8", f"the login was refused: {reply}"))
    if isinstance(error, SMTPResponseException) and 200 <= error.code < 600:
        reply = read_reply(error.code, error.message)
        conversation.server(str(reply))
        return _refused(reply)
    text = "connection timed out" if isinstance(error, TimeoutError) else str(error.args[-1] if error.args else error)
    text = sanitize(text) or type(error).__name__
    conversation.remark(text)
    return Deferred(Reply(451, "4.7.5" if isinstance(error, _TlsFailed) else "4.4.1", text))
