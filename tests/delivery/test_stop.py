"""What happens to mail in hand when the relay stops, dies, or cannot write?"""

import asyncio
import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from plunk_relay.delivery.worker import LEASE, run
from plunk_relay.emails import queue
from plunk_relay.emails.queue import Claim
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox
from tests.kit.peer import Peer, Script

WAITING = ("QUEUED", "PENDING")
DELIVERED = ("DELIVERED", "DELIVERED")


async def test_a_transaction_under_way_may_end(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    stopping = asyncio.create_task(outbox.deliverer.finish(10))
    await asyncio.sleep(0)
    peer.let_go()
    await stopping
    assert await outbox.state(delivery_id) == DELIVERED


@pytest.mark.parametrize("step", ["banner", "mail", "rcpt", "data"])
async def test_one_that_was_not_sent_in_time_is_given_back_as_it_was(outbox: Outbox, peer: Peer, step: str) -> None:
    peer.script = Script(**{step: "hang"})  # type: ignore[arg-type]  # a step's name
    [delivery_id] = await outbox.submit(never_twice=True)
    await outbox.claim()
    await peer.until(lambda peer: peer.sessions and (step == "banner" or "DATA" in peer.commands or "MAIL" in _verbs(peer)))
    await outbox.deliverer.finish(0)
    await _is_untouched(outbox, delivery_id)
    peer.script = Script()
    await outbox.new_deliverer()
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


async def test_one_whose_dot_was_sent_is_maybe_delivered(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="hang")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    await outbox.deliverer.finish(0)
    assert await outbox.state(delivery_id) == WAITING
    row, [attempt] = await outbox.delivery(delivery_id), await outbox.attempts(delivery_id)
    assert (row["attempts"], row["unknown_outcomes"], row["dot_sent_at"], row["lease_owner"]) == (1, 1, None, None)
    assert (attempt["outcome"], attempt["reply"]) == ("UNKNOWN", "Maybe delivered: the relay is stopping")
    assert attempt["conversation"].endswith("*: the relay is stopping")
    assert timedelta(minutes=0.9) <= row["due_at"] - outbox.clock.now() <= timedelta(minutes=1.1)


async def test_what_was_made_ready_ahead_is_given_back_unmarked(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        await outbox.submit()
        await outbox.deliver()
        peer.script = Script(mail="hang")
        ids = [one for number in range(8) for one in await outbox.submit(message=other_message(number))]
        await outbox.claim()

        async def four_are_marked() -> bool:
            return sum([(await outbox.delivery(one))["dot_sent_at"] is not None for one in ids]) == 4

        await outbox.until(four_are_marked)
        await outbox.deliverer.finish(0)
        for one in ids:
            await _is_untouched(outbox, one)


async def test_the_rest_of_a_transaction_is_given_back_when_the_relay_stops(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(most_recipients=1, dot="wait + 250 2.0.0 taken")
    ids = await outbox.submit("ann@example.org", "bob@example.org", "cid@example.org")
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    stopping = asyncio.create_task(outbox.deliverer.finish(10))
    await asyncio.sleep(0)
    peer.let_go()
    await stopping
    states = [await outbox.state(one) for one in ids]
    assert sorted(states) == [DELIVERED, WAITING, WAITING]
    for one, state in zip(ids, states, strict=True):
        if state == WAITING:
            await _is_untouched(outbox, one)


@pytest.mark.parametrize("script", [Script(banner="hang"), Script(mail="hang"), Script(dot="hang"), Script(quit="hang")])
async def test_stopping_leaves_no_task_behind(prepared: Prepared, tmp_path: Path, peer: Peer, script: Script) -> None:
    before = asyncio.all_tasks()
    peer.script = script
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=2) as outbox:
        for number in range(10):
            await outbox.submit(message=other_message(number))
        await outbox.claim()
        await peer.until(lambda peer: peer.sessions)
    left = {task for task in asyncio.all_tasks() - before if "serve" not in repr(task)}
    assert left == set()
    gc.collect()


async def test_the_worker_delivers_until_it_is_stopped_and_then_ends(outbox: Outbox, peer: Peer) -> None:
    [delivery_id] = await outbox.submit()
    stop = asyncio.Event()
    working = asyncio.create_task(run(outbox.relay, stop))
    await peer.until(lambda peer: peer.taken)
    stop.set()
    async with asyncio.timeout(10):
        await working
    assert await outbox.state(delivery_id) == DELIVERED


async def test_a_new_process_takes_over_what_the_dead_one_had(outbox: Outbox, peer: Peer) -> None:
    [delivery_id] = await outbox.submit()
    await _claim(outbox, "a dead process")
    assert (await outbox.email(delivery_id))["status"] == "SENDING"
    await outbox.deliver()
    assert peer.sessions == []
    await outbox.deliverer.take_over()
    await _is_untouched(outbox, delivery_id)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


async def test_a_lease_that_is_over_is_claimed_again(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit()
    await _claim(outbox, "a dead process")
    outbox.clock.advance(seconds=LEASE.total_seconds() - 1)
    await outbox.deliver()
    assert (await outbox.delivery(delivery_id))["lease_owner"] == "a dead process"
    outbox.clock.advance(seconds=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


async def test_taking_over_leaves_what_nobody_had(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit()
    before = await outbox.delivery(delivery_id)
    outbox.clock.advance(minutes=1)
    await outbox.deliverer.take_over()
    assert await outbox.delivery(delivery_id) == before


@pytest.mark.parametrize("script", [Script(banner="wait + 220 mx.test"), Script(dot="wait + 250 2.0.0 taken")])
async def test_a_mail_that_waits_longer_than_its_lease_does_not_go_twice(
    prepared: Prepared, tmp_path: Path, peer: Peer, script: Script
) -> None:
    peer.script = script
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.claim()
        await peer.until(lambda peer: peer.received if script.banner == Script().banner else peer.sessions)
        outbox.clock.advance(minutes=31)
        await outbox.claim()
        assert (await outbox.delivery(delivery_id))["due_at"] == outbox.clock.now() + LEASE
        await outbox.submit("bob@example.org")  # waits behind everything in the lane
        peer.let_go()
        await outbox.deliver()
        assert [received.recipients for received in peer.taken] == [("ann@example.org",), ("bob@example.org",)]
        row = await outbox.delivery(delivery_id)
        assert (row["state"], row["attempts"], row["unknown_outcomes"]) == ("DELIVERED", 1, 0)


async def test_marks_of_what_could_not_be_recorded_stay(outbox: Outbox) -> None:
    sent, unsent = await outbox.submit("ann@example.org", "bob@example.org")
    await _claim(outbox, "me")
    await outbox.relay.db.write(queue.mark_dots, [(one, outbox.clock.now(), "127.0.0.1") for one in (sent, unsent)])
    freed = await outbox.relay.db.write(queue.give_back, "me", unsent=[unsent], now=outbox.clock.now())
    assert freed == 2
    await _is_untouched(outbox, unsent)
    row = await outbox.delivery(sent)
    assert (row["dot_sent_at"], row["lease_owner"]) == (outbox.clock.now(), None)


async def test_nothing_is_sent_while_its_mark_cannot_be_stored(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(banner="wait + 220 mx.test")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.sessions)
    await _set_writable(outbox, "ON")
    peer.let_go()
    await peer.until(lambda peer: peer.sessions[0].over)
    assert peer.sessions[0].verbs() == "EHLO"
    await _set_writable(outbox, "OFF")
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["attempts"], row["unknown_outcomes"]) == ("QUEUED", 1, 0)
    assert row["last_reply"].startswith("451 4.3.1 ")


async def test_a_result_that_cannot_be_stored_is_stored_when_the_disk_is_well_again(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    await _set_writable(outbox, "ON")
    peer.let_go()
    await peer.until(lambda peer: peer.taken)
    await outbox.claim()
    await _set_writable(outbox, "OFF")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    assert len(peer.received) == 1


async def test_a_result_that_cannot_be_stored_before_the_end_is_found_by_the_next_start(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    await _set_writable(outbox, "ON")
    peer.let_go()
    with capture_logs() as lines:
        await outbox.deliverer.finish(0)
    assert {"results not recorded", "leases not given back; the next start takes them over"} <= {
        line["event"] for line in lines
    }
    await _set_writable(outbox, "OFF")
    await outbox.new_deliverer()
    await outbox.deliverer.take_over()
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["unknown_outcomes"]) == ("QUEUED", 1)
    assert len(peer.received) == 1


def _verbs(peer: Peer) -> str:
    return " ".join(session.verbs() for session in peer.sessions)


async def _is_untouched(outbox: Outbox, delivery_id: str) -> None:
    """Check that a delivery is due now, in nobody's hands, without a trace of an attempt."""
    row: dict[str, Any] = await outbox.delivery(delivery_id)
    assert await outbox.state(delivery_id) == WAITING
    assert row["lease_owner"] is row["dot_sent_at"] is row["last_reply"] is None
    assert (row["attempts"], row["unknown_outcomes"], row["due_at"]) == (0, 0, outbox.clock.now())
    assert await outbox.attempts(delivery_id) == []


async def _claim(outbox: Outbox, owner: str) -> None:
    now = outbox.clock.now()
    await outbox.relay.db.write(queue.claim_due, Claim(owner, now, now + LEASE, 100))


async def _set_writable(outbox: Outbox, query_only: str) -> None:
    """Let the database refuse every write, as on a disk that is read-only (`ON`), or take them again."""
    await outbox.relay.db.migrate(lambda raw: raw.execute(f"PRAGMA query_only={query_only}").fetchone())
