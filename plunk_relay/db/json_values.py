"""What is in a JSON column? Questions about one value of it, with the same answers from SQLite and PostgreSQL.

A value is named by its keys, from the outside in: text for what is in an object, a number for what is in a list. What is
not there is NULL.
"""

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from plunk_relay.db.engine import dump_json
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
    """What a value is: text, integer, real, true, false, null, array, object; NULL: it is not there."""

    type = sa.Text()
    inherit_cache = False


class json_text(_JsonValue):  # noqa: N801
    """A value that is text; of another kind it is not comparable between databases, so ask for its kind too."""

    type = sa.Text()
    inherit_cache = False


class json_equal(_JsonValue):  # noqa: N801
    """Whether a value is one of the same type and content, with the keys of objects in whatever order."""

    type = sa.Boolean()
    inherit_cache = False

    def __init__(self, column: Column, keys: Sequence[Key], value: Any) -> None:
        super().__init__(column, keys)
        self.value = value


class json_number(_JsonValue):  # noqa: N801
    """A value that is a number; for SQLite of another kind it is something else, so ask for its kind too."""

    type = sa.Float()
    inherit_cache = False


@compiles(json_kind)
def _kind_in_sqlite(element: json_kind, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_descend(element, "type"), **kw)


@compiles(json_text)
@compiles(json_number)
def _scalar_in_sqlite(element: _JsonValue, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_descend(element, "value"), **kw)


@compiles(json_equal)
def _equal_in_sqlite(element: json_equal, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_equal(element.column, element.keys, element.value).self_group(), **kw)


def _equal(column: Column, keys: tuple[Key, ...], value: Any) -> sa.ColumnElement[bool]:
    kind = json_kind(column, keys)
    if value is None or isinstance(value, bool):
        return kind == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return (kind == "text") & (json_text(column, keys) == value)
    if isinstance(value, int | float):
        return kind.in_(("integer", "real")) & (json_number(column, keys) == _bindable(value))
    items = value.items() if isinstance(value, dict) else enumerate(value)
    same = [_equal(column, (*keys, key), item) for key, item in items]
    base = _descend(json_text(column, keys), "value")
    size = sa.select(sa.func.count()).select_from(sa.func.json_each(base).table_valued("key")).scalar_subquery()
    return sa.and_(kind == ("object" if isinstance(value, dict) else "array"), size == len(value), *same)


def _bindable(value: float) -> float:
    """Return a number that the driver takes: larger integers are floats, as in JSON."""
    return value if isinstance(value, float) or -(2**63) <= value < 2**63 else float(value)


def _descend(element: _JsonValue, wanted: str) -> Column:
    """Return an expression for the type or the value; a key that a path cannot hold is looked for among all keys."""
    base: Column = element.column
    keys = list(element.keys)
    while keys:
        count = next((index for index, key in enumerate(keys) if not is_plain_key(key)), len(keys))
        if count:
            path = "$" + "".join(f'."{key}"' if isinstance(key, str) else f"[{key}]" for key in keys[:count])
            name = "json_type" if wanted == "type" and count == len(keys) else "json_extract"
            base, keys = getattr(sa.func, name)(base, path), keys[count:]
        else:
            rows = sa.func.json_each(base).table_valued("key", "value", "type").alias(f"each_{len(keys)}")
            chosen = rows.c.type if wanted == "type" and len(keys) == 1 else rows.c.value
            base, keys = sa.select(chosen).where(rows.c.key == keys[0]).scalar_subquery(), keys[1:]
    return base


def is_plain_key(key: Key) -> bool:
    """Tell whether a path of SQLite can name a key: one with quotes, backslashes or controls it cannot."""
    return isinstance(key, int) or _PLAIN_KEY.match(key) is not None


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
