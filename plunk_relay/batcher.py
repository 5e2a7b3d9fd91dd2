"""How do many small asks share a costly step? They wait while it is busy, and go together when it is free."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Call `process` with what came in while its calls ran, `parallel` at once; results are in the order of the items."""

    def __init__(self, process: Callable[[list[Item]], Awaitable[Sequence[Result]]], *, most: int, parallel: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._most = most
        self._parallel = parallel
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0

    def add(self, item: Item) -> asyncio.Future[Result]:
        """Queue one item; the future gets its result, or the exception of the batch it was in."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append((item, future))
        if self._working < self._parallel:
            self._working += 1
            task = self._loop.create_task(self._work(), name="batcher")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _work(self) -> None:
        try:
            await self._empty()
        finally:
            self._working -= 1  # at once: who is woken by the last result may add the next item before the task is done

    async def _empty(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                results = await self._process([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001  every waiter of the batch must hear of it
                _fail(batch, error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(batch: list[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
