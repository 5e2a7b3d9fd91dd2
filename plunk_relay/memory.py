"""What is remembered between two look-ups of the database? Small answers that hardly ever change, for a few seconds.

The process that changes a row forgets its kind at once, so a rotated key or a disabled project is felt by the next
request; the time limit is for other processes that share the database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
_ENTRIES = 10_000
_SECONDS = 30.0


class Memory:
    """Bounded memory of (kind, key) to value, shared by all tasks of the process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kinds: dict[str, dict[Hashable, tuple[float, Any]]] = {}
        self._generation: dict[str, int] = {}
        self._loading: dict[tuple[str, Hashable, int], asyncio.Future[Any]] = {}

    async def remember(
        self,
        kind: str,
        key: Hashable,
        load: Callable[[], Awaitable[T]],
        *,
        seconds: float = _SECONDS,
        entries: int = _ENTRIES,
    ) -> T:
        """Return the remembered value, or load it and remember it; None is not remembered.

        `entries` is how many of a kind are kept at most: fewer for large values. Who asks while it is being loaded waits for
        that. What was loaded while the kind was forgotten is returned but not kept: it may be from before the change.
        """
        kept = self._kinds.setdefault(kind, {}).get(key)
        now = self._monotonic()
        if kept is not None and now - kept[0] < seconds:
            return kept[1]  # type: ignore[no-any-return]  # stored under this kind and key by this very call
        generation = self._generation.get(kind, 0)
        value = await self._load_once(kind, key, generation, load)
        if value is not None and generation == self._generation.get(kind, 0):
            self._keep(kind, key, now, value, entries)
        return value

    async def _load_once(self, kind: str, key: Hashable, generation: int, load: Callable[[], Awaitable[T]]) -> T:
        place = (kind, key, generation)
        loading = self._loading.get(place)
        if loading is None:
            loading = self._loading[place] = asyncio.ensure_future(load())
            loading.add_done_callback(lambda _done: self._loading.pop(place, None))
        value: T = await asyncio.shield(loading)
        return value

    def forget(self, kind: str) -> None:
        """Drop everything of a kind; call it after the commit that changed it."""
        self._kinds.pop(kind, None)
        self._generation[kind] = self._generation.get(kind, 0) + 1

    def _keep(self, kind: str, key: Hashable, now: float, value: object, entries: int) -> None:
        kept = self._kinds.setdefault(kind, {})
        if len(kept) >= entries:
            kept.clear()
        kept[key] = (now, value)
