"""Which filters does a template have? LiquidJS's: python-liquid's where they agree, our own where they do not.

Where both agree on the result, ours are here because theirs can be made to run for hours or to fill the memory.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any
from urllib.parse import quote

from liquid import Environment, is_undefined
from liquid.builtin.filters.misc import date as liquid_date
from liquid.filter import with_environment

from plunk_relay.mail.template_values import (
    MOST_OUTPUT,
    BareItems,
    TooMuch,
    is_missing,
    is_true,
    join_bounded,
    to_number,
    to_text,
)

Filter = Callable[..., Any]
_TEXT_FILTERS = "liquid.builtin.filters.string"
_LONGEST_DATE = 100
_MOST_DIGITS = 15
_TAGS = {"<script": "</script>", "<style": "</style>", "<!--": "-->"}


def install_filters(environment: Environment) -> None:
    """Make an environment's filters those of a template."""
    for name, known in environment.filters.items():
        if known.__module__ == _TEXT_FILTERS and name != "slice":
            environment.filters[name] = _on_text(known)
    environment.filters.update(_OWN)


def _on_text(known: Filter) -> Filter:
    """Give a filter of python-liquid its texts as JavaScript would write them: `true`, not `True`."""

    @wraps(known)
    def run(left: object, *arguments: object, **options: object) -> Any:
        return known(to_text(left), *map(_as_argument, arguments), **options)

    return run


def _as_argument(value: object) -> object:
    return value if is_undefined(value) or type(value) in (str, int) else to_text(value)


def use_default(value: object, fallback: object = "", *, allow_false: bool = False) -> object:
    """Return the fallback for what JavaScript calls false, and for an empty list."""
    if allow_false and value is False:
        return value
    empty = isinstance(value, list) and not value
    return value if is_true(value) and not empty else fallback


@with_environment
def _date(value: object, form: object = "%A, %B %-e, %Y at %-l:%M %P %z", *, environment: Environment) -> str:
    """Write a date; what is none stays as it is. Long values are no dates, and cost their parser seconds."""
    text, wanted = to_text(value), to_text(form)
    if not text or len(text) > _LONGEST_DATE or len(wanted) > _LONGEST_DATE or isinstance(value, list | dict):
        return text
    written = liquid_date(value if isinstance(value, int) else text, wanted, environment=environment)
    return str(written)


def _replace(value: object, old: object, new: object = "") -> str:
    text, part, other = to_text(value), to_text(old), to_text(new)
    if len(text) + text.count(part) * len(other) > MOST_OUTPUT:
        raise TooMuch("the replaced text is too long")
    return text.replace(part, other)


def _strip_html(value: object) -> str:
    """Remove tags and comments, scripts and styles with what they hold. A `<` that nothing closes is text."""
    text = to_text(value)
    lowered, parts, place = text.lower(), [], 0
    unclosed: set[str] = set()
    while (start := text.find("<", place)) >= 0:
        parts.append(text[place:start])
        end = _find_end(lowered, start, unclosed)
        if end < 0:
            place = start
            break
        place = end
    return "".join([*parts, text[place:]])


def _find_end(lowered: str, start: int, unclosed: set[str]) -> int:
    """Return where the tag ends; what was once not found is not searched again."""
    closers = [closing for opening, closing in _TAGS.items() if lowered.startswith(opening, start)]
    for closing in [*closers, ">"]:
        place = -1 if closing in unclosed else lowered.find(closing, start)
        if place >= 0:
            return place + len(closing)
        unclosed.add(closing)
    return -1


def _join(value: object, separator: object = " ") -> str:
    return join_bounded((to_text(item) for item in _list(value)), to_text(separator))


def _list(value: object) -> list[Any]:
    if is_missing(value):
        return []
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _concat(value: object, more: object = None) -> list[Any]:
    return _list(value) + _list(more)


def _map(value: object, key: object) -> list[Any]:
    return [_property(item, key) for item in _list(value)]


def _property(item: object, key: object) -> Any:
    return item.get(to_text(key)) if isinstance(item, dict) else None


def _where(value: object, key: object = None, wanted: object = None) -> list[Any]:
    return [item for item in _list(value) if _has_property(item, key, wanted)]


def _reject(value: object, key: object = None, wanted: object = None) -> list[Any]:
    return [item for item in _list(value) if not _has_property(item, key, wanted)]


def _find(value: object, key: object = None, wanted: object = None) -> Any:
    return next(iter(_where(value, key, wanted)), None)


def _find_index(value: object, key: object = None, wanted: object = None) -> int | None:
    found = (index for index, item in enumerate(_list(value)) if _has_property(item, key, wanted))
    return next(found, None)


def _has(value: object, key: object = None, wanted: object = None) -> bool:
    return bool(_where(value, key, wanted))


def _has_property(item: object, key: object, wanted: object) -> bool:
    """Tell whether a property is what is wanted; true, when nothing is."""
    found = _property(item, key)
    return is_true(found) if is_missing(wanted) else bool(found == wanted)


def _compact(value: object, key: object = None) -> list[Any]:
    return [item for item in _list(value) if not is_missing(_property(item, key) if is_true(key) else item)]


