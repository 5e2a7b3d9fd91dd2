r"""What does the other mail server say? What its script says, step by step; and it notes all that it was told.

A script is plain data: for each step of a session an answer, for instance

    Script(mail="250 2.1.0 ok", rcpt={"bob@example.org": "550 5.1.1 no such user"}, dot="451 4.3.0 disk full")

An answer is what a postmaster reads in a log. Several things in a row are joined by ` + `, lines of one reply by a line
break; a list answers the first time, the second time, ..., its last entry from then on. Beside replies there are words:

    close   end the connection            hang   say nothing any more
    reset   end it rudely (TCP RST)       wait   say nothing until the test calls `let_go()`
    flood   a reply of a megabyte

So `"250 2.0.0 taken + 421 4.3.2 going down + close"` takes a message and leaves, and `"220 go ahead + no handshake"` at
STARTTLS breaks the handshake. Characters are sent as Latin-1, so `\xff` is the byte 255. After 421 the peer closes.
"""

import asyncio
import base64
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.kit.certificates import CertificateFiles

Answer = str | Sequence[str]
KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 10000000", "ENHANCEDSTATUSCODES")
_LONGEST_LINE = 2**20
_FLOOD = b"250-" + b"x" * 500 + b"\r\n"
_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Script:
    """What the peer answers at each step; the default takes everything."""

    banner: Answer = "220 mx.test ESMTP"
    keywords: Sequence[str] = KEYWORDS
    """What EHLO offers, one keyword with its parameters an entry."""
    ehlo: Answer | None = None
    """Instead of the offer; a 2xx here leaves no keyword."""
    helo: Answer = "250 mx.test"
    starttls: Answer = "220 2.0.0 go ahead"
    """After a lone 220 the handshake begins, with the certificate of the peer."""
    auth: Answer = "235 2.7.0 welcome"
    mail: Answer = "250 2.1.0 ok"
    rcpt: Answer | Mapping[str, Answer] = "250 2.1.5 ok"
    """One answer for all, or by address; an address that is not named is taken."""
    data: Answer = "354 end with a dot"
    dot: Answer = "250 2.0.0 taken"
    rset: Answer = "250 2.0.0 ok"
    quit: Answer = "221 2.0.0 bye + close"
    most_recipients: int | None = None
    """More in one transaction are refused with 452 4.5.3."""
    careless: bool = False
    """RCPT and DATA are answered by the script although MAIL, or every RCPT, was refused."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message that came to its final dot; dots are unstuffed."""

    sender: str
    recipients: tuple[str, ...]
    message: bytes
    answer: str

    @property
    def taken(self) -> bool:
        """Whether the answer was a success."""
        return _reply(self.answer).startswith("2")


@dataclass(slots=True)
class Session:
    """One connection."""

    commands: list[str] = field(default_factory=list)
    """Every command line, as it came; messages and credentials are elsewhere."""
    received: list[Received] = field(default_factory=list)
    credentials: list[tuple[str, str]] = field(default_factory=list)
    """User and password of each AUTH."""
    tls: str | None = None
    """The protocol, such as TLSv1.3; None: in clear."""
    peername: str = ""
    raw: bytearray = field(default_factory=bytearray)
    """All bytes that came, message bytes included."""
    over: bool = False
    """Whether the connection has ended."""

    def verbs(self) -> str:
        """The commands without their arguments, as one line."""
        return " ".join(_verb(command) for command in self.commands)


