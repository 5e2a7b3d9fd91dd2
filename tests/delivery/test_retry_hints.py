"""What if a peer says when to come back? It is believed, within bounds."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plunk_relay.clock import ManualClock
from plunk_relay.delivery.retry import RetrySchedule, read_hint
from plunk_relay.sections import RETRY_MINUTES
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer, Script
from tests.kit.relay import NOON

FAR = NOON + timedelta(days=4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 300 seconds", 300),
        ("Try again in 1 second", 1),
        ("greylisting in action, try again in 45 secs", 45),
        ("temporarily greylisted, please try again in 120 sec.", 120),
        ("please retry in 90s", 90),
        ("Please try again in 5 minutes", 300),
        ("too many messages, try again in at least 10 mins", 600),
        ("retry after 15 min", 900),
        ("come back in 1 hour", 3600),
        ("Daily limit reached; please try again in 24 hours", 86400),
        ("wait 2h", 7200),
        ("try again in 1 day", 86400),
        ("Greylisting in action, please come back in 00:05:00", 300),
        ("come back later in 01:00:30", 3630),
        ("Greylisted for 5 minutes", 300),
        ("graylisted for 60 seconds", 60),
        ("delayed, resend after 30 seconds", 30),
        ("Recipient address rejected: Greylisted for 300 seconds (see http://isg.ee.ethz.ch/tools/postgrey/)", 300),
        ("Message deferred for 20 minutes", 1200),
        ("please try again later, in 3 minutes", 180),
        ("RETRY IN 7 MINUTES", 420),
    ],
)
def test_a_wait_is_read_out_of_the_reply(text: str, seconds: int) -> None:
    assert read_hint(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try again later",
        "Try again later (10).",
        "please try again in a few minutes",
        "try again later from [192.0.2.7]. (S77719)",
        "Resources temporarily not available - Please try again later [#4.16.5].",
        "You sent 300 messages in 60 seconds",
        "Connection limit of 5 hosts reached, try again",
        "try again later; 4 sessions are open",
        "try again at 12:30",
        "back in 12345678 seconds",
    ],
)
def test_a_text_that_names_no_wait_is_no_hint(text: str) -> None:
    assert read_hint(text) is None


@given(st.text())
@example("again " * 80)
@example("greylisted" + " " * 400)
def test_any_text_can_be_read(text: str) -> None:
    hint = read_hint(text)
    assert hint is None or hint >= timedelta()


@pytest.mark.parametrize(
    ("hint_seconds", "spread", "seconds"),
    [
        (300, 1.0, 302),
        (300, 1.1, 332),
        (300, 0.9, 332),  # never before the moment that was named
        (60, 1.0, 62),
        (10, 1.0, 12),
        (9, 1.0, 12),
        (0, 1.0, 12),
        (4 * 3600, 1.0, 4 * 3600 + 2),
        (24 * 3600, 1.0, 4 * 3600 + 2),
    ],
)
def test_a_hint_counts_instead_of_the_schedule_within_bounds(hint_seconds: int, spread: float, seconds: float) -> None:
    schedule = RetrySchedule(RETRY_MINUTES, spread=lambda: spread)
    due = schedule.next_attempt(3, now=NOON, expires_at=FAR, hint=timedelta(seconds=hint_seconds))
    assert due is not None
    assert (due - NOON).total_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("attempts", "hint_minutes", "minutes"),
    [(5, 1, 1), (6, 1, 60), (7, 1, 120), (6, 180, 180), (30, 1, 240)],
)
def test_from_the_sixth_attempt_on_a_hint_can_only_lengthen_the_wait(attempts: int, hint_minutes: int, minutes: int) -> None:
    schedule = RetrySchedule(RETRY_MINUTES, spread=lambda: 1.0)
    due = schedule.next_attempt(attempts, now=NOON, expires_at=FAR, hint=timedelta(minutes=hint_minutes))
    assert due is not None
    assert (due - NOON).total_seconds() == pytest.approx(minutes * 60, abs=2)


def test_a_hint_beyond_the_lifetime_leaves_one_last_try() -> None:
    schedule = RetrySchedule(RETRY_MINUTES, spread=lambda: 1.0)
    due = schedule.next_attempt(1, now=NOON, expires_at=NOON + timedelta(minutes=5), hint=timedelta(hours=1))
    assert due == NOON + timedelta(seconds=275)


async def test_a_mail_is_back_when_the_peer_asked_for_it(outbox: Outbox, peer: Peer, clock: ManualClock) -> None:
    peer.script = Script(rcpt=["450 4.2.0 Greylisted, try again in 900 seconds", "250 2.1.5 ok"])
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    due = (await outbox.delivery(delivery_id))["due_at"]
    assert timedelta(seconds=902) <= due - NOON <= timedelta(seconds=992)
    clock.advance(seconds=900)
    await outbox.deliver()
    assert len(await outbox.attempts(delivery_id)) == 1
    clock.advance(seconds=92)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


async def test_a_wait_named_in_a_refusal_for_good_is_no_hint(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="550 5.7.1 rejected, try again in 60 seconds")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
