"""How does a session with another server begin? Connect, greet, encrypt as the peer's mode says, sign in.

aiosmtplib does it; what comes out is a `Session`, which `transport` carries messages on.
"""

import asyncio
import base64
import socket
import ssl
from dataclasses import dataclass, field
from typing import Literal, cast

import aiosmtplib
from aiosmtplib import SMTPResponseException

from plunk_relay.mail.certificates import Untrusted
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Reply, judge_refusal, read_reply, sanitize
from plunk_relay.mail.strict_client import StrictClient
from plunk_relay.mail.tls import NO_POLICY, TlsFacts, TlsPolicy, TlsTrouble, explain_tls_failure, judge_tls, tls_context

_CLOSING = 421
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
    """An authority must vouch for the certificate, for `host`; else it is judged for the record only."""
    source_address: str | None = None
    authorities: str | None = None
    """PEM file of authorities that are trusted beside the system's."""
    policy: TlsPolicy = NO_POLICY

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest waits in seconds: for a connection, a reply to a command, to the final dot, to QUIT.

    `head_start`: how long a host's first address may take before its second one is called too.
    """

    connect: float = 30.0
    reply: float = 300.0
    final_reply: float = 600.0
    farewell: float = 2.0
    head_start: float = 2.5


class ConnectionFailed(Exception):
    """No session came about; `outcome` is what it means for the mail if no other host does better.

    `tls_trouble` is set when it was for its TLS.
    """

    def __init__(self, outcome: Deferred | Bounced, tls_trouble: TlsTrouble | None = None) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome
        self.tls_trouble = tls_trouble


class _TlsFailed(Exception):
    """The session could not be encrypted; `lasting`: nor will it be, as the peer does not offer it, or is not trusted.

    `refused`: the peer said no, so that nothing has begun and the session may go on in clear (RFC 3207 4).
    """

    def __init__(self, trouble: TlsTrouble, *, lasting: bool = False, refused: bool = False) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble
        self.lasting = lasting
        self.refused = refused


_CONNECTION_TROUBLE = (OSError, aiosmtplib.SMTPException, _TlsFailed, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: its transport, the extensions of the last EHLO (lower case), and what TLS it has."""

    smtp: aiosmtplib.SMTP
    transport: asyncio.Transport
    extensions: dict[str, str]
    tls: TlsFacts


async def open_session(
    peer: Peer, conversation: Conversation, *, local_hostname: str, timeouts: Timeouts, sock: socket.socket | None = None
) -> Session:
    """Connect, greet, encrypt as the peer's mode says, sign in; raises ConnectionFailed. `sock` is connected already.

    Mode `may` uses STARTTLS where offered, whatever the certificate; it goes on in clear where that is refused, and starts
    again in clear when the handshake fails.
    """
    if sock is None:
        conversation.remark(f"connecting to {peer}")
    if peer.policy.name:
        conversation.remark(f"TLS policy: {peer.policy.name}")
    try:
        smtp, tls = await _begin(peer, local_hostname, timeouts, conversation, sock)
    except _CONNECTION_TROUBLE as error:
        trouble = error.trouble if isinstance(error, _TlsFailed) else None
        raise ConnectionFailed(_explain(error, peer, conversation), trouble) from error
    return Session(smtp, cast("asyncio.Transport", smtp.transport), dict(smtp.esmtp_extensions), tls)


async def _begin(
    peer: Peer, local_hostname: str, timeouts: Timeouts, conversation: Conversation, sock: socket.socket | None
) -> tuple[aiosmtplib.SMTP, TlsFacts]:
    smtp = await _greet(peer, local_hostname, timeouts, conversation, sock)
    try:
        tls = _judge(smtp, peer, conversation) if peer.tls == "implicit" else TlsFacts()
        if peer.tls in ("may", "required"):
            try:
                tls = await _encrypt(smtp, peer, conversation)
            except _TlsFailed as error:
                if peer.tls == "required":
                    raise
                tls = TlsFacts(trouble=error.trouble)
                if not (error.refused and await _goes_on_in_clear(smtp, peer, conversation)):
                    conversation.remark(f"{error}, once more in clear")
                    smtp.close()
                    smtp = await _greet(peer, local_hostname, timeouts, conversation)
        if peer.username is not None:
            await _sign_in(smtp, peer, conversation)
    except BaseException:
        smtp.close()
        raise
    return smtp, tls


