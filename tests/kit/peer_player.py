"""How is a `.peer` file played? The far end says its lines and listens; then the rows must be as the file tells."""

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.kit.certificates import make_certificate
from tests.kit.notation import fits, unescape
from tests.kit.outbox import Outbox, Prepared, running_outbox, usual_dns
from tests.kit.peer_file import Call, Expected, Line, PeerFile, PeerFileError, read_expected

_PATIENCE_SECONDS = 10.0
_LONGEST_LINE = 2**20
# one connection at a time, which ends with the round: so a file's connections come in the file's order
_SETTINGS = {"per_destination": 1, "connection_idle_seconds": 0.01}
_MIME = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"


async def play(story: PeerFile, prepared: Prepared, directory: Path) -> None:
    """Give a relay the mails of a story and be its far end; raises PeerFileError where it went another way."""
    table = usual_dns()
    story.fill(table)
    addresses = {"127.0.0.1", *(call.address for turn in story.rounds for call in turn.calls)}
    async with _far_end(story.name, sorted(addresses), directory) as far_end:
        settings = _SETTINGS | dict(story.settings)
        data = directory / "data"
        fault: PeerFileError | None = None
        async with running_outbox(prepared, data, port=far_end.port, dns=table, **settings) as outbox:
            try:
                await _play_rounds(story, far_end, outbox)
            except PeerFileError as error:
                fault = error  # raised outside: a task group would wrap it
        if fault is not None:
            raise fault


async def _play_rounds(story: PeerFile, far_end: "_FarEnd", outbox: Outbox) -> None:
    queued: dict[str, str] = {}
    for number, mail in enumerate(story.mails, 1):
        message = _compose(story.body, number)
        ids = await outbox.submit(*mail.recipients, message=message, never_twice=mail.never_twice)
        queued |= zip(mail.recipients, ids, strict=True)
    for turn in story.rounds:
        outbox.clock.advance(seconds=turn.after.total_seconds())
        far_end.expect(turn.calls)
        await outbox.deliver()
        await far_end.end_round()
        for line in turn.checks:
            await _check(story, line, outbox, queued)
    for expected in story.outcome:
        await _compare(expected, f"{story.name}:1", outbox, queued)
    await outbox.check_ledger()


def _compose(body: str, number: int) -> bytes:
    head = f"From: app@acme.test\r\nSubject: Hello\r\nMessage-ID: <{number}@acme.test>\r\n"
    mime = "" if body.isascii() else _MIME
    return f"{head}{mime}\r\n{body}\r\n".encode()


async def _check(story: PeerFile, line: Line, outbox: Outbox, queued: dict[str, str]) -> None:
    place = f"{story.name}:{line.number}"
    if line.kind == "Expect":
        await _compare(read_expected(line.text, place), place, outbox, queued)
        return
    name, _, pattern = line.text.partition(" ")
    reply = (await outbox.delivery(_find(name, queued, place)))["last_reply"]
    if reply is None or not fits(pattern, reply):
        raise PeerFileError(f"{place}: expected the reply `{pattern}`, but it is `{reply}`")


async def _compare(expected: Expected, place: str, outbox: Outbox, queued: dict[str, str]) -> None:
    queue_id = _find(expected.name, queued, place)
    (state, status), row = await outbox.state(queue_id), await outbox.delivery(queue_id)
    maybe = row["unknown_outcomes"] > 0
    as_told = state == expected.state and expected.status in (None, status) and maybe == expected.maybe
    if not as_told or row["lease_owner"] is not None or row["dot_sent_at"] is not None:
        found = Expected(expected.name, state, status, maybe)
        raise PeerFileError(f"{place}: expected `{expected}`, but it is `{found}`, last reply `{row['last_reply']}`")


def _find(name: str, queued: dict[str, str], place: str) -> str:
    found = [queue_id for address, queue_id in queued.items() if name in (address, address.partition("@")[0])]
    if len(found) != 1:
        raise PeerFileError(f"{place}: {len(found)} mails go to {name}")
    return found[0]


