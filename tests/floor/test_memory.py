"""What is remembered, for how long, and what makes it be forgotten?"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.memory import Memory


class Source:
    """What is looked up: counts how often, and can be held up."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> object:
        """Return what the value was at the beginning."""
        self.loads += 1
        value = self.value
        await self.gate.wait()
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def memory(clock: ManualClock) -> Memory:
    """Return an empty memory."""
    return Memory(clock.monotonic)


async def test_a_value_is_loaded_once(memory: Memory) -> None:
    source = Source()
    assert [await memory.remember("kind", "key", source.load) for _ in range(3)] == ["value"] * 3
    assert source.loads == 1


async def test_a_value_is_loaded_again_when_its_time_is_over(memory: Memory, clock: ManualClock) -> None:
    source = Source()
    await memory.remember("kind", "key", source.load, seconds=10)
    clock.advance(seconds=9.9)
    await memory.remember("kind", "key", source.load, seconds=10)
    assert source.loads == 1
    clock.advance(seconds=0.1)
    source.value = "new"
    assert await memory.remember("kind", "key", source.load, seconds=10) == "new"


async def test_kinds_and_keys_are_kept_apart(memory: Memory) -> None:
    for kind, key in (("a", "x"), ("a", "y"), ("b", "x")):
        assert await memory.remember(kind, key, Source(kind + key).load) == kind + key


async def test_nothing_is_not_remembered(memory: Memory) -> None:
    source = Source(None)
    assert await memory.remember("kind", "key", source.load) is None
    source.value = "there now"
    assert await memory.remember("kind", "key", source.load) == "there now"


async def test_a_kind_is_forgotten_alone(memory: Memory) -> None:
    one, other = Source("old"), Source("other")
    await memory.remember("one", "key", one.load)
    await memory.remember("other", "key", other.load)
    one.value = "new"
    memory.forget("one")
    assert await memory.remember("one", "key", one.load) == "new"
    await memory.remember("other", "key", other.load)
    assert other.loads == 1


async def test_who_asks_while_it_is_loaded_waits_for_that(memory: Memory) -> None:
    source = Source()
    answers = await _ask_while_held_up(source, [lambda: memory.remember("kind", "key", source.load)] * 5)
    assert answers == ["value"] * 5
    assert source.loads == 1


async def test_one_who_gives_up_does_not_take_the_others_answer(memory: Memory) -> None:
    source = Source()
    source.gate.clear()
    first, second = (asyncio.create_task(memory.remember("kind", "key", source.load)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == "value"


async def test_what_was_loaded_before_the_change_is_not_kept(memory: Memory) -> None:
    source = Source("old")
    source.gate.clear()
    asking = asyncio.create_task(memory.remember("kind", "key", source.load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.value = "new"
    memory.forget("kind")
    source.gate.set()
    assert await asking == "old"
    assert await memory.remember("kind", "key", source.load) == "new"


async def test_who_asks_after_the_change_does_not_wait_for_what_is_old(memory: Memory) -> None:
    source = Source("old")
    source.gate.clear()
    before = asyncio.create_task(memory.remember("kind", "key", source.load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.value = "new"
    memory.forget("kind")
    after = asyncio.create_task(memory.remember("kind", "key", source.load))
    source.gate.set()
    assert [await before, await after] == ["old", "new"]


async def test_a_failure_is_told_to_all_who_wait_and_not_remembered(memory: Memory) -> None:
    source = Source(LookupError())
    answers = await _ask_while_held_up(source, [lambda: memory.remember("kind", "key", source.load)] * 2)
    assert [type(answer) for answer in answers] == [LookupError, LookupError]
    source.value = "well again"
    assert await memory.remember("kind", "key", source.load) == "well again"


async def test_memory_is_bounded(memory: Memory) -> None:
    for number in range(10_001):
        await memory.remember("kind", number, Source().load)
    source = Source()
    await memory.remember("kind", 0, source.load)
    assert source.loads == 1  # it was dropped to make room


async def _ask_while_held_up(source: Source, asks: list[Callable[[], Awaitable[object]]]) -> list[object]:
    source.gate.clear()
    waiting = [asyncio.ensure_future(ask()) for ask in asks]
    await asyncio.sleep(0)
    source.gate.set()
    return list(await asyncio.gather(*waiting, return_exceptions=True))


async def test_of_large_values_fewer_are_kept(memory: Memory) -> None:
    source = Source()
    for key in range(3):
        await memory.remember("kind", key, source.load, entries=2)
    assert source.loads == 3
    await memory.remember("kind", 2, source.load, entries=2)
    assert source.loads == 3
    await memory.remember("kind", 0, source.load, entries=2)
    assert source.loads == 4
