"""Which SQL differs between databases? What is here, and nothing else."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.functions import FunctionElement

_MOST_IN_A_ROW = 30


def insert_if_absent(table: sa.Table, conflict: Sequence[str]) -> sa.Insert:
    """Insert a row unless one with the same `conflict` columns exists; `rowcount` tells which."""
    return insert(table).on_conflict_do_nothing(index_elements=list(conflict))


def upsert(table: sa.Table, conflict: Sequence[str], replaced: Sequence[str]) -> sa.Insert:
    """Insert a row, or set its `replaced` columns to the new values when the `conflict` columns exist."""
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(conflict), set_={name: statement.excluded[name] for name in replaced}
    )


def insert_or_count(table: sa.Table, conflict: Sequence[str], counted: str) -> ReturningInsert[Any]:
    """Insert a row, or add 1 to `counted`; returns the new value."""
    statement = insert(table)
    counting = statement.on_conflict_do_update(index_elements=list(conflict), set_={counted: table.c[counted] + 1})
    return counting.returning(table.c[counted])


def insert_or_add(table: sa.Table, conflict: Sequence[str], added: Sequence[str]) -> sa.Insert:
    """Insert a row, or add its `added` columns to those of the row with the same `conflict` columns."""
    statement = insert(table)
    sums = {name: table.c[name] + statement.excluded[name] for name in added}
    return statement.on_conflict_do_update(index_elements=list(conflict), set_=sums)


def listed(parameter: str) -> sa.Select[tuple[Any]]:
    """Read the values of a parameter that holds a list as JSON text: an IN of any length with one compiled statement."""
    return sa.select(sa.func.json_each(sa.bindparam(parameter)).table_valued("value").c.value)


def all_of(tests: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """Join tests with AND, however many: SQLite takes less than a thousand in a row."""
    return _join(sa.and_, tests)


def any_of(tests: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """Join tests with OR, however many."""
    return _join(sa.or_, tests)


def _join(join: Any, tests: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    while len(tests) > _MOST_IN_A_ROW:
        rows = [tests[start : start + _MOST_IN_A_ROW] for start in range(0, len(tests), _MOST_IN_A_ROW)]
        tests = [_parenthesized(join(*row)) for row in rows]
    joined: sa.ColumnElement[bool] = join(*tests)
    return joined


class _parenthesized(FunctionElement[Any]):  # noqa: N801  named like a SQL function
    """A test in parentheses of its own, which SQLAlchemy would leave out."""

    inherit_cache = True
    type = sa.types.NULLTYPE  # a Boolean would be compared with 1 for SQLite


@compiles(_parenthesized)
def _in_parentheses(element: _parenthesized, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)})"


class unindexed(FunctionElement[Any]):  # noqa: N801  named like a SQL function
    """A column whose index is not to be used: SQLite takes any index that fits, however many rows it leads to."""

    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unindexed)
def _unindexed(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(unindexed, "sqlite")
def _unindexed_in_sqlite(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"+{compiler.process(element.clauses, **kw)}"
