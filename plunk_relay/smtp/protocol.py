"""How is SMTP spoken to us? The commands of a session and the order they may come in.

Each reply has an enhanced status; a handler's fault is a 451 and the session lives on; after STARTTLS nothing that was
said before counts. RFC 5321, 2034, 3207, 4954, 6152, 6531.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace

from plunk_relay.errors import RelayError, ValidationFailed
from plunk_relay.log import get_logger
from plunk_relay.smtp.auth import MECHANISMS, read_credentials
from plunk_relay.smtp.connection import Connection, SessionRegistry
from plunk_relay.smtp.data import MessageReader
from plunk_relay.smtp.handler import Client, DoorLimits, DoorOptions, Envelope, Handler
from plunk_relay.smtp.replies import BAD_SEQUENCE, BAD_SYNTAX, NEEDS_SMTPUTF8, OK, TROUBLE, SmtpReply
from plunk_relay.smtp.syntax import check_mail_parameters, parse_path

log = get_logger("smtp")
_HTTP_VERBS = frozenset({"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH"})
_LONGEST_DELAY_SECONDS = 5.0
_LEAST_PROGRESS_BYTES = 1000


class SubmissionSession(Connection):
    """One client's session."""

    def __init__(
        self,
        client: Client,
        limits: DoorLimits,
        options: DoorOptions,
        *,
        handler: Handler,
        registry: SessionRegistry,
        tls_context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        super().__init__(client, limits, registry)
        self._handler = handler
        self._options = options
        self._find_tls_context = tls_context
        self._envelope: Envelope | None = None
        self._errors = 0
        self._idle_commands = 0
        """Commands of a client that is not known, since its last message."""

    async def _greet(self) -> None:
        self._client.project_id = self._find_trusted_project()
        self._say(SmtpReply(220, "", f"{self._options.hostname} ESMTP Plunk Relay"))

    def _find_trusted_project(self) -> str | None:
        try:
            address = ipaddress.ip_address(self._client.address)
        except ValueError:
            return None
        return next((project for network, project in self._options.trusted if address in network), None)

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
        verb = word.upper() if word.isascii() else ""
        command = _COMMANDS.get(verb)
        if verb in _HTTP_VERBS:
            self._say(SmtpReply(421, "4.7.0", "This is a mail server, not a web server"))
            self._closing = True
        elif self._is_idling(verb):
            self._say(SmtpReply(421, "4.7.0", "Too many commands that lead to no mail"))
            self._closing = True
        elif command is None:
            await self._refuse(SmtpReply(500, "5.5.1", "Unknown command"))
        else:
            await self._run(command, argument.strip())

    def _is_idling(self, verb: str) -> bool:
        """Count a command; tell whether a stranger has given too many and nothing came of them."""
        if self._client.project_id is not None or verb in ("RCPT", "DATA"):
            return False
        self._idle_commands += 1
        return self._idle_commands > self._limits.max_idle_commands

    async def _run(self, command: "Callable[[SubmissionSession, str], Awaitable[SmtpReply | None]]", argument: str) -> None:
        try:
            reply = await command(self, argument)
        except RelayError as error:
            reply = _reply_to(error)
        except (ConnectionError, ssl.SSLError):
            raise
        except Exception:
            log.exception("smtp command failed", session=self._client.session_id)
            reply = replace(TROUBLE, text=f"{TROUBLE.text} (session {self._client.session_id})")
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
        if self._offers_requiretls():
            lines.append("REQUIRETLS")
        if self._may_authenticate():
            lines.append(f"AUTH {' '.join(MECHANISMS)}")
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
        await self._begin_tls(context)
        self._forget_everything()
        return None

    def _forget_everything(self) -> None:
        """Begin again after STARTTLS: what was said in clear counts for nothing (RFC 3207 4.2)."""
        client = self._client
        client.tls, client.helo, client.extended, client.authenticated = True, "", False, False
        client.project_id = self._find_trusted_project()
        self._envelope = None

    def _offers_requiretls(self) -> bool:
        """Only what came over TLS can ask for TLS all the way (RFC 8689 2); a door for strangers forwards nothing."""
        return self._client.tls and not self._options.open_to_strangers

    def _may_authenticate(self) -> bool:
        return self._options.auth and (self._client.tls or self._options.auth_without_tls)

    async def _auth(self, argument: str) -> SmtpReply | None:
        mechanism, _, initial = argument.partition(" ")
        if not self._options.auth:
            return SmtpReply(502, "5.5.1", "AUTH is not offered here")
        if self._client.authenticated or self._envelope is not None:
            return BAD_SEQUENCE
        if not self._client.helo:
            return SmtpReply(503, "5.5.1", "Say EHLO first")
        if not self._may_authenticate():
            return SmtpReply(538, "5.7.11", "AUTH needs TLS: use STARTTLS first")
        credentials = await read_credentials(mechanism.upper(), initial.strip(), self._ask)
        if isinstance(credentials, SmtpReply):
            return credentials
        result = await self._handler.authenticate(self._client, *credentials)
        if isinstance(result, SmtpReply):
            return result
        self._client.project_id, self._client.authenticated = result, True
        return SmtpReply(235, "2.7.0", "Authentication successful")

    async def _ask(self, challenge: SmtpReply) -> bytes:
        self._say(challenge)
        line = await self._read_line()
        if line is None:
            raise ConnectionResetError
        return line

    async def _mail(self, argument: str) -> SmtpReply:
        if not self._client.helo:
            return SmtpReply(503, "5.5.1", "Say EHLO first")
        if self._envelope is not None:
            return SmtpReply(503, "5.5.1", "A transaction is under way; RSET ends it")
        if self._client.project_id is None and not self._options.open_to_strangers:
            return SmtpReply(530, "5.7.0", "Authentication required")
        path = parse_path(argument, "FROM", null_allowed=True)
        if isinstance(path, SmtpReply):
            return path
        smtputf8 = "SMTPUTF8" in path.parameters
        if not (smtputf8 or path.address.isascii()):
            return NEEDS_SMTPUTF8
        most = self._limits.max_message_bytes
        refusal = check_mail_parameters(path.parameters, most, requiretls=self._offers_requiretls())
        refusal = refusal or await self._handler.check_sender(self._client, path.address)
        if refusal is not None:
            return refusal
        self._envelope = Envelope(path.address, smtputf8, require_tls="REQUIRETLS" in path.parameters)
        return SmtpReply(250, "2.1.0", "Sender ok")

    async def _rcpt(self, argument: str) -> SmtpReply:
        if self._envelope is None:
            return SmtpReply(503, "5.5.1", "Say MAIL first")
        path = parse_path(argument, "TO", postmaster_allowed=self._options.open_to_strangers)
        if isinstance(path, SmtpReply):
            return path
        if path.parameters:
            return SmtpReply(555, "5.5.4", "RCPT takes no parameters")
        if not (self._envelope.smtputf8 or path.address.isascii()):
            return NEEDS_SMTPUTF8
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
        reader = MessageReader(self._limits.max_message_bytes, self._options.spool)
        self._in_message = True
        try:
            if not await self._receive(reader):
                return None
            self._envelope = None
            return await self._accept(envelope, reader)
        finally:
            self._in_message = False
            reader.close()

    async def _receive(self, reader: MessageReader) -> bool:
        """Read to the final dot; False when the client is gone."""
        since, came = self.loop.time(), 0
        while not reader.feed(self._buffer):
            await self._flush()
            if reader.overflows:
                await asyncio.to_thread(reader.spool)
            if came >= _LEAST_PROGRESS_BYTES:  # less in `idle_seconds` is as good as silence
                since, came = self.loop.time(), 0
            count = await self._read_more(since)
            if not count:
                self._closing = True
                return False
            came += count
        return True

    async def _accept(self, envelope: Envelope, reader: MessageReader) -> SmtpReply:
        content = await asyncio.to_thread(reader.take) if reader.spooled else reader.take()
        if isinstance(content, SmtpReply):
            return content
        envelope.content = content
        self._idle_commands = 0
        return await self._handler.accept_message(self._client, envelope)


def _reply_to(error: RelayError) -> SmtpReply:
    """Say what went wrong in the words of the API; of a bad request, its first fault."""
    code, enhanced = error.smtp
    first = next(iter(error.errors), None) if isinstance(error, ValidationFailed) else None
    return SmtpReply(code, enhanced, f"{error.message}: {first.field}: {first.message}" if first else error.message)


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
