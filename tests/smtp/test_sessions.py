"""How does a session behave towards a client, and end? Replies in one write, patience with limits, a clean stop."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plunk_relay.errors import Unavailable
from plunk_relay.smtp.handler import Client, DoorLimits, DoorOptions, Envelope
from plunk_relay.smtp.listener import Door
from plunk_relay.smtp.replies import SmtpReply
from tests.kit.smtp import (
    PATIENCE_SECONDS,
    Site,
    Stage,
    Wire,
    greeted,
    message,
    open_door,
    read_whole,
    running_site,
    wire_to,
)

_DATA_SEGMENTS_IN = slice(152, 156)  # of struct tcp_info, linux/tcp.h


@dataclass(slots=True)
class Whatever:
    """A handler that takes everything, after it has raised what it was given."""

    faults: list[Exception] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)

    async def authenticate(self, client: Client, username: str, password: str) -> str | SmtpReply:
        del client, username, password
        return "project"

    async def check_sender(self, client: Client, address: str) -> SmtpReply | None:
        del client, address
        return None

    async def check_recipient(self, client: Client, envelope: Envelope, address: str) -> SmtpReply | None:
        del client, envelope, address
        return None

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        del client
        if self.faults:
            raise self.faults.pop(0)
        self.taken.append(read_whole(envelope.content))
        return SmtpReply(250, "2.0.0", "taken")


async def test_a_pipelined_group_is_answered_in_one_write(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        before = _count_data_segments(wire)
        await wire.ask("MAIL FROM:<app@acme.test>", *(f"RCPT TO:<a{n}@example.net>" for n in range(50)), "DATA")
        assert _count_data_segments(wire) - before == 1


async def test_a_fault_of_ours_is_451_and_the_session_lives() -> None:
    handler = Whatever(faults=[RuntimeError("a defect"), Unavailable("The disk is full.")])
    async with _door(handler) as door, greeted(door.port) as wire:
        await _authenticate(wire)
        replies = [await _send_message(wire) for _ in range(3)]
    assert replies[0].startswith("451 4.3.0 ")
    assert "a defect" not in replies[0]
    assert replies[1:] == ["452 4.3.1 The disk is full.", "250 2.0.0 taken"]
    assert handler.taken == [message()]


async def test_many_errors_make_us_slow() -> None:
    limited = _door(Whatever(), errors_before_slow=2, slow_seconds=60)
    async with limited as door, greeted(door.port) as wire, greeted(door.port) as other:
        assert [(await wire.ask("BAD"))[:3] for _ in range(3)] == ["500", "500", "500"]
        await wire.say("NOOP")
        assert [(await other.ask("NOOP"))[:3] for _ in range(3)] == ["250", "250", "250"]
        await door.stop(0)
        assert await wire.reply() == "421 4.3.2 The server is stopping; try again later", "NOOP was not answered yet"


async def test_few_errors_do_not() -> None:
    async with _door(Whatever(), errors_before_slow=2, slow_seconds=60) as door, greeted(door.port) as wire:
        assert (await wire.ask("BAD", "BAD", "NOOP")).startswith("250 ")


async def test_too_many_connections_from_one_address_are_refused(stage: Stage, tmp_path: Path) -> None:
    opening = running_site(stage, tmp_path, max_connections_per_ip=2)
    async with opening as site, greeted(site.port) as first:
        async with greeted(site.port):
            await _check_that_there_is_no_room(site)
            async with greeted(site.port, source="127.0.0.2"):
                pass
            assert (await first.ask("NOOP")).startswith("250 ")
        async with _place_when_there_is_room(site):
            await _check_that_there_is_no_room(site)


async def test_a_message_may_take_as_long_again_as_a_session() -> None:
    async with _door(Whatever(), session_seconds=1) as door, greeted(door.port) as wire, greeted(door.port) as idle:
        await _authenticate(wire)
        await wire.ask("MAIL FROM:<app@acme.test>", "RCPT TO:<ann@example.net>", "DATA")
        assert (await idle.reply() or "").startswith("421 4.4.2 ")
        await wire.send(message() + b".\r\n")
        assert (await wire.reply() or "").startswith("250 ")
        assert (await wire.reply() or "").startswith("421 4.4.2 ")


async def test_a_message_that_takes_for_ever_is_ended_too() -> None:
    handler = Whatever()
    async with _door(handler, session_seconds=0.1) as door, greeted(door.port) as wire:
        await _authenticate(wire)
        await wire.ask("MAIL FROM:<app@acme.test>", "RCPT TO:<ann@example.net>", "DATA")
        await wire.send(b"From: app@acme.test\r\n")
        assert (await wire.reply() or "").startswith("421 4.4.2 ")
        assert await wire.line() is None
    assert handler.taken == []


async def test_a_stop_is_told_to_idle_sessions_and_nobody_new_is_let_in(site: Site) -> None:
    door = site.door("submission")
    port = door.port
    async with greeted(port) as wire:
        await door.stop(PATIENCE_SECONDS)
        assert await wire.reply() == "421 4.3.2 The server is stopping; try again later"
        assert await wire.line() is None
    with pytest.raises(ConnectionRefusedError):
        async with wire_to(port):
            pass


async def test_a_stop_lets_a_message_in_transfer_finish(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net")
        await wire.send(message())
        site.relay.stopping.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(site.door("submission").stop(PATIENCE_SECONDS))
            await asyncio.sleep(0)
            await wire.send(b".\r\nMAIL FROM:<app@acme.test>\r\n")
            assert (await wire.reply() or "").startswith("250 2.0.0 queued as ")
            assert await wire.reply() == "421 4.3.2 The server is stopping; try again later"
            assert await wire.line() is None
    assert len(await site.stored()) == 1


async def test_after_the_grace_a_stalled_message_is_dropped(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net")
        await wire.send(message())
        await site.door("submission").stop(0)
        assert await wire.line() is None
    assert await site.stored() == []


async def test_while_the_server_stops_no_transaction_begins(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test>")).startswith("250 ")
        site.relay.stopping.set()
        assert await wire.ask("RCPT TO:<ann@example.net>") == "421 4.3.2 The server is stopping; try again later"
        assert await wire.line() is None


async def test_on_a_full_disk_mail_is_put_off(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, limits={"minimum_free_megabytes": 10**9}) as site, greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test>")).startswith("250 ")
        assert (await wire.ask("RCPT TO:<ann@example.net>")).startswith("452 4.3.1 Cannot store mail now: only ")
        assert (await wire.ask("NOOP")).startswith("250 ")


async def test_when_nothing_can_be_written_mail_is_put_off(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net")
        site.relay.db.failure = "a write to disk failed"
        await wire.send(message() + b".\r\n")
        assert await wire.reply() == "452 4.3.1 Cannot store mail now: a write to disk failed"
        site.relay.db.failure = None
        assert (await _send_message(wire)).startswith("250 ")


def _count_data_segments(wire: Wire) -> int:
    """Return how many segments with data the client has received."""
    connection: socket.socket = wire.writer.get_extra_info("socket")
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (count,) = struct.unpack("I", info[_DATA_SEGMENTS_IN])
    return int(count)


@asynccontextmanager
async def _door(handler: Whatever, **limits: float) -> AsyncIterator[Door]:
    options = DoorOptions("relay.test", auth_without_tls=True)
    door = Door(handler, options, DoorLimits(**limits), name="test", host="127.0.0.1", port=0)  # type: ignore[arg-type]  # by name
    async with open_door(door):
        yield door


async def _authenticate(wire: Wire) -> None:
    await wire.ask("EHLO client.test")
    assert (await wire.ask("AUTH PLAIN AHgAeA==")).startswith("235 ")


async def _send_message(wire: Wire) -> str:
    await wire.ask("MAIL FROM:<app@acme.test>", "RCPT TO:<ann@example.net>", "DATA")
    await wire.send(message() + b".\r\n")
    return await wire.reply() or ""


async def _check_that_there_is_no_room(site: Site) -> None:
    async with wire_to(site.port) as wire:
        assert await wire.reply() == "421 4.7.0 Too many connections from your address"
        assert await wire.line() is None


@asynccontextmanager
async def _place_when_there_is_room(site: Site) -> AsyncIterator[None]:
    """Connect until the door has seen that others are gone, and stay."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with wire_to(site.port) as wire:
                if (await wire.reply() or "").startswith("220 "):
                    yield
                    return
