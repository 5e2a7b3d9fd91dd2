"""What does a caller of the database get, and when?"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa

from plunk_relay.db.engine import Database
from plunk_relay.errors import SetupError, Unavailable
from tests.db.units import Refused, StatementTrace, add, add_and_refuse, add_each, names, pragma, refuse, stored

FAILING = [refuse, add_and_refuse]


async def test_a_unit_gives_its_result_when_it_is_stored(db: Database, path: Path) -> None:
    assert await db.write(add, "a", value=7) == "a"
    with sqlite3.connect(path) as stranger:
        assert stranger.execute("SELECT name, value FROM counters").fetchall() == [("a", 7)]
    stranger.close()


async def test_units_that_wait_together_share_one_commit(db: Database) -> None:
    trace = StatementTrace()
    await trace.watch(db)
    results = await asyncio.gather(*(db.write(add, str(number)) for number in range(50)))
    assert results == [str(number) for number in range(50)]
    assert trace.begun.count("COMMIT") == 1


async def test_a_success_is_not_answered_before_the_commit(db: Database) -> None:
    trace = StatementTrace(stop_before="COMMIT")
    await trace.watch(db)
    answers = [asyncio.ensure_future(db.write(add, name)) for name in ("a", "b")]
    joint = db.write_joint(add_each, "c")
    await asyncio.to_thread(trace.reached.wait, 10)
    assert [statement[:6] for statement in trace.begun].count("INSERT") == 3  # all done, but for the commit
    assert await stored(db) == []
    assert not any(answer.done() for answer in (*answers, joint))
    trace.go_on.set()
    assert await asyncio.gather(*answers, joint) == ["a", "b", "C"]
    assert await stored(db) == ["a", "b", "c"]


@pytest.mark.parametrize("failing", FAILING)
async def test_a_failing_unit_leaves_its_neighbours_in_the_group_committed(
    db: Database, failing: Callable[[sa.Connection], NoReturn]
) -> None:
    trace = StatementTrace()
    await trace.watch(db)
    before, refused, after = await asyncio.gather(
        db.write(add, "before"), db.write(failing), db.write(add, "after"), return_exceptions=True
    )
    assert (before, after) == ("before", "after")
    assert isinstance(refused, Refused)
    assert await stored(db) == ["after", "before"]
    assert trace.begun.count("COMMIT") == 1


async def test_a_unit_that_breaks_a_constraint_is_alone_in_it(db: Database) -> None:
    await db.write(add, "taken")
    taken, free = await asyncio.gather(db.write(add, "taken"), db.write(add, "free"), return_exceptions=True)
    assert isinstance(taken, sa.exc.IntegrityError)
    assert free == "free"
    assert await stored(db) == ["free", "taken"]


async def test_every_failing_unit_of_a_group_sees_its_own_error(db: Database) -> None:
    await db.write(add, "taken")
    outcomes = await asyncio.gather(
        db.write(add_and_refuse), db.write(add, "taken"), db.write(add, "kept"), db.write(refuse), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Refused, sa.exc.IntegrityError, str, Refused]
    assert await stored(db) == ["kept", "taken"]


async def test_a_joint_unit_runs_once_for_all_who_wait(db: Database) -> None:
    calls: list[list[str]] = []

    def add_jointly(tx: sa.Connection, items: list[str]) -> list[str]:
        calls.append(items)
        return add_each(tx, items)

    waiting = [db.write_joint(add_jointly, name) for name in ("a", "b", "c")]
    assert await asyncio.gather(*waiting) == ["A", "B", "C"]
    assert calls == [["a", "b", "c"]]


async def test_an_item_that_breaks_its_joint_unit_is_refused_alone(db: Database) -> None:
    await db.write(add, "taken")
    waiting = [db.write_joint(add_each, name) for name in ("a", "taken", "b")]
    other = db.write(add, "other")
    first, taken, last, beside = await asyncio.gather(*waiting, other, return_exceptions=True)
    assert (first, last, beside) == ("A", "B", "other")
    assert isinstance(taken, sa.exc.IntegrityError)
    assert await stored(db) == ["a", "b", "other", "taken"]


async def test_joint_units_of_different_kinds_keep_apart(db: Database) -> None:
    def shout(tx: sa.Connection, items: list[str]) -> list[str]:
        return [f"{add(tx, name)}!" for name in items]

    waiting = [db.write_joint(add_each, "a"), db.write_joint(shout, "b"), db.write_joint(add_each, "c")]
    assert await asyncio.gather(*waiting) == ["A", "b!", "C"]


async def test_a_caller_who_gives_up_changes_nothing_for_the_others(db: Database) -> None:
    gone = db.write_joint(add_each, "gone")
    waiting = db.write_joint(add_each, "waiting")
    gone.cancel()
    assert await waiting == "WAITING"
    assert await stored(db) == ["gone", "waiting"]


async def test_a_commit_that_fails_is_unavailable_for_every_caller(db: Database) -> None:
    await db.migrate(_forbid_commits)
    outcomes = await asyncio.gather(
        db.write(add, "a"), db.write(add, "b"), db.write_joint(add_each, "c"), db.write(refuse), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
    assert await stored(db) == []


async def test_the_group_after_a_failed_commit_is_stored(db: Database) -> None:
    await db.migrate(_forbid_commits)
    with pytest.raises(Unavailable):
        await db.write(add, "a")
    await db.migrate(lambda raw: raw.set_authorizer(None))
    await db.write(add, "b")
    assert await stored(db) == ["b"]


async def test_a_lock_that_another_process_does_not_give_back_is_unavailable(db: Database, path: Path) -> None:
    await pragma(db, "busy_timeout=0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        await db.write(add, "a")
    other.close()
    assert await db.write(add, "a") == "a"


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(sa.exc.OperationalError, match="readonly"):
        await db.read(add, "a")
    assert await stored(db) == []


async def test_a_unit_that_reads_sees_one_moment(db: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def look_twice(tx: sa.Connection) -> tuple[list[str], list[str]]:
        first = names(tx)
        begun.set()
        go_on.wait(10)
        return first, names(tx)

    looking = asyncio.ensure_future(db.read(look_twice))
    await asyncio.to_thread(begun.wait, 10)
    await db.write(add, "a")
    assert await stored(db) == ["a"]  # by the other reader: a long one holds up neither writers nor readers
    go_on.set()
    assert await looking == ([], [])


async def test_the_error_of_a_unit_that_reads_is_its_callers(db: Database) -> None:
    with pytest.raises(Refused):
        await db.read(refuse)
    assert await stored(db) == []


async def test_closing_finishes_what_waits(path: Path, db: Database) -> None:
    other = await Database.open(path)
    waiting = [other.write_joint(add_each, str(number)) for number in range(20)]
    await other.close()
    assert [future.result() for future in waiting] == [str(number) for number in range(20)]
    assert len(await stored(db)) == 20


async def test_a_write_after_closing_is_unavailable(path: Path) -> None:
    closed = await Database.open(path)
    await closed.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(closed.write(add, "late"), 10)


async def test_commits_are_synced_to_disk(db: Database) -> None:
    assert await pragma(db, "journal_mode") == "wal"
    assert await pragma(db, "synchronous") == 2  # FULL
    assert await pragma(db, "foreign_keys") == 1


@pytest.mark.parametrize("case", ["no directory", "a directory", "other bytes"])
async def test_a_file_that_cannot_be_opened_is_one_clear_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "relay.db"
    if case == "no directory":
        path = tmp_path / "absent" / "relay.db"
    elif case == "a directory":
        path.mkdir()
    else:
        path.write_bytes(b"This is no database. " * 500)
    with pytest.raises(SetupError) as caught:
        await Database.open(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def _forbid_commits(raw: sqlite3.Connection) -> None:
    def decide(action: int, argument: str | None, *_rest: str | None) -> int:
        return sqlite3.SQLITE_DENY if (action, argument) == (sqlite3.SQLITE_TRANSACTION, "COMMIT") else sqlite3.SQLITE_OK

    raw.set_authorizer(decide)


async def test_scans_take_turns_so_that_a_reader_is_free(db: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def scan(_tx: sa.Connection) -> None:
        begun.set()
        may_end.wait(30)

    scans = [asyncio.create_task(db.scan(scan)) for _ in range(2)]
    await asyncio.to_thread(begun.wait, 30)
    try:
        async with asyncio.timeout(10):
            assert await db.read(lambda tx: tx.execute(sa.text("SELECT 1")).scalar_one()) == 1
    finally:
        may_end.set()
        await asyncio.gather(*scans)
