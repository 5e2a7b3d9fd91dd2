"""Which units of work do the tests of the database run? Rows of `counters`: the plainest table there is."""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

import sqlalchemy as sa

from plunk_relay.db.engine import Database
from plunk_relay.db.tables import counters

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
_PATIENCE_SECONDS = 10


class Refused(Exception):
    """What a failing unit raises."""


def add(tx: sa.Connection, name: str, value: int = 0) -> str:
    """Store a row; return its name."""
    tx.execute(sa.insert(counters), {"name": name, "value": value, "expires_at": NEW_YEAR})
    return name


def add_each(tx: sa.Connection, names: list[str]) -> list[str]:
    """Store many rows; return their names in capitals."""
    return [add(tx, name).upper() for name in names]


def refuse(_tx: sa.Connection) -> NoReturn:
    """Fail before anything is written."""
    raise Refused


def add_and_refuse(tx: sa.Connection, name: str = "undone") -> NoReturn:
    """Fail after something was written."""
    add(tx, name)
    raise Refused


def names(tx: sa.Connection) -> list[str]:
    """Return the names of all rows, sorted."""
    return list(tx.execute(sa.select(counters.c.name).order_by(counters.c.name)).scalars())


async def stored(db: Database) -> Sequence[str]:
    """Return what a reader sees."""
    return await db.read(names)


async def pragma(db: Database, text: str) -> object:
    """Execute a pragma on the writer's connection; return its value, or None."""
    row = await db.migrate(lambda raw: raw.execute(f"PRAGMA {text}").fetchone())
    return row[0] if row else None


class StatementTrace:
    """The statements that the writer begins; it can be stopped before one of them."""

    def __init__(self, stop_before: str | None = None) -> None:
        self.begun: list[str] = []
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._stop_before = stop_before

    async def watch(self, db: Database) -> None:
        """Watch the writer's connection."""
        await db.migrate(self._install)

    def _install(self, raw: sqlite3.Connection) -> None:
        raw.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        self.begun.append(statement)
        if statement == self._stop_before:
            self.reached.set()
            self.go_on.wait(_PATIENCE_SECONDS)
