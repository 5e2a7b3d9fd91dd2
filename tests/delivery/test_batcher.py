"""How do many small asks share one costly step?"""

import asyncio
from collections.abc import Sequence

import pytest

from plunk_relay.batcher import Batcher


class Work:
    """Doubles numbers in batches that the test lets through one by one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = self.most_running = 0
        self.gate = asyncio.Semaphore(0)

    async def double(self, numbers: list[int]) -> Sequence[int]:
        """Return the doubles; a negative number spoils its batch."""
        self.batches.append(numbers)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await self.gate.acquire()
        finally:
            self.running -= 1
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]

    def open(self) -> None:
        """Let everything through."""
        for _ in range(1000):
            self.gate.release()


async def test_what_comes_in_while_it_is_busy_goes_together() -> None:
    work = Work()
    batcher = Batcher(work.double, most=4, parallel=1)
    first = batcher.add(1)
    await asyncio.sleep(0)
    rest = [batcher.add(number) for number in range(2, 8)]
    work.open()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10, 12, 14]
    assert work.batches == [[1], [2, 3, 4, 5], [6, 7]]


async def test_so_many_steps_run_at_once_and_no_more() -> None:
    work = Work()
    batcher = Batcher(work.double, most=1, parallel=3)
    waiting = [batcher.add(number) for number in range(10)]
    await asyncio.sleep(0)
    assert work.running == 3
    work.open()
    assert await asyncio.gather(*waiting) == [2 * number for number in range(10)]
    assert work.most_running == 3


async def test_a_failure_is_the_whole_batch_s_and_no_other_s() -> None:
    work = Work()
    batcher = Batcher(work.double, most=2, parallel=1)
    waiting = [batcher.add(number) for number in (1, -2, 3, 4)]
    work.open()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, int, int]
    assert await batcher.add(5) == 10


async def test_who_gives_up_does_not_spoil_the_batch() -> None:
    work = Work()
    batcher = Batcher(work.double, most=10, parallel=1)
    patient, impatient = batcher.add(1), batcher.add(2)
    impatient.cancel()
    work.open()
    assert await patient == 2
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_it_starts_again_after_a_rest() -> None:
    work = Work()
    work.open()
    batcher = Batcher(work.double, most=2, parallel=1)
    for number in range(3):
        assert await batcher.add(number) == 2 * number
