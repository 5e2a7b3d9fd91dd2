"""How does a test submit mail? To the real doors of a relay, over sockets, in the words of SMTP or with smtplib.

The tenants are made once a run; each test opens a copy of their data.
"""

import asyncio
import base64
import shutil
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from plunk_relay.clock import ManualClock
from plunk_relay.contents.queries import load_content
from plunk_relay.db.tables import contacts, contents, deliveries, domains, emails
from plunk_relay.domains.actions import add_domain, trust_domain
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from plunk_relay.smtp.inbound import inbound_doors
from plunk_relay.smtp.listener import Door
from plunk_relay.smtp.submission import submission_doors
from plunk_relay.spool import SpooledFile
from tests.kit.certificates import CertificateFiles
from tests.kit.process import free_port
from tests.kit.relay import NOON, Tenant, make_tenant, running_relay
from tests.kit.store import change

T = TypeVar("T")
PATIENCE_SECONDS = 10.0
"""Longest wait for something that must happen; nothing is measured by it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Data with three projects: acme, which also has the unverified domain pending.test; rival; closed, disabled.

    rival also has open.test, which receives mail.
    """

    directory: Path
    acme: Tenant
    rival: Tenant
    closed: Tenant


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A mail as the relay has stored it."""

    queue_id: str
    email_id: str
    project_id: str
    sender: str
    recipient: str
    to_name: str | None
    subject: str
    from_address: str
    from_name: str | None
    reply_to: str | None
    message_id: str
    mail_class: str
    tag: str | None
    tracked: bool | None
    template_id: str | None
    never_twice: bool
    contact: str
    subscribed: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Site:
    """A relay whose submission doors are open."""

    relay: Relay
    stage: Stage
    doors: Sequence[Door]

    @property
    def acme(self) -> Tenant:
        """The tenant that tests are about."""
        return self.stage.acme

    @property
    def port(self) -> int:
        """The submission port."""
        return self.door("submission").port

    def door(self, name: str) -> Door:
        """Return the open door of that name."""
        return next(door for door in self.doors if door.name == name)

    async def stored(self) -> list[StoredMail]:
        """Return what has been accepted, first one first."""
        return await self.relay.db.read(_list_stored)


async def build_stage(directory: Path) -> Stage:
    """Make the data of a stage in a directory."""
    async with running_relay(directory) as relay:
        acme = await make_tenant(relay)
        await add_domain(relay, acme.id, "pending.test")
        rival = await make_tenant(relay, "rival", domain="rival.test")
        receiving = await trust_domain(relay, await add_domain(relay, rival.id, "open.test"))
        await change(relay, domains, receiving.id, receiving=True)
        closed = await make_tenant(relay, "closed", domain="closed.test")
        await disable_project(relay, closed.id)
        return Stage(directory, acme, rival, closed)


@asynccontextmanager
async def running_site(
    stage: Stage,
    directory: Path,
    *,
    clock: ManualClock | None = None,
    certificate: CertificateFiles | None = None,
    limits: dict[str, Any] | None = None,
    **smtp: Any,
) -> AsyncIterator[Site]:
    """Open the doors on a copy of the stage's data; `smtp` are settings of the section of that name.

    Port 465 is open when there is a certificate, the inbound door when `inbound_port` is set.
    """
    data = directory / "data"
    if not data.exists():
        shutil.copytree(stage.directory, data)
    settings: dict[str, Any] = {"submission_port": free_port(), **smtp}
    if certificate is not None:
        settings |= {"tls_certificate": certificate.certificate, "tls_key": certificate.key}
    if "tls_certificate" in settings:
        settings["submissions_port"] = free_port()
    async with AsyncExitStack() as stack:
        opening = running_relay(data, clock=clock or ManualClock(NOON), smtp=settings, limits=limits or {})
        relay = await stack.enter_async_context(opening)
        doors = [*await submission_doors(relay), *inbound_doors(relay)]
        for door in doors:
            await stack.enter_async_context(open_door(door))
        yield Site(relay, stage, doors)


@asynccontextmanager
async def open_door(door: Door) -> AsyncIterator[Door]:
    """Let a door listen until the end of the block."""
    await door.start()
    try:
        yield door
    finally:
        await door.stop(0)


class Wire:
    """A client that sends what it is told and reads what comes; every wait has an end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *lines: str) -> None:
        """Send lines in one write."""
        await self.send("".join(f"{line}\r\n" for line in lines).encode())

    async def send(self, data: bytes) -> None:
        """Send bytes in one write."""
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> str | None:
        """Return the next line without its CRLF; None when the server has closed."""
        try:
            raw = await asyncio.wait_for(self.reader.readline(), PATIENCE_SECONDS)
        except ConnectionError:
            return None
        if not raw:
            return None
        assert raw.endswith(b"\r\n"), f"the server sent half a line: {raw!r}"
        return raw[:-2].decode("ascii")

    async def reply(self) -> str | None:
        """Return the last line of the next reply; None when the server has closed."""
        while (line := await self.line()) is not None and line[3:4] == "-":
            pass
        return line

    async def ask(self, *lines: str) -> str:
        """Send lines in one write and return the last line of the last of their replies."""
        await self.say(*lines)
        replies = [await self.reply() for _ in lines]
        return replies[-1] or ""

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str = "localhost") -> None:
        """Shake hands."""
        handshake = self.writer.start_tls(context, server_hostname=server_name)
        await asyncio.wait_for(handshake, PATIENCE_SECONDS)

    async def log_in(self, tenant: Tenant) -> None:
        """Say EHLO and authenticate."""
        await self.ask("EHLO client.test")
        token = sasl_plain("plunk", tenant.secret)
        assert (await self.ask(f"AUTH PLAIN {token}")).startswith("235 ")

    async def begin_message(self, tenant: Tenant, *recipients: str) -> None:
        """Go as far as the 354."""
        commands = [f"MAIL FROM:<app@{tenant.domain}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
        assert (await self.ask(*commands)).startswith("354 ")


@asynccontextmanager
async def wire_to(
    port: int, *, tls: ssl.SSLContext | None = None, server_name: str = "localhost", source: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """Connect from a loopback address; the greeting has not been read yet."""
    name = server_name if tls else None
    connecting = asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=tls, server_hostname=name)
    reader, writer = await asyncio.wait_for(connecting, PATIENCE_SECONDS)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def greeted(
    port: int, *, tls: ssl.SSLContext | None = None, server_name: str = "localhost", source: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """Connect and read the greeting, which must be a 220."""
    async with wire_to(port, tls=tls, server_name=server_name, source=source) as wire:
        greeting = await wire.reply()
        assert greeting is not None
        assert greeting.startswith("220 ")
        yield wire


def sasl_plain(username: str, password: str) -> str:
    """Return the response of AUTH PLAIN."""
    return base64.b64encode(f"\0{username}\0{password}".encode()).decode()


def message(sender: str = "app@acme.test", *, subject: str = "Hello", headers: str = "", body: str = "Text\r\n") -> bytes:
    """Return a small message; `headers` are whole lines."""
    return f"From: {sender}\r\nTo: Ann <ann@example.net>\r\nSubject: {subject}\r\n{headers}\r\n{body}".encode()


def read_whole(content: bytearray | SpooledFile) -> bytes:
    """Return the bytes of a message that a door has taken."""
    return b"".join(map(bytes, content.pieces())) if isinstance(content, SpooledFile) else bytes(content)


async def submit(
    site: Site,
    content: bytes,
    *,
    recipients: Sequence[str] = ("ann@example.net",),
    sender: str = "app@acme.test",
    options: Sequence[str] = (),
) -> tuple[int, str]:
    """Submit a message with smtplib as acme; return the reply to the final dot, or to what was refused before."""

    def talk(client: smtplib.SMTP) -> tuple[int, str]:
        try:
            refused = client.sendmail(sender, recipients, content, mail_options=options)
        except smtplib.SMTPResponseException as error:
            return error.smtp_code, _text(error.smtp_error)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        if refused:
            code, text = next(iter(refused.values()))
            return code, _text(text)
        return 250, ""

    return await with_smtplib(site, talk)


async def with_smtplib(site: Site, talk: Callable[[smtplib.SMTP], T]) -> T:
    """Run `talk` in a thread with a client that is logged in as acme."""

    def run() -> T:
        with smtplib.SMTP("127.0.0.1", site.port, local_hostname="client.test", timeout=PATIENCE_SECONDS) as client:
            client.login("plunk", site.acme.secret)
            return talk(client)

    return await asyncio.to_thread(run)


def _text(error: bytes | str) -> str:
    return error.decode() if isinstance(error, bytes) else error


def _list_stored(tx: sa.Connection) -> list[StoredMail]:
    columns = [
        deliveries.c.id,
        emails.c.id,
        emails.c.project_id,
        deliveries.c.sender,
        emails.c.recipient,
        emails.c.to_name,
        emails.c.subject,
        emails.c.from_address,
        emails.c.from_name,
        emails.c.reply_to,
        emails.c.message_id,
        emails.c.mail_class,
        emails.c.tag,
        emails.c.tracked,
        emails.c.template_id,
        deliveries.c.never_twice,
        contacts.c.email,
        contacts.c.subscribed,
        contents.c.id,
    ]
    joined = (
        deliveries.join(emails, emails.c.id == deliveries.c.email_id)
        .join(contacts, contacts.c.id == emails.c.contact_id)
        .join(contents, contents.c.id == emails.c.content_id)
    )
    found = sa.select(*(column.label(f"c{n}") for n, column in enumerate(columns))).select_from(joined)
    rows: list[list[Any]] = [list(row) for row in tx.execute(found.order_by(deliveries.c.id))]
    return [StoredMail(*[*row[:-1], load_content(tx, row[-1])]) for row in rows]
