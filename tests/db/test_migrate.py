"""Does an old or empty data file become what this version needs, and is a newer one left alone?"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from plunk_relay.db.engine import Database
from plunk_relay.db.migrate import list_migrations, migrate
from plunk_relay.db.tables import metadata
from plunk_relay.errors import SetupError
from tests.db.units import add, stored

LATEST = list_migrations()[-1][0]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in list_migrations()] == list(range(1, LATEST + 1))


async def test_an_empty_file_becomes_the_data_model(db: Database, path: Path, tmp_path: Path) -> None:
    written = tmp_path / "tables.db"
    engine = sa.create_engine(f"sqlite:///{written}")
    metadata.create_all(engine)
    engine.dispose()
    migrated, model = _describe(path), _describe(written)
    assert set(migrated) == set(model)
    assert {name: migrated[name] for name in model if migrated[name] != model[name]} == {}


async def test_a_file_of_this_version_is_left_as_it_is(db: Database, path: Path) -> None:
    await db.write(add, "kept")
    assert await migrate(db, path) == []
    assert await stored(db) == ["kept"]


async def test_the_migrations_that_were_applied_are_told(tmp_path: Path) -> None:
    opened = await Database.open(tmp_path / "new.db")
    assert await migrate(opened, tmp_path / "new.db") == list(range(1, LATEST + 1))
    await opened.close()
    assert _version(tmp_path / "new.db") == LATEST


async def test_a_file_of_a_newer_version_is_refused_and_not_touched(db: Database, path: Path) -> None:
    await db.migrate(lambda raw: raw.execute(f"PRAGMA user_version={LATEST + 1}"))
    with pytest.raises(SetupError) as caught:
        await migrate(db, path)
    message = caught.value.message
    assert str(path) in message
    assert f"schema {LATEST + 1}" in message
    assert f"knows {LATEST}" in message
    assert "\n" not in message
    assert _version(path) == LATEST + 1


async def test_a_migration_that_fails_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with _connected(path) as stranger:
        stranger.execute("CREATE TABLE users (something TEXT)")
    opened = await Database.open(path)
    with pytest.raises(SetupError) as caught:
        await migrate(opened, path)
    await opened.close()
    assert str(path) in caught.value.message
    assert "users" in caught.value.message
    assert "\n" not in caught.value.message
    assert set(_describe(path)) == {"users"}
    assert _version(path) == 0


async def test_a_disk_that_is_full_during_a_migration_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    opened = await Database.open(path)
    await opened.migrate(lambda raw: raw.execute("PRAGMA max_page_count=10").fetchall())
    with pytest.raises(SetupError, match="full"):
        await migrate(opened, path)
    await opened.close()
    assert _describe(path) == {}


async def test_data_of_the_first_version_is_kept(tmp_path: Path) -> None:
    """Every later migration is tried on a file that holds something."""
    path = tmp_path / "old.db"
    with _connected(path) as old:
        old.executescript(list_migrations()[0][1])
        old.execute("INSERT INTO counters VALUES ('kept', 1, 1893456000000)")
        old.execute("PRAGMA user_version=1")
    opened = await Database.open(path)
    assert await migrate(opened, path) == list(range(2, LATEST + 1))
    assert await stored(opened) == ["kept"]
    await opened.close()


async def test_contacts_that_are_rebuilt_keep_their_mail_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    _make_second_version(path)
    opened = await Database.open(path)
    assert await migrate(opened, path) == list(range(3, LATEST + 1))
    await opened.close()
    with _connected(path) as file:
        assert file.execute("SELECT project_id, id, email, subscribed FROM contacts").fetchall() == [
            ("project", "ann", "ann@example.net", 1),
            ("project", "bob", "bob@example.net", 0),
        ]
        events = file.execute("SELECT id, contact_id, processed_at = created_at FROM events").fetchall()
        assert events == [("event", "ann", 1)], "no workflow will start for what is long past"
        assert file.execute("SELECT contacts, subscribed FROM contact_counts").fetchall() == [(2, 1)]
        file.execute("PRAGMA foreign_keys=ON")
        file.execute("DELETE FROM contacts WHERE id = 'ann'")
        assert file.execute("SELECT id FROM events").fetchall() == []


async def test_a_row_without_the_one_it_refers_to_stops_a_migration(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    _make_second_version(path)
    with _connected(path) as old:
        old.execute("UPDATE events SET contact_id = 'gone'")
    opened = await Database.open(path)
    with pytest.raises(SetupError) as caught:
        await migrate(opened, path)
    await opened.close()
    assert "a row of events refers to a row of contacts that is not there" in caught.value.message
    assert _version(path) == 2


def _make_second_version(path: Path) -> None:
    """Write a file of schema 2 that holds two contacts, one of them with an event."""
    with _connected(path) as old:
        for _, text in list_migrations()[:2]:
            old.executescript(text)
        old.execute("PRAGMA user_version=2")
        project = "'project', 'Acme', 'p', 'p', 's', 's', 0, 0, 'ENABLED', 'en', 0, 0"
        columns = "id, name, public_hash, public_sealed, secret_hash, secret_sealed, disabled, card_verification_attempts"
        old.execute(f"INSERT INTO projects ({columns}, tracking, language, created_at, updated_at) VALUES ({project})")
        for name, subscribed in (("bob", 0), ("ann", 1)):
            old.execute(
                "INSERT INTO contacts VALUES (?, 'project', ?, NULL, ?, NULL, 5, 5)",
                [name, f"{name}@example.net", subscribed],
            )
        old.execute(
            "INSERT INTO events (id, project_id, name, contact_id, dispatch_attempts, created_at)"
            " VALUES ('event', 'project', 'signed up', 'ann', 0, 5)"
        )


def _describe(path: Path) -> dict[str, object]:
    """Return everything a table is: columns with type, null, default and key; indexes with their SQL; foreign keys."""
    with _connected(path) as file:
        tables = file.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        return {
            name: {
                "without rowid": sql.upper().rstrip().endswith("WITHOUT ROWID"),
                "columns": file.execute(f'PRAGMA table_xinfo("{name}")').fetchall(),
                "foreign keys": sorted(row[2:] for row in file.execute(f'PRAGMA foreign_key_list("{name}")')),
                "indexes": sorted(_index(file, *row[1:]) for row in file.execute(f'PRAGMA index_list("{name}")')),
            }
            for name, sql in tables
        }


def _index(file: sqlite3.Connection, name: str, unique: int, origin: str, partial: int) -> tuple[object, ...]:
    columns = [(row[2], row[3]) for row in file.execute(f'PRAGMA index_xinfo("{name}")') if row[5]]
    sql = file.execute("SELECT sql FROM sqlite_schema WHERE name = ?", [name]).fetchone()[0] if origin == "c" else ""
    where = sql.partition(" WHERE ")[2]
    return (name if origin == "c" else origin, unique, partial, str(columns), where)


def _version(path: Path) -> int:
    with _connected(path) as file:
        return int(file.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()
