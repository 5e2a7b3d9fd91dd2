"""How does what was committed get from the log into the file? On a connection and a thread of its own, beside the writer.

A checkpoint of a thousand pages takes 10 ms and more, mostly of waiting for the disk, and done by the writer every unit
would wait with it. Here only two things are the writer's: a mark before each pass, and, when the log has become long, the
last step, which copies the few pages that came during the pass before; then the log begins anew.

The mark keeps us clear of a race of SQLite before 3.51.3 (https://www.sqlite.org/wal.html#walresetbug): a checkpoint that
starts while a commit begins the log anew may take new pages for copied ones. A log begins anew only when all of it is
copied. The mark is a page that is not, and only one checkpoint runs at a time: so during a pass no log begins anew.
"""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plunk_relay.db.engine import UnitConnection

LONG_BYTES = 64 << 20
"""A log that is longer begins anew as soon as it can."""
CHANGES = 2_000
"""Changed rows after which a pass is due: several thousand pages, of which many are written again and again."""
PRAGMAS = ("wal_autocheckpoint=0", f"journal_size_limit={LONG_BYTES}")
"""For every connection: pages are copied here alone, and a log that was longer once gives its space back."""
_FEW_PAGES = 200
_MOST_PASSES = 5
_PAGE_BYTES = 4096


class Checkpoints:
    """Passes that copy pages, one at a time."""

    def __init__(self, path: Path, writer: "UnitConnection", copier: "UnitConnection") -> None:
        self._log = path.with_name(f"{path.name}-wal")
        self._writer = writer
        self._copier = copier
        self._changes = 0
        self._running = False

    def are_due(self, changes: int) -> bool:
        """Tell whether to call `run` now; `changes` is how many rows the writer has ever changed."""
        if self._running:
            return False
        return changes - self._changes >= CHANGES or self._log.stat().st_size > LONG_BYTES

    async def run(self, changes: int) -> None:
        """Copy what is committed; let a log that is long begin anew. Raises what SQLite raises."""
        if self._running:
            return
        self._running, self._changes = True, changes
        try:
            pages = await self._copy()
            if pages * _PAGE_BYTES > LONG_BYTES:
                await self._begin_anew(pages)
        finally:
            self._running = False

    async def _begin_anew(self, pages: int) -> None:
        """Copy until little is left, which the writer copies itself: so its next commit finds all of it copied."""
        for _ in range(_MOST_PASSES):
            before, pages = pages, await self._copy()
            if pages - before <= _FEW_PAGES:
                break
        await self._writer.run(copy_pages, self._writer.raw)

    async def _copy(self) -> int:
        await self._writer.run(leave_mark, self._writer.raw)
        return await self._copier.run(copy_pages, self._copier.raw)


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


def copy_pages(raw: sqlite3.Connection) -> int:
    """Copy what no reader needs in its old state, without waiting for anybody; return how many pages the log had."""
    _, pages, _ = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)
