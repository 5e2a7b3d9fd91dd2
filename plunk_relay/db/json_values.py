"""What is in a JSON column? Questions about one value of it, with the same answers from SQLite and PostgreSQL.

A value is named by its keys, from the outside in: text for what is in an object, a number for what is in a list. What is
not there is NULL. SQLite compares keys as they are written in the column, by `dump_json`: so its paths can name all but
those that need a backslash. PostgreSQL has no U+0000 in a value.
"""

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.functions import FunctionElement

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import all_of
from plunk_relay.db.types import JSON

_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+\Z')
Column = sa.ColumnElement[Any]
Key = str | int


class _JsonValue(FunctionElement[Any]):
    """A value of a JSON column, asked for something."""

    def __init__(self, column: Column, keys: Sequence[Key]) -> None:
        super().__init__(column)
        self.column = column
        self.keys = tuple(keys)


class json_kind(_JsonValue):  # noqa: N801  named like the SQL functions it stands for
    """What a value is: text, integer, real, true, false, null, array, object; PostgreSQL calls every number real."""

    type = sa.Text()
    inherit_cache = False


class json_text(_JsonValue):  # noqa: N801
    """A value that is text; one of another kind is not comparable between databases, so ask for its kind too."""

    type = sa.Text()
    inherit_cache = False


class json_number(_JsonValue):  # noqa: N801
    """A value that is a number; for SQLite one of another kind is something else, so ask for its kind too."""

    type = sa.Numeric()
    inherit_cache = False


class json_equal(_JsonValue):  # noqa: N801
    """Whether a value is one of the same type and content, with the keys of objects in whatever order; 1 equals 1.0."""

    type = sa.types.NULLTYPE  # as Boolean it would be compared with 1, and SQLite would then work out all parts of it
    inherit_cache = False

    def __init__(self, column: Column, keys: Sequence[Key], value: Any) -> None:
        super().__init__(column, keys)
        self.value = value


class number_literal(FunctionElement[Any]):  # noqa: N801
    """A number to compare with. SQLite reads fractions less exactly than Python, so it reads both sides from text."""

    type = sa.Numeric()
    inherit_cache = True

    def __init__(self, value: float) -> None:
        super().__init__(sa.literal(dump_json(value), sa.Text()))


def is_number(column: Column, keys: Sequence[Key]) -> sa.ColumnElement[bool]:
    """Test whether a value is a number."""
    return json_kind(column, keys).in_(("integer", "real"))


@compiles(json_kind)
def _kind_in_sqlite(element: json_kind, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_find(element, sa.func.json_type, "type"), **kw)


@compiles(json_text)
@compiles(json_number)
def _scalar_in_sqlite(element: _JsonValue, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_find(element, sa.func.json_extract, "value"), **kw)


