"""How does a statement run ten thousand times a second? Compiled once; then only its values are bound.

SQLAlchemy's execution costs 30 to 60 µs a statement, mostly for finding the compiled form and building contexts; a
prepared statement goes to the driver with the same SQL and the same value conversion, for 10. Many rows go in few
steps: each step of the driver gives the interpreter away, and getting it back costs more than the row.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from plunk_relay.db.engine import dump_json, load_json

Row = Mapping[str, Any]
_MOST_IN_A_STEP = 32


class Prepared:
    """A Core statement compiled for SQLite; an insert sets every column of its table, absent ones to NULL."""

    def __init__(self, statement: sa.sql.expression.Executable) -> None:
        dialect = sqlite.dialect(paramstyle="qmark")
        dialect._json_serializer, dialect._json_deserializer = dump_json, load_json  # noqa: SLF001  as create_engine does
        columns = [column.key for column in statement.table.columns] if isinstance(statement, sa.Insert) else None
        compiled = statement.compile(dialect=dialect, column_keys=columns)  # type: ignore[attr-defined]  # every statement has it
        assert isinstance(compiled, sa.sql.compiler.SQLCompiler)  # noqa: S101  a statement, not DDL
        self.sql = str(compiled)
        self._readers = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in _columns_of(compiled)
        ]
        self._is_insert = isinstance(statement, sa.Insert)
        self._many = {1: self.sql}
        names = list(compiled.positiontup or [])
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        processors: Mapping[str, Any] = compiled._bind_processors  # noqa: SLF001  public only inside
        self._slots = [(name, constants.get(name), processors.get(name)) for name in names]

    def run(self, tx: sa.Connection, row: Row) -> int:
        """Execute once; return how many rows it changed."""
        changed: int = _raw(tx).execute(self.sql, self._bind(row)).rowcount
        return changed

    def fetch(self, tx: sa.Connection, row: Row) -> list[list[Any]]:
        """Execute once; return the rows, each a list of converted values in the order of the columns."""
        fetched = _raw(tx).execute(self.sql, self._bind(row)).fetchall()
        readers = self._readers
        return [[v if read is None else read(v) for v, read in zip(one, readers, strict=True)] for one in fetched]

    def run_many(self, tx: sa.Connection, rows: Sequence[Row]) -> None:
        """Execute for all rows, up to 32 in one step."""
        raw, start = _raw(tx), 0
        while start < len(rows):
            count = min(_MOST_IN_A_STEP, 1 << (len(rows) - start).bit_length() - 1)
            values = [value for row in rows[start : start + count] for value in self._bind(row)]
            raw.execute(self._sql_for(count), values)
            start += count

    def _sql_for(self, count: int) -> str:
        """Return the statement for a power of two of rows: more tuples after VALUES, or an update from a list of rows."""
        if count not in self._many:
            self._many[count] = _repeat_insert(self.sql, count) if self._is_insert else _repeat_update(self.sql, count)
        return self._many[count]

    def _bind(self, row: Row) -> list[Any]:
        values = []
        for name, constant, process in self._slots:
            value = row.get(name, constant)
            values.append(process(value) if process is not None else value)
        return values


def _columns_of(compiled: sa.sql.compiler.SQLCompiler) -> Sequence[Any]:
    return compiled._result_columns  # noqa: SLF001  the public way needs an execution


def _raw(tx: sa.Connection) -> Any:
    return tx.connection.driver_connection


def _repeat_insert(sql: str, count: int) -> str:
    head, values, tail = re.split(r"(?<= VALUES )(\([^)]*\))", sql, maxsplit=1)
    return head + ", ".join([values] * count) + tail


def _repeat_update(sql: str, count: int) -> str:
    """Turn `UPDATE t SET a=? WHERE t.id = ?` into the same from a list of rows, each parameter a column of it."""
    numbers = itertools.count(1)
    assignments, where = re.sub(r"\?", lambda _: f"row.column{next(numbers)}", sql).split(" WHERE ", 1)
    row = f"({', '.join('?' * sql.count('?'))})"
    return f"{assignments} FROM (VALUES {', '.join([row] * count)}) AS row WHERE {where}"
