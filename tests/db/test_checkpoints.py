"""How does what was committed get into the file? By passes beside the writer, and in the end the log begins anew."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import sqlalchemy as sa

from plunk_relay.db.checkpoints import CHANGES, LONG_BYTES, Checkpoints, copy_pages, leave_mark
from plunk_relay.db.engine import Database, UnitConnection
from tests.db.units import add, add_each, names, pragma, stored

P = ParamSpec("P")
T = TypeVar("T")
_PATIENCE_SECONDS = 30
_LARGE = 500_000
FEW = CHANGES // 4


async def test_after_many_changes_the_file_has_what_was_committed(db: Database, path: Path) -> None:
    await _fill(db, CHANGES)
    await _until(db, lambda: len(_without_log(path)) >= CHANGES)


async def test_few_changes_stay_in_the_log(db: Database, path: Path) -> None:
    await _fill(db, FEW)
    assert _without_log(path) == []
    assert len(await stored(db)) == FEW


async def test_the_writer_copies_no_pages(db: Database) -> None:
    assert await pragma(db, "wal_autocheckpoint") == 0


async def test_a_log_that_is_long_begins_anew(db: Database, path: Path) -> None:
    log = path.with_name("relay.db-wal")
    for number in range(LONG_BYTES // _LARGE + 10):
        await db.write(add, f"{number:0{_LARGE}}")
    await _until(db, lambda: log.stat().st_size <= LONG_BYTES)
    kept = log.stat().st_size
    for number in range(20):
        await db.write(add, f"later {number:0{_LARGE}}")
    assert log.stat().st_size == kept


async def test_a_log_begins_anew_although_something_is_committed_during_each_pass(path: Path) -> None:
    writer, copier = await UnitConnection.open(path), await _BesideCommits.open(path)
    assert isinstance(copier, _BesideCommits)
    copier.writer = writer
    try:
        await writer.run(_write_a_long_log, writer.raw)
        await Checkpoints(path, writer, copier).run(CHANGES)
        await writer.run(leave_mark, writer.raw)
        assert await writer.run(copy_pages, writer.raw) == 1
    finally:
        await copier.shut()
        await writer.shut()


async def test_a_reader_sees_what_it_saw_whatever_is_copied_meanwhile(db: Database, path: Path) -> None:
    await _fill(db, FEW)
    begun, go_on, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def read_slowly(tx: sa.Connection) -> tuple[list[str], list[str]]:
        before = names(tx)
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(_PATIENCE_SECONDS)
        return before, names(tx)

    reading = asyncio.ensure_future(db.read(read_slowly))
    await begun.wait()
    for word in ("later", "much later"):
        await _fill(db, CHANGES, word)
    go_on.set()
    before, after = await reading
    assert before == after
    assert len(before) == FEW
    await _fill(db, CHANGES, "at last")
    await _until(db, lambda: len(_without_log(path)) >= FEW + 3 * CHANGES)


async def test_what_waits_for_a_pass_is_stored_when_the_database_is_closed(path: Path) -> None:
    db = await Database.open(path)
    await db.migrate(lambda raw: raw.execute("CREATE TABLE counters (name TEXT PRIMARY KEY, value INT, expires_at INT)"))
    await _fill(db, CHANGES)
    await db.close()
    assert len(_without_log(path)) == CHANGES
    assert not path.with_name("relay.db-wal").exists()


def test_a_mark_is_a_page_that_is_not_copied_yet(tmp_path: Path) -> None:
    """Or else a commit could begin the log anew while a pass begins."""
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        for _ in range(3):
            leave_mark(raw)
            assert copy_pages(raw) == 1


def test_a_mark_that_cannot_be_left_leaves_no_transaction_behind(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.set_authorizer(lambda _action, _name, value, *_: sqlite3.SQLITE_DENY if value else sqlite3.SQLITE_OK)
        with pytest.raises(sqlite3.DatabaseError):
            leave_mark(raw)
        assert not raw.in_transaction


async def test_one_pass_runs_at_a_time(path: Path) -> None:
    writer, copier = await UnitConnection.open(path), await UnitConnection.open(path)
    passes = Checkpoints(path, writer, copier)
    try:
        await writer.run(leave_mark, writer.raw)
        assert passes.are_due(CHANGES)
        running = [asyncio.ensure_future(passes.run(CHANGES)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not passes.are_due(2 * CHANGES)
        assert [task.done() for task in running] == [False, True]
        await asyncio.gather(*running)
        assert not passes.are_due(2 * CHANGES - 1)
        assert passes.are_due(2 * CHANGES)
    finally:
        await copier.shut()
        await writer.shut()


class _BesideCommits(UnitConnection):
    """A connection during whose every unit the writer commits something."""

    writer: UnitConnection | None = None

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do so."""
        result = await super().run(work, *args, **kwargs)
        if self.writer is not None:
            await self.writer.run(leave_mark, self.writer.raw)
        return result


def _write_a_long_log(raw: sqlite3.Connection) -> None:
    raw.execute("CREATE TABLE large (data BLOB)")
    for _ in range(LONG_BYTES // _LARGE + 10):
        raw.execute("INSERT INTO large VALUES (zeroblob(?))", (_LARGE,))


async def _fill(db: Database, count: int, word: str = "row") -> None:
    await db.write(add_each, [f"{word} {number}" for number in range(count)])


async def _until(db: Database, is_so: Callable[[], bool]) -> None:
    """Wait for a pass, with as many commits as one may take."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        number = 0
        while not is_so():
            number += 1
            await db.write(add, f"waiting {number}")


def _without_log(path: Path) -> list[str]:
    """Return the names that are in the file itself."""
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as raw:
        try:
            return [row[0] for row in raw.execute("SELECT name FROM counters")]
        except sqlite3.DatabaseError:
            return []  # in the middle of a pass