class _FarEnd:
    """Takes the connections of one round after the other."""

    def __init__(self, name: str, tls: ssl.SSLContext) -> None:
        self.name, self.tls, self.port = name, tls, 0
        self.faults: list[str] = []
        self._calls: deque[Call] = deque()
        self._talking = 0
        self._quiet = asyncio.Event()

    def expect(self, calls: Sequence[Call]) -> None:
        """Be ready for the connections of a round."""
        self._calls = deque(calls)

    async def end_round(self) -> None:
        """Wait until the relay has left; raise PeerFileError for what was not as told."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._talking and not self.faults:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            self.faults.append(f"{self.name}: the relay does not leave")
        self.faults += [f"{self.name}:{call.number}: the relay did not connect to {call.address}" for call in self._calls]
        if self.faults:
            raise PeerFileError("\n".join(self.faults))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk on one connection."""
        address = writer.get_extra_info("sockname")[0]
        self._talking += 1
        try:
            if not self._calls or self._calls[0].address != address:
                self.faults.append(f"{self.name}: the relay connected to {address}, which the file does not tell of")
                return
            await _Talk(self, reader, writer).hold(self._calls.popleft())
        except (ConnectionError, ssl.SSLError):
            pass  # the relay left where it need not stay
        finally:
            self._talking -= 1
            self._quiet.set()
            writer.transport.abort()


class _Talk:
    """One connection."""

    def __init__(self, far_end: _FarEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._far_end, self._reader, self._writer = far_end, reader, writer
        self._transcript: list[str] = []
        self._message: list[str] = []

    async def hold(self, call: Call) -> None:
        for line in call.lines:
            if not await self._take(line):
                return
        await self._see_off()

    async def _take(self, line: Line) -> bool:
        """Do what a line says; False when nothing can follow."""
        match line.kind:
            case "S" | "S-raw":
                await self._say(line)
            case "C":
                return await self._listen(line)
            case "Has" | "Lacks":
                return self._look(line)
            case "close":
                self._writer.close()
            case "reset":
                linger = struct.pack("ii", 1, 0)
                self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._writer.transport.abort()
            case "wait":
                while await self._reader.read(_LONGEST_LINE):
                    pass
        return line.kind not in ("close", "reset", "wait")

    async def _say(self, line: Line) -> None:
        self._transcript.append(f"{line.kind}: {line.text[:200]}")
        self._writer.write(unescape(line.text) if line.kind == "S-raw" else line.text.encode() + b"\r\n")
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # the next line of the relay is missed, if one is told

    async def _listen(self, line: Line) -> bool:
        if line.text == "<TLS>":
            await self._writer.start_tls(self._far_end.tls)
            return True
        if line.text == "<MESSAGE>":
            return await self._take_message(line)
        said = await self._hear()
        while said == "RSET" != line.text:  # allowed wherever a transaction may begin, and worth no line
            self._writer.write(b"250 2.0.0 ok\r\n")
            said = await self._hear()
        if said is None or not fits(line.text, said):
            return self._fault(line, "the relay left" if said is None else f"the relay said `{said}`")
        return True

    async def _take_message(self, line: Line) -> bool:
        self._message = []
        while (said := await self._hear()) != ".":
            if said is None:
                return self._fault(line, "the relay left before the final dot")
            self._message.append(said.removeprefix("."))
        return True

    def _look(self, line: Line) -> bool:
        found = any(fits(line.text, text) for text in self._message)
        if found == (line.kind == "Has"):
            return True
        return self._fault(line, "the message is\n" + "\n".join(self._message))

    async def _see_off(self) -> None:
        """Take leave as servers do; a further command is more than the file tells."""
        while (said := await self._hear()) is not None:
            if said == "QUIT":
                self._writer.write(b"221 2.0.0 bye\r\n")
                self._writer.close()
                return
            if said != "RSET":
                self._far_end.faults.append("\n".join([f"{self._far_end.name}: the relay went on", *self._transcript]))
                return
            self._writer.write(b"250 2.0.0 ok\r\n")

    async def _hear(self) -> str | None:
        raw = await self._reader.readline()
        if not raw:
            return None
        said = raw.decode("utf-8", "backslashreplace").removesuffix("\r\n")
        self._transcript.append(f"C: {said[:200]}")
        return said

    def _fault(self, line: Line, reason: str) -> bool:
        place = f"{self._far_end.name}:{line.number}"
        first = f"{place}: expected `{line.kind}: {line.text}`, but {reason}"
        self._far_end.faults.append("\n".join([first, *self._transcript]))
        return False


@asynccontextmanager
async def _far_end(name: str, addresses: Sequence[str], directory: Path) -> AsyncIterator[_FarEnd]:
    """Listen on addresses of loopback, all on one port."""
    files = make_certificate(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    far_end = _FarEnd(name, tls)
    async with AsyncExitStack() as stack:
        for address in addresses:
            server = await asyncio.start_server(
                far_end.serve, address, far_end.port, limit=_LONGEST_LINE, reuse_address=True
            )
            await stack.enter_async_context(server)
            far_end.port = server.sockets[0].getsockname()[1]
        yield far_end
