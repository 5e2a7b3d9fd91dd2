"""How are SMTP replies read when several commands are under way? One after the other, each bounded (RFC 2920, 5321 4.2).

aiosmtplib opens a connection (greeting, EHLO, TLS, AUTH) and waits for one reply at a time; this protocol takes the open
connection over, so that MAIL, RCPT and DATA go out together and the body in one write.
"""

import asyncio
from collections import deque

from plunk_relay.mail.outcome import Reply, read_reply

_LONGEST_REPLY = 65536


class PeerClosed(ConnectionError):
    """The peer ended the connection, or said that it is about to."""


class PeerBabbles(ConnectionError):
    """The peer sent what is no SMTP reply, or one that nobody asked for."""


class PeerLate(ConnectionError, TimeoutError):
    """Both: the wait is over, and so is the connection."""


class PipelineProtocol(asyncio.Protocol):
    """Collects replies; `read` waits for the next ones. After a failure nothing that comes is read any more."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._replies: deque[Reply] = deque()
        self._expected = 0
        self._lines: list[str] = []
        self._failure: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def failure(self) -> ConnectionError | None:
        """Why the connection is of no use any more; None while it is."""
        return self._failure

    def write(self, data: bytes) -> None:
        """Send; a closed connection is noticed by the next read."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def expect(self) -> None:
        """Take a reply that comes before the next `read` as the answer to what is being sent."""
        self._expected = 1

    @property
    def answered(self) -> bool:
        """Whether a reply is there already."""
        return bool(self._replies)

    def limit_buffer(self) -> None:
        """Let `drain` know of every octet that has not left yet."""
        self._transport.set_write_buffer_limits(high=1, low=0)

    async def drain(self, patience_seconds: float) -> None:
        """Wait until what was written has left, a reply came, or the connection ended.

        A peer that takes nothing for so long is given up; a slow one may take its time.
        """
        await asyncio.sleep(0)  # others want to work too, and the end of the connection is told by the loop
        left, deadline = self._transport.get_write_buffer_size(), self._loop.time() + patience_seconds
        while self._paused and self._failure is None and not self._replies:
            timer = self._loop.call_at(deadline, self._wake)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            before, left = left, self._transport.get_write_buffer_size()
            if left < before:
                deadline = self._loop.time() + patience_seconds
            elif self._loop.time() >= deadline and self._paused:
                self._break_off(PeerLate("the peer takes no more of the message"))

    async def read(self, count: int, timeout_seconds: float) -> list[Reply]:
        """Return the next `count` replies, fewer when the connection ends before.

        Raises PeerClosed, PeerBabbles or PeerLate when not even one came.
        """
        deadline = self._loop.call_later(timeout_seconds, self._expire)
        self._expected = count
        try:
            while len(self._replies) < count and self._failure is None:
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            deadline.cancel()
            self._waiter = None
            self._expected = 0
        if not self._replies and self._failure is not None:
            raise self._failure
        return [self._replies.popleft() for _ in range(min(count, len(self._replies)))]

    def close(self) -> None:
        """Close when what was written has left."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once: a peer that reads nothing must not keep the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Split what came into replies."""
        if self._failure is not None:
            return
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self._take_line(line.rstrip(b"\r\n").decode("utf-8", "replace"))
        if len(self._buffer) + sum(map(len, self._lines)) > _LONGEST_REPLY:
            self._break_off(PeerBabbles("the reply is too long"))
        self._wake()

    def pause_writing(self) -> None:
        """Note that the peer does not keep up."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that all has left."""
        self._paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._fail(PeerClosed(str(exc) if exc else "the peer closed the connection"))

    def _take_line(self, line: str) -> None:
        code, mark = line[:3], line[3:4]
        if len(code) != 3 or not (code.isascii() and code.isdigit()) or mark not in ("", " ", "-") or code[0] not in "2345":
            self._break_off(PeerBabbles(f"not an SMTP reply: {line[:100]!r}"))
            return
        if self._lines and self._lines[0][:3] != code:
            self._break_off(PeerBabbles(f"a reply with mixed codes: {self._lines[0][:3]} and {code}"))
            return
        self._lines.append(line)
        if mark != "-":
            self._take_reply(_join(self._lines))
            self._lines = []

    def _take_reply(self, reply: Reply) -> None:
        """Keep a reply for `read`; one that nobody waits for would be taken for the answer to the next command."""
        if len(self._replies) < self._expected:
            self._replies.append(reply)
        elif reply.code == 421:
            self._break_off(PeerClosed(str(reply)))
        else:
            self._break_off(PeerBabbles(f"a reply that nobody asked for: {reply}"))

    def _expire(self) -> None:
        self._break_off(PeerLate("no reply in time"))

    def _break_off(self, failure: ConnectionError) -> None:
        self._fail(failure)
        self._buffer.clear()
        self.abort()

    def _fail(self, failure: ConnectionError) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _join(lines: list[str]) -> Reply:
    """Make one reply of a multiline one; the enhanced status repeated on each line is kept once (RFC 2034 4)."""
    code = int(lines[0][:3])
    first = read_reply(code, lines[0][4:])
    if len(lines) == 1:
        return first
    replies = [first, *(read_reply(code, line[4:]) for line in lines[1:])]
    garbled = next((reply for reply in replies if reply.code != code), None)
    return garbled or Reply(code, first.enhanced, " ".join(reply.text for reply in replies)[:500])
