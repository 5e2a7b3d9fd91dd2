"""Which contacts fit a condition? One boolean SQL expression over `contacts`, the same for SQLite and PostgreSQL.

What contract section 17.5 leaves open is decided so:

- A negation (`notEquals`, `notContains`) holds for contacts that lack the field; `exists` beside it leaves them out.
- A value that is null is one that is not there: `equals` null is `notExists`, `notEquals` null is `exists`.
- `data.a.b` is the key `b` of the object `a`; where a contact has a key `a.b` outside any object, that one counts.
- Objects are equal when their keys and values are, in whatever order; 1 equals 1.0, and neither equals "1" or true.
- Segments may not refer to each other in a circle, be they tracked or not.

Cheap tests of columns stand before those of JSON, and those before history. Who did something is listed once from the index
of events or mails, and not asked for each contact, unless few are asked about: for a million the list is the faster way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.clock import format_time
from plunk_relay.conditions import (
    ACTIVITIES,
    MOST_DEEP,
    Condition,
    Filter,
    Group,
    check_condition,
    list_segment_ids,
    read_day,
    read_time,
)
from plunk_relay.db.json_values import (
    is_number,
    json_equal,
    json_kind,
    json_number,
    json_text,
    number_literal,
    text_position,
)
from plunk_relay.db.portable import all_of, any_of, unindexed
from plunk_relay.db.tables import contacts, emails, events, segment_memberships, segments
from plunk_relay.db.types import Time
from plunk_relay.errors import BadRequest

Test = sa.ColumnElement[bool]
Among = Literal["all", "few"]
MOST_TESTS = 1_000
"""How many filters a condition may come to with those of the segments that stand for theirs."""
MOST_KEYS = 10
"""How many keys a path may have; with more dots, a field is one key that holds them."""
_TO_THE_END_OF_A_DAY = timedelta(days=1) - timedelta(milliseconds=1)
LONGEST_CHAIN = 50
"""How many segments may name each other one after another."""
_DEEP = 3
_NARROW = timedelta(days=2)
_USUAL = {"sent_at", "delivered_at"}
_COSTS = {"subscribed": 0, "date": 1, "email": 2, "segment": 3, "data": 4, "event": 5, "activity": 6}
"""In which order the tests of a group stand: the cheap ones first."""
_NEGATIONS = {"notEquals": "equals", "notContains": "contains", "notExists": "exists"}
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
    among: Among = "all",
) -> Test:
    """Return the test, for a WHERE beside `contacts.c.project_id == project_id`; NULL is no.

    Segments that are referred to are looked up inside the project. `within` are the ids of the segments that the
    condition is of. `among` says whether all contacts of the project are asked about, or few of them: a stretch of a
    thousand, or one. Raises BadRequest for a segment that is not there, for one that leads back to itself, and for
    conditions that become too large or too deep with the segments they name.
    """
    named = _Segments(tx, project_id)
    named.load(condition, within)
    compiler = _Compiler(project_id, now, named.known, among)
    if compiler.levels(condition) > MOST_DEEP:
        raise BadRequest(f"Conditions may be nested {MOST_DEEP} deep, with those of the segments they name.")
    return compiler.condition(condition)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment that is referred to; a static one has no condition."""

    id: str
    condition: Condition | None
    in_table: bool

    @property
    def inline(self) -> Condition | None:
        """The condition that stands for it; None: its members are in the table."""
        return None if self.in_table else self.condition


@dataclass(slots=True)
class _Segments:
    """Load the segments that a condition refers to, at whatever distance, each once."""

    tx: sa.Connection
    project_id: str
    known: dict[str, _Segment] = field(default_factory=dict)
    explored: set[str] = field(default_factory=set)

    def load(self, condition: Condition, within: frozenset[str]) -> None:
        ids = list_segment_ids(condition)
        for circular in sorted(ids & within):
            raise BadRequest(f"The condition leads back to the segment {circular}: a segment cannot depend on itself.")
        if len(within) > LONGEST_CHAIN:
            raise BadRequest(f"The condition names a segment that names another, and so on, over more than {LONGEST_CHAIN}.")
        self._find(ids - set(self.known))
        for one in sorted(ids - self.explored):
            named = self.known[one].condition
            if named is not None:
                self.load(named, within | {one})
            self.explored.add(one)

    def _find(self, ids: set[str]) -> None:
        columns = (segments.c.id, segments.c.type, segments.c.track_membership, segments.c.condition)
        named = segments.c.id.in_(sorted(ids)) & (unindexed(segments.c.project_id) == self.project_id)
        rows = self.tx.execute(sa.select(*columns).where(named)).all() if ids else []
        for unknown in sorted(ids - {row.id for row in rows}):
            raise BadRequest(f"The condition names the segment {unknown}, which this project does not have.")
        self.known |= {row.id: _read_segment(row) for row in rows}


