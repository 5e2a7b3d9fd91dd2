"""How fast are jobs done? At full speed while nobody else writes; beside others in small bites, with a rest behind each.

Whoever asks for something waits for what is being written then. So jobs leave half of the time to those who ask.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from plunk_relay.clock import Clock
from plunk_relay.db.engine import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

P = ParamSpec("P")
T = TypeVar("T")

_REMEMBERED_SECONDS = 0.05
_LONGEST_REST_SECONDS = 0.1


class Pace:
    """The pace of all jobs together: they do not give way to each other."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._own = 0
        self._others = 0
        self._seen: float | None = None

    @property
    def gives_way(self) -> bool:
        """Tell whether somebody else wrote a moment ago."""
        return self._seen is not None and self._clock.monotonic() - self._seen < _REMEMBERED_SECONDS

    async def write(self, work: Callable[Concatenate["sa.Connection", P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a unit of a job as `Database.write` does, and rest behind it; not at all while nobody else writes."""
        self._own += 1
        began = self._clock.monotonic()
        result = await self._db.write(work, *args, **kwargs)
        ended = self._clock.monotonic()
        others = self._db.writes - self._own
        if others > self._others:
            self._seen = ended
        self._others = others
        await asyncio.sleep(min(ended - began, _LONGEST_REST_SECONDS) if self.gives_way else 0)
        return result
