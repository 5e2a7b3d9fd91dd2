"""How is a job divided? Into batches, each done in one unit of work together with the note of how far the job is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import sqlalchemy as sa

Cursor = Mapping[str, Any]
"""How far a job is and its counts so far: what goes on from here, in this process or the next."""
MOST_ERRORS = 1000
"""Errors that a result tells; all are counted."""


class Refused(Exception):
    """The job cannot be done, however often it is tried; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a batch leads to."""

    cursor: Cursor
    percent: int
    """Of the whole job, at most 99: it is not over before its result is stored."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a job, prepared outside its unit."""

    apply: Callable[["sa.Connection", datetime], Step]
    """Do it; may run twice, so it changes nothing but rows."""
    pass_over: Callable[[], Step] | None = None
    """What is noted when it cannot be done; None: the job breaks off."""


class Run(Protocol):
    """A job being done."""

    async def prepare(self, cursor: Cursor) -> Batch | None:
        """Return what comes behind the cursor, None when that is nothing; raises Refused."""
        ...

    def result(self, cursor: Cursor) -> dict[str, Any]:
        """Return what is told at the end."""
        ...


def percent(done: int, total: int) -> int:
    """Return whole percent of a job that is not over."""
    return min(99, done * 100 // total) if total > 0 else 0
