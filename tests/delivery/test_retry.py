"""When is a mail that did not get through tried again, and when is it given up?"""

from datetime import timedelta
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.sections import RETRY_MINUTES
from tests.kit.outbox import Outbox, Prepared, running_outbox
from tests.kit.peer import Peer, Script
from tests.kit.relay import NOON

GREYLISTING = Script(rcpt="450 4.2.0 greylisted")
FIRST_WAITS = [1, 5, 10, 20, 30, 60, *[120] * 12, 240, 240, 240]


@pytest.mark.parametrize("spread", [0.9, 1.0, 1.1])
def test_the_waits_are_those_of_the_schedule_and_the_last_one_repeats(spread: float) -> None:
    schedule = RetrySchedule(RETRY_MINUTES, spread=lambda: spread)
    far = NOON + timedelta(days=4)
    waits = [schedule.next_attempt(number, now=NOON, expires_at=far) for number in range(1, len(FIRST_WAITS) + 1)]
    assert waits == [NOON + timedelta(minutes=minutes * spread) for minutes in FIRST_WAITS]


def test_waits_are_spread_by_ten_percent() -> None:
    schedule = RetrySchedule([100.0])
    dues = [schedule.next_attempt(1, now=NOON, expires_at=NOON + timedelta(days=4)) for _ in range(500)]
    minutes = [(due - NOON).total_seconds() / 60 for due in dues if due is not None]
    assert len(minutes) == 500
    assert 90 <= min(minutes) < 95
    assert 105 < max(minutes) <= 110


@pytest.mark.parametrize(
    ("seconds_left", "seconds"),
    [
        (3601, 3600),
        (3600, 3575),
        (300, 275),
        (100, 75),
        (60, 45),
        (30, 22.5),
        (26, 19.5),
        (25, None),
        (1, None),
        (0, None),
        (-60, None),
    ],
)
def test_a_mail_whose_next_turn_would_come_too_late_is_tried_once_more_shortly_before(
    seconds_left: float, seconds: float | None
) -> None:
    schedule = RetrySchedule([60.0], spread=lambda: 1.0)
    due = schedule.next_attempt(1, now=NOON, expires_at=NOON + timedelta(seconds=seconds_left))
    assert due == (None if seconds is None else NOON + timedelta(seconds=seconds))


async def test_a_deferred_mail_is_tried_when_its_wait_is_over_and_not_before(
    outbox: Outbox, peer: Peer, clock: ManualClock
) -> None:
    peer.script = GREYLISTING
    [delivery_id] = await outbox.submit("ann@example.org")
    for number, minutes in enumerate(FIRST_WAITS[:8], 1):
        await outbox.deliver()
        row = await outbox.delivery(delivery_id)
        assert (row["attempts"], row["state"]) == (number, "QUEUED")
        wait = (row["due_at"] - clock.now()).total_seconds() / 60
        assert 0.9 * minutes <= wait <= 1.1 * minutes
        clock.advance(minutes=wait - 0.01)
        await outbox.deliver()
        assert len(await outbox.attempts(delivery_id)) == number
        clock.advance(minutes=0.02)
    peer.script = Script()
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    tries = await outbox.attempts(delivery_id)
    assert [attempt["number"] for attempt in tries] == list(range(1, 10))
    assert [attempt["outcome"] for attempt in tries] == ["DEFERRED"] * 8 + ["DELIVERED"]
    assert [event["name"] for event in await outbox.events()] == ["email.sent", "email.delivery"]


async def test_the_same_bytes_go_out_at_every_attempt(outbox: Outbox, peer: Peer, clock: ManualClock) -> None:
    peer.script = Script(dot=["451 4.3.0 not now", "451 4.3.0 not now", "250 2.0.0 taken"])
    await outbox.send("ann@example.org")
    for _ in range(3):
        await outbox.deliver()
        clock.advance(hours=1)
    first, second, third = peer.received
    assert first.message == second.message == third.message
    assert third.taken


async def test_a_mail_that_never_gets_through_expires_after_four_days(
    outbox: Outbox, peer: Peer, clock: ManualClock
) -> None:
    peer.script = GREYLISTING
    [delivery_id] = await outbox.submit("ann@example.org")
    while (row := await outbox.delivery(delivery_id))["state"] == "QUEUED":
        clock.advance(seconds=max(0.0, (row["due_at"] - clock.now()).total_seconds()))
        await outbox.deliver()
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    row, email = await outbox.delivery(delivery_id), await outbox.email(delivery_id)
    last = (await outbox.attempts(delivery_id))[-1]
    assert timedelta(hours=96, seconds=-26) <= last["started_at"] - NOON <= timedelta(hours=96)
    assert row["last_reply"] == "Not delivered within its lifetime: 450 4.2.0 greylisted"
    meaning = "The server puts unknown senders off and takes the mail at a later try."
    assert email["error"] == f"{row['last_reply']} - {meaning}"
    assert len(await outbox.attempts(delivery_id)) == row["attempts"]
    assert await outbox.events() == []
    assert (await outbox.check_ledger())["expired"] == 1


async def test_a_mail_whose_time_is_over_when_its_turn_comes_is_not_tried(
    outbox: Outbox, peer: Peer, clock: ManualClock
) -> None:
    [delivery_id] = await outbox.submit("ann@example.org", lifetime=timedelta(minutes=5))
    clock.advance(minutes=5)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    assert await outbox.attempts(delivery_id) == []
    assert peer.sessions == []


async def test_the_schedule_and_the_lifetime_are_settings(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    peer.script = GREYLISTING
    async with running_outbox(prepared, tmp_path, port=peer.port, retry_minutes=[0.5, 3], lifetime_hours=0.09) as outbox:
        [queued] = await outbox.send("ann@example.org")
        waits = []
        for _ in range(3):
            await outbox.deliver()
            row = await outbox.delivery(queued.delivery_id)
            waits.append(row["due_at"] - outbox.clock.now())
            outbox.clock.advance(seconds=waits[-1].total_seconds() + 0.01)
        assert timedelta(seconds=27) <= waits[0] <= timedelta(seconds=33)
        assert timedelta(minutes=2.7) <= waits[1] <= timedelta(minutes=3.3)
        assert outbox.clock.now() < NOON + timedelta(hours=0.09)  # the third wait ended early, before the lifetime does
        await outbox.deliver()
        assert await outbox.state(queued.delivery_id) == ("EXPIRED", "FAILED")
