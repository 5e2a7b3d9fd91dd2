"""What is a value in a template? JSON, seen as JavaScript sees it: whether it is true, its text, its number."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from liquid import is_undefined

MOST_OUTPUT = 10_000_000
"""Characters that a value may print; the whole output of a template has the same bound in bytes."""
_DEEPEST = 40
_EXACT = 2**53  # from here on a JavaScript number is not exact
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_LONGEST_NUMBER = 300


class TooMuch(ValueError):
    """A template asked for more than it may have."""


class Items(list[Any]):
    """A list that equals itself alone: to compare big ones in a loop would take hours."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None


class BareItems(Items):
    """A list that asked to be printed without `<li>`."""

    __slots__ = ()


class Fields(dict[str, Any]):
    """An object; it too equals itself alone."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None


def to_json_values(value: Any) -> Any:
    """Keep JSON values only, so that nothing with attributes is in reach; what lies too deep is None."""
    return _to_json(value, _DEEPEST, {})


def _to_json(value: Any, deepest: int, made: dict[int, Any]) -> Any:
    """Convert a value; one that is in two places is made once, and stays equal to itself."""
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if not isinstance(value, Mapping | list | tuple):
        return str(value)
    if deepest == 0:
        return None
    if id(value) not in made:
        if isinstance(value, Mapping):
            made[id(value)] = Fields({str(key): _to_json(item, deepest - 1, made) for key, item in value.items()})
        else:
            made[id(value)] = Items([_to_json(item, deepest - 1, made) for item in value])
    return made[id(value)]


def is_true(value: object) -> bool:
    """Tell JavaScript's truth: empty text, zero, NaN and what is missing are false, lists and objects true."""
    if is_missing(value):
        return False
    return isinstance(value, list | dict) or (value == value and bool(value))  # noqa: PLR0124  # NaN


def is_missing(value: object) -> bool:
    """Tell null and what was never set."""
    return value is None or is_undefined(value)


def is_blank(value: object) -> bool:
    """Tell what Liquid calls blank: missing, false, nothing but blanks, an empty list or object."""
    if is_missing(value) or value is False:
        return True
    return not value.strip() if isinstance(value, str) else isinstance(value, list | dict) and not value


def show(value: object) -> str:
    """Return what `{{ value }}` prints: one `<li>` an item of a list."""
    if isinstance(value, list | tuple) and not isinstance(value, BareItems):
        return join_bounded((f"<li>{show(item)}</li>" for item in value), "\n")
    return to_text(value, between=",")


def to_text(value: object, *, between: str = "") -> str:
    """Return a value as text; the items of a list are put side by side."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, list | tuple):
        return join_bounded((to_text(item, between=between) for item in value), between)
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict) else str(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def join_bounded(parts: Iterable[str], separator: str) -> str:
    """Join parts; raises TooMuch before they fill the memory: a list may hold one long text many times."""
    room, kept = MOST_OUTPUT, []
    for part in parts:
        room -= len(part) + len(separator)
        if room < 0:
            raise TooMuch("a value is too long to be printed")
        kept.append(part)
    return separator.join(kept)


def to_number(value: object) -> float:
    """Return JavaScript's number for a value; NaN for what is none."""
    if isinstance(value, int | float):
        return value
    if value is None:
        return 0
    if not isinstance(value, str):
        return math.nan
    text = value.strip()
    if not text:
        return 0
    if len(text) > _LONGEST_NUMBER or not _NUMBER.match(text):
        return math.nan
    return int(text) if text.isdecimal() else float(text)


def is_less(left: object, right: object, *, or_equal: bool) -> bool:
    """Compare as JavaScript does: texts by their characters, all else as numbers. What is missing is never less."""
    if is_missing(left) or is_missing(right):
        return False
    if isinstance(left, str) and isinstance(right, str):
        return left <= right if or_equal else left < right
    first, second = to_number(left), to_number(right)
    return first <= second if or_equal else first < second


def contains(left: object, right: object) -> bool:
    """Tell whether a text has a part, a list an item, an object a key."""
    if is_missing(left) or is_missing(right):
        return False
    if isinstance(left, str):
        return to_text(right) in left
    if isinstance(left, dict):
        return isinstance(right, str) and right in left
    return isinstance(left, list | tuple | range) and right in left


def size_of(value: object) -> int:
    """Return how much work a value is for what goes through it: characters, or ten an item."""
    if isinstance(value, str):
        return len(value)
    return 10 * len(value) if isinstance(value, list | tuple | dict | range) else 1
