"""Who answers HTTPS in a test? A server that says what it is told to, and notes what it was asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.kit.certificates import CertificateFiles


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(slots=True)
class HttpsServer:
    """Answers every request alike; all may be changed at any time."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})
    body: bytes = b""
    silent: bool = False
    """Take the request and say nothing."""
    asked: list[Asked] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """The server names of the handshakes (SNI)."""

    def set_policy(self, *mx: str, mode: str = "enforce", max_age: int = 86400) -> None:
        """Serve an MTA-STS policy."""
        lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {one}" for one in mx), f"max_age: {max_age}", ""]
        self.status, self.body = 200, "\r\n".join(lines).encode()


@asynccontextmanager
async def running_https(certificate: CertificateFiles, *, host: str = "127.0.0.1") -> AsyncIterator[HttpsServer]:
    """Run a server; `port` is where it listens."""
    server = HttpsServer()
    tasks: set[asyncio.Task[None]] = set()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def note_name(_tls: object, name: str | None, _context: object) -> None:
        server.names.append(name)

    context.sni_callback = note_name

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            server.asked.append(await _read(reader))
            if server.silent:
                await asyncio.Event().wait()
            lines = [f"HTTP/1.1 {server.status} Status", f"Content-Length: {len(server.body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in server.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + server.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(serve, host, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)
