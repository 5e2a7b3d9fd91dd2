"""What does the deliverer do all day? Claims due deliveries, puts them into lanes, and records what comes of them."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from plunk_relay.batcher import Batcher
from plunk_relay.delivery.attempt import Courier, Office, Trip
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
_CLAIMED_A_CONNECTION = 10
_READY_AHEAD = 3
_POLL_SECONDS = 1.0
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

    async def take_over(self) -> None:
        """Free what a server that died had leased."""
        freed = await self._relay.db.write(queue.take_over, self.owner, now=self._relay.clock.now())
        if freed:
            log.info("took over leases of an earlier process", deliveries=freed)

    async def run_once(self) -> bool:
        """Claim what there is room for; True when more may be due at once."""
        room = self._capacity - len(self._in_hand)
        if room < self._capacity // 4:
            return False
        now = self._relay.clock.now()
        claim = Claim(self.owner, now, now + LEASE, room, self._busy_domains(), self._busy_projects(), self._last_project)
        try:
            claimed = await self._relay.db.write(queue.claim_due, claim)
        except Unavailable:
            return False
        for one in claimed:
            self._in_hand[one.id] = one
            self._last_project = one.project_id
        self._sort([one for one in claimed if not self._close_early(one)])
        return len(claimed) == room

    async def settle(self) -> None:
        """Return when nothing is in hand: every result is recorded."""
        while self._in_hand:
            self._settled.clear()
            await self._settled.wait()

    async def finish(self, grace_seconds: float) -> None:
        """Let couriers end their transactions, cancel late ones, give back what was not begun."""
        self._stopping = True
        for lane in self._lanes.values():
            for group in lane.take_all():
                for one in group:
                    self._in_hand.pop(one.id, None)
        self._dismiss_idle_couriers()
        try:
            async with asyncio.timeout(grace_seconds):
                await self.settle()
        except TimeoutError:
            log.warning("work in hand did not end in time", deliveries=len(self._in_hand))
            for courier in self._office.active:
                courier.cancel()
            await self.settle()
        await self._relay.db.write(queue.give_back, self.owner, now=self._relay.clock.now())

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
        """Start couriers where they help, a lane after the other; make room by sending idle ones home."""
        wanting = [lane for lane in self._lanes.values() if lane.wants_courier and not self._stopping]
        while wanting:
            for lane in list(wanting):
                if self._slots == 0 and not (lane.couriers == 0 and self._dismiss_one_idle()):
                    wanting.remove(lane)
                elif self._slots == 0:
                    wanting.remove(lane)  # the courier sent home staffs again when its slot is free
                elif lane.wants_courier and lane.couriers < lane.backlog + lane.couriers:
                    self._start_courier(lane)
                    if lane.couriers >= min(lane.allowed, lane.backlog):
                        wanting.remove(lane)
                else:
                    wanting.remove(lane)

    def _start_courier(self, lane: Lane) -> None:
        self._slots -= 1
        lane.couriers += 1
        self._couriers.create_task(self._employ(lane), name=f"courier {lane.key}")

    async def _employ(self, lane: Lane) -> None:
        courier = Courier(self._office, lane)
        ahead: deque[Trip] = deque()
        try:
            while not self._stopping:
                trip = ahead.popleft() if ahead else await _next_trip(courier, lane, self._settings.connection_idle_seconds)
                if trip is None:
                    break
                while len(ahead) < _READY_AHEAD and (following := lane.take_ahead()) is not None:
                    ahead.append(courier.begin(following))
                await courier.carry(trip)
                if lane.wants_courier:
                    self._staff()
        finally:
            for trip in ahead:
                courier.put_back(trip)
            self._slots += 1
            lane.couriers -= 1
            self._drop_if_empty(lane)
            self._staff()
            await courier.go_home()

    def _drop_if_empty(self, lane: Lane) -> None:
        if lane.couriers == 0 and lane.backlog == 0:
            self._lanes.pop(lane.key, None)

    def _dismiss_one_idle(self) -> bool:
        return any(lane.dismiss_idle() for lane in self._lanes.values())

    def _dismiss_idle_couriers(self) -> None:
        while self._dismiss_one_idle():
            pass

    def _busy_domains(self) -> list[str]:
        most = self._settings.per_destination * _CLAIMED_A_CONNECTION
        return [key for key, lane in self._lanes.items() if lane.plan.kind == "mx" and lane.backlog >= most]

    def _busy_projects(self) -> list[str]:
        """Return projects that hold half of the room: the rest stays free for the others' turns."""
        held = Counter(one.project_id for one in self._in_hand.values())
        return [project_id for project_id, count in held.items() if count >= self._capacity // 2]

    def _finish(self, finished: Finished) -> None:
        if isinstance(finished.result, Uncounted) and self._stopping:
            self._in_hand.pop(finished.claimed.id, None)
            self._settled.set()
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
        if len(self._in_hand) <= self._capacity // 2:
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


async def _next_trip(courier: Courier, lane: Lane, idle_seconds: float) -> Trip | None:
    group = await lane.take(idle_seconds)
    return courier.begin(group) if group is not None else None


async def _build_in_thread(drafts: list[Draft]) -> list[bytes | Failed]:
    return await asyncio.to_thread(build_messages, drafts)
