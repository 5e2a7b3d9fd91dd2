"""How does work reach the database? As units: plain synchronous functions that take a SQLAlchemy Core connection.

One writer and a few readers, each an aiosqlite connection whose thread runs whole units; two more copy what was committed
from the log into the file (`checkpoints.py`). The writer commits in groups: it takes every waiting unit, runs all in one
transaction, commits once (one fsync for all), and only then resolves their futures. When a unit raises after it wrote, the
group starts again with a savepoint around each unit, so that its changes go, its neighbours' stay, and only its caller sees
the error: a unit must be a function that may run twice. When the commit fails, every caller of the group sees `Unavailable`
and nothing was stored. While several units come at a time a group waits for a millisecond, so that more share its commit;
one that comes alone never waits.

A full disk or a failed write passes: the next group is tried as if nothing had happened. Another I/O error, such as a
failed fsync, does not: what the disk holds is not known then, so nothing is written until the relay starts again.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite
import orjson
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from plunk_relay.db.checkpoints import PRAGMAS, Checkpoints, leave_mark
from plunk_relay.errors import SetupError, Unavailable
from plunk_relay.log import get_logger

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Work = Callable[[sa.Connection, list[Any]], Sequence[Any]]
Waiting = tuple[Work, Any, asyncio.Future[Any]]
Outcome = tuple[Exception | None, object]
_PRAGMAS = ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "cache_size=-8000", *PRAGMAS)
_STORAGE_FAILURES = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_PASSING_IO_FAILURES = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)  # as over a quota or with a full disk
_BUSY_UNITS = 3
_GATHER_SECONDS = 0.001
log = get_logger("db")


class UnitConnection(aiosqlite.Connection):
    """An aiosqlite connection whose thread runs whole functions, with Core on the same raw connection."""

    core: sa.Connection
    pending = 0

    @classmethod
    async def open(cls, path: Path, *pragmas: str) -> "UnitConnection":
        """Connect to the file; `pragmas` are executed after the usual ones."""
        connect = partial(sqlite3.connect, path, isolation_level=None, cached_statements=256)
        connection = cls(connect, iter_chunk_size=64)
        try:
            await connection
        except BaseException:
            connection._thread.join()  # aiosqlite told it to end and does not wait: it would outlive the loop
            raise
        try:
            connection.core = await connection.run(connection._open_core, pragmas)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _open_core(self, pragmas: tuple[str, ...]) -> sa.Connection:
        raw = self.raw
        for pragma in (*_PRAGMAS, *pragmas):
            raw.execute(f"PRAGMA {pragma}")
        engine = sa.create_engine(
            "sqlite://",
            creator=lambda: raw,
            poolclass=StaticPool,
            json_serializer=dump_json,
            json_deserializer=load_json,
            skip_autocommit_rollback=False,
            hide_parameters=True,  # they hold bodies and keys, and errors are logged
        )
        return engine.connect()

    @property
    def raw(self) -> sqlite3.Connection:
        """The sqlite3 connection; only for code that runs on this connection's thread."""
        return self._conn

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the connection's thread and return its result."""
        self.pending += 1
        try:
            result: T = await self._execute(work, *args, **kwargs)  # type: ignore[no-untyped-call]  # aiosqlite has no types here
            return result
        finally:
            self.pending -= 1

    async def shut(self) -> None:
        """Close Core and the connection."""
        await self.run(self.core.close)
        await self.close()


def dump_json(value: object) -> str:
    """Write a JSON column."""
    return orjson.dumps(value, default=str).decode()


def load_json(stored: Any) -> Any:
    """Read a JSON column: SQLite keeps it as text, but a bare number as a number; PostgreSQL hands bytes over."""
    return orjson.loads(stored) if isinstance(stored, str | bytes) else stored


