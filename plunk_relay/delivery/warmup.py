"""How much may a new address send today? As `delivery.warmup_per_day` says: a list of limits a provider, day by day (UTC).

Day 1 is the day on which the address was first used. What is over today's limit goes from another source address that has
room, else it waits for tomorrow, spread over the day. A fifth of each limit is kept for transactional mail, so that a
campaign in the morning leaves room for what people wait for in the afternoon. After the list's last day there is no limit.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from plunk_relay.delivery.outcomes import Postponed
from plunk_relay.emails.actions import PRIORITY_TRANSACTIONAL
from plunk_relay.emails.queue import Claimed
from plunk_relay.mail.session import Peer

FIRST_USE = ""
"""Provider of the row that says on which day an address was first used."""
_KEPT_FOR_TRANSACTIONAL = 5
_HOURS_OF_TRANSACTIONAL, _HOURS_OF_OTHERS = 1, 20
Count = tuple[str, str, str, int]
"""Source address, provider, day as YYYY-MM-DD, messages."""


class Warmup:
    """Counts what each source address hands over to each provider; with an empty list of limits it does nothing."""

    def __init__(self, per_day: Sequence[int], sources: Sequence[str]) -> None:
        self.on = bool(per_day)
        self._per_day = per_day
        self._sources = tuple(sources)
        self._first_days: dict[str, date] = {}
        self._today = date.min
        self._sent: dict[tuple[str, str], int] = {}
        self._changed: set[tuple[str, str]] = set()

    def load(self, counts: Iterable[Count], now: datetime) -> None:
        """Begin with what is stored."""
        self._turn_day(now)
        for source, provider, day, sent in counts:
            if provider == FIRST_USE:
                self._first_days[source] = date.fromisoformat(day)
            elif day == self._today.isoformat():
                self._sent[source, provider] = sent

    def reserve(self, source: str | None, provider: str, claimed: Claimed, messages: int, now: datetime) -> bool:
        """Count messages that are about to be sent from an address; False, and not counted, when that is too many."""
        self._turn_day(now)
        if not self._has_room(source or "", provider, claimed.priority, messages):
            return False
        key = (source or "", provider)
        self._sent[key] = self._sent.get(key, 0) + messages
        self._changed.add(key)
        return True

    def assign(self, peers: Sequence[Peer], provider: str, claimed: Claimed, messages: int, now: datetime) -> list[Peer]:
        """Give each peer a source address that has room; leave out those that there is none for."""
        self._turn_day(now)
        fitting = []
        for peer in peers:
            candidates = [peer.source_address, *(s for s in self._sources if _same_family(s, peer.address))]
            free = [s for s in candidates if self._has_room(s or "", provider, claimed.priority, messages)]
            if free:
                fitting.append(peer if free[0] == peer.source_address else replace(peer, source_address=free[0]))
        return fitting

    def postpone(self, provider: str, claimed: Claimed, now: datetime) -> Postponed:
        """Put a delivery off until tomorrow: transactional mail into the first hour, other mail over the day."""
        tomorrow = datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time.min, UTC)
        hours = _HOURS_OF_TRANSACTIONAL if claimed.priority == PRIORITY_TRANSACTIONAL else _HOURS_OF_OTHERS
        share = zlib.crc32(claimed.id.encode()) / 2**32
        return Postponed(
            tomorrow + timedelta(hours=hours * share),
            f"warm-up: {provider} has had what delivery.warmup_per_day allows for today",
        )

    def take_changes(self) -> list[Count]:
        """Return the counts that are not stored yet."""
        if not self._changed:
            return []
        day = self._today.isoformat()
        changed = [(source, provider, day, self._sent[source, provider]) for source, provider in self._changed]
        first = [(source, FIRST_USE, self._first_days[source].isoformat(), 0) for source, _ in self._changed]
        self._changed.clear()
        return [*changed, *dict.fromkeys(first)]

    def keep_changes(self, counts: Iterable[Count]) -> None:
        """Take back what could not be stored: it is stored with the next changes."""
        today = self._today.isoformat()
        self._changed |= {(source, provider) for source, provider, day, _ in counts if provider and day == today}

    def _has_room(self, source: str, provider: str, priority: int, messages: int) -> bool:
        limit = self._limit(source)
        if limit is None:
            return True
        if priority > PRIORITY_TRANSACTIONAL:
            limit -= limit // _KEPT_FOR_TRANSACTIONAL
        return self._sent.get((source, provider), 0) + messages <= limit

    def _limit(self, source: str) -> int | None:
        first = self._first_days.setdefault(source, self._today)
        day = (self._today - first).days
        return self._per_day[day] if day < len(self._per_day) else None

    def _turn_day(self, now: datetime) -> None:
        today = now.astimezone(UTC).date()
        if today != self._today:
            self._today = today
            self._sent.clear()
            self._changed.clear()


def _same_family(source: str, address: str) -> bool:
    return (":" in source) == (":" in address)
