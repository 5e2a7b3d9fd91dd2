"""What time is it? The only module that reads the system's clocks.

Everything else is handed a `Clock`, so that tests can turn the hands themselves.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Two hands: the calendar (may jump) and a stopwatch (never goes back)."""

    def now(self) -> datetime:
        """Return the present as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; for durations and rate limits."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the present as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until `advance` is called."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._seconds = 0.0

    def now(self) -> datetime:
        """Return the moment the hands were last set to."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._seconds

    def advance(self, **span: float) -> None:
        """Move both hands on by `timedelta(**span)`."""
        step = timedelta(**span)
        self._now += step
        self._seconds += step.total_seconds()


def format_time(moment: datetime) -> str:
    """Write a moment as the API shows it: ISO 8601, UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def epoch_milliseconds() -> int:
    """Return milliseconds since 1970, as the time part of identifiers."""
    return time.time_ns() // 1_000_000
