"""How is SMTP spoken to us? aiosmtpd's connection, with a command loop of our own that closes its gaps.

Every line ends with CRLF or is refused; replies to a pipelined group go out together and in order; plain text after
STARTTLS is thrown away; DATA is read in chunks; each reply has an enhanced status; a handler's fault is a 451 and the
session lives on. RFC 5321, 2034, 2920, 3207, 4954, 6152, 6531.
"""

import asyncio
import base64
import binascii
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiosmtpd.smtp import SMTP

from plunk_relay.errors import RelayError
from plunk_relay.log import get_logger
from plunk_relay.smtp.data import MessageReader, check_line_ends
from plunk_relay.smtp.replies import BAD_SEQUENCE, BAD_SYNTAX, OK, STOPPING, TROUBLE, SmtpReply
from plunk_relay.smtp.syntax import check_mail_parameters, parse_path

log = get_logger("smtp")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_CHUNK = 262144
_HTTP_VERBS = frozenset({"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH"})
_LONGEST_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bounds of a session; see the settings of the same names."""

    max_message_bytes: int = 26214400
    max_recipients: int = 100
    max_command_bytes: int = 2048
    errors_before_slow: int = 10
    errors_before_close: int = 20
    idle_seconds: float = 300.0
    session_seconds: float = 3600.0
    max_connections_per_ip: int = 50
    slow_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """What a door is: its name in greetings, its TLS, who may come without AUTH."""

    hostname: str
    implicit_tls: bool = False
    auth_without_tls: bool = False
    trusted: Sequence[tuple[Network, str]] = ()
    """Networks and the project id each submits as."""


@dataclass(slots=True)
class Client:
    """Who is at the other end of a session, as far as known."""

    address: str
    tls: bool
    session_id: str
    helo: str = ""
    extended: bool = False
    project_id: str | None = None
    authenticated: bool = False


@dataclass(slots=True)
class Envelope:
    """A transaction: who sends to whom, and the message with CRLF lines, dots unstuffed."""

    sender: str
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""


class Handler(Protocol):
    """Who decides; a RelayError raised is answered with its SMTP reply."""

    async def authenticate(self, client: Client, username: str, password: str) -> str | SmtpReply:
        """Return the project id, or the refusal."""
        ...

    async def check_sender(self, client: Client, address: str) -> SmtpReply | None:
        """Return the refusal, or None."""
        ...

    async def check_recipient(self, client: Client, envelope: Envelope, address: str) -> SmtpReply | None:
        """Return the refusal, or None."""
        ...

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        """Store the message and answer; a 250 means that it is on disk."""
        ...


class SessionRegistry(Protocol):
    """The door a session came through."""

    def admit(self, session: "SubmissionSession", address: str) -> SmtpReply | None:
        """Take note of a session; return the refusal when there are too many."""
        ...

    def leave(self, session: "SubmissionSession") -> None:
        """Forget a session."""
        ...


class SubmissionSession(SMTP):
    """One connection."""

    def __init__(
        self,
        handler: Handler,
        options: DoorOptions,
        limits: DoorLimits,
        *,
        registry: SessionRegistry,
        tls_context: Callable[[], ssl.SSLContext | None],
        session_id: str,
    ) -> None:
        loop = asyncio.get_running_loop()
        # aiosmtpd's own constructor inspects every method for each connection (0.3 ms); only its stream base is needed
        asyncio.StreamReaderProtocol.__init__(
            self, asyncio.StreamReader(loop=loop, limit=_CHUNK), client_connected_cb=self._connected, loop=loop
        )
        self.loop = loop
        self._handler = handler
        self._options = options
        self._limits = limits
        self._registry = registry
        self._find_tls_context = tls_context
        self._client = Client("", options.implicit_tls, session_id)
        self._buffer = bytearray()
        self._replies: list[bytes] = []
        self._envelope: Envelope | None = None
        self._errors = 0
        self._closing = False
        self._in_message = False
        self._started_at = self._last_heard = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # --- the connection

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session."""
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self._client.address = str(peer[0]) if isinstance(peer, tuple) else "local"
        self._task = self.loop.create_task(self._serve(), name="smtp session")
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        """End the session."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._in_message:
            self._task.cancel()
        self._registry.leave(self)

    def eof_received(self) -> bool:
        """Close when the client closes."""
        asyncio.StreamReaderProtocol.eof_received(self)
        return False

    def dismiss(self) -> None:
        """Say 421 and close, unless a message is being received: that one is finished first."""
        self._closing = True
        if not self._in_message:
            self._say_goodbye(STOPPING)

    def drop(self) -> None:
        """Close without a word."""
        self._writer.close()

    def _watch(self) -> None:
        """Look now and then whether the client fell silent or stays too long."""
        now, limits = self.loop.time(), self._limits
        idle, total = now - self._last_heard, now - self._started_at
        if idle >= limits.idle_seconds:
            self._say_goodbye(SmtpReply(421, "4.4.2", "You were silent for too long"))
        elif total >= limits.session_seconds and not self._in_message:
            self._say_goodbye(SmtpReply(421, "4.4.2", "The session took too long"))
        else:
            wait = max(0.05, min(limits.idle_seconds - idle, max(limits.session_seconds - total, 1.0)))
            self._timer = self.loop.call_later(wait, self._watch)

    def _say_goodbye(self, reply: SmtpReply) -> None:
        self._closing = True
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(reply.encode())
            self._writer.close()

    # --- the loop

    async def _serve(self) -> None:
        refusal = self._registry.admit(self, self._client.address)
        if refusal is not None:
            self._say_goodbye(refusal)
            return
        self._client.project_id = self._find_trusted_project()
        self._say(SmtpReply(220, "", f"{self._options.hostname} ESMTP Plunk Relay"))
        try:
            while not self._closing and (line := await self._read_line()) is not None:
                await self._handle_line(line)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            await self._flush()
            self._writer.close()

    def _find_trusted_project(self) -> str | None:
        try:
            address = ipaddress.ip_address(self._client.address)
        except ValueError:
            return None
        return next((project for network, project in self._options.trusted if address in network), None)

    async def _read_line(self) -> bytes | None:
        """Return a command line without its CRLF, None at the end; too long a line is read over and comes back empty."""
        too_long = False
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > self._limits.max_command_bytes:
                too_long = True
                del self._buffer[:-1]
            await self._flush()
            if not await self._read_more():
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return b"\x00" if too_long or end > self._limits.max_command_bytes else line

    async def _read_more(self) -> bool:
        chunk = await self._reader.read(_CHUNK)
        self._last_heard = self.loop.time()
        self._buffer += chunk
        return bool(chunk)

    def _say(self, reply: SmtpReply) -> None:
        """Queue a reply; it goes out when nothing more of the client's is waiting."""
        self._replies.append(reply.encode())

    async def _flush(self) -> None:
        if self._replies and not self._writer.is_closing():
            self._writer.write(b"".join(self._replies))
            self._replies.clear()
            await self._writer.drain()

    async def _handle_line(self, line: bytes) -> None:
        if b"\n" in line or b"\r" in line or b"\x00" in line:
            await self._refuse(SmtpReply(500, "5.5.2", "A command is one short line that ends with CR LF"))
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            await self._refuse(SmtpReply(500, "5.5.2", "A command must be ASCII or UTF-8"))
            return
        word, _, argument = text.partition(" ")
        command = _COMMANDS.get(word.upper())
        if word.upper() in _HTTP_VERBS:
            self._say(SmtpReply(421, "4.7.0", "This is a mail server, not a web server"))
            self._closing = True
        elif command is None:
            await self._refuse(SmtpReply(500, "5.5.1", "Unknown command"))
        else:
            await self._run(command, argument.strip())

    async def _run(self, command: "Callable[[SubmissionSession, str], Awaitable[SmtpReply | None]]", argument: str) -> None:
        try:
            reply = await command(self, argument)
        except RelayError as error:
            code, enhanced = error.smtp
            reply = SmtpReply(code, enhanced, error.message)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("smtp command failed", session=self._client.session_id)
            reply = TROUBLE
        if reply is None:
            return
        if reply.code >= 400:
            await self._refuse(reply)
        else:
            self._say(reply)

    async def _refuse(self, reply: SmtpReply) -> None:
        """Answer an error; many errors make us slow, more end the session."""
        self._errors += 1
        limits = self._limits
        if self._errors > limits.errors_before_close:
            self._say(SmtpReply(421, "4.7.0", "Too many errors"))
            self._closing = True
            return
        self._say(reply)
        if self._errors > limits.errors_before_slow and limits.slow_seconds:
            await self._flush()
            delay = (self._errors - limits.errors_before_slow) * limits.slow_seconds
            await asyncio.sleep(min(delay, _LONGEST_DELAY_SECONDS))
        if reply.code == 421:
            self._closing = True

    # --- commands

    async def _ehlo(self, argument: str) -> SmtpReply | None:
        if not argument or len(argument) > 255:
            return SmtpReply(501, "5.5.4", "Syntax: EHLO hostname")
        self._client.helo, self._client.extended, self._envelope = argument, True, None
        lines = [self._options.hostname, f"SIZE {self._limits.max_message_bytes}"]
        lines += ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if not self._client.tls and self._find_tls_context() is not None:
            lines.append("STARTTLS")
        if self._may_authenticate():
            lines.append("AUTH PLAIN LOGIN")
        text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
        self._replies.append(text.encode())
        return None

    async def _helo(self, argument: str) -> SmtpReply:
        if not argument or len(argument) > 255:
            return SmtpReply(501, "5.5.4", "Syntax: HELO hostname")
        self._client.helo, self._client.extended, self._envelope = argument, False, None
        return SmtpReply(250, "", self._options.hostname)

    async def _noop(self, _argument: str) -> SmtpReply:
        return OK

    async def _rset(self, _argument: str) -> SmtpReply:
        self._envelope = None
        return OK

    async def _quit(self, _argument: str) -> SmtpReply:
        self._closing = True
        return SmtpReply(221, "2.0.0", "Bye")

    async def _vrfy(self, _argument: str) -> SmtpReply:
        return SmtpReply(252, "2.5.0", "Send mail and see")

    async def _expn(self, _argument: str) -> SmtpReply:
        return SmtpReply(502, "5.5.1", "EXPN is not supported")

    async def _help(self, _argument: str) -> SmtpReply:
        return SmtpReply(214, "2.0.0", "EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT")

    async def _starttls(self, argument: str) -> SmtpReply | None:
        context = self._find_tls_context()
        if argument:
            return SmtpReply(501, "5.5.4", "STARTTLS takes no parameter")
        if self._client.tls:
            return SmtpReply(503, "5.5.1", "TLS is on already")
        if context is None:
            return SmtpReply(454, "4.7.0", "TLS is not available")
        self._say(SmtpReply(220, "2.0.0", "Ready to start TLS"))
        self._buffer.clear()  # RFC 3207 4.2: plain text sent along is thrown away
        await self._flush()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001  what came in the same packet
        transport = await self.loop.start_tls(
            self._writer.transport, self, context, server_side=True, ssl_handshake_timeout=30
        )
        self._switch_transport(transport)
        self._client.tls, self._client.helo, self._client.authenticated = True, "", False
        self._envelope = None
        return None

    def _switch_transport(self, transport: Any) -> None:
        self.transport = transport
        self._reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  asyncio has no public way
        self._writer._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  as above
        self._over_ssl = True

    def _may_authenticate(self) -> bool:
        return self._client.tls or self._options.auth_without_tls

    async def _auth(self, argument: str) -> SmtpReply | None:
        mechanism, _, initial = argument.partition(" ")
        if self._client.authenticated or self._envelope is not None:
            return BAD_SEQUENCE
        if not self._client.helo:
            return SmtpReply(503, "5.5.1", "Say EHLO first")
        if not self._may_authenticate():
            return SmtpReply(538, "5.7.11", "AUTH needs TLS: use STARTTLS first")
        credentials = await self._read_credentials(mechanism.upper(), initial.strip())
        if isinstance(credentials, SmtpReply):
            return credentials
        result = await self._handler.authenticate(self._client, *credentials)
        if isinstance(result, SmtpReply):
            return result
        self._client.project_id, self._client.authenticated = result, True
        return SmtpReply(235, "2.7.0", "Authentication successful")

    async def _read_credentials(self, mechanism: str, initial: str) -> tuple[str, str] | SmtpReply:
        if mechanism == "PLAIN":
            answer = await self._challenge("", initial)
            parts = answer.split("\x00") if isinstance(answer, str) else []
            if isinstance(answer, SmtpReply):
                return answer
            return (parts[1], parts[2]) if len(parts) == 3 else SmtpReply(501, "5.5.2", "Malformed PLAIN response")
        if mechanism == "LOGIN":
            username = await self._challenge("Username:", initial)
            if isinstance(username, SmtpReply):
                return username
            password = await self._challenge("Password:", "")
            return password if isinstance(password, SmtpReply) else (username, password)
        return SmtpReply(504, "5.5.4", "Use AUTH PLAIN or AUTH LOGIN")

    async def _challenge(self, prompt: str, initial: str) -> str | SmtpReply:
        """Return the client's answer decoded; `=` stands for an empty initial response (RFC 4954 4)."""
        encoded = initial
        if not encoded:
            self._say(SmtpReply(334, "", base64.b64encode(prompt.encode()).decode()))
            line = await self._read_line()
            if line is None:
                raise ConnectionResetError
            encoded = line.decode("ascii", "replace")
        if encoded == "*":
            return SmtpReply(501, "5.7.0", "Authentication cancelled")
        try:
            return base64.b64decode("" if encoded == "=" else encoded, validate=True).decode()
        except (binascii.Error, ValueError):
            return SmtpReply(501, "5.5.2", "Not valid base64")

    async def _mail(self, argument: str) -> SmtpReply:
        if not self._client.helo:
            return SmtpReply(503, "5.5.1", "Say EHLO first")
        if self._envelope is not None:
            return SmtpReply(503, "5.5.1", "A transaction is under way; RSET ends it")
        if self._client.project_id is None:
            return SmtpReply(530, "5.7.0", "Authentication required")
        path = parse_path(argument, "FROM", null_allowed=True)
        if isinstance(path, SmtpReply):
            return path
        if not path.address.isascii() and "SMTPUTF8" not in path.parameters:
            return SmtpReply(553, "5.6.7", "An internationalised address needs SMTPUTF8")
        refusal = check_mail_parameters(path.parameters, self._limits.max_message_bytes)
        refusal = refusal or await self._handler.check_sender(self._client, path.address)
        if refusal is not None:
            return refusal
        self._envelope = Envelope(path.address)
        return SmtpReply(250, "2.1.0", "Sender ok")

    async def _rcpt(self, argument: str) -> SmtpReply:
        if self._envelope is None:
            return SmtpReply(503, "5.5.1", "Say MAIL first")
        path = parse_path(argument, "TO")
        if isinstance(path, SmtpReply):
            return path
        if path.parameters:
            return SmtpReply(555, "5.5.4", "RCPT takes no parameters")
        if len(self._envelope.recipients) >= self._limits.max_recipients:
            return SmtpReply(452, "4.5.3", f"At most {self._limits.max_recipients} recipients; send the rest separately")
        refusal = await self._handler.check_recipient(self._client, self._envelope, path.address)
        if refusal is not None:
            return refusal
        self._envelope.recipients.append(path.address)
        return SmtpReply(250, "2.1.5", "Recipient ok")

    async def _data(self, argument: str) -> SmtpReply | None:
        envelope = self._envelope
        if argument:
            return BAD_SYNTAX
        if envelope is None:
            return SmtpReply(503, "5.5.1", "Say MAIL first")
        if not envelope.recipients:
            return SmtpReply(554, "5.5.1", "No valid recipients")
        self._say(SmtpReply(354, "", "End data with <CR><LF>.<CR><LF>"))
        reader = MessageReader(self._limits.max_message_bytes)
        self._in_message = True
        try:
            if not await self._receive(reader):
                return None
            self._envelope = None
            return await self._accept(envelope, reader)
        finally:
            self._in_message = False

    async def _receive(self, reader: MessageReader) -> bool:
        """Read to the final dot; False when the client is gone."""
        while not reader.feed(self._buffer):
            await self._flush()
            if not await self._read_more():
                self._closing = True
                return False
        return True

    async def _accept(self, envelope: Envelope, reader: MessageReader) -> SmtpReply:
        if reader.too_large:
            return SmtpReply(552, "5.3.4", f"The message is larger than {self._limits.max_message_bytes} bytes")
        envelope.content = reader.take()
        refusal = check_line_ends(envelope.content)
        return refusal or await self._handler.accept_message(self._client, envelope)


_COMMANDS: dict[str, Callable[[SubmissionSession, str], Awaitable[SmtpReply | None]]] = {
    "EHLO": SubmissionSession._ehlo,  # noqa: SLF001  the table of this class's commands
    "HELO": SubmissionSession._helo,  # noqa: SLF001
    "MAIL": SubmissionSession._mail,  # noqa: SLF001
    "RCPT": SubmissionSession._rcpt,  # noqa: SLF001
    "DATA": SubmissionSession._data,  # noqa: SLF001
    "RSET": SubmissionSession._rset,  # noqa: SLF001
    "NOOP": SubmissionSession._noop,  # noqa: SLF001
    "QUIT": SubmissionSession._quit,  # noqa: SLF001
    "VRFY": SubmissionSession._vrfy,  # noqa: SLF001
    "EXPN": SubmissionSession._expn,  # noqa: SLF001
    "HELP": SubmissionSession._help,  # noqa: SLF001
    "AUTH": SubmissionSession._auth,  # noqa: SLF001
    "STARTTLS": SubmissionSession._starttls,  # noqa: SLF001
}
