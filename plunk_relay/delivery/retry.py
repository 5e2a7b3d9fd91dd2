"""When is a deferred mail tried again? After the schedule's wait for its attempt, or when the peer said, until it expires.

A wait that the reply names counts instead of the schedule's, from 10 s to 4 h; from the sixth attempt on it cannot shorten
it any more. A mail that would have expired by then gets one last try shortly before, when there is room for one.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_JITTER = 0.1
_SHORTEST_HINT, _LONGEST_HINT = timedelta(seconds=10), timedelta(hours=4)
_HINT_MARGIN = timedelta(seconds=2)
_BELIEVED_ATTEMPTS = 5
"""A peer that names the same few seconds again and again is not asked every few seconds for days."""
_LAST_MARGIN = timedelta(seconds=25)
_ROOM_FOR_LAST = timedelta(seconds=26)
"""More than the margin: what is left after a last try is too little for another one."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# a word that is about trying again, few letters and no figures, then 300 seconds, 5 min, 1h or 00:05:00
_HINT = re.compile(
    r"\b(?:again|back|retry(?:ing)?|resend|wait|later|deferred|delayed|gr[ae]y-?list(?:ed|ing)?)\b[^0-9]{0,40}?"
    r"\b(?:(?P<h>\d{1,2}):(?P<m>\d\d):(?P<s>\d\d)\b"
    r"|(?P<count>\d{1,6}) ?(?P<unit>s|m|h|d|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?)\b)",
    re.IGNORECASE,
)


def _spread() -> float:
    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Waits in minutes after the first, second, ... counted attempt; the last one repeats."""

    minutes: Sequence[float]
    spread: Callable[[], float] = _spread

    def next_attempt(
        self, attempts: int, *, now: datetime, expires_at: datetime, hint: timedelta | None = None
    ) -> datetime | None:
        """Return when to try again after `attempts` counted attempts; None when the mail would have expired by then.

        `hint` is the wait that the peer asked for.
        """
        number = max(attempts, 1)
        planned = timedelta(minutes=self.minutes[min(number, len(self.minutes)) - 1] * self.spread())
        due = now + (planned if hint is None else self._hinted(hint, planned, number))
        return due if due < expires_at else _last_try(now, expires_at)

    def _hinted(self, hint: timedelta, planned: timedelta, number: int) -> timedelta:
        """Wait as long as asked for, and up to a tenth more: many mails are asked to come back at the same moment."""
        asked = min(max(hint, _SHORTEST_HINT), _LONGEST_HINT)
        wait = asked + _HINT_MARGIN + asked * abs(self.spread() - 1)
        return wait if number <= _BELIEVED_ATTEMPTS else max(wait, planned)


def read_hint(text: str) -> timedelta | None:
    """Find the wait that a reply asks for: "try again in 300 seconds", "in 5 min", "in 00:05:00"; None: it names none."""
    found = _HINT.search(text)
    if found is None:
        return None
    if found["count"] is None:
        return timedelta(hours=int(found["h"]), minutes=int(found["m"]), seconds=int(found["s"]))
    return timedelta(seconds=int(found["count"]) * _SECONDS[found["unit"][0].lower()])


def _last_try(now: datetime, expires_at: datetime) -> datetime | None:
    """Return a moment shortly before the end, early enough for an attempt; None when there is too little time left."""
    left = expires_at - now
    return expires_at - min(left / 4, _LAST_MARGIN) if left >= _ROOM_FOR_LAST else None
