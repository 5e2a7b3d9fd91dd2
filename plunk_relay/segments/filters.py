"""Which contacts fit a condition? One boolean SQL expression over `contacts`, the same for SQLite and PostgreSQL.

What contract section 17.5 leaves open is decided so:

- A negation (`notEquals`, `notContains`) holds for contacts that lack the field; `exists` beside it leaves them out.
- `data.a.b` is the key `b` of the object `a`; where a contact has a key `a.b`, that one counts.
- Objects are equal when their keys and values are, in whatever order; 1 equals 1.0, and neither equals "1" or true.

A filter on history asks the index of events, or of a contact's mails; cheap tests of columns stand before those of JSON.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from plunk_relay.clock import format_time
from plunk_relay.conditions import ACTIVITIES, Condition, Filter, Group, check_condition, read_day, read_time
from plunk_relay.db.json_values import json_equal, json_kind, json_number, json_text, text_position
from plunk_relay.db.portable import unindexed
from plunk_relay.db.tables import contacts, emails, events, segment_memberships, segments
from plunk_relay.db.types import Time
from plunk_relay.errors import BadRequest

Test = sa.ColumnElement[bool]
_DAY = timedelta(days=1)
_NARROW = timedelta(days=2)
_COSTS = {"subscribed": 0, "date": 1, "email": 2, "segment": 3, "data": 4, "event": 5, "activity": 6}
"""In which order the tests of a group stand: the cheap ones first."""
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "greaterThan": lambda value, bound: value > bound,
    "greaterThanOrEqual": lambda value, bound: value >= bound,
    "lessThan": lambda value, bound: value < bound,
    "lessThanOrEqual": lambda value, bound: value <= bound,
}


def match(
    tx: sa.Connection,
    project_id: str,
    condition: Condition,
    *,
    now: datetime,
    within: frozenset[str] = frozenset(),
) -> Test:
    """Return the test, for a WHERE beside `contacts.c.project_id == project_id`.

    Segments that are referred to are looked up inside the project. `within` are the ids of the segments that the
    condition is of. Raises BadRequest for a segment that is not there, and for one that leads back to itself.
    """
    return _Compiler(tx, project_id, now).condition(condition, within)


@dataclass(frozen=True, slots=True)
class _Compiler:
    tx: sa.Connection
    project_id: str
    now: datetime

    def condition(self, condition: Condition, within: frozenset[str]) -> Test:
        tests = [self._group(group, within) for group in condition.groups]
        return sa.and_(*tests) if condition.logic == "AND" else sa.or_(*tests)

    def _group(self, group: Group, within: frozenset[str]) -> Test:
        tests = [self._filter(one, within) for one in sorted(group.filters, key=lambda one: _COSTS[one.kind])]
        if group.conditions is not None:
            tests.append(self.condition(group.conditions, within))
        return sa.and_(*tests)

    def _filter(self, one: Filter, within: frozenset[str]) -> Test:
        match one.kind:
            case "email":
                return _email_test(one)
            case "subscribed":
                wanted = one.value is True or one.value == "true"
                return contacts.c.subscribed.is_(wanted if one.operator == "equals" else not wanted)
            case "date":
                return _date_test(one, self.now)
            case "data":
                return _data_test(one, self.now)
            case "event":
                return self._event_test(one)
            case "activity":
                return self._activity_test(one)
            case "segment":
                return self._segment_test(one, within)

    def _event_test(self, one: Filter) -> Test:
        where = [events.c.project_id == self.project_id, events.c.name == one.name]
        since = events.c.created_at >= sa.literal(one.cutoff(self.now), Time) if one.unit else None
        return _history_test(one.operator, events.c.contact_id, where, since)

    def _activity_test(self, one: Filter) -> Test:
        happened = emails.c[ACTIVITIES[one.name]]
        where = [unindexed(emails.c.project_id) == self.project_id, happened.is_not(None)]  # by the contact's own index
        since = happened >= sa.literal(one.cutoff(self.now), Time) if one.unit else None
        return _history_test(one.operator, emails.c.contact_id, where, since)

    def _segment_test(self, one: Filter, within: frozenset[str]) -> Test:
        inside = self._members(one.name, within)
        return inside if one.operator == "memberOfSegment" else sa.not_(inside)

    def _members(self, segment_id: str, within: frozenset[str]) -> Test:
        """Test membership: by the table where it is kept, else by the segment's own condition."""
        if segment_id in within:
            raise BadRequest(f"The condition leads back to the segment {segment_id}: a segment cannot depend on itself.")
        named = (segments.c.project_id == self.project_id) & (segments.c.id == segment_id)
        columns = (segments.c.type, segments.c.track_membership, segments.c.condition)
        row = self.tx.execute(sa.select(*columns).where(named)).one_or_none()
        if row is None:
            raise BadRequest(f"The condition names the segment {segment_id}, which this project does not have.")
        if row.type == "STATIC" or row.track_membership:
            return contacts.c.id.in_(
                sa.select(segment_memberships.c.contact_id).where(
                    segment_memberships.c.segment_id == segment_id, segment_memberships.c.exited_at.is_(None)
                )
            )
        return self.condition(check_condition(row.condition), within | {segment_id})


