"""Who is meant? The filter grammar of segments and campaign audiences (contract section 17.3), values in, values out.

    condition  {logic: AND or OR, groups: [group, ...]}            groups joined by the logic
    group      {filters: [filter, ...], conditions: condition?}    all of them must hold
    filter     {field, operator, value?, unit?}

What a field is follows from its name: `email`, `subscribed`, `createdAt`, `updatedAt`, `data.<path>`, `event.<name>`,
`email.<activity>`, `segment.<id>`. `segments/filters.py` makes SQL of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from plunk_relay.errors import BadRequest

Logic = Literal["AND", "OR"]
Kind = Literal["email", "subscribed", "date", "data", "event", "activity", "segment"]
Unit = Literal["days", "hours", "minutes"]

MOST_DEEP = 10
"""How deep conditions may be nested: each level is one of parentheses for the database."""
MOST_FILTERS = 200
LONGEST_TEXT = 1000
"""Characters of a field, and of a value."""
MOST_PARTS = 100
"""How many values a list or an object to compare with may hold, at any depth."""

ACTIVITIES = {
    "open": "opened_at",
    "opened": "opened_at",
    "click": "clicked_at",
    "clicked": "clicked_at",
    "bounce": "bounced_at",
    "bounced": "bounced_at",
    "complaint": "complained_at",
    "complained": "complained_at",
    "sent": "sent_at",
    "delivery": "delivered_at",
    "delivered": "delivered_at",
}
"""What may stand behind `email.`, and which time of a mail tells of it."""

_EQUALITY = frozenset({"equals", "notEquals"})
_TEXT = frozenset({"contains", "notContains"})
_ORDER = frozenset({"greaterThan", "lessThan", "greaterThanOrEqual", "lessThanOrEqual"})
_PRESENCE = frozenset({"exists", "notExists"})
_AGE = frozenset({"within", "olderThan"})
_HISTORY = frozenset({"triggered", "triggeredWithin", "triggeredOlderThan", "notTriggered", "notTriggeredWithin"})
_MEMBERSHIP = frozenset({"memberOfSegment", "notMemberOfSegment"})
_WINDOWS = _AGE | {"triggeredWithin", "triggeredOlderThan", "notTriggeredWithin"}
_VALUELESS = _PRESENCE | _MEMBERSHIP | {"triggered", "notTriggered"}
OPERATORS: dict[Kind, frozenset[str]] = {
    "email": _EQUALITY | _TEXT,
    "subscribed": _EQUALITY,
    "date": _EQUALITY | _ORDER | _AGE,
    "data": _EQUALITY | _TEXT | _ORDER | _PRESENCE | _AGE,
    "event": _HISTORY,
    "activity": _HISTORY,
    "segment": _MEMBERSHIP,
}
"""Which operators a kind of field has."""
_ALL_OPERATORS = frozenset[str]().union(*OPERATORS.values())
_UNITS: dict[Unit, timedelta] = {"days": timedelta(days=1), "hours": timedelta(hours=1), "minutes": timedelta(minutes=1)}
_DAY = re.compile(r"\d{4}-\d\d-\d\d(T|\Z)")
_LONGEST_WINDOW = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Filter:
    """One test of a contact; `unit` is set for windows, whose `value` is a number of them."""

    field: str
    operator: str
    value: Any
    unit: Unit | None

    @property
    def kind(self) -> Kind:
        """What the field is."""
        return kind_of(self.field) or "data"

    @property
    def name(self) -> str:
        """What stands behind the first dot: a path, an event, an activity, an id."""
        return self.field.partition(".")[2]

    def cutoff(self, now: datetime) -> datetime:
        """Return the beginning of a window that ends now."""
        assert self.unit is not None  # noqa: S101  checked for every window
        unit = _UNITS[self.unit]
        number: float = min(self.value, _LONGEST_WINDOW / unit)
        return now - number * unit


@dataclass(frozen=True, slots=True)
class Group:
    """Filters, and a condition of their own, that must all hold."""

    filters: tuple[Filter, ...]
    conditions: "Condition | None"


@dataclass(frozen=True, slots=True)
class Condition:
    """Groups of which all (AND) or one (OR) must hold."""

    logic: Logic
    groups: tuple[Group, ...]


def kind_of(field: str) -> Kind | None:
    """Tell what a field is; None: there is no such field."""
    kinds: dict[str, Kind] = {"email": "email", "subscribed": "subscribed", "createdAt": "date", "updatedAt": "date"}
    if field in kinds:
        return kinds[field]
    head, _, name = field.partition(".")
    if not name:
        return None
    prefixes: dict[str, Kind] = {"data": "data", "event": "event", "segment": "segment"}
    if head == "email":
        return "activity" if name in ACTIVITIES else None
    return prefixes.get(head)


def check_condition(value: object, *, field: str = "condition") -> Condition:
    """Read a condition; raises BadRequest that names the place, such as `condition.groups.0.filters.1.operator`."""
    condition = _read_condition(value, field, depth=1)
    if sum(1 for _ in list_filters(condition)) > MOST_FILTERS:
        raise BadRequest(f"{field}: a condition has at most {MOST_FILTERS} filters.")
    return condition


def strip_condition(value: Any) -> dict[str, Any]:
    """Return a condition that was checked, as it was sent, without what the grammar does not know."""
    return {"logic": value["logic"], "groups": [_strip_group(group) for group in value["groups"]]}


def _strip_group(group: dict[str, Any]) -> dict[str, Any]:
    stripped: dict[str, Any] = {"filters": [_strip_filter(one) for one in group["filters"]]}
    if group.get("conditions") is not None:
        stripped["conditions"] = strip_condition(group["conditions"])
    return stripped


def _strip_filter(one: dict[str, Any]) -> dict[str, Any]:
    known = {"field", "operator", "value"} | ({"unit"} if isinstance(one.get("unit"), str) else set())
    return {name: value for name, value in one.items() if name in known}


def list_filters(condition: Condition) -> Iterator[Filter]:
    """Go through the filters, those of nested conditions too."""
    for group in condition.groups:
        yield from group.filters
        if group.conditions is not None:
            yield from list_filters(group.conditions)


def list_fields(condition: Condition) -> set[str]:
    """Return the fields that are named."""
    return {one.field for one in list_filters(condition)}


def list_segment_ids(condition: Condition) -> set[str]:
    """Return the ids of the segments that are named."""
    return {one.name for one in list_filters(condition) if one.kind == "segment"}


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 date or time as an instant, UTC when it names no zone; milliseconds since 1970 are one too."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
        return read and (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # astimezone: a time before the year 1
        return None


def read_day(value: object) -> str | None:
    """Return the UTC day, YYYY-MM-DD, that a text begins with; None when it begins otherwise."""
    if not isinstance(value, str) or not _DAY.match(value):
        return None
    moment = read_time(value)
    return moment.date().isoformat() if moment else None


def _read_condition(value: object, place: str, *, depth: int) -> Condition:
    if not isinstance(value, dict):
        raise BadRequest(f"{place} must be an object with `logic` and `groups`.")
    if depth > MOST_DEEP:
        raise BadRequest(f"{place}: conditions may be nested {MOST_DEEP} deep, not deeper.")
    logic, groups = value.get("logic"), value.get("groups")
    if logic not in ("AND", "OR"):
        raise BadRequest(f"{place}.logic must be AND or OR.")
    if not isinstance(groups, list) or not groups:
        raise BadRequest(f"{place}.groups must be a list of at least one group.")
    if len(groups) > MOST_FILTERS:
        raise BadRequest(f"{place}: a condition has at most {MOST_FILTERS} filters.")
    read = [_read_group(group, f"{place}.groups.{index}", depth=depth) for index, group in enumerate(groups)]
    return Condition(logic, tuple(read))


def _read_group(value: object, place: str, *, depth: int) -> Group:
    if not isinstance(value, dict):
        raise BadRequest(f"{place} must be an object with `filters`.")
    filters, nested = value.get("filters"), value.get("conditions")
    if not isinstance(filters, list):
        raise BadRequest(f"{place}.filters must be a list.")
    if not filters and nested is None:
        raise BadRequest(f"{place} is empty: it needs at least one filter, or `conditions`.")
    if len(filters) > MOST_FILTERS:
        raise BadRequest(f"{place}: a condition has at most {MOST_FILTERS} filters.")
    inner = None if nested is None else _read_condition(nested, f"{place}.conditions", depth=depth + 1)
    return Group(tuple(_read_filter(one, f"{place}.filters.{index}") for index, one in enumerate(filters)), inner)


def _read_filter(value: object, place: str) -> Filter:
    if not isinstance(value, dict):
        raise BadRequest(f"{place} must be an object with `field` and `operator`.")
    field, operator, unit = value.get("field"), value.get("operator"), value.get("unit")
    kind = _check_field(field, place)
    _check_operator(operator, kind, str(field), place)
    if operator not in _VALUELESS and "value" not in value:
        raise BadRequest(f"{place}.value is missing: the operator {operator} needs one.")
    found = Filter(str(field), str(operator), value.get("value"), unit if operator in _WINDOWS else None)
    _check_value(found, unit, place)
    return found


def _check_field(field: object, place: str) -> Kind:
    if not isinstance(field, str) or not field:
        raise BadRequest(f"{place}.field is missing: name a field, such as `email` or `data.plan`.")
    kind = kind_of(field)
    if len(field) > LONGEST_TEXT or "\0" in field or kind is None:
        raise BadRequest(
            f"{place}.field: there is no field `{field[:100]}`. Use email, subscribed, createdAt, updatedAt, data.<key>, "
            f"event.<name>, segment.<id>, or email.<activity> with {', '.join(ACTIVITIES)}."
        )
    return kind


def _check_operator(operator: object, kind: Kind, field: str, place: str) -> None:
    if not isinstance(operator, str) or not operator:
        raise BadRequest(f"{place}.operator is missing.")
    fitting = ", ".join(sorted(OPERATORS[kind]))
    if operator not in _ALL_OPERATORS:
        raise BadRequest(f"{place}.operator: there is no operator `{operator[:100]}`. {field[:100]} takes: {fitting}.")
    if operator not in OPERATORS[kind]:
        raise BadRequest(f"{place}.operator: {field[:100]} has no {operator}; it takes: {fitting}.")


def _check_value(found: Filter, unit: object, place: str) -> None:
    if found.operator in _WINDOWS:
        _check_window(found.value, unit, place)
    elif found.kind == "email" and not isinstance(found.value, str):
        raise BadRequest(f"{place}.value must be a string.")
    elif found.kind == "date" and read_time(found.value) is None:
        raise BadRequest(f"{place}.value must be a date or a time, such as 2026-05-06 or 2026-05-06T10:00:00Z.")
    elif found.operator in _TEXT and not isinstance(found.value, str):
        raise BadRequest(f"{place}.value must be a string.")
    elif found.operator in _ORDER and (isinstance(found.value, bool) or not isinstance(found.value, str | int | float)):
        raise BadRequest(f"{place}.value must be a number or a string.")
    _check_size(found.value, f"{place}.value")


def _check_size(value: object, place: str) -> None:
    """Refuse what would make a statement too large for the database, and U+0000, which not every database has."""
    waiting, parts = [(value, 0)], -1
    while waiting:
        one, depth = waiting.pop()
        parts += 1
        texts = [one, *one] if isinstance(one, dict) else [one]
        if any(isinstance(text, str) and (len(text) > LONGEST_TEXT or "\0" in text) for text in texts):
            raise BadRequest(f"{place} must have at most {LONGEST_TEXT} characters, and none of them U+0000.")
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting += [(part, depth + 1) for part in inside]
        if parts > MOST_PARTS or depth > MOST_DEEP:
            raise BadRequest(f"{place} must be nested at most {MOST_DEEP} deep, with at most {MOST_PARTS} values in it.")


def _check_window(value: object, unit: object, place: str) -> None:
    if not isinstance(unit, str) or unit not in _UNITS:
        raise BadRequest(f"{place}.unit must be days, hours or minutes.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise BadRequest(f"{place}.value must be a number of {unit}, 0 or more.")
