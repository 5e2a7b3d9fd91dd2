"""What does the database do when the disk refuses to write?"""

import asyncio
import errno
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from plunk_relay.db import checkpoints
from plunk_relay.db.checkpoints import MOST_CHANGES
from plunk_relay.db.engine import Database
from plunk_relay.db.migrate import migrate
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import counters
from plunk_relay.db.writeback import Writeback
from plunk_relay.errors import Unavailable
from tests.db.units import NEW_YEAR, add, add_and_refuse, add_each, pragma, stored

BULK = "x" * 200_000
_PATIENCE_SECONDS = 30
_INSERT = Prepared(sa.insert(counters))


def add_bulk(tx: sa.Connection) -> None:
    """Store a large row through Core."""
    add(tx, BULK)


def add_bulk_prepared(tx: sa.Connection) -> None:
    """Store a large row through a prepared statement."""
    _INSERT.run(tx, {"name": BULK, "value": 0, "expires_at": NEW_YEAR})


def add_bulk_jointly(tx: sa.Connection, items: Sequence[None]) -> list[None]:
    """Store a large row for a group."""
    add(tx, BULK)
    return [None] * len(items)


@pytest.fixture
async def full(db: Database) -> Database:
    """Return a database that cannot grow."""
    pages = await pragma(db, "page_count")
    await pragma(db, f"max_page_count={pages}")
    return db


@pytest.mark.parametrize("work", [add_bulk, add_bulk_prepared])
async def test_a_full_disk_is_unavailable_and_stores_nothing_of_the_group(
    full: Database, work: Callable[[sa.Connection], None]
) -> None:
    outcomes = await asyncio.gather(full.write(add, "neighbour"), full.write(work), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await stored(full) == []


async def test_a_full_disk_is_unavailable_for_a_joint_unit(full: Database) -> None:
    waiting = [full.write_joint(add_bulk_jointly, None) for _ in range(3)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3


async def test_a_full_disk_goes_before_a_failure_that_a_neighbour_has_of_its_own(full: Database) -> None:
    outcomes = await asyncio.gather(full.write(add_and_refuse), full.write(add_bulk), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await stored(full) == []


async def test_writing_goes_on_when_there_is_room_again(full: Database) -> None:
    with pytest.raises(Unavailable):
        await full.write(add_bulk)
    await pragma(full, "max_page_count=100000")
    await full.write(add, "later")
    assert await stored(full) == ["later"]
    assert full.failure is None


async def test_a_file_that_became_read_only_is_unavailable(db: Database) -> None:
    await pragma(db, "query_only=ON")
    with pytest.raises(Unavailable):
        await db.write(add, "refused")
    await pragma(db, "query_only=OFF")
    await db.write(add, "later")
    assert await stored(db) == ["later"]


@pytest.mark.parametrize("work", [add_bulk, add_bulk_prepared])
async def test_a_file_that_becomes_read_only_under_a_unit_is_unavailable_for_the_group(
    db: Database, work: Callable[[sa.Connection], None]
) -> None:
    def write_at_a_bad_moment(tx: sa.Connection) -> None:
        tx.exec_driver_sql("PRAGMA query_only=ON")
        work(tx)

    outcomes = await asyncio.gather(db.write(add, "neighbour"), db.write(write_at_a_bad_moment), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await stored(db) == []


async def test_a_write_that_the_system_refuses_is_unavailable_and_passes(db: Database, path: Path) -> None:
    with _largest_file(path.with_name("relay.db-wal").stat().st_size + 5000):
        with pytest.raises(Unavailable):
            await db.write(add_bulk)
        assert await stored(db) == []
    await db.write(add, "later")
    assert await stored(db) == ["later"]
    assert db.failure is None


async def test_a_checkpoint_that_the_system_refuses_stops_nothing(path: Path) -> None:
    db = await Database.open(path)
    await migrate(db, path)
    for number in range(5):
        await db.write(add, f"{number}{BULK}")
    await db.close()  # everything is in the file
    size = (await asyncio.to_thread(path.stat)).st_size
    again = await Database.open(path)
    try:
        with structlog.testing.capture_logs() as lines, _largest_file(size + 5000):
            await again.write(add_each, [f"row {number}" for number in range(MOST_CHANGES)])
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not lines:
                    await again.write(add, f"meanwhile {len(await stored(again))}")
        assert [line["event"] for line in lines] == ["checkpoint failed"]
        assert again.failure is None
        await again.write(add, "later")
    finally:
        await again.close()
    assert not path.with_name("relay.db-wal").exists()


async def test_after_a_failed_sync_nothing_is_written_any_more(db: Database) -> None:
    await db.write(add, "before")
    outcomes = await asyncio.gather(db.write(add, "neighbour"), db.write(_fail_to_sync), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert db.failure is not None
    assert "restart" in db.failure
    with pytest.raises(Unavailable):
        await db.write(add, "after")
    with pytest.raises(Unavailable):
        await db.write_joint(add_each, "after")
    assert await stored(db) == ["before"]  # what is there can still be read


async def test_a_failed_sync_is_told_once_and_loudly(db: Database) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await db.write(_fail_to_sync)
    assert [line["log_level"] for line in lines] == ["error", "critical"]


async def test_after_pages_could_not_be_written_early_nothing_is_written_any_more(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: Writeback) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Writeback, "finish", fail)
    monkeypatch.setattr(checkpoints, "LONG_BYTES", 0)
    await db.write(add_each, [f"row {number}" for number in range(MOST_CHANGES)])
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while db.failure is None:
            await stored(db)
    assert "Input/output error" in db.failure
    with pytest.raises(Unavailable):
        await db.write(add, "after")


async def test_the_log_of_a_failure_shows_no_values(full: Database) -> None:
    with structlog.testing.capture_logs() as lines, pytest.raises(Unavailable):
        await full.write(add_bulk)
    assert "full" in lines[0]["error"]
    assert BULK[:20] not in str(lines)


async def test_the_error_of_a_statement_shows_no_values(db: Database) -> None:
    await db.write(add, "secret-value")
    with pytest.raises(sa.exc.IntegrityError) as caught:
        await db.write(add, "secret-value")
    assert "secret-value" not in str(caught.value)


def _fail_to_sync(tx: sa.Connection) -> None:
    """Fail as SQLite does when fsync(2) fails; tests/process/test_disk.py lets the real one fail."""
    add(tx, "undone")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    raise error


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let writes beyond a size fail with EFBIG, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
