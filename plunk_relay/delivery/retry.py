"""When is a deferred mail tried again? After the schedule's wait for its attempt, give or take 10 %, until it expires."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_JITTER = 0.1


def _spread() -> float:
    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Waits in minutes after the first, second, ... counted attempt; the last one repeats."""

    minutes: Sequence[float]
    spread: Callable[[], float] = _spread

    def next_attempt(self, attempts: int, *, now: datetime, expires_at: datetime) -> datetime | None:
        """Return when to try again after `attempts` counted attempts; None when the mail would have expired by then."""
        wait = self.minutes[min(max(attempts, 1), len(self.minutes)) - 1]
        due = now + timedelta(minutes=wait * self.spread())
        return due if due < expires_at else None
