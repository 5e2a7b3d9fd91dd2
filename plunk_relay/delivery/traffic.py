"""May this mail go now, and which way? Routes, pacing, warm-up and fallback, asked by the deliverer and its couriers.

    find_way    when a mail is claimed: a route, or not before ..., or the provider must be looked up first
    admit       when a courier is about to send: waits for the provider's turn; the answer may have become "later"
    respond     when a peer has answered: slows down, pauses, falls back, recovers; may soften a refusal
    note_*      when a session came about, or no host could be connected to

All is in memory; the database is written when a state changes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from plunk_relay.delivery import queries
from plunk_relay.delivery.closed_port import ClosedPortWatch, is_listening
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Group, Lane
from plunk_relay.delivery.outcomes import Postponed, Result
from plunk_relay.delivery.pacing import EVERYONE, FULL_PACE, PROBE_EVERY, Pacing, ProviderState
from plunk_relay.delivery.routes import RoutePlan, RouteTable
from plunk_relay.delivery.warmup import FIRST_USE, Warmup
from plunk_relay.domains.actions import find_local_names
from plunk_relay.emails.providers.queries import load_provider_states, store_provider_states, waiting_text
from plunk_relay.emails.queue import Claimed
from plunk_relay.errors import Unavailable
from plunk_relay.log import get_logger
from plunk_relay.mail.classify import classify
from plunk_relay.mail.dns import DnsTemporary, NameNotFound
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply
from plunk_relay.mail.providers import NO_PROVIDER, ProviderFinder, built_in
from plunk_relay.mail.session import Peer
from plunk_relay.relay import Relay

log = get_logger("traffic")
_LOOK_UPS = 200
_SLOWED_FOR = timedelta(minutes=1)
_CLOSED_PORT = "no provider could be connected to; port 25 seems to be closed"


@dataclass(frozen=True, slots=True)
class Way:
    """The route of a mail, and the provider when it goes directly."""

    plan: RoutePlan
    provider: str = NO_PROVIDER


class Traffic:
    """One a deliverer. `changed` is called with a provider whose waiting mail must be looked at again.

    `backlog` tells how many mails wait in hand for a provider.
    """

    def __init__(
        self,
        relay: Relay,
        routes: RouteTable,
        peers: PeerFinder,
        *,
        changed: Callable[[str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        backlog: Callable[[str], int],
    ) -> None:
        settings = relay.settings.delivery
        self.warmup = Warmup(settings.warmup_per_day, settings.source_addresses)
        self.pacing = Pacing(built_in(), _Keeper(relay), per_destination=settings.per_destination)
        self._relay = relay
        self._routes = routes
        self._peers = peers
        self._changed = changed
        self._spawn = spawn
        self._backlog = backlog
        self._loop = asyncio.get_running_loop()
        self._finder = ProviderFinder(relay.resolver, built_in())
        self._look_ups = asyncio.Semaphore(_LOOK_UPS)  # each holds a socket
        self._watch = ClosedPortWatch()
        self._local_names: frozenset[str] = frozenset()
        self._loaded = False
        self._confirming = False
        self._port_alerted = False

    # --- what is stored

    async def refresh(self) -> None:
        """Read the stored states, once, and again when an operator changed one; store what warm-up has counted."""
        wake = self._relay.wakes.providers
        if not self._loaded or wake.is_set():
            wake.clear()
            self.pacing.load(await self._relay.db.read(load_provider_states))
            if self.warmup.on and not self._loaded:
                now = self._relay.clock.now()
                day = now.date().isoformat()
                self.warmup.load(await self._relay.db.read(queries.load_warmup_counts, day=day, first_use=FIRST_USE), now)
            self._loaded = True
        if not self._relay.db.failure:
            self._local_names = await find_local_names(self._relay)
        await self.store_counts()

    async def store_counts(self) -> None:
        """Write what warm-up has counted since the last time."""
        counts = self.warmup.take_changes()
        if counts:
            try:
                await self._relay.db.write(queries.store_warmup_counts, counts, first_use=FIRST_USE)
            except Unavailable:
                self.warmup.keep_changes(counts)

    # --- when a mail is claimed

    def find_way(self, claimed: Claimed) -> Way | Postponed | None:
        """Return how a mail goes, or until when it waits; None: `look_up` its domain first."""
        plan = self._routes.find_by_domain(claimed.domain, self._local_names)
        if plan is not None and plan.kind != "mx":
            return Way(plan)
        provider = self._finder.known(claimed.domain, self._loop.time())
        if provider is None:
            return None
        plan = plan or self._routes.find(claimed.domain, provider)
        if plan.kind != "mx":
            return Way(plan)
        return self._detour(claimed, plan, provider) or Way(plan, provider)

    async def look_up(self, domain: str) -> Deferred | None:
        """Find out the provider of a domain, so that `find_way` knows it; Deferred when the DNS cannot tell."""
        async with self._look_ups:
            try:
                await self._finder.find(domain, self._loop.time())
            except DnsTemporary as error:
                return Deferred(Reply(451, "4.4.3", str(error)))
        return None

    def _detour(self, claimed: Claimed, plan: RoutePlan, provider: str) -> Way | Postponed | None:
        """Return another way than the direct one, if there is a reason to take it."""
        now, fallback = self._relay.clock.now(), self._routes.fallback
        for state in (self.pacing.find(provider), self.pacing.find(EVERYONE)):
            if state is None:
                continue
            if state.fallback_since is not None and fallback is not None and self._routes.may_fall_back(plan):
                if not self._is_due_probe(state, provider, now):
                    return Way(fallback)
                self.pacing.begin_probe(state, claimed.id, now)
            elif state.is_paused(now):
                return _waiting(state)
            elif state.pace < FULL_PACE:
                return self._queue_up(state, now)
        return None

    def _queue_up(self, state: ProviderState, now: datetime) -> Postponed | None:
        """Put mail for a slowed provider off when enough of it waits in hand: the room is for other destinations."""
        due = self.pacing.queue_up(state, self._backlog(state.provider), now)
        text = f"{waiting_text(state.provider)}slowed down to {state.pace} %: {state.reason}"
        return None if due is None else Postponed(due, text)

    def _is_due_probe(self, state: ProviderState, provider: str, now: datetime) -> bool:
        """Tell whether a mail may try the direct way; port 25 is tried with a large provider, for a day with no other."""
        if state.probe_at is None or now < state.probe_at:
            return False
        telling = state.provider != EVERYONE or self.pacing.table.is_listed(provider)
        return telling or now >= state.probe_at + PROBE_EVERY

    # --- when a courier is about to send

    async def admit(self, lane: Lane, group: Group) -> Postponed | None:
        """Wait for the turn of a group; return why and until when it must wait instead."""
        refusal = self._hold(lane, group[0])
        if refusal is None and (seconds := self.pacing.take_turn(lane.provider, self._loop.time())) > 0:
            await asyncio.sleep(seconds)
            refusal = self._hold(lane, group[0])  # the provider may have been paused meanwhile
        return refusal

    def _hold(self, lane: Lane, claimed: Claimed | None) -> Postponed | None:
        """Return why a mail of a lane, or what waits in it, must not go now."""
        now = self._relay.clock.now()
        for state in (self.pacing.find(lane.provider), self.pacing.find(EVERYONE)):
            if state is None or (claimed is not None and state.probe == claimed.id):
                continue
            if self._goes_by_smarthost(state, lane):
                return Postponed(now, f"{lane.provider} is not reached directly: the smarthost takes its mail")
            if state.is_paused(now):
                return _waiting(state)
        return None

    def _goes_by_smarthost(self, state: ProviderState, lane: Lane) -> bool:
        return state.fallback_since is not None and self._routes.may_fall_back(lane.plan)

    def assign_sources(self, lane: Lane, group: Group, peers: list[Peer]) -> list[Peer] | Postponed:
        """Give the peers source addresses that may send more today (warm-up)."""
        if not self.warmup.on or not lane.provider:
            return peers
        fitting = self.warmup.assign(peers, lane.provider, group[0], len(group), self._relay.clock.now())
        return fitting or self.postpone_for_warmup(lane, group)

    def reserve(self, lane: Lane, group: Group, source: str | None) -> bool:
        """Count a message that is about to be sent; False when its source address has sent enough today."""
        if not self.warmup.on or not lane.provider:
            return True
        return self.warmup.reserve(source, lane.provider, group[0], len(group), self._relay.clock.now())

    def postpone_for_warmup(self, lane: Lane, group: Group) -> Postponed:
        """Put a group off until tomorrow."""
        return self.warmup.postpone(lane.provider, group[0], self._relay.clock.now())

    def messages_per_connection(self, lane: Lane) -> int:
        """Return after how many messages a connection is given up."""
        return self.pacing.messages_per_connection(lane.provider, self._relay.settings.delivery.messages_per_connection)

    # --- when a peer has answered

    def respond(self, lane: Lane, claimed: Claimed, result: Result) -> tuple[Result, datetime | None]:
        """Return the result, softened when there is another way, and when to try again if the schedule is not to say."""
        state = self.pacing.find(lane.provider)
        if isinstance(result, Delivered):
            if state is not None:
                self._welcome(state, claimed)
            return result, None
        if not isinstance(result, Deferred | Bounced):
            return result, None
        now, rule = self._relay.clock.now(), classify(result.reply, lane.provider)
        text = str(result.reply)
        if rule.fallback and self._routes.may_fall_back(lane.plan):
            if self.pacing.fall_back(lane.provider, text, now):
                self._changed(lane.provider)
            return Deferred(result.reply), now
        if rule.pace is not None:
            self.pacing.obey(lane.provider, rule, text, now)
            if rule.pace == "pause":
                self._changed(lane.provider)
        self._end_probe(claimed, recovered=rule.reply_class == "recipient")
        return result, self._soon_by_smarthost(lane, result)

    def respond_for_lane(self, lane: Lane, claimed: Claimed, verdict: Deferred | Bounced) -> Result | None:
        """Return what becomes of the mail behind one that found no host to take it; None: it goes on being tried."""
        result, _ = self.respond(lane, claimed, verdict)
        held = self._hold(lane, None)
        if held is not None:
            return held
        now, rule = self._relay.clock.now(), classify(verdict.reply, lane.provider)
        if rule.pace == "slow":
            alone = lane.couriers <= 1  # else connections that are open go on
            return Postponed(now + _SLOWED_FOR, f"{lane.provider} asked for slower mail: {verdict.reply}") if alone else None
        return result if isinstance(result, Deferred) else None

    def _welcome(self, state: ProviderState, claimed: Claimed) -> None:
        """Note that a provider took a message; the probe's success ends a fallback."""
        now = self._relay.clock.now()
        if state.fallback_since is None:
            self.pacing.succeed(state, now)
        elif state.probe == claimed.id or self._routes.fallback is None:
            self.pacing.recover(state, now)

    def _end_probe(self, claimed: Claimed, *, recovered: bool) -> None:
        """Judge a probe that was not taken: a word about the recipient is no block."""
        for state in self.pacing.probed_by(claimed.id):
            state.probe = None
            if recovered:
                self.pacing.recover(state, self._relay.clock.now())

    def _soon_by_smarthost(self, lane: Lane, result: Result) -> datetime | None:
        """Return when a deferred mail is tried again: at once, when the smarthost is to take it."""
        states = (self.pacing.find(lane.provider), self.pacing.find(EVERYONE))
        turned = any(state is not None and self._goes_by_smarthost(state, lane) for state in states)
        return self._relay.clock.now() if turned and isinstance(result, Deferred) else None

    # --- when a session came about, or none

    def note_session(self, lane: Lane) -> None:
        """A host answered: port 25 is open."""
        lane.proven = True
        if not lane.provider:
            return
        self._watch.note_session()
        state = self.pacing.find(EVERYONE)
        if state is not None and state.fallback_since is not None:
            self.pacing.recover(state, self._relay.clock.now())

    def note_answer(self, lane: Lane) -> None:
        """A host could be connected to, and then refused."""
        if lane.provider:
            self._watch.note_session()

    def note_silence(self, lane: Lane, domain: str) -> None:
        """None of the hosts could be connected to."""
        lane.proven = False
        if not lane.provider:
            return
        listed = self.pacing.table.is_listed(lane.provider)
        if self._watch.note_silence(lane.provider, listed=listed) and not self._confirming:
            self._confirming = True
            self._spawn(self._confirm_closed_port(domain))

    async def _confirm_closed_port(self, domain: str) -> None:
        """Fall back for everyone when the DNS and the smarthost answer while port 25 of others does not."""
        try:
            if await self._has_network(domain):
                self._close_port()
        finally:
            self._confirming = False

    async def _has_network(self, domain: str) -> bool:
        self._relay.resolver.forget(domain)
        try:
            await self._relay.resolver.mx(domain)
        except NameNotFound:
            pass
        except DnsTemporary:
            return False
        if self._routes.fallback is None:
            return True
        peers = await self._peers.find(self._routes.fallback, domain)
        if not isinstance(peers, list):
            return False
        seconds = self._relay.settings.delivery.connect_seconds
        return any([await is_listening(peer.address, peer.port, seconds) for peer in peers[:1]])

    def _close_port(self) -> None:
        if self._routes.fallback is not None:
            if self.pacing.fall_back(EVERYONE, _CLOSED_PORT, self._relay.clock.now()):
                self._changed(EVERYONE)
        elif not self._port_alerted:
            self._port_alerted = True
            log.warning(f"{_CLOSED_PORT}; ask your provider to open it, or set delivery.smarthost_url")


def _waiting(state: ProviderState) -> Postponed:
    assert state.paused_until is not None  # noqa: S101  the caller saw that it is paused
    until = f"{state.paused_until:%Y-%m-%d %H:%M} UTC"
    return Postponed(state.paused_until, f"{waiting_text(state.provider)}paused until {until}: {state.reason}")


class _Keeper:
    """Stores states behind the caller's back; a failed write costs what a restart would have remembered."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def save(self, row: dict[str, Any]) -> None:
        self._store(row["provider"], row)

    def drop(self, provider: str) -> None:
        self._store(provider, None)

    def _store(self, provider: str, row: dict[str, Any] | None) -> None:
        future = self._relay.db.write_joint(store_provider_states, (provider, row))
        future.add_done_callback(partial(_note_failure, provider))


def _note_failure(provider: str, future: "asyncio.Future[None]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("state of a provider not stored", provider=provider, error=repr(error))
