"""What does the deliverer do all day? Claims due deliveries, puts them into lanes, and records what comes of them."""

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from plunk_relay.delivery.dispatch import Dispatch
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.notices import queue_notices
from plunk_relay.delivery.outcomes import Expired, Finished, Postponed, Result, Uncounted, Verdict, record
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.delivery.routes import RouteTable
from plunk_relay.delivery.suppression import find_suppressed
from plunk_relay.delivery.traffic import Traffic, Way
from plunk_relay.emails import queue
from plunk_relay.emails.queue import Claim, Claimed
from plunk_relay.emails.status_notices.actions import Postmaster
from plunk_relay.errors import Unavailable
from plunk_relay.ids import new_id
from plunk_relay.log import get_logger
from plunk_relay.mail.outcome import Unknown
from plunk_relay.relay import Relay
from plunk_relay.workers import poll

if TYPE_CHECKING:
    import sqlalchemy as sa

LEASE = timedelta(minutes=30)
_CLAIMED_A_CONNECTION = 15
_POLL_SECONDS = 1.0
_GATHER_SECONDS = 0.003
_REST_SECONDS = 0.1
_CANCELLATIONS = 10
_CANCELLATION_SECONDS = 0.3
log = get_logger("delivery")


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Deliver until `stop`, then finish what is in hand for up to `grace_seconds` and give the rest back."""
    async with Deliverer(relay) as deliverer:
        await deliverer.take_over()
        await poll(deliverer.run_in_turn, wake=relay.wakes.deliveries, stop=stop, every_seconds=_POLL_SECONDS)
        await deliverer.finish(relay.settings.server.grace_seconds)


class Deliverer:
    """Owns the lanes and couriers; use as an async context manager."""

    def __init__(self, relay: Relay, *, schedule: RetrySchedule | None = None) -> None:
        settings = relay.settings.delivery
        self.owner = new_id()
        self._relay = relay
        self._log = log.bind()  # once: a log line a mail is written through it
        self._settings = settings
        self._routes = RouteTable(settings)
        self._postmaster = Postmaster.of(relay)
        self._schedule = schedule or RetrySchedule(settings.retry_minutes)
        self._capacity = settings.concurrency * _CLAIMED_A_CONNECTION
        self._in_hand: dict[str, Claimed] = {}
        self._settled = asyncio.Event()
        self._stopping = False
        self._closed = False
        self._unsent: list[str] = []
        self._last_project = ""
        self._futile = False
        self._unsorted: dict[str, list[Claimed]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._tasks = asyncio.TaskGroup()
        peers = PeerFinder(relay)
        self._traffic = Traffic(
            relay,
            self._routes,
            peers,
            changed=self._sort_again,
            spawn=self._spawn,
            backlog=lambda provider: self._dispatch.backlog_of(provider),  # noqa: PLW0108  it comes about below
        )
        self._dispatch = Dispatch(
            relay,
            self._traffic,
            peers,
            self._tasks,
            finish=self._finish,
            let_go=self._let_go,
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def in_hand(self) -> int:
        """How many deliveries are claimed and have no result yet."""
        return len(self._in_hand)

    async def take_over(self) -> None:
        """Free what a server that died had leased."""
        freed = await self._relay.db.write(queue.take_over, self.owner, now=self._relay.clock.now())
        if freed:
            log.info("took over leases of an earlier process", deliveries=freed)

    async def run_once(self) -> bool:
        """Claim what there is room for; True when more may be due at once.

        A claim takes half of the room that is left, so that a burst, or mail that is stuck, leaves room for others.
        """
        room = self._capacity - len(self._in_hand)
        limit = (room + 1) // 2
        await self._traffic.refresh()
        if limit <= 0:
            return False
        now, busy = self._relay.clock.now(), self._busy_domains()
        claim = Claim(self.owner, now, now + LEASE, limit, busy, self._busy_turns(room, busy), self._last_project)
        try:
            claimed = await self._relay.db.write(queue.claim_due, claim)
        except Unavailable:
            return False
        self._futile = not claimed and bool(busy or claim.busy_turns)
        fresh = [one for one in claimed if one.id not in self._in_hand]  # one that waits longer than its lease comes again
        for one in fresh:
            self._in_hand[one.id] = one
            self._last_project = one.project_id
        self._sort(await self._sift([one for one in fresh if not self._close_early(one)]))
        return len(claimed) == limit

    async def run_in_turn(self) -> bool:
        """Do the same, a moment later while others are in hand, and rest after a claim that found everybody busy.

        Each mail that is accepted wakes: in a busy time one claim serves several of them, and while projects have enough
        in hand, all of these would claim in vain.
        """
        if self._in_hand:
            await asyncio.sleep(_GATHER_SECONDS)
        more = await self.run_once()
        if self._futile:
            await asyncio.sleep(_REST_SECONDS)
        return more

    async def settle(self) -> None:
        """Return when nothing is in hand: every result is recorded."""
        while self._in_hand:
            self._settled.clear()
            await self._settled.wait()

    async def finish(self, grace_seconds: float) -> None:
        """Let couriers end their transactions, cancel late ones, give back what was not begun.

        What was sent and could not be recorded keeps its dot mark: the next start finds it.
        """
        if self._closed:
            return
        self._stop()
        if not await self._settled_within(grace_seconds):
            log.warning("work in hand did not end in time", deliveries=len(self._in_hand))
            await self._break_off()
        self._closed = True
        await self._traffic.store_counts()
        try:
            await self._relay.db.write(queue.give_back, self.owner, unsent=self._unsent, now=self._relay.clock.now())
        except Unavailable:
            log.warning("leases not given back; the next start takes them over")

    async def _break_off(self) -> None:
        """Cancel what couriers carry; more than once: a wait_for that just ended loses a cancellation before Python 3.12."""
        for _ in range(_CANCELLATIONS):
            for courier in tuple(self._dispatch.office.active):
                courier.cancel()
            if await self._settled_within(_CANCELLATION_SECONDS):
                return
        log.error("results not recorded", queue_ids=list(self._in_hand))

    async def _settled_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.settle()
        except TimeoutError:
            return False
        return True

    def _stop(self) -> None:
        """Begin nothing any more; let go of what was not begun."""
        self._stopping = True
        self._dispatch.stop()
        for task in self._errands:
            task.cancel()
        for one in [one for mails in self._unsorted.values() for one in mails]:
            self._let_go(one)
        self._unsorted.clear()

    def _let_go(self, one: Claimed) -> None:
        """Forget a delivery that was not sent; `finish` ends its lease."""
        self._unsent.append(one.id)
        self._in_hand.pop(one.id, None)
        self._settled.set()

    def _close_early(self, one: Claimed) -> bool:
        """Finish what needs no attempt: its time is over, or a dead process may have delivered it."""
        now = self._relay.clock.now()
        if one.dot_sent_at is not None:
            unknown = Unknown("the relay stopped between the final dot and the reply")
            self._finish(Finished(one, unknown, confirmed=False, started_at=one.dot_sent_at, milliseconds=0))
            return True
        if one.expires_at <= now:
            self._finish_unsent(one, Expired())
            return True
        return False

    async def _sift(self, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Finish what is suppressed, without an attempt; return the rest."""
        suppressed = await find_suppressed(self._relay, claimed)
        for one in claimed:
            if one.id in suppressed:
                self._finish_unsent(one, suppressed[one.id])
        return [one for one in claimed if one.id not in suppressed]

    def _sort(self, claimed: Sequence[Claimed]) -> None:
        """Put mail into lanes, or off; mail whose provider is not known waits for the look-up of its domain."""
        by_lane: dict[str, tuple[Way, list[Claimed]]] = {}
        for one in claimed:
            way = self._traffic.find_way(one)
            if way is None:
                self._look_up(one)
            elif isinstance(way, Postponed):
                self._finish_unsent(one, way)
            else:
                key = way.plan.destination(one.domain)
                if one.tls_wish is not None:
                    key += f", TLS {one.tls_wish}"  # shares neither connections with other mail nor the fate of its lane
                by_lane.setdefault(key, (way, []))[1].append(one)
        for key, (way, mails) in by_lane.items():
            self._dispatch.put(key, way, mails)
        self._dispatch.staff()

    def _look_up(self, one: Claimed) -> None:
        waiting = self._unsorted.setdefault(one.domain, [])
        waiting.append(one)
        if len(waiting) == 1:
            self._spawn(self._sort_later(one.domain))

    async def _sort_later(self, domain: str) -> None:
        trouble = await self._traffic.look_up(domain)
        mails = self._unsorted.pop(domain, [])
        if trouble is None:
            self._sort(mails)
            return
        for one in mails:
            self._finish_unsent(one, trouble)

    def _spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run something that a stop may cancel."""
        if self._stopping:
            errand.close()
            return
        task = self._tasks.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _sort_again(self, provider: str) -> None:
        """Look again at what waits to go directly to a provider: it is paused, or goes another way from now on."""
        if not self._stopping:
            self._sort(self._dispatch.take_waiting(provider))

    def _busy_domains(self) -> list[str]:
        return [*self._dispatch.busy_domains(), *self._unsorted]

    def _busy_turns(self, room: int, busy_domains: Collection[str]) -> list[tuple[int, str]]:
        """Return the pairs of priority and project that hold more than a claim would give them.

        What waits for a busy domain does not count: the project's other mail must not wait for it.
        """
        held = Counter((one.priority, one.project_id) for one in self._in_hand.values() if one.domain not in busy_domains)
        return [turn for turn, count in held.items() if count > room // 2]

    def _finish_unsent(self, one: Claimed, result: Result) -> None:
        """Finish what no courier took."""
        self._finish(Finished(one, result, confirmed=False, started_at=self._relay.clock.now(), milliseconds=0))

    def _finish(self, finished: Finished) -> None:
        if self._closed:
            return
        if isinstance(finished.result, Uncounted) and self._stopping:
            self._let_go(finished.claimed)
            return
        self._relay.db.write_joint(self._record, finished).add_done_callback(partial(self._recorded, finished))

    def _record(self, tx: "sa.Connection", batch: list[Finished]) -> list[Verdict]:
        now = self._relay.clock.now()
        verdicts = record(tx, batch, self._schedule, now=now)
        queue_notices(tx, self._postmaster, batch, verdicts, now=now)
        return verdicts

    def _recorded(self, finished: Finished, future: asyncio.Future[Verdict]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Unavailable) and not self._relay.db.failure:
            asyncio.get_running_loop().call_later(1, self._finish, finished)  # what was sent must not be sent again
            return
        self._in_hand.pop(finished.claimed.id, None)
        self._settled.set()
        if future.cancelled() or error is not None:
            log.error("result not recorded", queue_id=finished.claimed.id, error=repr(error))
            return
        self._log_verdict(finished, future.result())
        if len(self._in_hand) <= self._capacity // 3:
            self._relay.wakes.deliveries.set()

    def _log_verdict(self, finished: Finished, verdict: Verdict) -> None:
        claimed = finished.claimed
        self._log.info(
            verdict.word,
            queue_id=claimed.id,
            project=claimed.project_id,
            recipient=claimed.recipient,
            attempt=claimed.attempts + verdict.counted,
            host=finished.host,
            tls=finished.tls,
            ms=finished.milliseconds,
            reply=verdict.text,
            rule=verdict.found.rule if verdict.found else None,
        )
