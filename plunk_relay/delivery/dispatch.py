"""Who carries what is in hand? Lanes by destination, and couriers that are hired for them.

There are as many slots as the setting `concurrency` says, a courier each. Who gets one:

    a lane without a courier before lanes with some; among these the more urgent mail; then the project with fewer couriers
    at work; then the lane that has waited longest
    no more than the lane may have, and no more than its provider may have
    unproven lanes, where no session came about yet, have half of the slots together: destinations that do not answer must
    not hold the slots of those that do; a project that has less than its part of the half may go beyond it

A courier leaves when its provider has been slowed down; and when another lane waits for its slot or its provider's
connection: at once if others are at work in its own lane, else after a second, so that no backlog keeps others waiting.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

from plunk_relay.delivery.attempt import Courier, Office
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Lane, form_groups
from plunk_relay.delivery.outcomes import Finished
from plunk_relay.delivery.pacing import EVERYONE
from plunk_relay.delivery.traffic import Traffic, Way
from plunk_relay.emails.queue import Claimed
from plunk_relay.relay import Relay

_SLICE_SECONDS = 1.0
_WAITING_A_CONNECTION = 10
_REMEMBERED = 10_000


class Dispatch:
    """The lanes and couriers of one deliverer, whose task group runs the couriers."""

    def __init__(
        self,
        relay: Relay,
        traffic: Traffic,
        peers: PeerFinder,
        tasks: asyncio.TaskGroup,
        *,
        finish: Callable[[Finished], None],
        let_go: Callable[[Claimed], None],
    ) -> None:
        self._settings = relay.settings.delivery
        self._traffic = traffic
        self._tasks = tasks
        self._let_go = let_go
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, Lane] = {}
        self._proven: dict[str, None] = {}
        self._slots = self._settings.concurrency
        self._most_unproven = max(1, self._slots // 2)
        self._hungry = 0
        self._hungry_providers: set[str] = set()
        self._leaving: Counter[str] = Counter()
        self._stopping = False
        self.office = Office(
            relay=relay,
            peers=peers,
            finish=finish,
            traffic=traffic,
            staff=self.staff,
        )

    def put(self, key: str, way: Way, mails: Sequence[Claimed]) -> None:
        """Let mails wait in the lane of that name; call `staff` afterwards."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(
                way.plan,
                key,
                most_couriers=self._settings.per_destination,
                provider=way.provider,
                proven=way.plan.kind in ("capture", "local") or key in self._proven,
            )
            lane.waiting_since = self._loop.time()
        for group in form_groups(mails):
            lane.put(group)

    def take_waiting(self, provider: str) -> list[Claimed]:
        """Take out what waits to go directly to a provider."""
        lanes = [it for it in self._lanes.values() if it.provider and provider in (it.provider, EVERYONE)]
        waiting = [one for lane in lanes for group in lane.take_all() for one in group]
        for lane in lanes:
            self._drop_if_empty(lane)
        return waiting

    def backlog_of(self, provider: str) -> int:
        """Count the groups that wait for a provider."""
        return sum(lane.backlog for lane in self._lanes.values() if lane.provider == provider)

    def busy_domains(self) -> list[str]:
        """Return the domains that have as much waiting as their lanes can use."""
        most = self._settings.per_destination * _WAITING_A_CONNECTION
        return [key for key, lane in self._lanes.items() if lane.plan.kind == "mx" and lane.backlog >= most]

    def stop(self) -> None:
        """Hire nobody any more, let go of what waits, and send idle couriers home."""
        self._stopping = True
        for lane in self._lanes.values():
            self._take_back(lane)
        while self._dismiss_one_idle():
            pass

    def staff(self) -> None:
        """Start couriers where they help; make room for lanes that have none by sending idle ones home."""
        if self._stopping:
            return
        self._hungry = 0
        self._hungry_providers.clear()
        unproven = self._count_unproven()
        wanting, some_idle = deque(self._by_turn()), True
        while wanting:
            lane = wanting.popleft()
            if not lane.proven and self._has_enough(lane.first.project_id, unproven):
                continue
            if not self._traffic.pacing.has_room(lane.provider):
                self._make_room(lane)
            elif self._slots > 0:
                self._hire(lane)
                unproven[lane.project] += not lane.proven
                if lane.couriers < min(lane.most_now, lane.backlog):
                    wanting.append(lane)
            elif lane.couriers == 0:
                some_idle = some_idle and self._dismiss_one_idle()
                self._hungry += not some_idle

    def _count_unproven(self) -> Counter[str]:
        """Count the couriers in unproven lanes by project; those that have none yet and want one are in it too."""
        counts: Counter[str] = Counter()
        for lane in self._lanes.values():
            if not lane.proven and (lane.couriers or lane.backlog):
                counts[lane.project if lane.couriers else lane.first.project_id] += lane.couriers
        return counts

    def _has_enough(self, project_id: str, unproven: Counter[str]) -> bool:
        """Tell whether unproven lanes have their half of the slots, and a project its equal part of that."""
        return unproven.total() >= self._most_unproven and unproven[project_id] >= self._most_unproven // len(unproven)

    def _by_turn(self) -> list[Lane]:
        wanting = [lane for lane in self._lanes.values() if lane.wants_courier]
        if len(wanting) > 1:
            at_work: Counter[str] = Counter()
            for lane in self._lanes.values():
                at_work[lane.project] += lane.couriers
            wanting.sort(key=lambda it: (it.couriers, it.first.priority, at_work[it.first.project_id], it.waiting_since))
        return wanting

    def _make_room(self, lane: Lane) -> None:
        """Free a connection of the lane's provider for it, if it has none: another lane's courier is sent home."""
        if lane.couriers:
            return
        others = (it for it in self._lanes.values() if it.provider == lane.provider)
        if not any(it.dismiss_idle() for it in others):
            self._hungry_providers.add(lane.provider)

    def _hire(self, lane: Lane) -> None:
        self._slots -= 1
        lane.couriers += 1
        lane.project = lane.first.project_id
        if lane.provider:
            self._traffic.pacing.take_connection(lane.provider)
        self._tasks.create_task(self._employ(lane), name=f"courier {lane.key}")

    async def _employ(self, lane: Lane) -> None:
        courier, began = Courier(self.office, lane), self._loop.time()
        try:
            while not self._stopping and (trip := await courier.next_trip(self._patience(lane))) is not None:
                await courier.carry(trip)
                if courier.is_surplus or self._must_leave(lane, began):
                    await courier.hand_over()
                    break
                if self._slots > 0 and lane.wants_courier:
                    self.staff()
        finally:
            await courier.put_back()
            if self._stopping:
                self._take_back(lane)
            self._slots += 1
            lane.couriers -= 1
            lane.waiting_since = self._loop.time()
            self._drop_if_empty(lane)
            self.staff()
            await self._dismiss(courier, lane)

    async def _dismiss(self, courier: Courier, lane: Lane) -> None:
        """Let a courier close its connection; until then it counts as one of the provider's."""
        try:
            await courier.go_home()
        finally:
            if lane.provider:
                self._traffic.pacing.return_connection(lane.provider)
                self._leaving -= Counter({lane.provider: 1})  # none is left below zero
                if lane.provider in self._hungry_providers:
                    self.staff()

    def _must_leave(self, lane: Lane, began: float) -> bool:
        """Tell whether a courier should leave the rest of its lane to others, or to another time."""
        if self._traffic.pacing.has_too_many(lane.provider, leaving=self._leaving[lane.provider]):
            self._leaving[lane.provider] += 1
            return True
        if not (self._hungry or lane.provider in self._hungry_providers):
            return False
        if lane.couriers == 1 and self._loop.time() - began < _SLICE_SECONDS:
            return False
        self._hungry = max(0, self._hungry - 1)  # this one's slot is enough for one of them
        self._hungry_providers.discard(lane.provider)
        return True

    def _patience(self, lane: Lane) -> float:
        """Return how many seconds a courier may wait for mail: none while another lane waits for its place."""
        wanted = self._hungry or lane.provider in self._hungry_providers
        return 0 if wanted and lane.backlog == 0 else self._settings.connection_idle_seconds

    def _take_back(self, lane: Lane) -> None:
        """Let go of what waits in a lane."""
        for group in lane.take_all():
            for one in group:
                self._let_go(one)

    def _drop_if_empty(self, lane: Lane) -> None:
        if lane.couriers or lane.backlog:
            return
        self._lanes.pop(lane.key, None)
        self._proven.pop(lane.key, None)
        if lane.proven:
            if len(self._proven) >= _REMEMBERED:
                self._proven.clear()
            self._proven[lane.key] = None

    def _dismiss_one_idle(self) -> bool:
        return any(lane.dismiss_idle() for lane in self._lanes.values())