@compiles(json_equal)
def _equal_in_sqlite(element: json_equal, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(Grouping(_equal(element.column, element.keys, element.value)), **kw)


@compiles(number_literal)
def _number_literal_in_sqlite(element: number_literal, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_extract({compiler.process(element.clauses, **kw)}, '$')"


def _equal(column: Column, keys: tuple[Key, ...], value: Any) -> sa.ColumnElement[bool]:
    """Compare part by part; the content before the kind, since it is the one that differs."""
    kind = json_kind(column, keys)
    if value is None or isinstance(value, bool):
        return kind == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return (json_text(column, keys) == value) & (kind == "text")
    if isinstance(value, int | float):
        return (json_number(column, keys) == number_literal(value)) & is_number(column, keys)
    is_object = isinstance(value, dict)
    items = value.items() if is_object else enumerate(value)
    same = [_equal(column, (*keys, key), item) for key, item in items]
    container = kind == ("object" if is_object else "array")
    return all_of([*same, container, _count_entries(column, keys) == len(value)])


def _count_entries(column: Column, keys: tuple[Key, ...]) -> Column:
    """Count the entries of an object or a list; a value of another kind is counted in some way."""
    if all(is_plain_key(key) for key in keys):
        entries = _entries(column, "entry", _path(keys))
        return sa.select(sa.func.count()).select_from(entries).scalar_subquery()
    rows, where = _each(json_kind(column, keys))
    entries = _entries(_inside(rows), "inside")
    return sa.select(sa.func.count(entries.c.key)).where(*where).scalar_subquery()


def _find(element: _JsonValue, by_path: Any, wanted: str) -> Column:
    """Return an expression for the type or the value of what the keys lead to."""
    if all(is_plain_key(key) for key in element.keys):
        found: Column = by_path(element.column, _path(element.keys))
        return found
    rows, where = _each(element)
    return sa.select(rows.c[wanted]).where(*where).scalar_subquery()


def is_plain_key(key: Key) -> bool:
    """Tell whether a path of SQLite can name a key: one with quotes, backslashes or controls it cannot."""
    return isinstance(key, int) or _PLAIN_KEY.match(key) is not None


def _path(keys: Sequence[Key]) -> str:
    return "$" + "".join(f'."{key}"' if isinstance(key, str) else f"[{key}]" for key in keys)


def _each(element: _JsonValue) -> tuple[sa.TableValuedAlias, list[sa.ColumnElement[bool]]]:
    """Look for the keys among all keys, level by level; return the last level with the tests for it and those above."""
    rows = _entries(element.column, "entry_0")
    where = [rows.c.key == element.keys[0]]
    for depth, key in enumerate(element.keys[1:], 1):
        rows = _entries(_inside(rows), f"entry_{depth}")
        where.append(rows.c.key == key)
    return rows, where


def _entries(base: Column, name: str, *path: str) -> sa.TableValuedAlias:
    return sa.func.json_each(base, *path).table_valued("key", "value", "type", name=name, joins_implicitly=True)


def _inside(rows: sa.TableValuedAlias) -> Column:
    """Return a value as JSON when there are entries in it; text would not be JSON."""
    return sa.case((rows.c.type.in_(("object", "array")), rows.c.value))


@compiles(json_kind, "postgresql")
def _kind_in_postgresql(element: json_kind, compiler: SQLCompiler, **kw: Any) -> str:
    value = _walk(element)
    kind = sa.func.jsonb_typeof(value)
    named = sa.case(
        (kind == "string", "text"),
        (kind == "number", "real"),
        (kind == "boolean", sa.cast(value, sa.Text)),
        else_=kind,
    )
    return compiler.process(named, **kw)


@compiles(json_text, "postgresql")
def _text_in_postgresql(element: json_text, compiler: SQLCompiler, **kw: Any) -> str:
    *outer, last = element.keys
    parent = _walk(json_kind(element.column, outer))
    return compiler.process(parent.op("->>", return_type=sa.Text())(sa.literal(last)).collate("C"), **kw)


@compiles(json_equal, "postgresql")
def _equal_in_postgresql(element: json_equal, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_walk(element) == sa.cast(sa.literal(dump_json(element.value)), JSONB), **kw)


@compiles(number_literal, "postgresql")
def _number_literal_in_postgresql(element: number_literal, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS NUMERIC)"


@compiles(json_number, "postgresql")
def _number_in_postgresql(element: json_number, compiler: SQLCompiler, **kw: Any) -> str:
    value = _walk(element)
    number = sa.case((sa.func.jsonb_typeof(value) == "number", sa.cast(value, sa.Numeric)))
    return compiler.process(number, **kw)


def _walk(element: _JsonValue) -> Column:
    value: Column = sa.cast(element.column, JSONB)
    for key in element.keys:
        value = value.op("->", return_type=JSONB())(sa.literal(key))
    return value


class text_position(FunctionElement[int]):  # noqa: N801
    """Where a text contains another, in the same case, from 1 on; 0: nowhere."""

    type = sa.Integer()
    inherit_cache = True

    def __init__(self, text: Column, part: str) -> None:
        super().__init__(text, sa.literal(part))


@compiles(text_position)
def _position_in_sqlite(element: text_position, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)})"


@compiles(text_position, "postgresql")
def _position_in_postgresql(element: text_position, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)})"


class json_without(FunctionElement[Any]):  # noqa: N801
    """The object of a column without one of its keys; NULL: nothing is left."""

    type = JSON
    inherit_cache = False

    def __init__(self, column: Column, key: str) -> None:
        super().__init__(column)
        self.column, self.key = column, key


@compiles(json_without)
def _without_in_sqlite(element: json_without, compiler: SQLCompiler, **kw: Any) -> str:
    less = sa.func.json_remove(element.column, f'$."{element.key}"')
    return compiler.process(sa.func.nullif(less, "{}"), **kw)


@compiles(json_without, "postgresql")
def _without_in_postgresql(element: json_without, compiler: SQLCompiler, **kw: Any) -> str:
    less = sa.cast(element.column, JSONB).op("-")(sa.literal(element.key))
    return compiler.process(sa.cast(sa.func.nullif(less, sa.cast("{}", JSONB)), sa.JSON), **kw)


def json_keys(column: Column) -> sa.TableValuedAlias:
    """Return a table with a row for each `key` of the object of a column, to be joined to the column's table."""
    return sa.func.json_each(column).table_valued("key").alias("entry")
