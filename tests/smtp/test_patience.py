"""How long does the door hold a place for a client that hardly moves? For `idle_seconds`, however it goes about it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.smtp import PATIENCE_SECONDS, Site, Stage, Wire, greeted, message, running_site, wire_to

_TOO_SLOW = b"421 4.4.2 You were silent for too long\r\n"


@pytest.fixture
async def hurried(stage: Stage, tmp_path: Path) -> AsyncIterator[Site]:
    """Open a door that has room for one client, and little patience."""
    async with running_site(stage, tmp_path, idle_seconds=0.3, max_connections=1) as site:
        yield site


async def test_a_command_that_comes_octet_by_octet_is_not_waited_for(hurried: Site) -> None:
    async with greeted(hurried.port) as wire:
        assert await _trickle(wire, iter(b"N" * 500)) == _TOO_SLOW
        assert await wire.line() is None


async def test_a_message_that_comes_octet_by_octet_is_not_waited_for(hurried: Site) -> None:
    async with greeted(hurried.port) as wire:
        await wire.log_in(hurried.acme)
        await wire.begin_message(hurried.acme, "ann@example.net")
        assert await _trickle(wire, iter(message(body="x" * 500))) == _TOO_SLOW
        assert await wire.line() is None
    assert await hurried.stored() == []


async def test_a_large_message_that_stops_in_the_middle_is_not_waited_for(hurried: Site) -> None:
    async with greeted(hurried.port) as wire:
        await wire.log_in(hurried.acme)
        await wire.begin_message(hurried.acme, "ann@example.net")
        await wire.send(message(body="a line\r\n" * 200_000))
        assert await wire.reader.readline() == _TOO_SLOW
    assert await hurried.stored() == []


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_replies_loses_its_place(hurried: Site) -> None:
    async with greeted(hurried.port) as wire:
        await wire.log_in(hurried.acme)
        wire.writer.write(b"NOOP\r\n" * 1_000_000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _is_let_in(hurried):
                pass


async def _trickle(wire: Wire, octets: Iterator[int]) -> bytes:
    """Send octets one by one until the server says something; return what."""
    saying = asyncio.ensure_future(wire.reader.readline())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await asyncio.wait([saying], timeout=0.05))[0]:
            await wire.send(bytes([next(octets)]))
    return await saying


async def _is_let_in(site: Site) -> bool:
    async with wire_to(site.port) as wire:
        return (await wire.reply() or "").startswith("220 ")
