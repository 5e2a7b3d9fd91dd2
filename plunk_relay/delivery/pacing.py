"""How fast may mail go to a provider now? Its limits, times a pace that its own replies set.

The pace is a percentage of the connections and of the rate. A reply that asks for slower mail halves it, at most once a
minute; one that asks for a break pauses the provider and leaves the lowest pace for the start afterwards. From then on every
ten messages that get through win ten points back, until all is normal and the row goes. A provider that says that our
address is blocked is left alone where a smarthost can take its mail (fallback), except for one probe a day.

What is not normal is kept in `provider_states`, written when it changes and read at the start; `everyone` stands for all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from plunk_relay.log import get_logger
from plunk_relay.mail.classify import Classification
from plunk_relay.mail.providers import ProviderTable

EVERYONE = "everyone"
"""The provider of the row that is about port 25 itself; no registered domain is written so."""
FULL_PACE, LOWEST_PACE, STEP = 100, 10, 10
_MESSAGES_A_STEP = 10
_SLOW_AGAIN = _ONE_MINUTE = timedelta(minutes=1)
_LEAST_IN_HAND = 20
_LONGEST_QUEUE = timedelta(minutes=10)
_ALERT_AGAIN = timedelta(days=1)
PROBE_EVERY = timedelta(days=1)
_MOST_TURNS = 1000
log = get_logger("pacing")


class Keeper(Protocol):
    """Where states are stored: both return at once."""

    def save(self, row: dict[str, Any]) -> None:
        """Write a state."""
        ...

    def drop(self, provider: str) -> None:
        """Delete a state: all is normal."""
        ...


@dataclass(slots=True)
class ProviderState:
    """What is not normal about a provider."""

    provider: str
    updated_at: datetime
    pace: int = FULL_PACE
    paused_until: datetime | None = None
    fallback_since: datetime | None = None
    probe_at: datetime | None = None
    reason: str | None = None
    alerted_at: datetime | None = None
    grows_from: datetime | None = None
    """No step up before: the reply asked for slower mail until then. Not stored; a restart may win a step early."""
    slowed_at: datetime | None = None
    """When a reply last took from the pace; replies that were on their way with it do not take again."""
    queued_until: datetime | None = None
    """When the mail that was put off last has its turn."""
    successes: int = 0
    """Messages taken since the last step."""
    probe: str | None = None
    """The delivery that tries the direct way now; None: none does."""

    @property
    def is_normal(self) -> bool:
        """Whether there is nothing left to keep."""
        return self.pace == FULL_PACE and self.paused_until is None and self.fallback_since is None

    def slow_down(self, now: datetime, minutes: float, reason: str) -> bool:
        """Halve the pace for at least so many minutes; False when it was just done."""
        self.grows_from = now + timedelta(minutes=minutes)
        self.successes = 0
        if self.slowed_at is not None and now < self.slowed_at + _SLOW_AGAIN:
            return False
        self.pace, self.reason, self.slowed_at = max(LOWEST_PACE, self.pace // 2), reason, now
        return True

    def pause(self, now: datetime, minutes: float, reason: str) -> bool:
        """Stop for so many minutes, then begin slowly; False when it is paused as long already."""
        until = now + timedelta(minutes=minutes)
        if self.paused_until is not None and self.paused_until >= until:
            return False
        self.pace, self.paused_until, self.reason = LOWEST_PACE, until, reason
        self.grows_from, self.slowed_at, self.successes = until, now, 0
        return True

    def fall_back(self, now: datetime, reason: str) -> bool:
        """Let the smarthost take its mail from now on; False when it does already."""
        self.probe = None
        if self.fallback_since is not None:
            return False
        self.fallback_since, self.probe_at, self.reason, self.paused_until = now, now + PROBE_EVERY, reason, None
        return True

    def recover(self) -> None:
        """Take the direct way again, slowly."""
        self.fallback_since = self.probe_at = self.probe = None
        self.pace = LOWEST_PACE

    def succeed(self, now: datetime) -> bool:
        """Count a message that was taken; True when the pace has changed."""
        if self.pace == FULL_PACE or (self.grows_from is not None and now < self.grows_from):
            return False
        self.successes += 1
        if self.successes < _MESSAGES_A_STEP:
            return False
        self.successes = 0
        self.pace = min(FULL_PACE, self.pace + STEP)
        return True

    def is_paused(self, now: datetime) -> bool:
        """Tell whether nothing may go; forgets a pause that is over."""
        if self.paused_until is not None and now >= self.paused_until:
            self.paused_until = None
        return self.paused_until is not None

    def row(self) -> dict[str, Any]:
        """Return what is stored."""
        names = ("provider", "pace", "paused_until", "fallback_since", "probe_at", "reason", "alerted_at", "updated_at")
        return {name: getattr(self, name) for name in names}


class Pacing:
    """The providers that are not normal, and the connections and turns of all."""

    def __init__(self, table: ProviderTable, keeper: Keeper, *, per_destination: int) -> None:
        self.table = table
        self._keeper = keeper
        self._per_destination = per_destination
        self._states: dict[str, ProviderState] = {}
        self._connections: dict[str, int] = {}
        self._next_turn: dict[str, float] = {}

    def load(self, rows: Iterable[dict[str, Any]]) -> None:
        """Begin with what is stored, instead of all that is known."""
        self._states = {row["provider"]: ProviderState(**row) for row in rows}

    def find(self, provider: str) -> ProviderState | None:
        """Return what is not normal about a provider; None: all is."""
        return self._states.get(provider)

    def probed_by(self, delivery_id: str) -> list[ProviderState]:
        """Return the states that a delivery is the probe of."""
        return [state for state in self._states.values() if state.probe == delivery_id]

    # --- connections and turns

    def take_connection(self, provider: str) -> None:
        """Note that a connection is about to be made."""
        self._connections[provider] = self._connections.get(provider, 0) + 1

    def return_connection(self, provider: str) -> None:
        """Note that it has ended."""
        left = self._connections[provider] - 1
        if left:
            self._connections[provider] = left
        else:
            del self._connections[provider]

    def has_room(self, provider: str) -> bool:
        """Tell whether one more connection is allowed."""
        return not provider or self._connections.get(provider, 0) < self._most_connections(provider)

    def has_too_many(self, provider: str, *, leaving: int) -> bool:
        """Tell whether there are more connections than allowed, those that are about to end left out: it was slowed down."""
        if provider not in self._states:
            return False
        return self._connections.get(provider, 0) - leaving > self._most_connections(provider)

    def messages_per_connection(self, provider: str, most: int) -> int:
        """Return after how many messages a connection is given up."""
        return min(most, self.table.limits_of(provider).messages_per_connection or most)

    def take_turn(self, provider: str, now: float) -> float:
        """Take the next turn to send a message; return how many seconds from loop time `now` on it is."""
        rate = self._rate(provider)
        if rate is None:
            return 0.0
        if len(self._next_turn) > _MOST_TURNS:
            self._next_turn = {name: at for name, at in self._next_turn.items() if at > now}
        turn = max(now, self._next_turn.get(provider, 0.0))
        self._next_turn[provider] = turn + 60.0 / rate
        return turn - now

    def queue_up(self, state: ProviderState, waiting: int, now: datetime) -> datetime | None:
        """Return when the turn of one more mail comes for which `waiting` are in hand; None: it may wait with these.

        Not more than some minutes from now: by then the provider may have its pace back.
        """
        rate = self._rate(state.provider)
        if rate is None or waiting < max(_LEAST_IN_HAND, rate):
            return None
        state.queued_until = max(state.queued_until or now, now + _ONE_MINUTE) + timedelta(minutes=1 / rate)
        return min(state.queued_until, now + _LONGEST_QUEUE)

    def _most_connections(self, provider: str) -> int:
        most = self.table.limits_of(provider).connections
        if not self.table.is_listed(provider):
            most = max(most, self._per_destination)
        state = self._states.get(provider)
        return most if state is None else max(1, most * state.pace // FULL_PACE)

    def _rate(self, provider: str) -> float | None:
        limits, state = self.table.limits_of(provider), self._states.get(provider)
        if state is None or state.pace == FULL_PACE:
            return limits.messages_per_minute
        return (limits.messages_per_minute or limits.slowed_messages_per_minute) * state.pace / FULL_PACE

    # --- what replies change

    def obey(self, provider: str, rule: Classification, reply: str, now: datetime) -> None:
        """Slow a provider down or pause it, as the rule for its reply says."""
        state, minutes = self._state(provider, now), rule.pause_minutes or 0.0
        if rule.pace == "pause" and state.pause(now, minutes, reply):
            self._changed(state, now)
            self._alert(state, now, "provider paused")
        elif rule.pace == "slow" and state.slow_down(now, minutes, reply):
            self._changed(state, now)
            self._alert(state, now, "provider slowed down")

    def fall_back(self, provider: str, reason: str, now: datetime) -> bool:
        """Send a provider's mail by the smarthost from now on; False when it goes there already."""
        state = self._state(provider, now)
        begun = state.fall_back(now, reason)
        if begun:
            state.alerted_at = None  # another matter than its pace: the operator hears of it
            self._alert(state, now, "fallback: mail goes by the smarthost")
        self._changed(state, now)
        return begun

    def recover(self, state: ProviderState, now: datetime) -> None:
        """End a fallback."""
        state.recover()
        if state.provider == EVERYONE:
            state.pace = FULL_PACE
        self._changed(state, now)
        log.info("fallback is over: mail goes directly again", provider=state.provider)

    def succeed(self, state: ProviderState, now: datetime) -> None:
        """Count a message that a provider took."""
        if state.succeed(now):
            self._changed(state, now)

    def begin_probe(self, state: ProviderState, delivery_id: str, now: datetime) -> None:
        """Let one delivery try the direct way; the next one may in a day."""
        state.probe, state.probe_at = delivery_id, now + PROBE_EVERY
        self._changed(state, now)

    def _state(self, provider: str, now: datetime) -> ProviderState:
        return self._states.get(provider) or ProviderState(provider, now)

    def _changed(self, state: ProviderState, now: datetime) -> None:
        state.updated_at = now
        if state.is_normal:
            self._states.pop(state.provider, None)
            self._keeper.drop(state.provider)
        else:
            self._states[state.provider] = state
            self._keeper.save(state.row())

    def _alert(self, state: ProviderState, now: datetime, text: str) -> None:
        """Tell the operator once, and again after a day of it."""
        if state.alerted_at is not None and now < state.alerted_at + _ALERT_AGAIN:
            return
        state.alerted_at = now
        self._keeper.save(state.row())
        until = state.paused_until.isoformat() if state.paused_until else None
        log.warning(text, provider=state.provider, pace=state.pace, paused_until=until, reason=state.reason)
