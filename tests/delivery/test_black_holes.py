"""Do destinations that do not answer hold up those that do? Peers that take a connection and never say a word."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.worker import run
from plunk_relay.emails.actions import PRIORITY_CAMPAIGN, PRIORITY_TRANSACTIONAL
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.relay import make_tenant

DELIVERED = ("DELIVERED", "DELIVERED")
DEAD = 40


@pytest.fixture
async def hole(peer: Peer) -> AsyncIterator[Peer]:
    """Run a peer that takes connections and says nothing, on the port of `peer`."""
    async with running_peer(Script(banner="hang"), host="127.0.0.2", port=peer.port) as running:
        yield running


async def test_a_destination_that_does_not_answer_holds_two_connections(outbox: Outbox, hole: Peer) -> None:
    set_exchangers(outbox.dns, "dead.example", "127.0.0.2")
    for number in range(30):
        await outbox.submit("ann@dead.example", message=other_message(number))
    [living] = await outbox.submit("bob@example.org")
    await outbox.claim()
    await outbox.until(_delivered(outbox, living))
    assert len(hole.sessions) == 2


async def test_all_that_do_not_answer_hold_half_of_the_connections(
    prepared: Prepared, tmp_path: Path, peer: Peer, hole: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=10) as outbox:
        await _submit_to_the_dead(outbox)
        await outbox.claim()
        await hole.until(lambda hole: len(hole.sessions) == 5)
        [living] = await outbox.submit("bob@example.org", tenant=outbox.rival)
        await outbox.claim()
        await outbox.until(_delivered(outbox, living))
        assert len(hole.sessions) == 5


async def test_those_that_answered_before_get_the_other_half(
    prepared: Prepared, tmp_path: Path, peer: Peer, hole: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=10) as outbox:
        await outbox.submit("bob@example.org")
        await outbox.deliver()
        await _submit_to_the_dead(outbox)
        await outbox.claim()
        await hole.until(lambda hole: len(hole.sessions) == 5)
        ids = [one for number in range(20) for one in await outbox.submit("bob@example.org", message=other_message(number))]
        await outbox.claim()
        for one in ids:
            await outbox.until(_delivered(outbox, one))


async def test_a_destination_that_stops_answering_is_unproven_again(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit()
    await outbox.deliver()
    port = peer.port
    peer.script = Script(banner="close")
    for session in peer.sessions:
        assert not session.over
    peer.script = Script(rcpt="421 4.3.2 going down + close", banner="close")
    await outbox.submit()
    await outbox.deliver()
    outbox.clock.advance(minutes=2)
    peer.script = Script(banner="hang")
    for number in range(10):
        await outbox.submit(message=other_message(number))
    sessions = len(peer.sessions)
    await outbox.claim()
    await peer.until(lambda peer: len(peer.sessions) == sessions + 2)
    assert (peer.port, len(peer.sessions)) == (port, sessions + 2)


async def test_a_lane_with_many_connections_gives_one_to_a_destination_that_waits(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with (
        running_peer(host="127.0.0.2", port=peer.port) as other,
        running_outbox(prepared, tmp_path, port=peer.port, concurrency=4, per_destination=4) as outbox,
    ):
        await outbox.submit()
        await outbox.deliver()
        peer.script = Script(dot=[*["wait + 250 2.0.0 taken"] * 4, "hang"])
        set_exchangers(outbox.dns, "other.example", "127.0.0.2")
        for number in range(30):
            await outbox.submit(message=other_message(number), priority=PRIORITY_CAMPAIGN)
        await outbox.claim()
        await peer.until(lambda peer: len(peer.received) == 1 + 4)
        await outbox.submit("ann@other.example", priority=PRIORITY_CAMPAIGN, tenant=outbox.rival)
        await outbox.claim()
        await outbox.until(_sorted(outbox))
        peer.let_go()
        await other.until(lambda other: other.taken)


async def test_the_next_connection_is_for_the_more_urgent_mail(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    peer.script = Script(dot=["wait + 250 2.0.0 taken", "250 2.0.0 taken"])
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=1) as outbox:
        await outbox.submit()
        await outbox.claim()
        await peer.until(lambda peer: peer.received)
        for domain, priority in (("slow.example", PRIORITY_CAMPAIGN), ("fast.example", PRIORITY_TRANSACTIONAL)):
            set_exchangers(outbox.dns, domain, "127.0.0.1")
            await outbox.submit(f"ann@{domain}", priority=priority)
            await outbox.claim()
            await outbox.until(_sorted(outbox))
        peer.let_go()
        await outbox.deliver()
        assert [message.recipients[0] for message in peer.taken][1:] == ["ann@fast.example", "ann@slow.example"]


async def test_the_next_connection_is_for_the_project_with_fewer(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    peer.script = Script(dot=["wait + 250 2.0.0 taken", "hang", "250 2.0.0 taken"])
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=2) as outbox:
        for number in range(4):
            set_exchangers(outbox.dns, f"d{number}.example", "127.0.0.1")
            await outbox.submit(f"ann@d{number}.example")
            await outbox.claim()
            await outbox.until(_sorted(outbox))
            expected = min(number + 1, 2)
            await peer.until(partial(_has_received, expected))
        set_exchangers(outbox.dns, "rival.example", "127.0.0.1")
        await outbox.submit("bob@rival.example", tenant=outbox.rival)
        await outbox.claim()
        await outbox.until(_sorted(outbox))
        peer.let_go()
        await peer.until(lambda peer: len(peer.received) == 5)
        assert peer.received[2].recipients == ("bob@rival.example",)


@pytest.mark.slow
async def test_dead_and_busy_destinations_do_not_delay_another_project_s_message_by_five_seconds(
    prepared: Prepared, tmp_path: Path, peer: Peer, hole: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port) as outbox:
        for name in ("dead", *(f"dead{number}" for number in range(DEAD))):
            set_exchangers(outbox.dns, f"{name}.example", "127.0.0.2")
        set_exchangers(outbox.dns, "fresh.example", "127.0.0.1")
        third = await make_tenant(outbox.relay, "third", domain="third.test")
        for number in range(1000):
            await outbox.submit("ann@dead.example", message=other_message(number))
        await outbox.submit(*(f"user{number}@dead{number % DEAD}.example" for number in range(1000)), tenant=third)
        for start in range(0, 10_000, 100):
            await outbox.submit(*(f"user{start + number}@example.org" for number in range(100)))
        stop = asyncio.Event()
        working = asyncio.create_task(run(outbox.relay, stop))
        await peer.until(lambda peer: len(peer.taken) >= 3)
        await hole.until(lambda hole: len(hole.sessions) >= 20)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        [single] = await outbox.submit("cid@fresh.example", tenant=outbox.rival)
        outbox.relay.wakes.deliveries.set()
        await outbox.until(_delivered(outbox, single))
        delay = loop.time() - begun
        stop.set()
        await outbox.deliverer.finish(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert delay < 5


async def test_a_claim_that_finds_everybody_busy_is_not_made_again_at_once(
    prepared: Prepared, tmp_path: Path, peer: Peer, hole: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=2) as outbox:
        set_exchangers(outbox.dns, "dead.example", "127.0.0.2")
        deliverer, loop = outbox.deliverer, asyncio.get_running_loop()
        for number in range(60):
            await outbox.submit("ann@dead.example", message=other_message(number))
        await outbox.claim()
        begun = loop.time()
        while await deliverer.run_in_turn():
            pass
        assert loop.time() - begun >= 0.09  # it rested


async def test_an_empty_queue_lets_the_next_mail_be_claimed_at_once(outbox: Outbox) -> None:
    await outbox.deliverer.run_in_turn()
    assert not outbox.deliverer._futile


async def _submit_to_the_dead(outbox: Outbox) -> None:
    for number in range(DEAD):
        set_exchangers(outbox.dns, f"dead{number}.example", "127.0.0.2")
    await outbox.submit(*(f"ann@dead{number}.example" for number in range(DEAD)))


def _has_received(count: int, peer: Peer) -> bool:
    return len(peer.received) == count


def _sorted(outbox: Outbox) -> Callable[[], Any]:
    async def fits() -> bool:
        return not outbox.deliverer._unsorted

    return fits


def _delivered(outbox: Outbox, delivery_id: str) -> Callable[[], Any]:
    async def fits() -> bool:
        return await outbox.state(delivery_id) == DELIVERED

    return fits