class Peer:
    """A listening server; `script` may be replaced at any time."""

    def __init__(self, script: Script, certificate: CertificateFiles | None, *, implicit_tls: bool) -> None:
        self.script = script
        self.host, self.port = "", 0
        self.sessions: list[Session] = []
        self.implicit_tls = implicit_tls
        self.context = _server_context(certificate) if certificate else None
        self._asked: Counter[tuple[int, str]] = Counter()
        self._changed = asyncio.Condition()
        self._gate = asyncio.Event()

    @property
    def received(self) -> list[Received]:
        """Every message that came to its dot, session by session."""
        return [message for session in self.sessions for message in session.received]

    @property
    def taken(self) -> list[Received]:
        """The messages that were answered with success."""
        return [message for message in self.received if message.taken]

    @property
    def commands(self) -> list[str]:
        """Every command, session by session."""
        return [command for session in self.sessions for command in session.commands]

    def let_go(self) -> None:
        """Go on where the script says `wait`, now and from now on."""
        self._gate.set()

    async def until(self, fits: Callable[["Peer"], object]) -> None:
        """Wait until something about the peer is true."""
        async with asyncio.timeout(_WAIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: bool(fits(self)))

    async def note(self) -> None:
        """Let those who wait look again."""
        async with self._changed:
            self._changed.notify_all()

    async def pass_gate(self) -> None:
        """Wait for `let_go`."""
        await self._gate.wait()

    def next_answer(self, step: str, answer: Answer) -> str:
        """Return the answer whose turn it is."""
        if isinstance(answer, str):
            return answer
        turn = self._asked[(id(self.script), step)]
        self._asked[(id(self.script), step)] += 1
        return answer[min(turn, len(answer) - 1)]