async def _greet(
    peer: Peer,
    local_hostname: str,
    timeouts: Timeouts,
    conversation: Conversation,
    sock: socket.socket | None = None,
) -> aiosmtplib.SMTP:
    smtp = StrictClient(
        hostname=peer.host,
        sock=sock or await connect_socket(peer, timeouts.connect),
        local_hostname=local_hostname,
        timeout=timeouts.reply,
        use_tls=peer.tls == "implicit",
        start_tls=False,
        tls_context=tls_context(verify=peer.verify, authorities=peer.authorities),
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


async def connect_socket(peer: Peer, timeout_seconds: float) -> socket.socket:
    """Connect, from the source address if there is one; raises OSError or TimeoutError."""
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


async def _encrypt(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> TlsFacts:
    """Start TLS where it is offered, or raise _TlsFailed; EHLO is said again (RFC 3207 4.2)."""
    if not smtp.supports_extension("starttls"):
        trouble = TlsTrouble("starttls-not-supported", f"{peer.host} does not offer STARTTLS")
        if peer.tls == "required":
            raise _TlsFailed(trouble, lasting=True)
        return TlsFacts(trouble=trouble)
    conversation.client("STARTTLS")
    try:
        await smtp.starttls(server_hostname=peer.policy.dane.base if peer.policy.dane else peer.host)
        tls = _judge(smtp, peer, conversation)
        answer = await smtp.ehlo()
    except SMTPResponseException as error:
        reply = read_reply(error.code, error.message)
        conversation.server(str(reply))
        refused = error.code // 100 in (4, 5) and error.code != _CLOSING and not _is_encrypted(smtp)
        raise _TlsFailed(TlsTrouble("starttls-not-supported", f"STARTTLS refused: {reply}"), refused=refused) from error
    except (OSError, ValueError, Untrusted) as error:  # ValueError: a host name that TLS cannot ask for
        lasting = isinstance(error, Untrusted | ssl.SSLCertVerificationError)
        raise _TlsFailed(explain_tls_failure(error), lasting=lasting) from error
    conversation.server(f"{answer.code} {answer.message}")
    _check_quiet(smtp, peer)
    return tls


def _is_encrypted(smtp: aiosmtplib.SMTP) -> bool:
    return smtp.transport is not None and smtp.transport.get_extra_info("sslcontext") is not None


async def _goes_on_in_clear(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> bool:
    """Ask a peer that refused TLS for one more reply: some hang up instead."""
    try:
        _check_quiet(smtp, peer)
        conversation.client("RSET")
        answer = await smtp.rset()
        _check_quiet(smtp, peer)
    except (OSError, aiosmtplib.SMTPException, TimeoutError):
        return False
    conversation.server(f"{answer.code} {answer.message}")
    return True


def _judge(smtp: aiosmtplib.SMTP, peer: Peer, conversation: Conversation) -> TlsFacts:
    """Say what TLS the session has; raises Untrusted."""
    tls = judge_tls(smtp.get_transport_info("ssl_object"), peer.policy, host=peer.host, checked=peer.verify)
    conversation.remark(f"TLS: {tls.describe(peer.policy)}{f': {tls.trouble.text}' if tls.trouble else ''}")
    return tls


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


def _explain(error: Exception, peer: Peer, conversation: Conversation) -> Deferred | Bounced:
    """Say what the failure to open a session means; only a reply of the peer to what every client says is for good."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        reply = read_reply(error.code, _redact(error.message, peer))
        conversation.server(str(reply))
        return Deferred(Reply(451, "4.7.8", f"the login was refused: {reply}"))
    if isinstance(error, SMTPResponseException) and 200 <= error.code < 600:
        reply = read_reply(error.code, error.message)
        conversation.server(str(reply))
        return judge_refusal(reply, about_recipient=False)
    if isinstance(error, _TlsFailed):
        text = sanitize(str(error))
        conversation.remark(text)
        if error.lasting and peer.policy.bounces:
            return Bounced(Reply(550, "5.7.30", f"the message requires TLS that is verified: {text}"))
        return Deferred(Reply(451, "4.7.5", f"{peer.policy.name}: {text}" if peer.policy.name else text))
    text = "connection timed out" if isinstance(error, TimeoutError) else str(error.args[-1] if error.args else error)
    text = sanitize(text) or type(error).__name__
    conversation.remark(text)
    return Deferred(Reply(451, "4.4.1", text))
