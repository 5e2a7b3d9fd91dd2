"""How fast may a project ask? Token buckets in memory: 1000 requests a minute for all, and one for each kind of write."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plunk_relay.errors import RateLimited
from plunk_relay.sections import LimitSettings

_MOST_BUCKETS = 20_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` sustained, `burst` at once; 0 a second is no limit."""

    per_second: float
    burst: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


def read_rates(limits: LimitSettings) -> dict[str, Rate]:
    """Return the rates of the settings by bucket name; `api` counts every authenticated request."""
    return {
        "api": Rate(limits.api_requests_per_minute / 60, max(limits.api_requests_per_minute, 1)),
        "send": Rate(limits.send_per_second, limits.send_burst),
        "track": Rate(limits.track_per_second, limits.track_burst),
        "contacts:write": Rate(limits.contacts_per_second, limits.contacts_burst),
    }


class RateLimiter:
    """Buckets by (name, project)."""

    def __init__(self, rates: Mapping[str, Rate], monotonic: Callable[[], float]) -> None:
        self._rates = rates
        self._monotonic = monotonic
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def spend(self, project_id: str, bucket: str | None) -> list[tuple[str, str]]:
        """Take a token from `api` and from `bucket`; return the headers to send.

        Headers tell of `bucket` where there is one, else of `api`. Raises RateLimited, with those headers in `headers`.
        """
        names = [name for name in ("api", bucket) if name and self._rates[name].per_second > 0]
        now = self._monotonic()
        states = [(name, self._fill(name, project_id, now)) for name in names]
        empty = next(((name, state) for name, state in states if state.tokens < 1), None)
        if empty is not None:
            raise _refusal(self._rates[empty[0]], empty[1])
        for _, state in states:
            state.tokens -= 1
        return _headers(self._rates[states[-1][0]], states[-1][1]) if states else []

    def _fill(self, name: str, project_id: str, now: float) -> _Bucket:
        rate = self._rates[name]
        state = self._buckets.get((name, project_id))
        if state is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._buckets.clear()
            state = self._buckets[name, project_id] = _Bucket(rate.burst, now)
        state.tokens = min(rate.burst, state.tokens + (now - state.filled_at) * rate.per_second)
        state.filled_at = now
        return state


def _headers(rate: Rate, state: _Bucket) -> list[tuple[str, str]]:
    return [
        ("ratelimit-limit", str(rate.burst)),
        ("ratelimit-remaining", str(max(0, math.floor(state.tokens)))),
        ("ratelimit-reset", str(math.ceil((rate.burst - state.tokens) / rate.per_second))),
    ]


class LimitReached(RateLimited):
    """RateLimited, with the headers of the bucket that is empty."""

    def __init__(self, message: str, *, retry_after_seconds: int, headers: list[tuple[str, str]]) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.headers = headers


def _refusal(rate: Rate, state: _Bucket) -> LimitReached:
    wait = max(1, math.ceil((1 - state.tokens) / rate.per_second))
    message = "This project sends requests faster than its limit allows."
    return LimitReached(message, retry_after_seconds=wait, headers=_headers(rate, state))
