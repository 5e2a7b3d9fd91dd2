"""Which of a host's addresses is talked to when one of them does not answer?"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.dial import dial
from plunk_relay.mail.outcome import Deferred, Reply
from plunk_relay.mail.session import ConnectionFailed, Timeouts
from plunk_relay.mail.session import Peer as Target
from plunk_relay.mail.transport import Connection
from tests.kit.peer import Peer, running_peer
from tests.kit.silence import silent_listener

QUICK = Timeouts(connect=5, head_start=0.05)
NOBODY = "127.0.0.99"


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with running_peer() as running:
        yield running


def targets(port: int, *addresses: str, host: str = "mx.test") -> deque[Target]:
    return deque(Target(host, address, port) for address in addresses)


async def call(waiting: deque[Target], timeouts: Timeouts = QUICK) -> str:
    """Dial; return the address that was reached."""
    target, sock = await dial(waiting, Conversation(), timeouts)
    with sock:
        assert sock.getpeername()[:2] == (target.address, target.port)
    return target.address


async def until_all_are_called(waiting: deque[Target]) -> None:
    async with asyncio.timeout(10):
        while waiting:  # noqa: ASYNC110  a deque tells nobody
            await asyncio.sleep(0)


async def test_the_first_address_is_taken_when_it_answers_and_the_second_is_left(peer: Peer) -> None:
    waiting = targets(peer.port, "127.0.0.1", "127.0.0.2")
    assert await call(waiting) == "127.0.0.1"
    assert [target.address for target in waiting] == ["127.0.0.2"]


async def test_the_second_address_is_called_at_once_when_the_first_refuses(peer: Peer) -> None:
    waiting = targets(peer.port, NOBODY, "127.0.0.1")
    assert await call(waiting, Timeouts(head_start=1000)) == "127.0.0.1"
    assert not waiting


@pytest.mark.parametrize("silent", ["127.0.0.5", "::1"], ids=["IPv4", "IPv6"])
async def test_the_second_address_is_called_when_the_first_stays_silent(peer: Peer, silent: str) -> None:
    with silent_listener(silent, peer.port):
        waiting = targets(peer.port, silent, "127.0.0.1")
        assert await call(waiting) == "127.0.0.1"
        assert not waiting


async def test_the_other_family_works_both_ways() -> None:
    async with running_peer(host="::1") as peer:
        with silent_listener("127.0.0.5", peer.port):
            assert await call(targets(peer.port, "127.0.0.5", "::1")) == "::1"


async def test_the_first_address_may_still_win_after_the_second_failed() -> None:
    async with running_peer(host="127.0.0.5") as peer:
        with silent_listener("127.0.0.6", peer.port) as wake_up:
            waiting = targets(peer.port, "127.0.0.6", NOBODY)
            calling = asyncio.create_task(call(waiting, Timeouts(connect=20, head_start=0.05)))
            await until_all_are_called(waiting)
            wake_up()
            assert await calling == "127.0.0.6"


async def test_only_addresses_of_the_first_host_are_called(peer: Peer) -> None:
    waiting = targets(peer.port, NOBODY, "127.0.0.98") + targets(peer.port, "127.0.0.1", host="mx2.test")
    conversation = Conversation()
    with pytest.raises(ConnectionFailed) as failed:
        await dial(waiting, conversation, QUICK)
    assert [target.host for target in waiting] == ["mx2.test"]
    assert isinstance(failed.value.outcome, Deferred)
    assert (failed.value.outcome.reply.code, failed.value.outcome.reply.enhanced) == (451, "4.4.1")
    assert f"connecting to mx.test[{NOBODY}]:{peer.port}" in str(conversation)
    assert f"connecting to mx.test[127.0.0.98]:{peer.port}" in str(conversation)
    assert peer.sessions == []


async def test_an_address_that_never_answers_is_a_time_out(peer: Peer) -> None:
    with silent_listener("127.0.0.5", peer.port), pytest.raises(ConnectionFailed) as failed:
        await dial(targets(peer.port, "127.0.0.5"), Conversation(), Timeouts(connect=0.05))
    assert failed.value.outcome == Deferred(Reply(451, "4.4.1", "connection timed out"))


async def test_the_call_that_lost_is_ended(peer: Peer) -> None:
    with silent_listener("127.0.0.5", peer.port):
        before = asyncio.all_tasks()
        await call(targets(peer.port, "127.0.0.5", "127.0.0.1"))
        assert not {task for task in asyncio.all_tasks() - before if task.get_name().startswith("call ")}


async def test_a_call_that_is_given_up_leaves_nothing_behind(peer: Peer) -> None:
    with silent_listener("127.0.0.5", peer.port), silent_listener("127.0.0.6", peer.port):
        waiting = targets(peer.port, "127.0.0.5", "127.0.0.6")
        calling = asyncio.create_task(call(waiting))
        await until_all_are_called(waiting)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert not any(task.get_name().startswith("call ") for task in asyncio.all_tasks())


async def test_a_session_begins_on_the_line_that_was_dialled(peer: Peer) -> None:
    target, sock = await dial(targets(peer.port, NOBODY, "127.0.0.1"), Conversation(), QUICK)
    connection = await Connection.open(target, Conversation(), local_hostname="relay.test", sock=sock)
    assert peer.commands == ["EHLO relay.test"]
    await connection.close()
    assert len(peer.sessions) == 1