def _read_segment(row: Any) -> _Segment:
    is_static = row.type == "STATIC"
    return _Segment(row.id, None if is_static else check_condition(row.condition), is_static or row.track_membership)


@dataclass(slots=True)
class _Compiler:
    project_id: str
    now: datetime
    segments: dict[str, _Segment]
    among: Among
    tests: int = 0
    known_levels: dict[int, int] = field(default_factory=dict)

    def levels(self, condition: Condition) -> int:
        """Return how deep a condition goes, with those of the segments that stand in it."""
        known = self.known_levels.get(id(condition))
        if known is None:
            known = 1 + max((self._levels_inside(group) for group in condition.groups), default=0)
            self.known_levels[id(condition)] = known
        return known

    def _levels_inside(self, group: Group) -> int:
        own = 0 if group.conditions is None else self.levels(group.conditions)
        return max([own, *(self._levels_of(one) for one in group.filters)])

    def _levels_of(self, one: Filter) -> int:
        inline = self.segments[one.name].inline if one.kind == "segment" else None
        return 0 if inline is None else self.levels(inline)

    def condition(self, condition: Condition) -> Test:
        groups = sorted(condition.groups, key=lambda group: _deep_first(self._levels_inside(group)))
        tests = [self._group(group) for group in groups]
        return all_of(tests) if condition.logic == "AND" else any_of(tests)

    def _group(self, group: Group) -> Test:
        filters = sorted(group.filters, key=lambda one: (_deep_first(self._levels_of(one)), _COSTS[one.kind]))
        tests = [(_deep_first(self._levels_of(one)), self._filter(one)) for one in filters]
        if group.conditions is not None:
            tests.append((_deep_first(self.levels(group.conditions)), self.condition(group.conditions)))
        return all_of([test for _, test in sorted(tests, key=lambda pair: pair[0])])

    def _filter(self, one: Filter) -> Test:
        self.tests += 1
        if self.tests > MOST_TESTS:
            raise BadRequest(f"The condition has more than {MOST_TESTS} filters, with those of the segments it names.")
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
                return self._segment_test(one)

    def _event_test(self, one: Filter) -> Test:
        """Test by the index of names, which has all that is asked for: that of times does not."""
        where = [events.c.project_id == self.project_id, events.c.name == one.name, events.c.contact_id.is_not(None)]
        since = unindexed(events.c.created_at) >= _time(one.cutoff(self.now)) if one.unit else None
        return self._history_test(one.operator, events.c.contact_id, where, since)

    def _activity_test(self, one: Filter) -> Test:
        """Test by the index of the time; what happens to nearly every mail has none, so it is looked for in all of them."""
        happened = emails.c[ACTIVITIES[one.name]]
        own_index = self.among == "all" or happened.name not in _USUAL
        project_id = emails.c.project_id if own_index else unindexed(emails.c.project_id)
        since = happened >= _time(one.cutoff(self.now)) if one.unit else None
        where = [project_id == self.project_id, happened.is_not(None)]
        return self._history_test(one.operator, emails.c.contact_id, where, since)

    def _history_test(self, operator: str, contact_id: sa.Column[Any], where: Sequence[Test], since: Test | None) -> Test:
        """Test what happened, ever or since; never and not since hold for contacts with no history at all."""
        ever = self._is_listed(contact_id, where)
        lately = ever if since is None else self._is_listed(contact_id, [*where, since])
        match operator:
            case "triggered":
                return ever
            case "triggeredWithin":
                return lately
            case "triggeredOlderThan":
                return ever & sa.not_(lately)
            case _:
                return sa.not_(lately)

    def _segment_test(self, one: Filter) -> Test:
        """Test membership: by the table where it is kept, else by the segment's own condition."""
        segment = self.segments[one.name]
        if segment.inline is None:
            present = segment_memberships.c.exited_at.is_(None)
            inside = self._is_listed(
                segment_memberships.c.contact_id, [segment_memberships.c.segment_id == segment.id, present]
            )
        else:
            inside = self.condition(segment.inline)
        return inside if one.operator == "memberOfSegment" else _not(inside)

    def _is_listed(self, contact_id: sa.Column[Any], where: Sequence[Test]) -> Test:
        """Test whether a contact is in a table. `contact_id` must not be NULL there: NOT IN would hold for nobody."""
        if self.among == "all":
            return contacts.c.id.in_(sa.select(contact_id).where(*where))
        return sa.exists(sa.select(1).where(contact_id == contacts.c.id, *where).correlate(contacts))


