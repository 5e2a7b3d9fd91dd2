"""What is known of a mail when the reply to its final dot does not come?"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from plunk_relay.commands import queue_show
from tests.kit.outbox import MESSAGE, Outbox, Prepared, other_message, running_outbox, set_exchangers
from tests.kit.peer import Peer, Script, running_peer

MAYBE = ("QUEUED", "PENDING")
DELIVERED = ("DELIVERED", "DELIVERED")


async def test_that_the_dot_is_about_to_go_out_is_stored_before_it_does(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    [delivery_id] = await outbox.submit()
    assert (await outbox.delivery(delivery_id))["dot_sent_at"] is None
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    row = await outbox.delivery(delivery_id)
    assert (row["dot_sent_at"], row["attempts"]) == (outbox.clock.now(), 0)
    peer.let_go()
    await outbox.deliver()
    assert (await outbox.delivery(delivery_id))["dot_sent_at"] is None


async def test_a_mail_that_waits_for_a_connection_is_not_marked(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(banner="hang")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.sessions)
    assert (await outbox.delivery(delivery_id))["dot_sent_at"] is None


async def test_a_mail_without_a_reply_is_maybe_delivered_and_tried_again(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot=["close", "250 2.0.0 taken"])
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    assert await outbox.state(delivery_id) == MAYBE
    row, [attempt] = await outbox.delivery(delivery_id), await outbox.attempts(delivery_id)
    assert (row["attempts"], row["unknown_outcomes"], row["dot_sent_at"]) == (1, 1, None)
    assert (attempt["outcome"], attempt["reply"]) == ("UNKNOWN", row["last_reply"])
    assert row["last_reply"].startswith("Maybe delivered: no reply to the final dot")
    assert (await queue_show(outbox.relay, delivery=delivery_id))["maybe_delivered"] is True
    assert await outbox.events() == []
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    first, second = peer.received
    assert first == second.__class__(second.sender, second.recipients, second.message, "close")
    assert [event["name"] for event in await outbox.events()] == ["email.sent", "email.delivery"]
    assert (await queue_show(outbox.relay, delivery=delivery_id))["maybe_delivered"] is True
    await outbox.check_ledger()


async def test_a_mail_that_must_not_go_twice_ends_there(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot=["close", "250 2.0.0 taken"])
    [delivery_id] = await outbox.submit(never_twice=True)
    await outbox.deliver()
    outbox.clock.advance(days=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("FAILED", "FAILED")
    assert (await outbox.email(delivery_id))["error"].startswith("Maybe delivered: ")
    assert len(peer.received) == 1
    assert (await outbox.check_ledger())["failed"] == 1


async def test_a_mail_that_must_not_go_twice_is_tried_again_after_a_clear_refusal(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot=["451 4.3.0 not now", "250 2.0.0 taken"])
    [delivery_id] = await outbox.submit(never_twice=True)
    await outbox.deliver()
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


async def test_every_recipient_of_the_transaction_is_maybe_delivered_but_the_refused_one(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt={"bob@example.org": "550 5.1.1 no such user"}, dot="close")
    ann, bob, cid = await outbox.submit("ann@example.org", "bob@example.org", "cid@example.org")
    await outbox.deliver()
    assert [(await outbox.delivery(one))["unknown_outcomes"] for one in (ann, bob, cid)] == [1, 0, 1]
    assert await outbox.state(bob) == ("BOUNCED", "BOUNCED")


async def test_a_mail_without_a_reply_expires_as_maybe_delivered(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="close")
    [delivery_id] = await outbox.submit()
    while (await outbox.delivery(delivery_id))["state"] == "QUEUED":
        await outbox.deliver()
        outbox.clock.advance(hours=2)
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    assert "Maybe delivered" in (await outbox.email(delivery_id))["error"]


async def test_a_mail_whose_time_ends_between_attempts_is_maybe_delivered_too(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="close")
    [delivery_id] = await outbox.submit(lifetime=timedelta(hours=1))
    await outbox.deliver()
    outbox.clock.advance(hours=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    assert "Maybe delivered" in (await outbox.email(delivery_id))["error"]


@pytest.mark.parametrize(("never_twice", "state", "received"), [(False, DELIVERED, 2), (True, ("FAILED", "FAILED"), 1)])
async def test_after_a_death_between_dot_and_reply_it_is_maybe_delivered(
    outbox: Outbox, prepared: Prepared, peer: Peer, tmp_path: Path, never_twice: bool, state: tuple[str, str], received: int
) -> None:
    peer.script = Script(dot=["hang", "250 2.0.0 taken"])
    [delivery_id] = await outbox.submit(never_twice=never_twice)
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    async with restarted(outbox, prepared, tmp_path, peer) as after:
        await after.deliver()
        row, [attempt] = await after.delivery(delivery_id), await after.attempts(delivery_id)
        assert (row["attempts"], row["unknown_outcomes"]) == (1, 1)
        assert (attempt["outcome"], attempt["host"]) == ("UNKNOWN", None)
        assert attempt["reply"] == "Maybe delivered: the relay stopped between the final dot and the reply"
        assert len(peer.received) == 1
        after.clock.advance(minutes=2)
        await after.deliver()
        assert await after.state(delivery_id) == state
        assert len(peer.received) == received
        await after.check_ledger()


@pytest.mark.parametrize("step", ["banner", "ehlo"])
async def test_after_a_death_before_the_transaction_nothing_has_happened(
    outbox: Outbox, prepared: Prepared, peer: Peer, tmp_path: Path, step: str
) -> None:
    peer.script = Script(**{step: "hang"})  # type: ignore[arg-type]  # a step's name
    [delivery_id] = await outbox.submit(never_twice=True)
    await outbox.claim()
    await peer.until(lambda peer: peer.sessions)
    peer.script = Script()
    async with restarted(outbox, prepared, tmp_path, peer) as after:
        await after.deliver()
        assert await after.state(delivery_id) == DELIVERED
        row = await after.delivery(delivery_id)
        assert (row["attempts"], row["unknown_outcomes"]) == (1, 0)


@pytest.mark.parametrize("step", ["banner", "mail", "data"])
async def test_an_attempt_that_takes_too_long_ends_as_not_delivered(
    prepared: Prepared, tmp_path: Path, peer: Peer, step: str
) -> None:
    peer.script = Script(**{step: "hang"})  # type: ignore[arg-type]  # a step's name
    async with running_outbox(prepared, tmp_path, port=peer.port, attempt_seconds=1.5) as outbox:
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        [attempt] = await outbox.attempts(delivery_id)
        assert attempt["outcome"] == "DEFERRED"
        assert "the attempt took too long" in attempt["reply"]
        assert f"connecting to mx.example.org[127.0.0.1]:{peer.port}" in attempt["conversation"]
        assert attempt["conversation"].endswith("*: the attempt took too long")


async def test_the_reply_to_the_dot_is_waited_for_although_the_attempt_takes_too_long(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    async with running_outbox(prepared, tmp_path, port=peer.port, attempt_seconds=0.4) as outbox:
        [slow] = await outbox.submit("ann@example.org")
        await outbox.claim()
        await peer.until(lambda peer: peer.received)
        async with running_peer(Script(banner="hang"), host="127.0.0.2", port=peer.port):
            set_exchangers(outbox.dns, "other.example", "127.0.0.2")
            [measure] = await outbox.submit("ann@other.example")
            await outbox.claim()
            await outbox.until(partial(_was_tried, outbox, measure))  # so the time of the first one is over, too
        peer.let_go()
        await outbox.deliver()
        assert await outbox.state(slow) == DELIVERED
        assert len(peer.received) == 1


async def test_marks_are_taken_back_when_the_connection_ends_before_the_dot(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    ok = "250 2.1.0 ok"
    peer.script = Script(banner=["220 mx.test", "hang"], mail=[ok, "wait + close"])
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        await outbox.submit()
        await outbox.deliver()
        ids = [one for number in range(4) for one in await outbox.submit(message=other_message(number))]
        await outbox.claim()
        await outbox.until(partial(_are_marked, outbox, ids))
        peer.let_go()
        await peer.until(lambda peer: len(peer.sessions) == 2)
        assert [(await outbox.delivery(one))["dot_sent_at"] for one in ids] == [None] * 4
        peer.script = Script()
        async with restarted(outbox, prepared, tmp_path, peer) as after:
            await after.deliver()
            assert [await after.state(one) for one in ids] == [DELIVERED] * 4
            assert [(await after.delivery(one))["unknown_outcomes"] for one in ids] == [0] * 4


async def test_a_mail_that_must_not_go_twice_is_not_marked_ahead(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        await outbox.submit()
        await outbox.deliver()
        peer.script = Script(mail="wait + 250 2.1.0 ok")
        ids = [one for n in range(4) for one in await outbox.submit(message=other_message(n), never_twice=n != 0)]
        await outbox.claim()
        await outbox.until(partial(_are_marked, outbox, ids[:1]))
        await peer.until(lambda peer: sum(command.startswith("MAIL") for command in peer.commands) == 2)
        assert [(await outbox.delivery(one))["dot_sent_at"] for one in ids[1:]] == [None] * 3
        peer.let_go()
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 4


async def test_a_large_mail_that_breaks_off_before_its_dot_was_not_delivered(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(keywords=(), data="354 go + hang")
    large = MESSAGE + (b"x" * 70 + b"\r\n") * 200_000
    [delivery_id] = await outbox.submit(message=large, never_twice=True)
    await outbox.claim()
    await peer.until(lambda peer: "DATA" in peer.commands)
    await outbox.deliverer.finish(0)
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["dot_sent_at"], row["attempts"], row["unknown_outcomes"]) == ("QUEUED", None, 0, 0)


async def _was_tried(outbox: Outbox, delivery_id: str) -> bool:
    return bool((await outbox.delivery(delivery_id))["attempts"] == 1)


async def _are_marked(outbox: Outbox, ids: list[str]) -> bool:
    return all([(await outbox.delivery(one))["dot_sent_at"] is not None for one in ids])


@asynccontextmanager
async def restarted(outbox: Outbox, prepared: Prepared, directory: Path, peer: Peer) -> AsyncIterator[Outbox]:
    """Start a relay on the files as they are at this moment, as after a power cut."""
    copy = directory / "after"
    shutil.copytree(outbox.relay.settings.server.data_dir, copy)
    async with running_outbox(prepared, copy, clock=outbox.clock, port=peer.port, copy=False) as after:
        await after.deliverer.take_over()
        yield after
