"""What can a client ask about the TLS on the rest of the way? (RFC 8689)"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from plunk_relay.db.tables import deliveries
from tests.kit.certificates import make_certificate
from tests.kit.smtp import Site, Stage, Wire, greeted, message, running_site
from tests.kit.store import rows


@asynccontextmanager
async def encrypted(stage: Stage, directory: Path) -> AsyncIterator[tuple[Site, Wire]]:
    """Begin a session on port 587 and start TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opening = running_site(stage, directory, certificate=make_certificate(directory))
    async with opening as site, greeted(site.port) as wire:
        assert (await wire.ask("EHLO client.test", "STARTTLS")).startswith("220 ")
        await wire.start_tls(context)
        yield site, wire


async def offer(wire: Wire) -> list[str]:
    """Say EHLO and return the keywords."""
    await wire.say("EHLO client.test")
    lines = []
    while (line := await wire.line()) is not None:
        lines.append(line[4:])
        if line[3] == " ":
            break
    return lines


async def submit(wire: Wire, site: Site, content: bytes, *parameters: str) -> str:
    """Submit a message as acme and return the last reply."""
    await wire.log_in(site.acme)
    mail = " ".join(["MAIL FROM:<app@acme.test>", *parameters])
    reply = await wire.ask(mail, "RCPT TO:<ann@example.net>", "DATA")
    if not reply.startswith("354"):
        return reply
    await wire.send(content + b".\r\n")
    return await wire.reply() or ""


async def wishes(site: Site) -> list[str | None]:
    return [row["tls_wish"] for row in await rows(site.relay, deliveries)]


async def test_requiretls_is_offered_over_tls_only(stage: Stage, tmp_path: Path) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        assert "REQUIRETLS" in await offer(wire)
        async with greeted(site.port) as clear:
            assert "REQUIRETLS" not in await offer(clear)


async def test_requiretls_is_kept_with_every_recipient(stage: Stage, tmp_path: Path) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        await wire.log_in(site.acme)
        commands = ["RCPT TO:<ann@example.net>", "RCPT TO:<bob@example.com>", "DATA"]
        assert (await wire.ask("MAIL FROM:<app@acme.test> REQUIRETLS", *commands)).startswith("354 ")
        await wire.send(message() + b".\r\n")
        assert (await wire.reply() or "").startswith("250 ")
        assert await wishes(site) == ["REQUIRED", "REQUIRED"]


async def test_requiretls_in_clear_is_refused(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test> REQUIRETLS")).startswith("555 5.5.4 ")


async def test_requiretls_takes_no_value(stage: Stage, tmp_path: Path) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test> REQUIRETLS=yes")).startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ("TLS-Required: No\r\n", "OPTIONAL"),
        ("tls-required:  no \r\n", "OPTIONAL"),
        ("TLS-Required: Yes\r\n", None),
        ("TLS-Required: No\r\nTLS-Required: No\r\n", None),
        ("", None),
    ],
)
async def test_a_header_says_that_tls_is_not_needed(stage: Stage, tmp_path: Path, headers: str, wish: str | None) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        assert (await submit(wire, site, message(headers=headers))).startswith("250 ")
        assert await wishes(site) == [wish]
        [stored] = await site.stored()
        assert headers.encode() in stored.content, "it is passed on"


async def test_requiretls_wins_over_the_header(stage: Stage, tmp_path: Path) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        content = message(headers="TLS-Required: No\r\n")
        assert (await submit(wire, site, content, "REQUIRETLS")).startswith("250 ")
        assert await wishes(site) == ["REQUIRED"]


async def test_the_wish_ends_with_its_transaction(stage: Stage, tmp_path: Path) -> None:
    async with encrypted(stage, tmp_path) as (site, wire):
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test> REQUIRETLS", "RSET")).startswith("250 ")
        assert (await wire.ask("MAIL FROM:<app@acme.test>", "RCPT TO:<ann@example.net>", "DATA")).startswith("354 ")
        await wire.send(message() + b".\r\n")
        assert (await wire.reply() or "").startswith("250 ")
        assert await wishes(site) == [None]
