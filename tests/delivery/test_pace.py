"""How does a pace move, whose turn is it, and when does port 25 look closed? The arithmetic, without mail."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from plunk_relay.delivery.closed_port import ClosedPortWatch
from plunk_relay.delivery.pacing import EVERYONE, Pacing, ProviderState
from plunk_relay.mail.classify import Classification
from plunk_relay.mail.providers import built_in
from tests.kit.relay import NOON

SLOW = Classification("slow", "reputation", "Slower.", "", pace="slow", pause_minutes=10)
PAUSE = Classification("pause", "reputation", "A break.", "", pace="pause", pause_minutes=30)


class Book:
    """Notes what would be stored."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.writes = 0

    def save(self, row: dict[str, Any]) -> None:
        self.writes += 1
        self.rows[row["provider"]] = row

    def drop(self, provider: str) -> None:
        self.writes += 1
        self.rows.pop(provider, None)


def _pacing() -> tuple[Pacing, Book]:
    book = Book()
    return Pacing(built_in(), book, per_destination=10), book


def test_the_pace_is_halved_at_most_once_a_minute_and_never_below_a_tenth() -> None:
    state = ProviderState("google", NOON)
    paces = []
    for minute in (0, 0.5, 1, 2, 3, 4, 5):
        state.slow_down(NOON + timedelta(minutes=minute), 10, "421 slower")
        paces.append(state.pace)
    assert paces == [50, 50, 25, 12, 10, 10, 10]


def test_ten_successes_win_ten_points_but_not_before_the_rule_s_time_is_over() -> None:
    state = ProviderState("google", NOON)
    state.slow_down(NOON, 10, "421 slower")
    for _ in range(50):
        assert not state.succeed(NOON + timedelta(minutes=9))
    steps = [state.succeed(NOON + timedelta(minutes=10)) for _ in range(50)]
    assert [place for place, step in enumerate(steps, 1) if step] == [10, 20, 30, 40, 50]
    assert state.pace == 100


def test_a_longer_pause_counts_and_a_shorter_one_changes_nothing() -> None:
    state = ProviderState("google", NOON)
    assert state.pause(NOON, 30, "421 a break")
    assert not state.pause(NOON + timedelta(minutes=1), 10, "421 a break")
    assert state.paused_until == NOON + timedelta(minutes=30)
    assert state.pause(NOON + timedelta(minutes=1), 60, "421 a longer one")
    assert state.paused_until == NOON + timedelta(minutes=61)
    assert state.is_paused(NOON + timedelta(minutes=60))
    assert not state.is_paused(NOON + timedelta(minutes=61))


def test_the_state_is_written_when_it_changes_and_goes_when_all_is_normal() -> None:
    pacing, book = _pacing()
    pacing.obey("google", SLOW, "421 slower", NOON)
    before = book.writes
    for _ in range(20):
        pacing.obey("google", SLOW, "421 slower", NOON)
    assert book.writes == before
    later = NOON + timedelta(minutes=11)
    for _ in range(49):
        state = pacing.find("google")
        assert state is not None
        pacing.succeed(state, later)
    assert (book.rows["google"]["pace"], book.writes) == (90, before + 4)
    assert state is not None
    pacing.succeed(state, later)
    assert (book.rows, pacing.find("google")) == ({}, None)


def test_what_was_stored_is_known_again() -> None:
    pacing, book = _pacing()
    pacing.obey("google", PAUSE, "421 a break", NOON)
    again, _ = _pacing()
    again.load(book.rows.values())
    state = again.find("google")
    assert state is not None
    assert (state.pace, state.paused_until, state.reason) == (10, NOON + timedelta(minutes=30), "421 a break")


def test_connections_shrink_with_the_pace_to_one_at_least() -> None:
    pacing, _ = _pacing()
    room = []
    for minute in range(5):
        room.append(_room(pacing, "microsoft"))
        pacing.obey("microsoft", SLOW, "421 slower", NOON + timedelta(minutes=2 * minute))
    assert room == [5, 2, 1, 1, 1]


def test_a_provider_that_no_entry_names_gets_as_many_connections_as_one_destination_may() -> None:
    pacing = Pacing(built_in(), Book(), per_destination=70)
    assert _room(pacing, "example.org") == 70
    assert _room(pacing, "google") == 20


def test_turns_are_spaced_by_the_rate_and_there_are_none_without_one() -> None:
    pacing, _ = _pacing()
    assert [pacing.take_turn("microsoft", 100.0) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])  # 600 a minute
    assert pacing.take_turn("microsoft", 200.0) == 0
    assert [pacing.take_turn("google", 100.0) for _ in range(3)] == [0, 0, 0]


def test_a_slowed_provider_has_a_rate_even_if_it_has_none_otherwise() -> None:
    pacing, _ = _pacing()
    pacing.obey("google", SLOW, "421 slower", NOON)
    assert [pacing.take_turn("google", 100.0) for _ in range(3)] == pytest.approx([0, 0.2, 0.4])  # half of 600 a minute


def test_what_a_slowed_provider_cannot_take_soon_is_put_off_to_its_turn() -> None:
    pacing, _ = _pacing()
    pacing.obey("google", PAUSE, "421 a break", NOON)
    state, later = pacing.find("google"), NOON + timedelta(minutes=31)
    assert state is not None
    assert pacing.queue_up(state, 59, later) is None  # a minute's worth, at a tenth of 600
    turns = [pacing.queue_up(state, 60, later) for _ in range(1000)]
    assert turns[:2] == [later + timedelta(seconds=61), later + timedelta(seconds=62)]
    assert turns[-1] == later + timedelta(minutes=10)


def test_the_alert_comes_again_after_a_day_of_trouble() -> None:
    pacing, book = _pacing()
    pacing.obey("google", PAUSE, "421 a break", NOON)
    pacing.obey("google", PAUSE, "421 a break", NOON + timedelta(hours=2))
    assert book.rows["google"]["alerted_at"] == NOON
    pacing.obey("google", PAUSE, "421 a break", NOON + timedelta(hours=25))
    assert book.rows["google"]["alerted_at"] == NOON + timedelta(hours=25)


def test_what_ends_a_fallback_for_everyone_leaves_no_pace() -> None:
    pacing, book = _pacing()
    pacing.fall_back(EVERYONE, "port 25", NOON)
    state = pacing.find(EVERYONE)
    assert state is not None
    pacing.recover(state, NOON)
    assert book.rows == {}


def test_three_providers_in_a_row_with_a_large_one_are_silence_enough() -> None:
    watch = ClosedPortWatch()
    assert not watch.note_silence("a.example", listed=False)
    assert not watch.note_silence("google", listed=True)
    assert not watch.note_silence("google", listed=True)
    assert watch.note_silence("b.example", listed=False)


def test_of_small_ones_it_takes_ten() -> None:
    watch = ClosedPortWatch()
    assert [watch.note_silence(f"d{number}.example", listed=False) for number in range(10)] == [False] * 9 + [True]


def test_a_session_begins_the_row_anew() -> None:
    watch = ClosedPortWatch()
    watch.note_silence("google", listed=True)
    watch.note_silence("yahoo", listed=True)
    watch.note_session()
    assert not watch.note_silence("gmx", listed=True)


def _room(pacing: Pacing, provider: str) -> int:
    taken = 0
    while pacing.has_room(provider):
        pacing.take_connection(provider)
        taken += 1
    _repeat(taken, lambda: pacing.return_connection(provider))
    return taken


def _repeat(times: int, step: Callable[[], None]) -> None:
    for _ in range(times):
        step()