def _history_test(operator: str, contact_id: sa.Column[Any], where: Sequence[Test], since: Test | None) -> Test:
    """Test what happened, ever or since; never and not since hold for contacts with no history at all."""
    ever = _happened(contact_id, where)
    lately = ever if since is None else _happened(contact_id, [*where, since])
    match operator:
        case "triggered":
            return ever
        case "triggeredWithin":
            return lately
        case "triggeredOlderThan":
            return ever & sa.not_(lately)
        case _:
            return sa.not_(lately)


def _happened(contact_id: sa.Column[Any], where: Sequence[Test]) -> Test:
    return sa.exists(sa.select(1).where(contact_id == contacts.c.id, *where).correlate(contacts))


def _email_test(one: Filter) -> Test:
    value = str(one.value).lower()
    if one.operator in ("equals", "notEquals"):
        same: Test = contacts.c.email == value.strip()
        return same if one.operator == "equals" else sa.not_(same)
    found: Test = text_position(contacts.c.email, value) > 0
    return found if one.operator == "contains" else sa.not_(found)


def _date_test(one: Filter, now: datetime) -> Test:
    stored = contacts.c.created_at if one.field == "createdAt" else contacts.c.updated_at
    if one.operator == "within":
        return _index_when_narrow(stored, now - one.cutoff(now)) >= _time(one.cutoff(now))
    column = unindexed(stored)
    if one.operator == "olderThan":
        return column < _time(one.cutoff(now))
    moment = read_time(one.value)
    assert moment is not None  # noqa: S101  checked with the condition
    if one.operator in _ORDERS:
        test: Test = _ORDERS[one.operator](column, _time(moment))
        return test
    day = read_day(one.value)
    start = datetime.fromisoformat(f"{day}T00:00:00+00:00") if day else moment
    same = (column >= _time(start)) & (column < _time(start + _DAY)) if day else column == _time(moment)
    return same if one.operator == "equals" else sa.not_(same)


def _index_when_narrow(column: sa.Column[Any], window: timedelta) -> sa.ColumnElement[Any]:
    """Let the index be used for a short time only: a walk over all contacts is faster than many look-ups."""
    return column if window <= _NARROW else unindexed(column)


def _time(moment: datetime) -> sa.ColumnElement[Any]:
    return sa.literal(moment, Time)


def _data_test(one: Filter, now: datetime) -> Test:
    """Test a custom field; a key that holds the dots itself goes before the path they make."""
    keys = one.name.split(".")
    if len(keys) == 1:
        return _value_test(keys, one, now)
    whole = json_kind(contacts.c.data, [one.name]).is_not(None)
    return sa.case((whole, _value_test([one.name], one, now)), else_=_value_test(keys, one, now))


def _value_test(keys: Sequence[str], one: Filter, now: datetime) -> Test:
    place = _Place(contacts.c.data, tuple(keys))
    match one.operator:
        case "exists":
            return place.present()
        case "notExists":
            return sa.not_(place.present())
        case "equals":
            return place.equals(one.value)
        case "notEquals":
            return sa.not_(sa.func.coalesce(place.equals(one.value), sa.false()))
        case "contains":
            return place.contains(one.value)
        case "notContains":
            return sa.not_(sa.func.coalesce(place.contains(one.value), sa.false()))
        case "within":
            return place.is_text() & (place.text() >= format_time(one.cutoff(now)))
        case "olderThan":
            return place.is_text() & (place.text() < format_time(one.cutoff(now)))
        case _:
            return place.compares(_ORDERS[one.operator], one.value)


@dataclass(frozen=True, slots=True)
class _Place:
    """A value inside a JSON column."""

    column: sa.ColumnElement[Any]
    keys: tuple[str, ...]

    def kind(self) -> sa.ColumnElement[str]:
        return json_kind(self.column, self.keys)

    def text(self) -> sa.ColumnElement[str]:
        return json_text(self.column, self.keys)

    def present(self) -> Test:
        return sa.func.coalesce(self.kind(), "null") != "null"

    def is_text(self) -> Test:
        return self.kind() == "text"

    def is_number(self) -> Test:
        return self.kind().in_(("integer", "real"))

    def contains(self, value: str) -> Test:
        return self.is_text() & (text_position(self.text(), value) > 0)

    def compares(self, order: Callable[[Any, Any], Any], bound: str | float) -> Test:
        if isinstance(bound, str):
            return sa.and_(self.is_text(), order(self.text(), bound))
        return sa.and_(self.is_number(), order(json_number(self.column, self.keys), bound))

    def equals(self, value: Any) -> Test:
        """Compare by type; a date is compared with the day that a text begins with."""
        day = read_day(value)
        if day is not None:
            return self.is_text() & (sa.func.substr(self.text(), 1, 10) == day)
        return json_equal(self.column, self.keys, value)
