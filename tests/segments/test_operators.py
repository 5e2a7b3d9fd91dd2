"""Whom does each operator find? The tables of `cases.py`, each row against both databases."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from plunk_relay.conditions import ACTIVITIES, OPERATORS
from tests.segments.audience import Audience, Json, Person, ago, one
from tests.segments.cases import (
    AGES,
    DATA,
    DATE_AGES,
    DATES,
    EMAIL,
    HISTORY,
    MISSING,
    PATHS,
    SUBSCRIBED,
    Row,
)


def _name(part: object) -> str:
    return str(part)[:40]


@pytest.mark.parametrize(("operator", "value", "fitting", "others"), DATA, ids=_name)
def test_custom_field(audience: Audience, operator: str, value: Any, fitting: list[Any], others: list[Any]) -> None:
    condition = one("data.x", operator, value)
    _check(audience, condition, [_having(stored) for stored in fitting], [_having(stored) for stored in others])


@pytest.mark.parametrize(("operator", "value", "unit", "fitting", "others"), AGES, ids=_name)
def test_age_of_a_custom_field(
    audience: Audience, operator: str, value: float, unit: str, fitting: list[Any], others: list[Any]
) -> None:
    condition = one("data.x", operator, value, unit)
    _check(audience, condition, [_having(stored) for stored in fitting], [_having(stored) for stored in others])


@pytest.mark.parametrize(("field", "data", "holds"), PATHS, ids=_name)
def test_path_of_a_custom_field(audience: Audience, field: str, data: Json | None, holds: bool) -> None:
    person = Person(data=data)
    audience.add(person)
    assert audience.find(one(field, "equals", 1)) == ({person.email} if holds else set())
    assert audience.find(one(field, "notEquals", 1)) == (set() if holds else {person.email})
    assert audience.find(one(field, "greaterThan", 0)) == audience.find(one(field, "lessThan", 3)) - audience.find(
        one(field, "lessThanOrEqual", 0)
    )


@pytest.mark.parametrize(("operator", "value", "fitting", "others"), EMAIL, ids=_name)
def test_address(audience: Audience, operator: str, value: str, fitting: list[str], others: list[str]) -> None:
    yes, no = [Person(email=email) for email in fitting], [Person(email=email) for email in others]
    _check(audience, one("email", operator, value), yes, no)


@pytest.mark.parametrize(("operator", "value", "fitting", "others"), SUBSCRIBED, ids=_name)
def test_subscription(audience: Audience, operator: str, value: Any, fitting: list[bool], others: list[bool]) -> None:
    yes, no = [Person(subscribed=value) for value in fitting], [Person(subscribed=value) for value in others]
    _check(audience, one("subscribed", operator, value), yes, no)


@pytest.mark.parametrize("field", ["createdAt", "updatedAt"])
@pytest.mark.parametrize("row", DATES, ids=_name)
def test_date(audience: Audience, field: str, row: Row) -> None:
    operator, value, fitting, others = row
    yes, no = [_dated(field, _time(text)) for text in fitting], [_dated(field, _time(text)) for text in others]
    _check(audience, one(field, operator, value), yes, no)


@pytest.mark.parametrize("field", ["createdAt", "updatedAt"])
@pytest.mark.parametrize(("operator", "value", "unit", "fitting", "others"), DATE_AGES, ids=_name)
def test_age(
    audience: Audience, field: str, operator: str, value: float, unit: str, fitting: list[float], others: list[float]
) -> None:
    yes, no = [_dated(field, ago(days)) for days in fitting], [_dated(field, ago(days)) for days in others]
    _check(audience, one(field, operator, value, unit), yes, no)


@pytest.mark.parametrize(("operator", "value", "unit", "fitting", "others"), HISTORY, ids=_name)
def test_event(
    audience: Audience,
    operator: str,
    value: float | None,
    unit: str | None,
    fitting: list[list[float]],
    others: list[list[float]],
) -> None:
    name = "order.placed (2)"
    yes, no = ([Person(events=[(name, ago(day)) for day in days]) for days in histories] for histories in (fitting, others))
    _check(audience, one(f"event.{name}", operator, value, unit), yes, no)


@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize(("operator", "value", "unit", "fitting", "others"), HISTORY, ids=_name)
def test_activity(
    audience: Audience,
    activity: str,
    operator: str,
    value: float | None,
    unit: str | None,
    fitting: list[list[float]],
    others: list[list[float]],
) -> None:
    column = _COLUMNS[activity]
    yes, no = ([Person(mails=[{column: ago(day)} for day in days]) for days in histories] for histories in (fitting, others))
    _check(audience, one(f"email.{activity}", operator, value, unit), yes, no)


_COLUMNS = {
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


def test_the_tables_have_every_operator() -> None:
    told = {
        "data": {row[0] for row in [*DATA, *AGES]},
        "email": {row[0] for row in EMAIL},
        "subscribed": {row[0] for row in SUBSCRIBED},
        "date": {row[0] for row in [*DATES, *DATE_AGES]},
        "event": {row[0] for row in HISTORY},
        "activity": {row[0] for row in HISTORY},
    }
    assert told == {kind: set(operators) for kind, operators in OPERATORS.items() if kind != "segment"}


def test_other_events_and_activities_do_not_count(audience: Audience) -> None:
    other = Person(events=[("Signup", ago(1)), ("signup2", ago(1))], mails=[{"sent_at": ago(1)}, {}])
    audience.add(other)
    assert audience.find(one("event.signup", "triggered")) == set()
    assert audience.find(one("email.opened", "triggered")) == set()
    assert audience.find(one("email.opened", "notTriggered")) == {other.email}


def test_an_event_about_nobody_hides_nobody(audience: Audience) -> None:
    person = Person()
    audience.add(person)
    audience.add_event(None, "signup", ago(1))
    assert audience.find(one("event.signup", "notTriggered")) == {person.email}
    assert audience.find(one("event.signup", "notTriggeredWithin", 7, "days")) == {person.email}


def test_a_mail_opened_again_counts_from_its_first_opening(audience: Audience) -> None:
    person = Person(mails=[{"opened_at": ago(10)}], events=[("email.open", ago(10)), ("email.open", ago(0))])
    audience.add(person)
    assert audience.find(one("email.opened", "triggeredWithin", 7, "days")) == set()


def test_subscription_does_not_matter_unless_asked_for(audience: Audience) -> None:
    people = [Person(subscribed=True, data={"x": 1}), Person(subscribed=False, data={"x": 1})]
    audience.add(*people)
    assert audience.find(one("data.x", "equals", 1)) == {person.email for person in people}


def _check(audience: Audience, condition: Json, fitting: Sequence[Person], others: Sequence[Person]) -> None:
    audience.add(*fitting, *others)
    expected = {person.email for person in fitting}
    assert audience.find(condition) == expected
    assert audience.find(condition, among="few") == expected


def _having(stored: Any) -> Person:
    return Person(data={"other": 1} if stored is MISSING else {"x": stored})


def _dated(field: str, moment: datetime) -> Person:
    return Person(created_at=moment) if field == "createdAt" else Person(updated_at=moment)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