def _deep_first(levels: int) -> int:
    """Sort what goes deep before the rest, which SQLite's parser would have to keep in mind: it has room for a hundred."""
    return -levels if levels >= _DEEP else 0


def _not(test: Test) -> Test:
    """Turn a test round that is NULL for what is not there: that is no."""
    return test.is_not(sa.true())


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
    same = column.between(_time(start), _time(start + _TO_THE_END_OF_A_DAY)) if day else column == _time(moment)
    return same if one.operator == "equals" else sa.not_(same)


def _index_when_narrow(column: sa.Column[Any], window: timedelta) -> sa.ColumnElement[Any]:
    """Let the index be used for a short time only: a walk over all contacts is faster than many look-ups."""
    return column if window <= _NARROW else unindexed(column)


def _time(moment: datetime) -> sa.ColumnElement[Any]:
    return sa.literal(moment, Time)


def _data_test(one: Filter, now: datetime) -> Test:
    """Test a custom field; a key that holds the dots itself goes before the path they make."""
    keys = one.name.split(".")
    whole = _value_test([one.name], one, now)
    if len(keys) == 1 or len(keys) > MOST_KEYS:
        return whole
    of_whole = json_kind(contacts.c.data, [one.name])
    return (of_whole.is_(None) & _value_test(keys, one, now)) | (of_whole.is_not(None) & whole)


def _value_test(keys: Sequence[str], one: Filter, now: datetime) -> Test:
    negated = _NEGATIONS.get(one.operator)
    tests = _Place(tuple(keys)).tests(negated or one.operator, one, now)
    return all_of(tests) if negated is None else _none_of(tests)


def _none_of(tests: Sequence[Test]) -> Test:
    """Test that not all of these hold: the first that does not decides, and the others are not worked out."""
    return any_of([_not(test) for test in tests])


@dataclass(frozen=True, slots=True)
class _Place:
    """A custom field. What is asked of it are tests that must all hold: of the value, then of its kind, which tells less."""

    keys: tuple[str, ...]

    def tests(self, operator: str, one: Filter, now: datetime) -> list[Test]:
        match operator:
            case "exists":
                return [self.kind() != "null"]
            case "equals":
                return self.equals(one.value)
            case "contains":
                return [text_position(self.text(), one.value) > 0, self.kind() == "text"]
            case "within":
                return self.compares(_ORDERS["greaterThanOrEqual"], format_time(one.cutoff(now)))
            case "olderThan":
                return self.compares(_ORDERS["lessThan"], format_time(one.cutoff(now)))
            case _:
                return self.compares(_ORDERS[operator], one.value)

    def equals(self, value: Any) -> list[Test]:
        """Compare by type; a date is compared with the day that a text begins with."""
        day = read_day(value)
        if value is None:
            return [_not(self.kind() != "null")]
        if day is not None:
            return [sa.func.substr(self.text(), 1, 10) == day]  # nothing but text begins so
        if isinstance(value, bool | dict | list):
            return [json_equal(contacts.c.data, self.keys, value)]
        return self.compares(lambda stored, wanted: stored == wanted, value)

    def compares(self, order: Callable[[Any, Any], Any], bound: str | float) -> list[Test]:
        if isinstance(bound, str):
            return [order(self.text(), bound), self.kind() == "text"]
        number = json_number(contacts.c.data, self.keys)
        return [order(number, number_literal(bound)), is_number(contacts.c.data, self.keys)]

    def kind(self) -> sa.ColumnElement[str]:
        return json_kind(contacts.c.data, self.keys)

    def text(self) -> sa.ColumnElement[str]:
        return json_text(contacts.c.data, self.keys)
