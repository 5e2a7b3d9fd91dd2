"""Does a prepared statement do what SQLAlchemy's own execution does?"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.db.engine import Database, dump_json
from plunk_relay.db.portable import insert_if_absent, listed, upsert
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import metadata
from plunk_relay.db.types import JSON, Time

COUNTS = [*range(1, 6), 15, 16, 17, 31, 32, 33, 63, 64, 65, 70]
START = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
PRODUCT_TABLES = [table.name for table in metadata.sorted_tables]

_tables = sa.MetaData()


def _table(name: str) -> sa.Table:
    return sa.Table(
        name,
        _tables,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer),
        sa.Column("flag", sa.Boolean),
        sa.Column("data", JSON),
        sa.Column("moment", Time),
        sa.Column("content", sa.LargeBinary),
        sa.Column("text", sa.Text),
    )


PREPARED, PLAIN = _table("prepared"), _table("plain")


@pytest.fixture(autouse=True)
async def _made(db: Database) -> None:
    await db.write(_tables.create_all)


@pytest.mark.parametrize("count", COUNTS)
async def test_an_insert_of_many_rows_stores_what_sqlalchemy_stores(db: Database, count: int) -> None:
    rows = _rows(count)
    await db.write(Prepared(sa.insert(PREPARED)).run_many, rows)
    await db.write(_execute, sa.insert(PLAIN), rows)
    assert len(await _raw(db, "plain")) == count
    assert await _raw(db, "prepared") == await _raw(db, "plain")


@pytest.mark.parametrize("count", COUNTS)
async def test_an_update_of_many_rows_stores_what_sqlalchemy_stores(db: Database, count: int) -> None:
    await _fill(db, _rows(70))
    changes = [_change(row, f"row {number}") for number, row in enumerate(reversed(_rows(count)))]
    await db.write(Prepared(_changing(PREPARED)).run_many, changes)
    await db.write(_execute, _changing(PLAIN), changes)
    assert await _raw(db, "prepared") == await _raw(db, "plain")
    assert [row[-1] for row in await _raw(db, "plain")].count("changed") == count


async def test_no_rows_are_no_statement(db: Database) -> None:
    await db.write(Prepared(sa.insert(PREPARED)).run_many, [])
    assert await _raw(db, "prepared") == []


async def test_an_update_touches_only_rows_that_fit(db: Database) -> None:
    await _fill(db, _rows(3))
    changes = [_change(row, row_id) for row, row_id in zip(_rows(2), ["row 1", "nobody"], strict=True)]
    await db.write(Prepared(_changing(PREPARED)).run_many, changes)
    assert [row[-1] for row in await _raw(db, "prepared")].count("changed") == 1


async def test_columns_that_a_row_does_not_name_are_null(db: Database) -> None:
    await db.write(Prepared(sa.insert(PREPARED)).run_many, [{"id": "a"}, {"id": "b", "number": 3}])
    assert await _raw(db, "prepared") == [("a", *[None] * 6), ("b", 3, *[None] * 5)]


@pytest.mark.parametrize("count", [1, 5, 32])
async def test_insert_if_absent_passes_over_rows_that_are_there(db: Database, count: int) -> None:
    await _fill(db, _rows(2))
    rows = [row | {"text": "second"} for row in _rows(count)]
    await db.write(Prepared(insert_if_absent(PREPARED, ["id"])).run_many, rows)
    await db.write(_execute, insert_if_absent(PLAIN, ["id"]), rows)
    assert await _raw(db, "prepared") == await _raw(db, "plain")
    assert [row[-1] for row in await _raw(db, "prepared")].count("second") == max(0, count - 2)


async def test_an_upsert_of_many_rows_replaces_what_is_there(db: Database) -> None:
    await _fill(db, _rows(2))
    rows = [row | {"text": "second"} for row in _rows(5)]
    await db.write(Prepared(upsert(PREPARED, ["id"], ["text"])).run_many, rows)
    assert [row[-1] for row in await _raw(db, "prepared")] == ["second"] * 5


async def test_run_tells_how_many_rows_changed(db: Database) -> None:
    insert, update = Prepared(insert_if_absent(PREPARED, ["id"])), Prepared(_changing(PREPARED))
    [row] = _rows(1)
    assert await db.write(insert.run, row) == 1
    assert await db.write(insert.run, row) == 0
    assert await db.write(update.run, _change(row, row["id"])) == 1
    assert await db.write(update.run, _change(row, "nobody")) == 0


async def test_fetched_rows_have_the_values_that_sqlalchemy_gives(db: Database) -> None:
    await _fill(db, _rows(70))
    query = sa.select(PLAIN).where(PLAIN.c.number >= sa.bindparam("least")).order_by(PLAIN.c.id)
    fetched = await db.read(Prepared(query).fetch, {"least": 1})
    executed = await db.read(lambda tx: [list(row) for row in tx.execute(query, {"least": 1})])
    assert len(fetched) > 30
    assert fetched == executed
    assert [[type(value) for value in row] for row in fetched] == [[type(value) for value in row] for row in executed]


async def test_returned_rows_have_converted_values(db: Database) -> None:
    await _fill(db, _rows(3))
    statement = Prepared(_changing(PREPARED).returning(PREPARED.c.id, PREPARED.c.moment, PREPARED.c.data))
    row = {"row_id": "row 0", "more": 1, "flag": True, "data": {"a": [1]}, "moment": START}
    assert await db.write(statement.fetch, row) == [["row 0", START, {"a": [1]}]]


async def test_a_list_of_any_length_is_one_parameter(db: Database) -> None:
    await _fill(db, _rows(70))
    query = Prepared(sa.select(PLAIN.c.id).where(PLAIN.c.id.in_(listed("ids"))).order_by(PLAIN.c.id))
    wanted = [f"row {number}" for number in range(0, 2000, 2)]
    assert await db.read(query.fetch, {"ids": dump_json([])}) == []
    found = [row[0] for row in await db.read(query.fetch, {"ids": dump_json(wanted)})]
    assert found == sorted(f"row {number}" for number in range(0, 70, 2))


async def test_a_value_written_into_the_statement_is_kept_for_every_row(db: Database) -> None:
    await _fill(db, _rows(4))
    fixed = sa.update(PREPARED).where(PREPARED.c.id == sa.bindparam("row_id"), PREPARED.c.flag == sa.true())
    statement = Prepared(fixed.values(text="fixed", number=PREPARED.c.number + sa.bindparam("more"), moment=START))
    await db.write(statement.run_many, [{"row_id": f"row {number}", "more": 10} for number in range(4)])
    changed = [row for row in await _raw(db, "prepared") if row[-1] == "fixed"]
    assert [row[0] for row in changed] == [row["id"] for row in _rows(4) if row["flag"]]
    assert all(row[1] is None or row[1] >= 10 for row in changed)
    assert {row[4] for row in changed} == {int(START.timestamp() * 1000)}


@pytest.mark.parametrize("name", PRODUCT_TABLES)
async def test_every_table_of_the_product_can_be_filled_this_way(db: Database, name: str) -> None:
    table = metadata.tables[name]
    rows = [{column.name: _example(column, number) for column in table.columns} for number in range(7)]

    def fill(tx: sa.Connection, store: Callable[[sa.Connection], object]) -> Sequence[Sequence[Any]]:
        tx.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        store(tx)
        found = tx.exec_driver_sql(f'SELECT * FROM "{name}"').all()
        tx.execute(sa.delete(table))
        return found

    prepared = await db.write(fill, lambda tx: Prepared(sa.insert(table)).run_many(tx, rows))
    plain = await db.write(fill, lambda tx: tx.execute(sa.insert(table), rows))
    assert len(plain) == 7
    assert prepared == plain


def _rows(count: int) -> list[dict[str, Any]]:
    """Make rows that are alike in nothing: nulls, both truths, JSON of every kind, times to the millisecond."""
    payloads: list[Any] = [None, {}, {"name": "Zoë", "tags": ["a", 1, None]}, [1, 2], "text", 0, False, {"x": 1.5}]
    return [
        {
            "id": f"row {number}",
            "number": None if number % 7 == 3 else number,
            "flag": [True, False, None][number % 3],
            "data": payloads[number % len(payloads)],
            "moment": None if number % 5 == 4 else START + timedelta(days=number, milliseconds=number),
            "content": None if number % 4 == 3 else bytes([0, number, 255]),
            "text": None if number % 6 == 5 else f'It\'s {number}: "?" Ünï ;\n',
        }
        for number in range(count)
    ]


def _changing(table: sa.Table) -> sa.Update:
    """Return an update as the product's are: values and conditions from parameters, arithmetic, constants."""
    values: dict[str, Any] = {name: sa.bindparam(name) for name in ("flag", "data", "moment")}
    changed = sa.update(table).where(table.c.id == sa.bindparam("row_id"), table.c.id != "nobody's")
    return changed.values(number=table.c.number + sa.bindparam("more"), text="changed", **values)


