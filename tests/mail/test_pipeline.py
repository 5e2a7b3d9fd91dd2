"""How are replies told apart, and what is not taken for one?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from plunk_relay.mail.outcome import Reply
from plunk_relay.mail.pipeline import PeerBabbles, PeerClosed, PeerLate, PipelineProtocol

_PATIENCE = 5.0
OK = Reply(250, None, "ok")


@dataclass(frozen=True, slots=True)
class Line:
    """A pipeline, and the other end of its wire."""

    pipeline: PipelineProtocol
    far_end: socket.socket

    async def say(self, data: bytes) -> None:
        """Send from the far end."""
        await asyncio.get_running_loop().sock_sendall(self.far_end, data)

    async def until_failed(self) -> ConnectionError:
        """Wait until the pipeline gave up."""
        async with asyncio.timeout(_PATIENCE):
            await asyncio.get_running_loop().sock_recv(self.far_end, 1)  # it hangs up then
        assert self.pipeline.failure is not None
        return self.pipeline.failure


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    pipeline = PipelineProtocol(transport)
    transport.set_protocol(pipeline)
    with far:
        yield Line(pipeline, far)
        pipeline.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("sent", "replies"),
    [
        (b"250 ok\r\n", [OK]),
        (b"250 ok\n", [OK]),
        (b"250 2.1.0 ok\r\n", [Reply(250, "2.1.0", "ok")]),
        (b"250\r\n", [Reply(250, None, "")]),
        (b"250 ok\r\n354 go\r\n", [OK, Reply(354, None, "go")]),
        (b"550-no\r\n550 never\r\n", [Reply(550, None, "no never")]),
        (b"550-5.1.1 no\r\n550-5.1.1 never\r\n550 5.1.1 ever\r\n", [Reply(550, "5.1.1", "no never ever")]),
        (b"250-\r\n250 ok\r\n", [Reply(250, None, " ok")]),
        (b"250 caf\xe9\r\n", [Reply(250, None, "caf\ufffd")]),
        (b"250 a\x00b\x1b[31mc\r\n", [Reply(250, None, "a b [31mc")]),
        (b"550 5.1.1 a\x00b\r\n", [Reply(451, "4.5.0", "a reply with control characters: 550 5.1.1 a b")]),
        (b"550-5.1.1 a\r\n550 5.1.1\x1bb\r\n", [Reply(451, "4.5.0", "a reply with control characters: 550 5.1.1 b")]),
    ],
)
async def test_replies_are_read_one_after_the_other(line: Line, sent: bytes, replies: list[Reply]) -> None:
    await line.say(sent)
    assert await line.pipeline.read(len(replies), _PATIENCE) == replies
    assert line.pipeline.failure is None


async def test_a_reply_may_come_byte_by_byte(line: Line) -> None:
    reading = asyncio.create_task(line.pipeline.read(1, _PATIENCE))
    for byte in b"250-2.0.0 first\r\n250 2.0.0 last\r\n":
        await line.say(bytes([byte]))
        await asyncio.sleep(0)
    assert await reading == [Reply(250, "2.0.0", "first last")]


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2x0 ok\r\n",
        b"250ok\r\n",
        b"150 too low\r\n",
        b"650 too high\r\n",
        "٢٥٠ digits of another script\r\n".encode(),
        b"250-mixed\r\n550 codes\r\n",
        b"\x16\x03\x01\x00\x05\r\n",
    ],
)
async def test_what_is_no_reply_ends_the_connection(line: Line, garbage: bytes) -> None:
    await line.say(garbage)
    with pytest.raises(PeerBabbles):
        await line.pipeline.read(1, _PATIENCE)
    assert await _reads_end(line)


@pytest.mark.parametrize("endless", [b"x" * 70_000, b"250-x\r\n" * 20_000], ids=["one line", "many lines"])
async def test_a_reply_without_end_is_given_up(line: Line, endless: bytes) -> None:
    async def flood() -> None:
        with suppress(ConnectionError):  # it hangs up before all has come
            await line.say(endless)

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        with pytest.raises(PeerBabbles, match="too long"):
            await line.pipeline.read(1, _PATIENCE)


async def test_nothing_is_read_after_garbage(line: Line) -> None:
    await line.say(b"garbage\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    with pytest.raises(PeerBabbles):
        await line.pipeline.read(3, _PATIENCE)


async def test_replies_before_garbage_count(line: Line) -> None:
    await line.say(b"250 ok\r\n550 5.1.1 no\r\ngarbage\r\n")
    assert await line.pipeline.read(3, _PATIENCE) == [OK, Reply(550, "5.1.1", "no")]
    assert isinstance(line.pipeline.failure, PeerBabbles)


async def test_replies_before_the_end_count(line: Line) -> None:
    await line.say(b"250 ok\r\n")
    line.far_end.shutdown(socket.SHUT_WR)
    assert await line.pipeline.read(3, _PATIENCE) == [OK]
    with pytest.raises(PeerClosed):
        await line.pipeline.read(1, _PATIENCE)


async def test_a_reply_that_nobody_asked_for_is_not_the_answer_to_the_next_command(line: Line) -> None:
    await line.say(b"250 ok\r\n")
    assert isinstance(await line.until_failed(), PeerBabbles)
    with pytest.raises(PeerBabbles, match="nobody asked for"):
        await line.pipeline.read(1, _PATIENCE)


async def test_a_421_that_nobody_asked_for_says_why_the_peer_leaves(line: Line) -> None:
    await line.say(b"421 4.4.2 idle too long\r\n")
    assert isinstance(await line.until_failed(), PeerClosed)
    assert str(line.pipeline.failure) == "421 4.4.2 idle too long"


async def test_more_replies_than_commands_spoil_the_connection_and_not_the_answers(line: Line) -> None:
    await line.say(b"250 ok\r\n250 ok\r\n")
    assert await line.pipeline.read(1, _PATIENCE) == [OK]
    assert isinstance(line.pipeline.failure, PeerBabbles)


async def test_a_peer_that_stays_silent_is_given_up(line: Line) -> None:
    with pytest.raises(PeerLate):
        await line.pipeline.read(1, 0.01)
    assert await _reads_end(line)


async def test_nothing_is_written_to_a_connection_that_ended(line: Line) -> None:
    line.far_end.close()
    with pytest.raises(PeerClosed):
        await line.pipeline.read(1, _PATIENCE)
    line.pipeline.write(b"QUIT\r\n")
    with pytest.raises(PeerClosed):
        await line.pipeline.read(1, _PATIENCE)


async def _reads_end(line: Line) -> bool:
    """Tell whether the far end sees the connection closed."""
    async with asyncio.timeout(_PATIENCE):
        return await asyncio.get_running_loop().sock_recv(line.far_end, 100) == b""