class Database:
    """Run units of work. `failure` is None, or one line that says why nothing can be written any more."""

    def __init__(self, writer: UnitConnection, readers: Sequence[UnitConnection], checkpoints: Checkpoints) -> None:
        self.failure: str | None = None
        self.writes = 0
        """How many units were ever asked for: who works in the background sees by it whether others write as well."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._readers = readers
        self._checkpoints = checkpoints
        self._changes = 0
        self._waiting: list[Waiting] = []
        self._called = False
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, path: Path, *, readers: int = 2) -> "Database":
        """Open the file, made when absent; raises SetupError with one line when it cannot be opened or written."""
        opened: list[UnitConnection] = []
        try:
            opened.append(await UnitConnection.open(path))
            await opened[0].run(leave_mark, opened[0].raw)  # a file that cannot be written is told at start
            opened.append(await UnitConnection.open(path))
            for _ in range(1 + readers):
                opened.append(await UnitConnection.open(path, "query_only=ON"))
            writer, copier, holder, *others = opened
            return cls(writer, others, Checkpoints(path, writer, copier, holder))
        except (sqlite3.Error, sa.exc.DatabaseError, OSError) as error:
            for connection in opened:
                await connection.shut()
            raise SetupError(f"cannot open the database {path}: {error}") from error

    async def write(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in the next group; return its result after the commit.

        Raises what the unit raised (its changes undone), or Unavailable when nothing can be stored.
        """
        return await self._enqueue(lambda core, _: [work(core, *args, **kwargs)], None)

    def write_joint(self, work: Callable[[sa.Connection, list[Item]], Sequence[T]], item: Item) -> asyncio.Future[T]:
        """Let one call of `work` handle the items of all who wait for the next group; results in the items' order.

        For what happens many times at once. When the call raises, each item gets a unit of its own.
        """
        return self._enqueue(work, item)

    def _enqueue(self, work: Callable[[sa.Connection, list[Item]], Sequence[T]], item: Item) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        if self.failure:
            future.set_exception(Unavailable("The relay cannot store anything at the moment."))
            return future
        self.writes += 1
        self._waiting.append((work, item, future))
        if not self._called:
            self._called = True
            self._start(self._flush(), "group commit")
        return future

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def read(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit that only reads, in one snapshot."""
        reader = min(self._readers, key=lambda connection: connection.pending)
        return await self._read_by(reader, work, *args, **kwargs)

    async def scan(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read like `read`, but through very many rows: all scans share one reader, so that the others answer meanwhile."""
        return await self._read_by(self._readers[-1], work, *args, **kwargs)

    async def _read_by(
        self,
        reader: UnitConnection,
        work: Callable[Concatenate[sa.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        boxed = await reader.run(_read_unit, reader.raw, lambda: work(reader.core, *args, **kwargs))
        return boxed.pop()

    async def migrate(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the writer's raw connection, outside groups; it keeps its own transactions."""
        return await self._writer.run(work, self._writer.raw)

    async def close(self) -> None:
        """Finish what waits, then close every connection; what comes later is Unavailable."""
        self.failure = self.failure or "the database is closed"
        while self._tasks:
            await asyncio.wait(self._tasks)
        for connection in (*self._checkpoints.connections, *self._readers, self._writer):
            await connection.shut()
        self._checkpoints.close()

    async def _flush(self) -> None:
        """Ask the writer for a group; it takes what waits when its turn comes, so that the next group never waits for us."""
        group: list[Waiting] = []
        try:
            if self._busy:
                await asyncio.sleep(_GATHER_SECONDS)
            outcomes = await self._writer.run(self._commit_waiting, group)
        except Exception as error:  # noqa: BLE001  whatever it is, every caller of the group must hear of it
            outcomes = [(self._explain(error), None)] * len(group)
        self._busy = len(group) >= _BUSY_UNITS
        for (_, _, future), (failure, value) in zip(group, outcomes, strict=True):
            _resolve(future, failure, value)
        if self.failure is None and self._checkpoints.are_due(self._changes):
            self._start(self._checkpoint(), "checkpoint")

    async def _checkpoint(self) -> None:
        try:
            await self._checkpoints.run(self._changes)
        except Exception as error:  # noqa: BLE001  what is not copied now is copied by the next one, unless the disk is broken
            self._note_failure("checkpoint failed", error)

    def _commit_waiting(self, group: list[Waiting]) -> list[Outcome]:
        """Run on the writer's thread."""
        self._called = False  # before the list is taken: a unit added from now on calls again
        group += self._waiting[: len(self._waiting)]
        del self._waiting[: len(group)]
        outcomes = _commit_group(self._writer.raw, self._writer.core, group) if group else []
        self._changes = self._writer.raw.total_changes
        return outcomes

    def _explain(self, error: Exception) -> Exception:
        self._note_failure("commit failed", error)
        return Unavailable("The relay cannot store anything at the moment.")

    def _note_failure(self, event: str, error: Exception) -> None:
        cause = _sqlite_error(error)
        log.error(event, error=str(cause or error))
        if isinstance(error, OSError) or (cause is not None and _is_lasting(cause)):
            self.failure = f"a write to disk failed ({cause or error}); restart the relay when the disk is repaired"
            log.critical("writes stopped", reason=self.failure)


def _resolve(future: asyncio.Future[Any], failure: Exception | None, value: object) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(value)


def _commit_group(raw: sqlite3.Connection, core: sa.Connection, group: list[Waiting]) -> list[Outcome]:
    raw.execute("BEGIN IMMEDIATE")
    try:
        outcomes = _run_together(raw, core, group)
        if outcomes is None:
            raw.execute("ROLLBACK")
            raw.execute("BEGIN IMMEDIATE")
            outcomes = [_run_in_savepoint(raw, core, work, item) for work, item, _ in group]
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return outcomes


def _run_together(raw: sqlite3.Connection, core: sa.Connection, group: list[Waiting]) -> list[Outcome] | None:
    """Run a group without savepoints; None when something must be undone, or done one by one, because of a failure."""
    places: dict[Work, list[int]] = {}
    for index, (work, _, _) in enumerate(group):
        places.setdefault(work, []).append(index)
    outcomes: list[Outcome] = [(None, None)] * len(group)
    for work, mine in places.items():
        changes = raw.total_changes
        try:
            for index, value in zip(mine, work(core, [group[index][1] for index in mine]), strict=True):
                outcomes[index] = (None, value)
        except Exception as error:
            if not raw.in_transaction or _is_storage_failure(error):
                raise
            if len(mine) > 1 or raw.total_changes != changes:
                return None
            outcomes[mine[0]] = (error, None)
    return outcomes


def _run_in_savepoint(raw: sqlite3.Connection, core: sa.Connection, work: Work, item: Any) -> Outcome:
    """Run one unit; its failure is its own, unless it is the disk's (full, I/O error): that is everybody's."""
    raw.execute("SAVEPOINT unit")
    try:
        value = work(core, [item])[0]
    except Exception as error:
        if not raw.in_transaction or _is_storage_failure(error):
            raise
        raw.execute("ROLLBACK TO unit")
        raw.execute("RELEASE unit")
        return error, None
    raw.execute("RELEASE unit")
    return None, value


def _is_storage_failure(error: Exception) -> bool:
    cause = _sqlite_error(error)
    return cause is not None and cause.sqlite_errorcode & 0xFF in _STORAGE_FAILURES


def _is_lasting(cause: sqlite3.OperationalError) -> bool:
    primary = cause.sqlite_errorcode & 0xFF
    return primary == sqlite3.SQLITE_IOERR and cause.sqlite_errorcode not in _PASSING_IO_FAILURES


def _sqlite_error(error: Exception) -> sqlite3.OperationalError | None:
    """Return SQLite's own error, through Core or from a prepared statement; None when it is none or has no code."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return cause if isinstance(cause, sqlite3.OperationalError) and hasattr(cause, "sqlite_errorcode") else None


def _read_unit(raw: sqlite3.Connection, work: Callable[[], T]) -> list[T]:
    """Return the result in a box that is emptied: the thread keeps what it returned last until its next unit."""
    raw.execute("BEGIN")
    try:
        return [work()]
    finally:
        raw.execute("COMMIT")