def _change(row: dict[str, Any], row_id: str) -> dict[str, Any]:
    """Return the parameters of `_changing` that give a row another one's values."""
    return {"row_id": row_id, "more": row["number"], **{name: row[name] for name in ("flag", "data", "moment")}}


def _execute(tx: sa.Connection, statement: sa.Executable, rows: list[dict[str, Any]]) -> None:
    tx.execute(statement, rows)


async def _fill(db: Database, rows: list[dict[str, Any]]) -> None:
    for table in (PREPARED, PLAIN):
        await db.write(_execute, sa.insert(table), rows)


async def _raw(db: Database, table: str) -> list[tuple[Any, ...]]:
    """Return what lies in the file, with nothing converted."""
    return await db.migrate(lambda raw: raw.execute(f"SELECT * FROM {table} ORDER BY id").fetchall())


def _example(column: sa.Column[Any], number: int) -> Any:
    if column.nullable and number % 2:
        return None
    if isinstance(column.type, Time):
        return START + timedelta(seconds=number)
    if isinstance(column.type, sa.JSON):
        return {"number": number}
    if isinstance(column.type, sa.Boolean):
        return number % 3 == 0
    if isinstance(column.type, sa.Integer):
        return number
    return b"\x00\xff" + bytes([number]) if isinstance(column.type, sa.LargeBinary) else f"{column.name} {number}"
