"""How do bytes become lines, and when does a connection end? aiosmtpd's connection, with a loop of our own around it.

Every line ends with CRLF or is refused; replies to a pipelined group go out together and in order; silence and age of a
session have limits, which count only while we wait for the client. RFC 5321 2.3.8 and 4.5.3.2, RFC 2920.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, Protocol

from aiosmtpd.smtp import SMTP

from plunk_relay.smtp.handler import Client, DoorLimits
from plunk_relay.smtp.replies import BARE_LF, STOPPING, SmtpReply

_CHUNK = 262144
_LINGER_SECONDS = 3.0
HANDSHAKE_SECONDS = 30.0
_GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)


class SessionRegistry(Protocol):
    """The door a connection came through."""

    def admit(self, session: "Connection", address: str) -> SmtpReply | None:
        """Take note of a session; return the refusal when there are too many."""
        ...

    def leave(self, session: "Connection") -> None:
        """Forget a session."""
        ...


class Connection(SMTP):
    """Lines in, replies out. What a line means is the subclass's business: `_greet` and `_handle_line`."""

    def __init__(self, client: Client, limits: DoorLimits, registry: SessionRegistry) -> None:
        loop = asyncio.get_running_loop()
        # aiosmtpd's own constructor inspects every method for each connection (0.3 ms); only its stream base is needed
        asyncio.StreamReaderProtocol.__init__(
            self, asyncio.StreamReader(loop=loop, limit=_CHUNK), client_connected_cb=self._connected, loop=loop
        )
        self.loop = loop
        self._client = client
        self._limits = limits
        self._registry = registry
        self._buffer = bytearray()
        self._replies: list[bytes] = []
        self._closing = self._dismissed = self._in_message = False
        self._started_at = loop.time()
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what the transport calls

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session; the client's address is the peer's unless a proxy has told it."""
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self._client.address = self._client.address or (str(peer[0]) if isinstance(peer, tuple) else "local")
        self._task = self.loop.create_task(self._serve(), name="smtp session")
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        """End the session; a message that came in whole is still stored."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._in_message:
            self._task.cancel()
        self._registry.leave(self)

    def eof_received(self) -> bool:
        """Let a client that has closed its side still hear the replies (TLS has no such state)."""
        return bool(asyncio.StreamReaderProtocol.eof_received(self))

    # --- what the door calls

    def dismiss(self) -> None:
        """Say 421 and close, after the message that is being received, if there is one."""
        self._closing = self._dismissed = True
        if not self._in_message:
            self._say_goodbye(STOPPING)

    def drop(self) -> None:
        """Close without a word."""
        self._writer.transport.abort()

    # --- the loop

    async def _greet(self) -> None:
        raise NotImplementedError

    async def _handle_line(self, line: bytes) -> None:
        raise NotImplementedError

    async def _serve(self) -> None:
        refusal = self._registry.admit(self, self._client.address)
        if refusal is not None:
            self._say_goodbye(refusal)
            return
        try:
            await self._greet()
            while not self._closing and (line := await self._read_line()) is not None:
                await self._handle_line(line)
        except _GONE:
            pass
        finally:
            if self._dismissed:
                self._say(STOPPING)
            with suppress(*_GONE):
                await self._flush()
            self._close()

    async def _read_line(self) -> bytes | None:
        """Return a command line without its CRLF, None at the end.

        Too long a line is read over and comes back as a NUL. A bare LF ends the session when its line is not complete yet:
        such a client waits for us, and what follows must not be read as a command.
        """
        too_long, since = False, self.loop.time()
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > self._limits.max_command_bytes:
                too_long = True
                del self._buffer[:-1]
            if b"\n" in self._buffer:
                self._say(BARE_LF)
                self._closing = True
                return None
            await self._flush()
            if not await self._read_more(since):
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return b"\x00" if too_long or end > self._limits.max_command_bytes else line

    async def _read_more(self, since: float) -> int:
        """Wait for more of the client's; return how much came. Its silence counts from `since` on."""
        self._waiting_since = since
        chunk = await self._reader.read(_CHUNK)
        self._waiting_since = None
        self._buffer += chunk
        return len(chunk)

    def _say(self, reply: SmtpReply) -> None:
        """Queue a reply; it goes out when nothing more of the client's is waiting."""
        self._replies.append(reply.encode())

    async def _flush(self) -> None:
        if self._replies and not self._writer.is_closing():
            self._writer.write(b"".join(self._replies))
            self._replies.clear()
            self._waiting_since = self.loop.time()
            await self._writer.drain()
            self._waiting_since = None

    async def _begin_tls(self, context: ssl.SSLContext) -> None:
        """Say what is waiting in clear, throw away what the client sent along with it, and shake hands (RFC 3207 4.2)."""
        self._buffer.clear()
        await self._flush()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001  what came in the same packet
        transport: Any = await self.loop.start_tls(
            self._writer.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        self.transport = transport
        self._reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  asyncio has no public way
        self._writer._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  as above
        self._over_ssl = True

    # --- the end

    def _watch(self) -> None:
        """Look now and then whether the client fell silent or stays too long; a message may take it as long again."""
        now, limits = self.loop.time(), self._limits
        silent = now - self._waiting_since if self._waiting_since is not None else 0.0
        age_limit = limits.session_seconds * (2 if self._in_message else 1)
        rest = min(limits.idle_seconds - silent, self._started_at + age_limit - now)
        if rest > 0 or self._waiting_since is None:
            self._timer = self.loop.call_later(max(rest, 0.05), self._watch)
        elif silent >= limits.idle_seconds:
            self._say_goodbye(SmtpReply(421, "4.4.2", "You were silent for too long"))
        else:
            self._say_goodbye(SmtpReply(421, "4.4.2", "The session took too long"))

    def _say_goodbye(self, reply: SmtpReply) -> None:
        self._closing = True
        if not self._writer.is_closing():
            self._writer.write(b"".join([*self._replies, reply.encode()]))
            self._replies.clear()
            self._close()

    def _close(self) -> None:
        """Close when the last words are sent; a client that does not take them is dropped."""
        if self._writer.is_closing():
            return
        self._writer.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.drop)
