"""Who fits a condition, worked out the slow way? Plain Python over plain values, written from the contract's matrix.

It shares no line with the product: a condition is the JSON of the API, and a person a value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.segments.audience import Json, Person

_ABSENT = object()
_FIRST_TIMES = {
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


@dataclass(frozen=True, slots=True)
class World:
    """What a person is looked at in: the present, and the conditions of the segments that have no table."""

    now: datetime
    conditions: Mapping[str, Json]

    def fits(self, person: Person, condition: Json) -> bool:
        """Tell whether a person fits a condition."""
        groups = [self._fits_group(person, group) for group in condition["groups"]]
        return all(groups) if condition["logic"] == "AND" else any(groups)

    def _fits_group(self, person: Person, group: Json) -> bool:
        nested = group.get("conditions")
        filters = all(self._fits_filter(person, one) for one in group["filters"])
        return filters and (nested is None or self.fits(person, nested))

    def _fits_filter(self, person: Person, one: Json) -> bool:
        head, _, name = one["field"].partition(".")
        operator: str = one["operator"]
        cutoff = self.now - timedelta(**{one["unit"]: one["value"]}) if "unit" in one else self.now
        if head == "segment":
            inside = self.fits(person, self.conditions[name]) if name in self.conditions else name in person.segments
            return inside == (operator == "memberOfSegment")
        if head == "data":
            return fits_data(find(person.data or {}, name), operator, one["value"], cutoff)
        if head == "event":
            return fits_history([at for event, at in person.events if event == name], operator, cutoff)
        if head == "email" and name:
            column = _FIRST_TIMES[name]
            return fits_history([mail[column] for mail in person.mails if column in mail], operator, cutoff)
        if head == "email":
            return fits_address(person.email, operator, one["value"])
        if head == "subscribed":
            same = person.subscribed == (one["value"] is True or one["value"] == "true")
            return same == (operator == "equals")
        return fits_date(person.created_at if head == "createdAt" else person.updated_at, one, cutoff)


def fits_address(stored: str, operator: str, value: str) -> bool:
    match operator:
        case "equals":
            return stored == value.strip().lower()
        case "notEquals":
            return stored != value.strip().lower()
        case "contains":
            return value.lower() in stored
        case _:
            return value.lower() not in stored


def fits_date(stored: datetime, one: Json, cutoff: datetime) -> bool:
    operator: str = one["operator"]
    value = one["value"]
    if operator in ("within", "olderThan"):
        return (stored >= cutoff) == (operator == "within")
    if operator in ("equals", "notEquals"):
        day = find_day(value)
        same = stored.date().isoformat() == day if day else stored == to_moment(value)
        return same == (operator == "equals")
    return compare(operator, stored, to_moment(value))


def fits_history(times: list[datetime], operator: str, cutoff: datetime) -> bool:
    lately = [at for at in times if at >= cutoff]
    return {
        "triggered": bool(times),
        "notTriggered": not times,
        "triggeredWithin": bool(lately),
        "triggeredOlderThan": bool(times) and not lately,
        "notTriggeredWithin": not lately,
    }[operator]


def fits_data(stored: Any, operator: str, value: Any, cutoff: datetime) -> bool:
    match operator:
        case "exists" | "notExists":
            return (stored is not _ABSENT and stored is not None) == (operator == "exists")
        case "equals" | "notEquals":
            return is_equal(stored, value) == (operator == "equals")
        case "contains" | "notContains":
            return (isinstance(stored, str) and value in stored) == (operator == "contains")
        case "within" | "olderThan":
            text = cutoff.strftime("%Y-%m-%dT%H:%M:%S.") + f"{cutoff.microsecond // 1000:03}Z"
            return isinstance(stored, str) and (stored >= text) == (operator == "within")
        case _ if isinstance(value, str):
            return isinstance(stored, str) and compare(operator, stored, value)
        case _:
            return is_number(stored) and compare(operator, stored, value)


def is_equal(stored: Any, value: Any) -> bool:
    day = find_day(value)
    if day:
        return isinstance(stored, str) and stored[:10] == day
    if value is None:
        return stored is _ABSENT or stored is None
    return is_same(stored, value)


def is_same(stored: Any, value: Any) -> bool:
    if is_number(value):
        return is_number(stored) and bool(stored == value)
    if isinstance(value, list):
        if not isinstance(stored, list) or len(stored) != len(value):
            return False
        return all(is_same(mine, other) for mine, other in zip(stored, value, strict=True))
    if isinstance(value, dict):
        if not isinstance(stored, dict) or stored.keys() != value.keys():
            return False
        return all(is_same(stored[key], item) for key, item in value.items())
    return type(stored) is type(value) and bool(stored == value)


def find(data: Mapping[str, Any], name: str) -> Any:
    """Return what a path leads to; a key that is the whole path goes first."""
    if name in data:
        return data[name]
    place: Any = data
    for key in name.split("."):
        if not isinstance(place, Mapping) or key not in place:
            return _ABSENT
        place = place[key]
    return place


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(operator: str, left: Any, right: Any) -> bool:
    return bool(
        {
            "greaterThan": left > right,
            "greaterThanOrEqual": left >= right,
            "lessThan": left < right,
            "lessThanOrEqual": left <= right,
        }[operator]
    )


def to_moment(value: Any) -> datetime:
    if is_number(value):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def find_day(value: Any) -> str | None:
    if not isinstance(value, str) or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T|$)", value):
        return None
    try:
        return to_moment(value).astimezone(UTC).date().isoformat()
    except ValueError:
        return None
