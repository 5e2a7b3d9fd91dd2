"""Is somebody guessing passwords? Failures counted by address and by network: 10 a minute, 50 a day."""

import ipaddress
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import lru_cache

from plunk_relay.smtp.crowd import network_of
from plunk_relay.smtp.queries import Counter
from plunk_relay.smtp.replies import SmtpReply

COUNTER_PREFIX = "smtp-auth:"
_WINDOWS = (("minute", timedelta(minutes=1), 10), ("day", timedelta(days=1), 50))
_NETWORK_FACTOR = 5
_MOST_COUNTERS = 100_000
_TIDIED_EVERY = timedelta(minutes=1)
TOO_MANY = SmtpReply(454, "4.7.0", "Too many failed logins from your network; try again later")
Window = tuple[str, timedelta, int]


class LoginGuard:
    """Counts of failures in fixed windows; begins with `counters`, and tells what has changed in them."""

    def __init__(self, now: Callable[[], datetime], counters: Iterable[Counter] = ()) -> None:
        self._now = now
        self._counters = {counter.name: counter for counter in counters}
        self._changed: set[str] = set()
        self._tidied_at = now()

    def check(self, address: str) -> SmtpReply | None:
        """Refuse an address that failed too often, before its password is looked at."""
        full = any(self._value(name) >= most for name, _, most in _windows_of(address) if name in self._counters)
        return TOO_MANY if full else None

    def fail(self, address: str) -> None:
        """Count a failure."""
        now = self._now()
        self._tidy(now)
        for name, span, _ in _windows_of(address):
            value = self._value(name)
            expires_at = self._counters[name].expires_at if value else now + span
            self._counters[name] = Counter(name, value + 1, expires_at)
            self._changed.add(name)

    def succeed(self, address: str) -> None:
        """Forget an address's failures; those of its network stay."""
        for name, _, _ in _windows_of(address)[: len(_WINDOWS)]:
            self._forget(name)

    def take_changes(self) -> tuple[list[Counter], list[str]]:
        """Return the counters to store and the names of those to delete since the last call."""
        changed, self._changed = self._changed, set()
        return [self._counters[n] for n in changed if n in self._counters], [n for n in changed if n not in self._counters]

    def _value(self, name: str) -> int:
        counter = self._counters.get(name)
        return counter.value if counter is not None and counter.expires_at > self._now() else 0

    def _tidy(self, now: datetime) -> None:
        """Drop what has expired, and the oldest when a botnet makes more than we hold."""
        if now - self._tidied_at >= _TIDIED_EVERY:
            self._tidied_at = now
            for name in [c.name for c in self._counters.values() if c.expires_at <= now]:
                self._forget(name)
        while len(self._counters) >= _MOST_COUNTERS:
            self._forget(next(iter(self._counters)))

    def _forget(self, name: str) -> None:
        if self._counters.pop(name, None) is not None:
            self._changed.add(name)


@lru_cache(maxsize=4096)
def _windows_of(address: str) -> list[Window]:
    """Return name, span and limit of each window that an address counts in: its own first, then its network's."""
    return [
        (f"{COUNTER_PREFIX}{label}:{place}", span, most * factor)
        for place, factor in _places(address)
        for label, span, most in _WINDOWS
    ]


def _places(address: str) -> list[tuple[str, int]]:
    """Return the address and its network (/24, /48), each with the factor of its limits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return [(address, 1)]
    return [(str(parsed), 1), (network_of(address), _NETWORK_FACTOR)]
