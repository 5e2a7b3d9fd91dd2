"""How do many small asks share one costly step? They wait while the step is busy, and go together when it is free."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Call `process` with everything that came in while its last call ran; results are in the order of the items."""

    def __init__(self, process: Callable[[list[Item]], Awaitable[Sequence[Result]]], *, most: int = 256) -> None:
        self._process = process
        self._most = most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, item: Item) -> asyncio.Future[Result]:
        """Queue one item; the future gets its result, or the exception of the batch it was in."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="batcher")
        return future

    async def settle(self) -> None:
        """Return when nothing is waiting or in work."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _work(self) -> None:
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
