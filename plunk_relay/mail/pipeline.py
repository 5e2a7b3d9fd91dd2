"""How are SMTP replies read when several commands are under way? One after the other, each bounded (RFC 2920, 5321 4.2).

aiosmtplib opens a connection (greeting, EHLO, TLS, AUTH) and waits for one reply at a time; this protocol takes the open
connection over, so that MAIL, RCPT and DATA go out together and the body in one write.
"""

import asyncio
from collections import deque

from plunk_relay.mail.outcome import Reply, read_reply

_LONGEST_REPLY = 65536


class PeerClosed(ConnectionError):
    """The peer ended the connection."""


class PeerBabbles(ConnectionError):
    """The peer sent what is no SMTP reply."""


class PipelineProtocol(asyncio.Protocol):
    """Collects replies; `read` waits for the next ones."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._replies: deque[Reply] = deque()
        self._lines: list[str] = []
        self._failure: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether nothing more will come, or something came that nobody asked for."""
        return self._failure is not None or bool(self._replies)

    def write(self, data: bytes) -> None:
        """Send; a closed connection is noticed by the next read."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def read(self, count: int, timeout_seconds: float) -> list[Reply]:
        """Return the next `count` replies, fewer when the connection ends before.

        Raises PeerClosed or PeerBabbles when not even one came, TimeoutError when the time is over.
        """
        deadline = self._loop.call_later(timeout_seconds, self._expire)
        try:
            while len(self._replies) < count and self._failure is None:
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            deadline.cancel()
            self._waiter = None
        if not self._replies and self._failure is not None:
            raise self._failure
        return [self._replies.popleft() for _ in range(min(count, len(self._replies)))]

    def close(self) -> None:
        """Close at once."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Split what came into replies."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self._take_line(line.rstrip(b"\r\n").decode("utf-8", "replace"))
        if len(self._buffer) + sum(map(len, self._lines)) > _LONGEST_REPLY:
            self._fail(PeerBabbles("the reply is too long"))
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._fail(PeerClosed(str(exc) if exc else "the peer closed the connection"))

    def _take_line(self, line: str) -> None:
        code, mark = line[:3], line[3:4]
        if len(code) != 3 or not code.isdigit() or mark not in ("", " ", "-") or code[0] not in "2345":
            self._fail(PeerBabbles(f"not an SMTP reply: {line[:100]!r}"))
            return
        if self._lines and self._lines[0][:3] != code:
            self._fail(PeerBabbles(f"a reply with mixed codes: {self._lines[0][:3]} and {code}"))
            return
        self._lines.append(line)
        if mark != "-":
            self._replies.append(_join(self._lines))
            self._lines = []

    def _fail(self, failure: ConnectionError) -> None:
        if self._failure is None:
            self._failure = failure
            self._transport.close()
        self._wake()

    def _expire(self) -> None:
        self._fail(_Late("no reply in time"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Late(ConnectionError, TimeoutError):
    """Both: the wait is over, and so is the connection."""


def _join(lines: list[str]) -> Reply:
    """Make one reply of a multiline one; the enhanced status repeated on each line is kept once (RFC 2034 4)."""
    code = int(lines[0][:3])
    first = read_reply(code, lines[0][4:])
    if len(lines) == 1:
        return first
    rest = [read_reply(code, line[4:]).text for line in lines[1:]]
    return Reply(code, first.enhanced, " ".join([first.text, *rest])[:500])
