"""What time is it?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from plunk_relay.clock import ManualClock, SystemClock, format_time

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_the_clock_of_the_system_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
    first = SystemClock().monotonic()
    assert SystemClock().monotonic() >= first


def test_a_clock_of_a_test_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(NOON)
    assert (clock.now(), clock.monotonic()) == (clock.now(), clock.monotonic()) == (NOON, 0)
    clock.advance(minutes=2, milliseconds=500)
    assert (clock.now(), clock.monotonic()) == (NOON + timedelta(minutes=2, milliseconds=500), 120.5)


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (NOON, "2026-03-01T12:00:00.000Z"),
        (NOON.replace(microsecond=1999), "2026-03-01T12:00:00.001Z"),
        (NOON.astimezone(timezone(timedelta(hours=5, minutes=45))), "2026-03-01T12:00:00.000Z"),
    ],
)
def test_a_moment_is_written_as_the_api_shows_it(moment: datetime, written: str) -> None:
    assert format_time(moment) == written