def _sum(value: object, key: object = None) -> float:
    return sum(_number(_property(item, key) if is_true(key) else item) for item in _list(value))


def _uniq(value: object) -> list[Any]:
    seen: set[object] = set()
    kept = []
    for item in _list(value):
        mark = id(item) if isinstance(item, list | dict | tuple) else (type(item), item)
        if mark not in seen:
            seen.add(mark)
            kept.append(item)
    return kept


def _sort(value: object, key: object = None) -> list[Any]:
    """Sort numbers, then texts; what has neither comes last."""
    return sorted(_list(value), key=lambda item: _rank(_property(item, key) if is_true(key) else item))


def _sort_natural(value: object, key: object = None) -> list[Any]:
    return sorted(_list(value), key=lambda item: to_text(_property(item, key) if is_true(key) else item).lower())


def _rank(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and value == value:  # noqa: PLR0124  # NaN
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, "")


def _pop(value: object) -> list[Any]:
    return _list(value)[:-1]


def _shift(value: object) -> list[Any]:
    return _list(value)[1:]


def _sentence(value: object, connector: object = "and") -> str:
    *first, last = [to_text(item) for item in _list(value)] or [""]
    if not first:
        return last
    comma = "," if len(first) > 1 else ""
    return join_bounded([*first[:-1], f"{first[-1]}{comma} {to_text(connector)} {last}"], ", ")


def _number(value: object) -> float:
    number = to_number(value)
    return 0 if math.isnan(number) else number


def _plus(value: object, other: object = 0) -> float:
    return _number(value) + _number(other)


def _minus(value: object, other: object = 0) -> float:
    return _number(value) - _number(other)


def _times(value: object, other: object = 0) -> float:
    return _number(value) * _number(other)


def _divided_by(value: object, other: object = 0, whole: object = False) -> float:
    """Divide as JavaScript does, 7 by 2 is 3.5; downwards to a whole number when asked to."""
    number, divisor = _number(value), _number(other)
    if divisor == 0:
        return math.nan if number == 0 else math.copysign(math.inf, number)
    return math.floor(number / divisor) if is_true(whole) else number / divisor


def _modulo(value: object, other: object = 0) -> float:
    """Return the rest with the sign of the value, as JavaScript does."""
    divisor = _number(other)
    return math.fmod(_number(value), divisor) if divisor else math.nan


def _round(value: object, digits: object = 0) -> float:
    """Round halves up, as JavaScript does."""
    number, places = _number(value), int(_number(digits))
    if not math.isfinite(number) or places > _MOST_DIGITS:
        return number
    scale = 10.0 ** max(places, -_MOST_DIGITS)
    return math.floor(number * scale + 0.5) / scale


def _whole(rounding: Callable[[float], int]) -> Filter:
    def run(value: object) -> float:
        number = _number(value)
        return rounding(number) if math.isfinite(number) else number

    return run


def _slug(value: object) -> str:
    return re.sub(r"[\W_]+", "-", to_text(value).lower()).strip("-")


def _json(value: object) -> str:
    if isinstance(value, str):
        return to_text({"": value})[4:-1]
    if isinstance(value, list | tuple):
        return f"[{join_bounded(map(_json, value), ',')}]"
    return "null" if is_missing(value) else to_text(value)


def _text_filter(run: Callable[[str], str]) -> Filter:
    return lambda value: run(to_text(value))


def _escape_xml(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


def _extreme(choose: Callable[[Iterable[float]], float]) -> Filter:
    return lambda value, other=0: choose([_number(value), _number(other)])


_OWN: dict[str, Filter] = {
    "abs": lambda value: abs(_number(value)),
    "array_to_sentence_string": _sentence,
    "at_least": _extreme(max),
    "at_most": _extreme(min),
    "ceil": _whole(math.ceil),
    "cgi_escape": _text_filter(lambda text: quote(text, safe="!*'()").replace("%20", "+")),
    "compact": _compact,
    "concat": _concat,
    "date": _date,
    "default": use_default,
    "divided_by": _divided_by,
    "find": _find,
    "find_index": _find_index,
    "floor": _whole(math.floor),
    "has": _has,
    "inspect": _json,
    "join": _join,
    "json": _json,
    "jsonify": _json,
    "map": _map,
    "minus": _minus,
    "modulo": _modulo,
    "normalize_whitespace": _text_filter(lambda text: re.sub(r"\s+", " ", text)),
    "number_of_words": lambda value: len(to_text(value).split()),
    "plus": _plus,
    "pop": _pop,
    "raw": lambda value: BareItems(value) if isinstance(value, list | tuple) else value,
    "reject": _reject,
    "replace": _replace,
    "round": _round,
    "shift": _shift,
    "slugify": _text_filter(_slug),
    "sort": _sort,
    "sort_natural": _sort_natural,
    "strip_html": _strip_html,
    "sum": _sum,
    "times": _times,
    "to_integer": lambda value: int(_number(value)),
    "uniq": _uniq,
    "uri_escape": _text_filter(lambda text: quote(text, safe=";,/?:@&=+$-_.!~*'()#")),
    "where": _where,
    "xml_escape": _text_filter(_escape_xml),
}
