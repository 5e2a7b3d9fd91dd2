"""How does what was committed get from the log into the file? On a connection and a thread of its own, beside the writer.

A checkpoint takes long, mostly of waiting for the disk, and done by the writer every unit would wait with it. So the work is
divided. Passes copy pages without waiting for the disk: SQLite's fsync comes only with a pass that copies everything, and
none of them does. When the log has become long, the pages are written early and gently (`writeback.py`), pass by pass until
few are left. Those the writer copies itself, with the fsync that has little to do now, and the log begins anew.

Two things keep each pass from copying everything: a reader that holds the state of before the pass, and a mark, a page that
is committed after that. They also keep us clear of a race of SQLite before 3.51.3 (https://www.sqlite.org/wal.html#walresetbug):
a checkpoint that starts while a commit begins the log anew may take new pages for copied ones. A log begins anew only when
all of it is copied; the mark is not, and only one checkpoint runs at a time.
"""

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plunk_relay.db.writeback import Writeback

if TYPE_CHECKING:
    from plunk_relay.db.engine import UnitConnection

LONG_BYTES = 64 << 20
"""A log that is longer begins anew as soon as it can."""
MOST_BYTES = 2 * LONG_BYTES
"""A log that was longer gives what is more back when it begins anew: that takes a while, so most logs stay below."""
MOST_CHANGES = 2_000
"""Changed rows after which a pass is due at the latest, and at first."""
PRAGMAS = ("wal_autocheckpoint=0", f"journal_size_limit={MOST_BYTES}")
"""For every connection: pages are copied here alone, and a log that was very long once gives its space back."""
_FEWEST_CHANGES = 200
_PASS_SECONDS = 0.002
"""A pass that takes longer slows commits down: the next one comes earlier."""
_GROWN_BYTES = 16 << 20
"""A pass is due as well when the log grew by so much: few rows may be large."""
_HELD_PAGES = 2_000
"""So many are left behind a pass only when somebody reads in an old state: until that ends the log cannot begin anew."""
_RESTS = (1.0, 0.5, 0.25, 0.0, 0.0, 0.0)
"""Of the sweeps before the log begins anew: each has less to write, and less time until more comes."""
_SWEPT_PAGES = 100
"""So few are written at once, with the length of the file."""
_MOST_SYNCS = 3
_LAST_PAGES = 30
"""So few are left to the writer: its own copying and fsync take a millisecond."""
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass found, in pages, and how long it took."""

    log: int
    copied: int
    """By this pass and earlier ones."""
    seconds: float


class Checkpoints:
    """Passes that copy pages, one at a time. The holder is a connection that nobody else reads by."""

    def __init__(self, path: Path, writer: "UnitConnection", copier: "UnitConnection", holder: "UnitConnection") -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._writeback = Writeback(path)
        self._writer = writer
        self._copier = copier
        self._holder = holder
        self._loop = asyncio.get_running_loop()
        self._changes = 0
        self._bytes = 0
        self._due = MOST_CHANGES
        self._running = False

    def are_due(self, changes: int) -> bool:
        """Tell whether to call `run` now; `changes` is how many rows the writer has ever changed."""
        if self._running:
            return False
        return changes - self._changes >= self._due or self._log.stat().st_size - self._bytes > _GROWN_BYTES

    async def run(self, changes: int) -> None:
        """Copy what is committed; let a log that is long begin anew. Raises what SQLite raises, and OSError."""
        if self._running:
            return
        self._running = True
        self._changes, self._bytes = changes, self._log.stat().st_size
        try:
            done = await self._copy()
            faster = done.seconds > _PASS_SECONDS
            self._due = max(self._due // 2, _FEWEST_CHANGES) if faster else min(self._due * 5 // 4, MOST_CHANGES)
            if done.log * _PAGE_BYTES > LONG_BYTES and done.log - done.copied < _HELD_PAGES:
                await self._begin_anew(done)
        finally:
            self._running = False

    @property
    def connections(self) -> "tuple[UnitConnection, UnitConnection]":
        """What is to be closed, beside the writer."""
        return self._copier, self._holder

    def close(self) -> None:
        """Let go of the file; every connection must be closed."""
        self._writeback.close()

    async def _begin_anew(self, done: Pass) -> None:
        """Copy and write until little is left, which the writer copies itself: so its next commit finds all of it copied."""
        for rest in _RESTS:
            await self._copier.run(self._writeback.sweep, rest=rest)
            before, done = done, await self._copy()
            if done.copied - before.copied <= _SWEPT_PAGES:
                break
        for _ in range(_MOST_SYNCS):
            await self._copier.run(self._writeback.finish)
            before, done = done, await self._copy()
            if done.copied - before.copied <= _LAST_PAGES:
                break
        await self._writer.run(copy_pages, self._writer.raw)

    async def _copy(self) -> Pass:
        await self._holder.run(hold_state, self._holder.raw)
        try:
            await self._writer.run(leave_mark, self._writer.raw)
            began = self._loop.time()
            log, copied = await self._copier.run(copy_pages, self._copier.raw)
            return Pass(log, copied, self._loop.time() - began)
        finally:
            await self._holder.run(self._holder.raw.rollback)


def hold_state(raw: sqlite3.Connection) -> None:
    """Begin to read: what is committed from now on is not copied until `rollback`."""
    raw.execute("BEGIN")
    raw.execute("SELECT 1 FROM sqlite_schema").fetchone()


def leave_mark(raw: sqlite3.Connection) -> None:
    """Commit a page as it is."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        raw.execute(f"PRAGMA user_version={raw.execute('PRAGMA user_version').fetchone()[0]}")
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def copy_pages(raw: sqlite3.Connection) -> tuple[int, int]:
    """Copy what no reader needs in its old state, without waiting for anybody.

    Return how many pages the log has, and how many of them are copied now.
    """
    _, log, copied = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(log), int(copied)
