"""How does mail to one destination wait? In a lane: groups that go in one transaction each, and couriers that take them.

A courier is one connection. A lane starts with a few and gains one for every message that gets through, up to the
setting; a failed connection or a 421 halves it, and from then on it takes ten messages to gain one. Until a session has
come about the lane is unproven and gets two at most: a destination that does not answer must not hold connections that
others need.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from plunk_relay.delivery.routes import RoutePlan
from plunk_relay.emails.queue import Claimed
from plunk_relay.mail.providers import NO_PROVIDER

_FIRST_COURIERS = 5
_UNPROVEN_COURIERS = 2
_SUCCESSES_A_STEP = 10
_RECIPIENTS_A_TRANSACTION = 100  # RFC 5321 4.5.3.1.8: every server takes at least so many
Group = list[Claimed]


class Lane:
    """The mail waiting for one destination."""

    def __init__(
        self, plan: RoutePlan, key: str, *, most_couriers: int, provider: str = NO_PROVIDER, proven: bool = True
    ) -> None:
        self.plan = plan
        self.key = key
        self.provider = provider
        """Whose exchangers take its mail; NO_PROVIDER when it goes another way, or nobody knows."""
        self.proven = proven
        """Whether a session came about when it was last tried."""
        self.couriers = 0
        self.project = ""
        """Whose mail the latest courier came for."""
        self.waiting_since = 0.0
        """Loop time at which it came about, or a courier left it."""
        self.allowed = min(_FIRST_COURIERS, most_couriers)
        self._most = most_couriers
        self._successes_a_step = 1
        self._successes = 0
        self._waiting: deque[Group] = deque()
        self._sleepers: deque[asyncio.Future[Group | None]] = deque()

    @property
    def backlog(self) -> int:
        """How many groups no courier has taken yet."""
        return len(self._waiting)

    @property
    def first(self) -> Claimed:
        """The mail that is next; there must be one."""
        return self._waiting[0][0]

    @property
    def wants_courier(self) -> bool:
        """Whether one more connection would help and is allowed."""
        return bool(self._waiting) and self.couriers < self.most_now

    @property
    def most_now(self) -> int:
        """How many connections it may have at present."""
        return self.allowed if self.proven else min(self.allowed, _UNPROVEN_COURIERS)

    def put(self, group: Group) -> None:
        """Hand a group to an idle courier, else let it wait behind those that are as urgent."""
        sleeper = self._wake_one()
        if sleeper is not None:
            sleeper.set_result(group)
            return
        place = len(self._waiting)
        while place > 0 and self._waiting[place - 1][0].priority > group[0].priority:
            place -= 1
        self._waiting.insert(place, group)

    def put_first(self, group: Group) -> None:
        """Let a group be the next one: the rest of a transaction."""
        self._waiting.appendleft(group)

    async def take(self, idle_seconds: float) -> Group | None:
        """Return the next group, waiting for it; None when the courier should go home."""
        if self._waiting:
            return self._waiting.popleft()
        if idle_seconds <= 0:
            return None
        sleeper: asyncio.Future[Group | None] = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        timer = asyncio.get_running_loop().call_later(idle_seconds, _send_home, sleeper)
        try:
            return await sleeper
        finally:
            timer.cancel()

    def take_ahead(self) -> Group | None:
        """Return a group to make ready while others are on the wire; None while other couriers could begin it now.

        Large messages wait in the database until their turn comes.
        """
        if len(self._waiting) < self.couriers or not self._waiting or not _is_small(self._waiting[0][0]):
            return None
        return self._waiting.popleft()

    def take_all(self) -> list[Group]:
        """Empty the lane: what waits shares the fate of the destination, or is given back."""
        groups = list(self._waiting)
        self._waiting.clear()
        return groups

    def dismiss_idle(self) -> bool:
        """Send one idle courier home; False when none is idle."""
        sleeper = self._wake_one()
        if sleeper is None:
            return False
        sleeper.set_result(None)
        return True

    def speed_up(self) -> None:
        """Count a success: allow one connection more, or do so after some more of them when it was too many before."""
        self._successes += 1
        if self._successes >= self._successes_a_step:
            self._successes = 0
            self.allowed = min(self.allowed + 1, self._most)

    def slow_down(self) -> None:
        """Halve the connections allowed."""
        self.allowed = max(1, self.allowed // 2)
        self._successes, self._successes_a_step = 0, _SUCCESSES_A_STEP

    def _wake_one(self) -> asyncio.Future[Group | None] | None:
        while self._sleepers:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                return sleeper
        return None


def _send_home(sleeper: asyncio.Future[Group | None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _is_small(claimed: Claimed) -> bool:
    return claimed.content is not None and claimed.email.attachments_id is None


def form_groups(claimed: Iterable[Claimed]) -> list[Group]:
    """Put recipients of one submitted message together when they can share a transaction; keep the order."""
    groups: list[Group] = []
    open_groups: dict[tuple[str | None, str], Group] = {}
    for one in claimed:
        key = (one.email.content_id, one.sender)
        group = open_groups.get(key) if one.kind == "MIME" else None
        if group is not None and len(group) < _RECIPIENTS_A_TRANSACTION:
            group.append(one)
        else:
            groups.append([one])
            open_groups[key] = groups[-1]
    return groups