@asynccontextmanager
async def running_peer(
    script: Script | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: CertificateFiles | None = None,
    implicit_tls: bool = False,
) -> AsyncIterator[Peer]:
    """Run a peer; another one on the same port needs another address of 127.0.0.0/8."""
    peer = Peer(script or Script(), certificate, implicit_tls=implicit_tls)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _Dialog(peer, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            tasks.discard(task)
            writer.transport.abort()
            await peer.note()

    server = await asyncio.start_server(
        serve, host, port, limit=_LONGEST_LINE, ssl=peer.context if implicit_tls else None, reuse_address=True
    )
    peer.host, peer.port = server.sockets[0].getsockname()[:2]
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


class _Dialog:
    """The talk of one connection."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer, self._reader, self._writer = peer, reader, writer
        self._session = Session(peername=writer.get_extra_info("peername")[0])
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._open = True
        peer.sessions.append(self._session)
        self._note_tls()

    async def run(self) -> None:
        try:
            await self._talk()
        finally:
            self._session.over = True

    async def _talk(self) -> None:
        await self._peer.note()
        await self._say("banner", self._peer.script.banner)
        while self._open and (line := await self._read_line()):
            command = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            self._session.commands.append(command if not command.upper().startswith("AUTH") else "AUTH ...")
            await self._peer.note()
            await self._answer(command)
            await self._peer.note()

    async def _answer(self, command: str) -> None:
        script, verb = self._peer.script, _verb(command)
        match verb:
            case "EHLO":
                offer = "\n".join(["250-mx.test", *(f"250-{word}" for word in script.keywords)])
                await self._say("ehlo", script.ehlo or _end_with_space(offer))
            case "HELO":
                await self._say("helo", script.helo)
            case "STARTTLS":
                await self._start_tls()
            case "AUTH":
                await self._take_credentials(command)
            case "MAIL":
                await self._take_sender(_path(command))
            case "RCPT":
                await self._take_recipient(_path(command))
            case "DATA":
                await self._take_message()
            case "RSET":
                self._sender, self._recipients = None, []
                await self._say("rset", script.rset)
            case "QUIT":
                await self._say("quit", script.quit)
            case _:
                await self._say(verb, "500 5.5.2 what?")

    async def _take_sender(self, sender: str) -> None:
        if _reply(await self._say("mail", self._peer.script.mail)).startswith("2"):
            self._sender, self._recipients = sender, []

    async def _take_recipient(self, recipient: str) -> None:
        script, most = self._peer.script, self._peer.script.most_recipients
        if self._sender is None and not script.careless:
            await self._say("rcpt", "503 5.5.1 MAIL first")
        elif most is not None and len(self._recipients) >= most:
            await self._say("rcpt", "452 4.5.3 too many recipients")
        else:
            by_address = script.rcpt if isinstance(script.rcpt, Mapping) else None
            answer = by_address.get(recipient, "250 2.1.5 ok") if by_address is not None else script.rcpt
            assert not isinstance(answer, Mapping)
            step = f"rcpt {recipient}" if by_address is not None else "rcpt"
            if _reply(await self._say(step, answer)).startswith("2"):
                self._recipients.append(recipient)

    async def _take_message(self) -> None:
        script = self._peer.script
        if not self._recipients and not script.careless:
            await self._say("data", "554 5.5.1 no valid recipients")
            return
        if not _reply(await self._say("data", script.data)).startswith("354"):
            return
        message = await self._read_message()
        answer = self._peer.next_answer("dot", script.dot)
        self._session.received.append(Received(self._sender or "", tuple(self._recipients), message, answer))
        self._sender, self._recipients = None, []
        await self._peer.note()
        await self._perform(answer)

    async def _read_message(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self._read_line()) != b".\r\n":
            if not line:
                raise ConnectionError
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    async def _start_tls(self) -> None:
        answer = await self._say("starttls", self._peer.script.starttls)
        if answer.startswith("220") and "+" not in answer and self._open:
            assert self._peer.context is not None, "give the peer a certificate"
            await self._writer.start_tls(self._peer.context)
            self._note_tls()

    async def _take_credentials(self, command: str) -> None:
        _, mechanism, *initial = command.split(" ")
        first = initial[0] if initial else await self._ask("334 ")
        if mechanism.upper() == "PLAIN":
            _, user, password = base64.b64decode(first).decode().split("\0")
        else:
            user = base64.b64decode(first).decode()
            password = base64.b64decode(await self._ask("334 UGFzc3dvcmQ6")).decode()
        self._session.credentials.append((user, password))
        await self._say("auth", self._peer.script.auth)

    async def _ask(self, prompt: str) -> str:
        await self._perform(prompt)
        return (await self._read_line()).decode().strip()

    async def _read_line(self) -> bytes:
        line = await self._reader.readline()
        self._session.raw += line
        return line

    async def _say(self, step: str, answer: Answer) -> str:
        chosen = self._peer.next_answer(step, answer)
        await self._perform(chosen)
        return chosen

    async def _perform(self, answer: str) -> None:
        for part in answer.split(" + "):
            await self._perform_part(part)

    async def _perform_part(self, part: str) -> None:
        match part:
            case "close":
                self._open = False
                self._writer.close()
            case "reset":
                self._open = False
                linger = struct.pack("ii", 1, 0)
                self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._writer.transport.abort()
            case "hang":
                await asyncio.Event().wait()
            case "wait":
                await self._peer.pass_gate()
            case "flood":
                for _ in range(_LONGEST_LINE // len(_FLOOD)):
                    self._writer.write(_FLOOD)
                    await self._writer.drain()
            case _:
                self._writer.write(part.replace("\n", "\r\n").encode("latin-1") + b"\r\n")
                if part.startswith("421"):
                    self._open = False
                    self._writer.close()

    def _note_tls(self) -> None:
        tls = self._writer.get_extra_info("ssl_object")
        self._session.tls = tls.version() if tls is not None else None


def _end_with_space(offer: str) -> str:
    """Turn the mark of the last line of a reply from `-` into a space."""
    head, _, last = offer.rpartition("\n")
    return f"{head}\n{last[:3]} {last[4:]}" if head else f"{last[:3]} {last[4:]}"


def _reply(answer: str) -> str:
    """Return the first reply of an answer, or nothing."""
    return next((part for part in answer.split(" + ") if part[:3].isdigit()), "")


def _verb(command: str) -> str:
    return command.replace(":", " ").partition(" ")[0].upper()


def _path(command: str) -> str:
    return command.partition("<")[2].partition(">")[0]


def _server_context(certificate: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context
