"""How does what was committed get into the file? By passes beside the writer, and in the end the log begins anew."""

import asyncio
import itertools
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import sqlalchemy as sa

from plunk_relay.db import checkpoints
from plunk_relay.db.checkpoints import LONG_BYTES, MOST_BYTES, MOST_CHANGES, Checkpoints, copy_pages, leave_mark
from plunk_relay.db.engine import Database, UnitConnection
from tests.db.units import add, add_each, names, pragma, stored

P = ParamSpec("P")
T = TypeVar("T")
_PATIENCE_SECONDS = 30
_LARGE = 500_000
FEW = MOST_CHANGES // 4


async def test_after_many_changes_the_file_has_what_was_committed(db: Database, path: Path) -> None:
    await _fill(db, MOST_CHANGES)
    await _until(db, lambda: _in_file(path) > MOST_CHANGES // 2)


async def test_few_changes_stay_in_the_log(db: Database, path: Path) -> None:
    await _fill(db, FEW)
    assert _in_file(path) == 0
    assert len(await stored(db)) == FEW


async def test_the_writer_copies_no_pages(db: Database) -> None:
    assert await pragma(db, "wal_autocheckpoint") == 0


async def test_a_log_that_is_long_begins_anew(db: Database, path: Path) -> None:
    log = path.with_name("relay.db-wal")
    for number in range(3 * MOST_BYTES // _LARGE):
        await db.write(add, f"{number:0{_LARGE}}")
    assert log.stat().st_size <= MOST_BYTES + LONG_BYTES
    await _until(db, lambda: log.stat().st_size <= MOST_BYTES)
    kept = log.stat().st_size
    for number in range(20):
        await db.write(add, f"later {number:0{_LARGE}}")
    assert log.stat().st_size == kept


async def test_a_log_begins_anew_although_something_is_committed_during_each_pass(path: Path) -> None:
    async with _checkpoints(path, copier=_BesideCommits) as (passes, writer):
        await writer.run(_write_a_long_log, writer.raw)
        await passes.run(MOST_CHANGES)
        await writer.run(leave_mark, writer.raw)
        assert await writer.run(copy_pages, writer.raw) == (1, 1)


async def test_a_log_goes_on_while_somebody_reads_in_an_old_state(path: Path) -> None:
    async with _checkpoints(path) as (passes, writer):
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_schema").fetchone()
            await writer.run(_write_a_long_log, writer.raw)
            await passes.run(MOST_CHANGES)
            await writer.run(leave_mark, writer.raw)
            log, copied = await writer.run(copy_pages, writer.raw)
            assert log * 4096 > LONG_BYTES
            assert copied < log
        await passes.run(2 * MOST_CHANGES)
        await writer.run(leave_mark, writer.raw)
        assert await writer.run(copy_pages, writer.raw) == (1, 1)


async def test_a_pass_leaves_something_and_so_waits_for_no_disk(path: Path) -> None:
    """SQLite's fsync of the file comes with the pass that copies everything."""
    async with _checkpoints(path) as (passes, writer):
        await writer.run(_write_a_log, writer.raw, 2_000_000)
        before = _count_pages(path)
        await passes.run(MOST_CHANGES)
        await writer.run(leave_mark, writer.raw)
        assert _count_pages(path) == before + 2, "it did not begin anew: both marks are behind it"


async def test_slow_passes_come_earlier_and_fast_ones_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _checkpoints(path) as (passes, _):
        due = [await _run_when_due(passes, 0)]
        monkeypatch.setattr(checkpoints, "_PASS_SECONDS", 0.0)
        for _ in range(5):
            due.append(await _run_when_due(passes, due[-1]))
        monkeypatch.setattr(checkpoints, "_PASS_SECONDS", 3600.0)
        for _ in range(3):
            due.append(await _run_when_due(passes, due[-1]))
        apart = [after - before for before, after in itertools.pairwise(due)]
        assert (due[0], apart) == (2000, [2000, 1000, 500, 250, 200, 200, 250, 312])


async def test_few_rows_that_are_large_make_a_pass_due(db: Database, path: Path) -> None:
    large = 20 << 20
    await db.write(add, "x" * large)
    await _until(db, lambda: path.stat().st_size > large)


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
        await _fill(db, MOST_CHANGES, word)
    go_on.set()
    before, after = await reading
    assert before == after
    assert len(before) == FEW
    await _fill(db, MOST_CHANGES, "at last")
    await _until(db, lambda: _in_file(path, "at last") > MOST_CHANGES // 2)


async def test_what_waits_for_a_pass_is_stored_when_the_database_is_closed(path: Path) -> None:
    db = await Database.open(path)
    await db.migrate(lambda raw: raw.execute("CREATE TABLE counters (name TEXT PRIMARY KEY, value INT, expires_at INT)"))
    await _fill(db, MOST_CHANGES)
    await db.close()
    assert not path.with_name("relay.db-wal").exists()
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as raw:
        assert raw.execute("SELECT count(*) FROM counters").fetchone() == (MOST_CHANGES,)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_mark_is_a_page_that_is_not_copied_yet(tmp_path: Path) -> None:
    """Or else a commit could begin the log anew while a pass begins."""
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        for _ in range(3):
            leave_mark(raw)
            assert copy_pages(raw) == (1, 1)


def test_a_mark_that_cannot_be_left_leaves_no_transaction_behind(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.set_authorizer(lambda _action, _name, value, *_: sqlite3.SQLITE_DENY if value else sqlite3.SQLITE_OK)
        with pytest.raises(sqlite3.DatabaseError):
            leave_mark(raw)
        assert not raw.in_transaction


async def test_one_pass_runs_at_a_time(path: Path) -> None:
    async with _checkpoints(path) as (passes, writer):
        await writer.run(leave_mark, writer.raw)
        assert passes.are_due(MOST_CHANGES)
        running = [asyncio.ensure_future(passes.run(MOST_CHANGES)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not passes.are_due(2 * MOST_CHANGES)
        assert [task.done() for task in running] == [False, True]
        await asyncio.gather(*running)
        assert not passes.are_due(MOST_CHANGES)
        assert passes.are_due(2 * MOST_CHANGES)


class _BesideCommits(UnitConnection):
    """A connection during whose every unit the writer commits something."""

    writer: UnitConnection | None = None

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do so."""
        result = await super().run(work, *args, **kwargs)
        if self.writer is not None:
            await self.writer.run(leave_mark, self.writer.raw)
        return result


@asynccontextmanager
async def _checkpoints(
    path: Path, copier: type[UnitConnection] = UnitConnection
) -> AsyncIterator[tuple[Checkpoints, UnitConnection]]:
    """Open a file without a Database; yield its passes and the writer."""
    writer, by, holder = await UnitConnection.open(path), await copier.open(path), await UnitConnection.open(path)
    if isinstance(by, _BesideCommits):
        by.writer = writer
    passes = Checkpoints(path, writer, by, holder)
    try:
        yield passes, writer
    finally:
        for connection in (*passes.connections, writer):
            await connection.shut()
        passes.close()


async def _run_when_due(passes: Checkpoints, changes: int) -> int:
    """Run a pass as soon as changes make it due; return their number then."""
    while not passes.are_due(changes):
        changes += 1
    await passes.run(changes)
    return changes


def _write_a_long_log(raw: sqlite3.Connection) -> None:
    _write_a_log(raw, LONG_BYTES + 10 * _LARGE)


def _write_a_log(raw: sqlite3.Connection, size: int) -> None:
    raw.execute("CREATE TABLE large (data BLOB)")
    for _ in range(size // _LARGE):
        raw.execute("INSERT INTO large VALUES (zeroblob(?))", (_LARGE,))


def _count_pages(path: Path) -> int:
    """Return how many pages the log has, by its size: it never began anew."""
    return (path.with_name(f"{path.name}-wal").stat().st_size - 32) // (4096 + 24)  # https://www.sqlite.org/fileformat.html


async def _fill(db: Database, count: int, word: str = "row") -> None:
    await db.write(add_each, [f"{word} {number}" for number in range(count)])


async def _until(db: Database, is_so: Callable[[], bool]) -> None:
    """Wait for a pass, with as many commits as one may take."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        number = 0
        while not is_so():
            number += 1
            await db.write(add, f"waiting {number}")


def _in_file(path: Path, word: str = "row") -> int:
    """Count the names that are in the file itself: not those on pages that were changed again, which are copied later."""
    return len(set(re.findall(rf"{word} [0-9]+".encode(), path.read_bytes())))
