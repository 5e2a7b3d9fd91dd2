"""What does the deliverer do all day? Claims due deliveries, puts them into lanes, and records what comes of them."""

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from plunk_relay.batcher import Batcher
from plunk_relay.delivery.attempt import Courier, Office
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Lane, form_groups
from plunk_relay.delivery.outcomes import Expired, Failed, Finished, Uncounted, Verdict, record
from plunk_relay.delivery.prepare import Draft, build_messages
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.delivery.routes import RouteTable
from plunk_relay.emails import queue
from plunk_relay.emails.queue import Claim, Claimed
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
_WAITING_A_CONNECTION = 10
_POLL_SECONDS = 1.0
_CANCELLATIONS = 10
_CANCELLATION_SECONDS = 0.3
log = get_logger("delivery")


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Deliver until `stop`, then finish what is in hand for up to `grace_seconds` and give the rest back."""
    async with Deliverer(relay) as deliverer:
        await deliverer.take_over()
        await poll(deliverer.run_once, wake=relay.wakes.deliveries, stop=stop, every_seconds=_POLL_SECONDS)
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
        self._schedule = schedule or RetrySchedule(settings.retry_minutes)
        self._capacity = settings.concurrency * _CLAIMED_A_CONNECTION
        self._slots = settings.concurrency
        self._lanes: dict[str, Lane] = {}
        self._in_hand: dict[str, Claimed] = {}
        self._settled = asyncio.Event()
        self._stopping = False
        self._closed = False
        self._unsent: list[str] = []
        self._last_project = ""
        self._couriers = asyncio.TaskGroup()
        self._office = Office(
            relay=relay,
            peers=PeerFinder(relay),
            builder=Batcher(_build_in_thread, most=8, parallel=2),
            finish=self._finish,
        )

    async def __aenter__(self) -> Self:
        await self._couriers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._dismiss_idle_couriers()
        await self._couriers.__aexit__(kind, error, trace)

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
        if limit <= 0:
            return False
        now, busy = self._relay.clock.now(), self._busy_domains()
        claim = Claim(self.owner, now, now + LEASE, limit, busy, self._busy_turns(room, busy), self._last_project)
        try:
            claimed = await self._relay.db.write(queue.claim_due, claim)
        except Unavailable:
            return False
        fresh = [one for one in claimed if one.id not in self._in_hand]  # one that waits longer than its lease comes again
        for one in fresh:
            self._in_hand[one.id] = one
            self._last_project = one.project_id
        self._sort([one for one in fresh if not self._close_early(one)])
        return len(claimed) == limit

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
        self._stopping = True
        for lane in self._lanes.values():
            self._take_back(lane)
        self._dismiss_idle_couriers()
        if not await self._settled_within(grace_seconds):
            log.warning("work in hand did not end in time", deliveries=len(self._in_hand))
            await self._break_off()
        self._closed = True
        try:
            await self._relay.db.write(queue.give_back, self.owner, unsent=self._unsent, now=self._relay.clock.now())
        except Unavailable:
            log.warning("leases not given back; the next start takes them over")

    async def _break_off(self) -> None:
        """Cancel what couriers carry; more than once: a wait_for that just ended loses a cancellation before Python 3.12."""
        for _ in range(_CANCELLATIONS):
            for courier in tuple(self._office.active):
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

    def _take_back(self, lane: Lane) -> None:
        """Let go of what waits in a lane."""
        for group in lane.take_all():
            for one in group:
                self._let_go(one)

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
            self._finish(Finished(one, Expired(), confirmed=False, started_at=now, milliseconds=0))
            return True
        return False

    def _sort(self, claimed: Sequence[Claimed]) -> None:
        by_lane: dict[str, list[Claimed]] = {}
        for one in claimed:
            plan = self._routes.find(one.domain)
            key = plan.destination(one.domain)
            if key not in self._lanes:
                self._lanes[key] = Lane(plan, key, most_couriers=self._settings.per_destination)
            by_lane.setdefault(key, []).append(one)
        for key, mails in by_lane.items():
            for group in form_groups(mails):
                self._lanes[key].put(group)
        self._staff()

    def _staff(self) -> None:
        """Start couriers where they help, first in lanes that have none; make room for these by sending idle ones home."""
        if self._stopping:
            return
        wanting = deque(sorted((lane for lane in self._lanes.values() if lane.wants_courier), key=lambda it: it.couriers))
        while wanting:
            lane = wanting.popleft()
            if self._slots > 0:
                self._start_courier(lane)
                if lane.couriers < min(lane.allowed, lane.backlog):
                    wanting.append(lane)
            elif lane.couriers > 0 or not self._dismiss_one_idle():
                return  # a courier sent home staffs again when its slot is free

    def _start_courier(self, lane: Lane) -> None:
        self._slots -= 1
        lane.couriers += 1
        self._couriers.create_task(self._employ(lane), name=f"courier {lane.key}")

    async def _employ(self, lane: Lane) -> None:
        courier = Courier(self._office, lane)
        try:
            while not self._stopping and (trip := await courier.next_trip(self._patience(lane))) is not None:
                await courier.carry(trip)
                if lane.wants_courier:
                    self._staff()
        finally:
            await courier.put_back()
            if self._stopping:
                self._take_back(lane)
            self._slots += 1
            lane.couriers -= 1
            self._drop_if_empty(lane)
            self._staff()
            await courier.go_home()

    def _patience(self, lane: Lane) -> float:
        """Return how many seconds a courier may wait for mail: none while another lane waits for its slot."""
        wanted = self._slots == 0 and lane.backlog == 0 and any(it.couriers == 0 for it in self._lanes.values())
        return 0 if wanted else self._settings.connection_idle_seconds

    def _drop_if_empty(self, lane: Lane) -> None:
        if lane.couriers == 0 and lane.backlog == 0:
            self._lanes.pop(lane.key, None)

    def _dismiss_one_idle(self) -> bool:
        return any(lane.dismiss_idle() for lane in self._lanes.values())

    def _dismiss_idle_couriers(self) -> None:
        while self._dismiss_one_idle():
            pass

    def _busy_domains(self) -> list[str]:
        most = self._settings.per_destination * _WAITING_A_CONNECTION
        return [key for key, lane in self._lanes.items() if lane.plan.kind == "mx" and lane.backlog >= most]

    def _busy_turns(self, room: int, busy_domains: Collection[str]) -> list[tuple[int, str]]:
        """Return the pairs of priority and project that hold more than a claim would give them.

        What waits for a busy domain does not count: the project's other mail must not wait for it.
        """
        held = Counter((one.priority, one.project_id) for one in self._in_hand.values() if one.domain not in busy_domains)
        return [turn for turn, count in held.items() if count > room // 2]

    def _finish(self, finished: Finished) -> None:
        if self._closed:
            return
        if isinstance(finished.result, Uncounted) and self._stopping:
            self._let_go(finished.claimed)
            return
        self._relay.db.write_joint(self._record, finished).add_done_callback(partial(self._recorded, finished))

    def _record(self, tx: "sa.Connection", batch: list[Finished]) -> list[Verdict]:
        return record(tx, batch, self._schedule, now=self._relay.clock.now())

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
        )


async def _build_in_thread(drafts: list[Draft]) -> list[bytes | Failed]:
    return await asyncio.to_thread(build_messages, drafts)
