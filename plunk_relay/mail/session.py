"""How does a session with another server begin? Connect, greet, encrypt as the peer's mode says, sign in.

aiosmtplib does it; what comes out is a `Session`, which `transport` carries messages on.
"""

import asyncio
import base64
import functools
import socket
import ssl
from dataclasses import dataclass, field
from typing import Literal, cast

import aiosmtplib
from aiosmtplib import SMTPResponseException

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Reply, judge_refusal, read_reply, sanitize

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


class ConnectionFailed(Exception):
    """No session came about; `outcome` is what it means for the mail if no other host does better."""

    def __init__(self, outcome: Deferred | Bounced) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


class _TlsFailed(Exception):
    """The session could not be encrypted."""


_CONNECTION_TROUBLE = (OSError, aiosmtplib.SMTPException, _TlsFailed, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: its transport, the extensions of the last EHLO (lower case), and what TLS it has."""

    smtp: aiosmtplib.SMTP
    transport: asyncio.Transport
    extensions: dict[str, str]
    tls: str
    """Protocol and whether the certificate was verified, or none."""


async def open_session(peer: Peer, conversation: Conversation, *, local_hostname: str, timeouts: Timeouts) -> Session:
    """Connect, greet, encrypt as the peer's mode says, sign in; raises ConnectionFailed.

    Mode `may` uses STARTTLS where offered, unverified, and starts again in clear when that fails.
    """
    conversation.remark(f"connecting to {peer}")
    try:
        smtp = await _begin(peer, local_hostname, timeouts, conversation)
    except _CONNECTION_TROUBLE as error:
        raise ConnectionFailed(_explain(error, peer, conversation)) from error
    transport = cast("asyncio.Transport", smtp.transport)
    return Session(smtp, transport, dict(smtp.esmtp_extensions), _describe_tls(smtp, peer))


async def _begin(peer: Peer, local_hostname: str, timeouts: Timeouts, conversation: Conversation) -> aiosmtplib.SMTP:
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
        return judge_refusal(reply)
    text = "connection timed out" if isinstance(error, TimeoutError) else str(error.args[-1] if error.args else error)
    text = sanitize(text) or type(error).__name__
    conversation.remark(text)
    return Deferred(Reply(451, "4.7.5" if isinstance(error, _TlsFailed) else "4.4.1", text))
