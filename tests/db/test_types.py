"""How do values come back from the database, and what do the statements that only one dialect knows?"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.db.engine import Database, dump_json
from plunk_relay.db.portable import insert_if_absent, insert_or_count, listed, upsert
from plunk_relay.db.tables import counters, notes
from tests.db.units import NEW_YEAR, add, stored

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(microsecond=999_000),
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime(2038, 2, 24, 7, 6, 1, 55_000, tzinfo=UTC),  # as a float it would be a millisecond less
        datetime(2262, 4, 12, tzinfo=UTC),
        NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
    ],
)
async def test_a_time_comes_back_as_the_same_moment_in_utc(db: Database, moment: datetime) -> None:
    await db.write(_note, "a", {}, moment)
    found = (await db.read(_read, "a")).updated_at
    assert found == moment
    assert found.tzinfo is UTC


async def test_a_time_is_kept_to_the_millisecond(db: Database) -> None:
    await db.write(_note, "a", {}, NOON.replace(microsecond=1999))
    assert (await db.read(_read, "a")).updated_at == NOON.replace(microsecond=1000)


@pytest.mark.parametrize(
    "value", [{}, [], {"a": {"b": [1, None, "ü"]}}, "text", "5", "", 0, 7, -1.5, True, False, {"when": "2026-03-01"}]
)
async def test_a_json_value_comes_back_as_it_was(db: Database, value: Any) -> None:
    await db.write(_note, "a", value)
    found = (await db.read(_read, "a")).value
    assert found == value
    assert type(found) is type(value)


async def test_no_json_value_is_null(db: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="NOT NULL"):
        await db.write(_note, "a", None)


async def test_insert_if_absent_tells_whether_the_row_is_new(db: Database) -> None:
    statement = insert_if_absent(counters, ["name"])
    row = {"name": "a", "value": 1, "expires_at": NEW_YEAR}
    assert await db.write(lambda tx: tx.execute(statement, row).rowcount) == 1
    assert await db.write(lambda tx: tx.execute(statement, row | {"value": 2}).rowcount) == 0
    assert await db.read(_value, "a") == 1


async def test_upsert_replaces_only_the_columns_that_it_names(db: Database) -> None:
    await db.write(add, "a", value=1)
    row = {"name": "a", "value": 2, "expires_at": NOON}
    await db.write(lambda tx: tx.execute(upsert(counters, ["name"], ["value"]), row))
    found = await db.read(lambda tx: tx.execute(sa.select(counters)).one())
    assert (found.value, found.expires_at) == (2, NEW_YEAR)


async def test_upsert_inserts_a_row_that_is_absent(db: Database) -> None:
    row = {"name": "a", "value": 2, "expires_at": NOON}
    await db.write(lambda tx: tx.execute(upsert(counters, ["name"], ["value"]), row))
    assert await db.read(_value, "a") == 2


async def test_insert_or_count_begins_at_the_given_value_and_adds_one(db: Database) -> None:
    statement = insert_or_count(counters, ["name"], "value")
    row = {"name": "a", "value": 1, "expires_at": NEW_YEAR}
    assert [await db.write(lambda tx: tx.execute(statement, row).scalar_one()) for _ in range(3)] == [1, 2, 3]


async def test_a_listed_parameter_is_an_in_of_any_length(db: Database) -> None:
    for name in ("a", "b", "it's"):
        await db.write(add, name)
    query = sa.select(counters.c.name).where(counters.c.name.in_(listed("names"))).order_by(counters.c.name)
    wanted = {"names": dump_json(["it's", "b", *(str(number) for number in range(5000))])}
    assert await db.read(lambda tx: list(tx.execute(query, wanted).scalars())) == ["b", "it's"]
    assert len(await stored(db)) == 3


def _note(tx: sa.Connection, key: str, value: Any, moment: datetime = NOON) -> None:
    tx.execute(sa.insert(notes), {"key": key, "value": value, "updated_at": moment})


def _read(tx: sa.Connection, key: str) -> sa.Row[Any]:
    return tx.execute(sa.select(notes).where(notes.c.key == key)).one()


def _value(tx: sa.Connection, name: str) -> int:
    found: int = tx.execute(sa.select(counters.c.value).where(counters.c.name == name)).scalar_one()
    return found
