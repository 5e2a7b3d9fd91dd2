"""Is somebody guessing passwords? Failures counted by address and by network: 10 a minute, 50 a day."""

import ipaddress
from collections.abc import Callable

from plunk_relay.smtp.replies import SmtpReply

_MINUTE, _DAY = 60.0, 86400.0
_MOST_A_MINUTE, _MOST_A_DAY = 10, 50
_NETWORK_FACTOR = 5
_MOST_KEYS = 50_000
TOO_MANY = SmtpReply(454, "4.7.0", "Too many failed logins from your network; try again later")


class LoginGuard:
    """Counts of failures in fixed windows, in memory; `now` returns seconds that outlive the process."""

    def __init__(self, now: Callable[[], float], *, exempt: Callable[[str], bool] = lambda _address: False) -> None:
        self._now = now
        self._exempt = exempt
        self._failures: dict[str, list[float]] = {}

    def check(self, address: str) -> SmtpReply | None:
        """Refuse an address that failed too often, before its password is looked at."""
        if self._exempt(address):
            return None
        for key, factor in _keys(address):
            minute, minute_end, day, day_end = self._count(key)
            if (minute >= _MOST_A_MINUTE * factor and minute_end > self._now()) or (
                day >= _MOST_A_DAY * factor and day_end > self._now()
            ):
                return TOO_MANY
        return None

    def fail(self, address: str) -> None:
        """Count a failure."""
        if len(self._failures) > _MOST_KEYS:
            self._failures.clear()
        for key, _ in _keys(address):
            minute, minute_end, day, day_end = self._count(key)
            self._failures[key] = [minute + 1, minute_end, day + 1, day_end]

    def succeed(self, address: str) -> None:
        """Forget an address's failures; those of its network stay."""
        self._failures.pop(_keys(address)[0][0], None)

    def dump(self) -> dict[str, list[float]]:
        """Return the counts to persist."""
        now = self._now()
        return {key: counts for key, counts in self._failures.items() if counts[3] > now}

    def load(self, counts: dict[str, list[float]]) -> None:
        """Take over persisted counts."""
        self._failures = dict(counts)

    def _count(self, key: str) -> list[float]:
        now = self._now()
        minute, minute_end, day, day_end = self._failures.get(key, [0, 0, 0, 0])
        if minute_end <= now:
            minute, minute_end = 0, now + _MINUTE
        if day_end <= now:
            day, day_end = 0, now + _DAY
        return [minute, minute_end, day, day_end]


def _keys(address: str) -> list[tuple[str, int]]:
    """Return the address and its network (/24, /48), each with the factor of its limits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return [(address, 1)]
    prefix = 24 if parsed.version == 4 else 48
    network = ipaddress.ip_network((parsed, prefix), strict=False)
    return [(str(parsed), 1), (str(network), _NETWORK_FACTOR)]
