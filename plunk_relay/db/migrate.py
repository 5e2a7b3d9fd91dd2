"""Is the data file of this version? Numbered, forward-only migrations bring it there.

Each is `migrations/NNNN_name.sql` and runs in one transaction. Foreign keys are checked at its end instead of row by
row: a table that is rebuilt must not take along what refers to it (https://www.sqlite.org/lang_altertable.html, 7).
"""

import sqlite3
from importlib.resources import files
from pathlib import Path

from plunk_relay.db.engine import Database
from plunk_relay.errors import SetupError


def list_migrations() -> list[tuple[int, str]]:
    """Return (number, SQL text) in order."""
    found = [entry for entry in files("plunk_relay.db").joinpath("migrations").iterdir() if entry.name.endswith(".sql")]
    return sorted((int(entry.name[:4]), entry.read_text()) for entry in found)


async def migrate(db: Database, path: Path) -> list[int]:
    """Bring the file up to this version; return the numbers applied.

    Raises SetupError when the file was written by a newer version, or when a migration fails (that one is undone).
    """
    migrations = list_migrations()
    try:
        return await db.migrate(lambda raw: _apply(raw, migrations))
    except _NewerData as error:
        raise SetupError(
            f"the database {path} was written by a newer version of plunk-relay (schema {error.found}, this version "
            f"knows {error.known}): install that version or restore a backup made by this one"
        ) from None
    except sqlite3.Error as error:
        raise SetupError(f"cannot migrate the database {path}: {error}") from error


class _NewerData(Exception):
    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"schema {found} is newer than {known}")
        self.found, self.known = found, known


def _apply(raw: sqlite3.Connection, migrations: list[tuple[int, str]]) -> list[int]:
    version: int = raw.execute("PRAGMA user_version").fetchone()[0]
    if version > migrations[-1][0]:
        raise _NewerData(version, migrations[-1][0])
    applied = []
    for number, text in migrations:
        if number > version:
            _apply_one(raw, number, text)
            applied.append(number)
    return applied


def _apply_one(raw: sqlite3.Connection, number: int, text: str) -> None:
    raw.execute("PRAGMA foreign_keys=OFF")  # within a transaction it would have no effect
    raw.execute("BEGIN IMMEDIATE")
    try:
        for statement in text.split(";\n"):
            if statement.strip():
                raw.execute(statement)
        if orphan := raw.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.IntegrityError(f"a row of {orphan[0]} refers to a row of {orphan[2]} that is not there")
        raw.execute(f"PRAGMA user_version={number}")
        raw.execute("COMMIT")
    except sqlite3.Error:
        if raw.in_transaction:  # a full disk has ended it already
            raw.execute("ROLLBACK")
        raise
    finally:
        raw.execute("PRAGMA foreign_keys=ON")
