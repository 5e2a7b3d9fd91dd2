"""How does a worker loop?"""

import asyncio
from collections.abc import Callable

from plunk_relay.workers import poll, wait_any

FOREVER = 3600.0


async def test_work_goes_on_without_waiting_until_there_is_none() -> None:
    work = Work([True, True, True, False])
    await work.until_idle()
    assert work.rounds == 4
    await work.end()


async def test_a_wake_makes_the_worker_look_again() -> None:
    work = Work([])
    await work.until_idle()
    work.wake.set()
    await work.until_idle()
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.rounds == 2  # one wake, one look
    await work.end()


async def test_a_wake_that_comes_during_the_work_is_not_lost() -> None:
    work = Work([])
    work.during = work.wake.set
    await work.until_idle()
    work.during = bool
    await work.until_idle()
    assert work.rounds == 2
    await work.end()


async def test_the_timer_makes_the_worker_look_again() -> None:
    work = Work([], every_seconds=0.001)
    for _ in range(3):
        await work.until_idle()
    assert work.rounds >= 3
    await work.end()


async def test_stop_ends_a_worker_that_waits() -> None:
    work = Work([])
    await work.until_idle()
    await work.end()
    assert work.rounds == 1


async def test_stop_ends_a_worker_that_always_has_work() -> None:
    work = Work([True] * 1000)
    for _ in range(5):
        await asyncio.sleep(0)
    await work.end()
    assert 1 <= work.rounds < 1000


async def test_waiting_ends_with_the_first_event_or_the_time() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    await wait_any(first, second, timeout_seconds=0)
    second.set()
    await asyncio.wait_for(wait_any(first, second, timeout_seconds=FOREVER), 10)


class Work:
    """A worker whose rounds are counted; `answers` says after each whether there may be more."""

    def __init__(self, answers: list[bool], *, every_seconds: float = FOREVER) -> None:
        self.rounds = 0
        self.during: Callable[[], object] = bool
        self.wake, self._stop, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._answers = answers
        self._task = asyncio.create_task(poll(self._run_once, wake=self.wake, stop=self._stop, every_seconds=every_seconds))

    async def until_idle(self) -> None:
        """Wait for the next round that finds nothing more to do."""
        self._idle.clear()
        await asyncio.wait_for(self._idle.wait(), 10)

    async def end(self) -> None:
        """Stop the worker and wait for it."""
        self._stop.set()
        await asyncio.wait_for(self._task, 10)

    async def _run_once(self) -> bool:
        self.rounds += 1
        self.during()
        more = self._answers.pop(0) if self._answers else False
        if not more:
            self._idle.set()
        return more
