"""Which conditions are refused? Each with one line that names the place and the repair, before any row is read."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.conditions import (
    LONGEST_TEXT,
    MOST_DEEP,
    MOST_FILTERS,
    MOST_PARTS,
    OPERATORS,
    Kind,
    check_condition,
    list_fields,
    list_segment_ids,
)
from plunk_relay.errors import BadRequest
from tests.segments.audience import Json, a, one
from tests.segments.strategies import conditions

ALL_OPERATORS = sorted(set().union(*OPERATORS.values()))
FIELDS: dict[Kind, str] = {
    "email": "email",
    "subscribed": "subscribed",
    "date": "createdAt",
    "data": "data.x",
    "event": "event.signup",
    "activity": "email.opened",
    "segment": "segment.one",
}
FILTER = {"field": "email", "operator": "equals", "value": "ann@example.com"}
GROUP = {"filters": [FILTER]}
WINDOWS = ["within", "olderThan", "triggeredWithin", "triggeredOlderThan", "notTriggeredWithin"]

SHAPES: list[tuple[Any, str]] = [
    (None, "condition must be an object"),
    ([], "condition must be an object"),
    ("email equals x", "condition must be an object"),
    ({}, "condition.logic must be AND or OR"),
    ({"logic": "and", "groups": [GROUP]}, "condition.logic must be AND or OR"),
    ({"logic": ["AND"], "groups": [GROUP]}, "condition.logic must be AND or OR"),
    ({"logic": "AND"}, "condition.groups must be a list"),
    ({"logic": "AND", "groups": []}, "condition.groups must be a list of at least one"),
    ({"logic": "AND", "groups": {"filters": []}}, "condition.groups must be a list"),
    ({"logic": "AND", "groups": [GROUP, 5]}, "condition.groups.1 must be an object"),
    ({"logic": "AND", "groups": [{}]}, "condition.groups.0.filters must be a list"),
    ({"logic": "AND", "groups": [{"filters": FILTER}]}, "condition.groups.0.filters must be a list"),
    ({"logic": "AND", "groups": [{"conditions": {"logic": "AND", "groups": [GROUP]}}]}, "groups.0.filters must be a list"),
    ({"logic": "AND", "groups": [{"filters": []}]}, "condition.groups.0 is empty"),
    ({"logic": "AND", "groups": [{"filters": [], "conditions": None}]}, "condition.groups.0 is empty"),
    ({"logic": "AND", "groups": [{"filters": [], "conditions": []}]}, "groups.0.conditions must be an object"),
    ({"logic": "OR", "groups": [{"filters": [FILTER, "x"]}]}, "condition.groups.0.filters.1 must be an object"),
]

FILTERS: list[tuple[Json, str]] = [
    ({"operator": "equals", "value": 1}, ".field is missing"),
    ({"field": "", "operator": "equals", "value": 1}, ".field is missing"),
    ({"field": 5, "operator": "equals", "value": 1}, ".field is missing"),
    ({"field": "email", "value": 1}, ".operator is missing"),
    ({"field": "email", "operator": None, "value": 1}, ".operator is missing"),
    ({"field": "email", "operator": {}, "value": 1}, ".operator is missing"),
    ({"field": "email", "operator": "like", "value": 1}, ".operator: there is no operator `like`. email takes: contains"),
    ({"field": "email", "operator": "Equals", "value": 1}, ".operator: there is no operator `Equals`"),
    ({"field": "email", "operator": "greaterThan", "value": 1}, ".operator: email has no greaterThan; it takes: contains"),
    ({"field": "plan", "operator": "equals", "value": 1}, ".field: there is no field `plan`. Use email, subscribed"),
    ({"field": "Email", "operator": "equals", "value": 1}, ".field: there is no field `Email`"),
    ({"field": "data", "operator": "equals", "value": 1}, ".field: there is no field `data`"),
    ({"field": "data.", "operator": "equals", "value": 1}, ".field: there is no field `data.`"),
    ({"field": "event.", "operator": "triggered"}, ".field: there is no field `event.`"),
    ({"field": "segment.", "operator": "memberOfSegment"}, ".field: there is no field `segment.`"),
    ({"field": "signup", "operator": "triggered"}, ".field: there is no field `signup`"),
    ({"field": "email.seen", "operator": "triggered"}, ".field: there is no field `email.seen`"),
    ({"field": "email.Opened", "operator": "triggered"}, ".field: there is no field `email.Opened`"),
    ({"field": "data.a\0b", "operator": "exists"}, ".field: there is no field"),
    ({"field": "data." + "x" * LONGEST_TEXT, "operator": "exists"}, ".field: there is no field"),
    ({"field": "email", "operator": "equals"}, ".value is missing: the operator equals needs one"),
    ({"field": "data.x", "operator": "notContains"}, ".value is missing"),
    ({"field": "createdAt", "operator": "within", "unit": "days"}, ".value is missing"),
    ({"field": "email", "operator": "equals", "value": 5}, ".value must be a string"),
    ({"field": "email", "operator": "equals", "value": None}, ".value must be a string"),
    ({"field": "data.x", "operator": "contains", "value": 5}, ".value must be a string"),
    ({"field": "data.x", "operator": "greaterThan", "value": True}, ".value must be a number or a string"),
    ({"field": "data.x", "operator": "lessThan", "value": None}, ".value must be a number or a string"),
    ({"field": "data.x", "operator": "lessThan", "value": [1]}, ".value must be a number or a string"),
    ({"field": "createdAt", "operator": "equals", "value": "yesterday"}, ".value must be a date or a time"),
    ({"field": "createdAt", "operator": "equals", "value": "2026-02-30"}, ".value must be a date or a time"),
    ({"field": "createdAt", "operator": "lessThan", "value": True}, ".value must be a date or a time"),
    ({"field": "updatedAt", "operator": "lessThan", "value": None}, ".value must be a date or a time"),
    ({"field": "updatedAt", "operator": "lessThan", "value": 1e300}, ".value must be a date or a time"),
    ({"field": "updatedAt", "operator": "equals", "value": "0001-01-01T00:00:00+05:00"}, ".value must be a date or a time"),
    ({"field": "data.x", "operator": "within", "value": 7}, ".unit must be days, hours or minutes"),
    ({"field": "data.x", "operator": "within", "value": 7, "unit": "weeks"}, ".unit must be days, hours or minutes"),
    ({"field": "data.x", "operator": "within", "value": 7, "unit": ["days"]}, ".unit must be days, hours or minutes"),
    ({"field": "data.x", "operator": "within", "value": "7", "unit": "days"}, ".value must be a number of days"),
    ({"field": "data.x", "operator": "within", "value": True, "unit": "days"}, ".value must be a number of days"),
    ({"field": "data.x", "operator": "within", "value": -1, "unit": "hours"}, ".value must be a number of hours"),
    ({"field": "data.x", "operator": "within", "value": 1e10, "unit": "days"}, ".value must be a number of days"),
    ({"field": "data.x", "operator": "within", "value": float("nan"), "unit": "days"}, ".value must be a number of days"),
    ({"field": "data.x", "operator": "equals", "value": "x" * 1001}, ".value must have at most 1000 characters"),
    (
        {"field": "data.x", "operator": "equals", "value": "a\0b"},
        ".value must have at most 1000 characters, and none of them",
    ),
    ({"field": "data.x", "operator": "equals", "value": [{"x": "a\0b"}]}, "none of them U+0000"),
    ({"field": "data.x", "operator": "equals", "value": {"a\0b": 1}}, "none of them U+0000"),
    ({"field": "data.x", "operator": "equals", "value": list(range(101))}, ".value must be nested at most 10 deep"),
    ({"field": "data.x", "operator": "equals", "value": [[0] * 60] * 2}, ".value must be nested at most 10 deep"),
    ({"field": "data.x", "operator": "equals", "value": [[[[[[[[[[[1]]]]]]]]]]]}, ".value must be nested at most 10 deep"),
]


@pytest.mark.parametrize(("condition", "complaint"), SHAPES)
def test_a_wrong_shape_is_refused(condition: Any, complaint: str) -> None:
    assert complaint in _refusal(condition)


@pytest.mark.parametrize(("wrong", "complaint"), FILTERS, ids=lambda part: str(part)[:60])
def test_a_wrong_filter_is_refused(wrong: Json, complaint: str) -> None:
    nested = {"logic": "AND", "groups": [{"filters": [FILTER, wrong]}]}
    condition = {"logic": "OR", "groups": [GROUP, {"filters": [], "conditions": nested}]}
    refusal = _refusal(condition)
    assert refusal.startswith("condition.groups.1.conditions.groups.0.filters.1")
    assert complaint in refusal
    assert len(refusal) < 500


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("operator", ALL_OPERATORS)
def test_a_field_takes_the_operators_of_its_kind(kind: Kind, operator: str) -> None:
    value = 1 if operator in WINDOWS else "2026-03-01"
    unit = "days" if operator in WINDOWS else None
    condition = one(FIELDS[kind], operator, value, unit)
    if operator in OPERATORS[kind]:
        assert list_fields(check_condition(condition)) == {FIELDS[kind]}
    else:
        assert f"{FIELDS[kind]} has no {operator}; it takes: " in _refusal(condition)


@pytest.mark.parametrize("operator", WINDOWS)
def test_a_window_needs_a_unit(operator: str) -> None:
    field = "event.signup" if "riggered" in operator else "data.x"
    assert ".unit must be" in _refusal(one(field, operator, 7))


@pytest.mark.parametrize(
    "operator", ["exists", "notExists", "triggered", "notTriggered", "memberOfSegment", "notMemberOfSegment"]
)
def test_what_compares_with_nothing_needs_no_value(operator: str) -> None:
    field = {"exists": "data.x", "notExists": "data.x"}.get(operator, "event.x" if "riggered" in operator else "segment.x")
    check_condition({"logic": "AND", "groups": [{"filters": [{"field": field, "operator": operator}]}]})


def test_null_is_a_value() -> None:
    check_condition(one("data.x", "equals", None))


def test_conditions_nest_up_to_a_depth() -> None:
    check_condition(_nested(MOST_DEEP))
    assert "nested 10 deep" in _refusal(_nested(MOST_DEEP + 1))
    assert "nested 10 deep" in _refusal(_nested(300))


@pytest.mark.parametrize("spread", ["groups", "filters", "nested"])
def test_a_condition_has_only_so_many_filters(spread: str) -> None:
    check_condition(_with_filters(MOST_FILTERS, spread))
    assert f"at most {MOST_FILTERS} filters" in _refusal(_with_filters(MOST_FILTERS + 1, spread))


def test_a_value_may_be_a_large_list() -> None:
    check_condition(one("data.x", "equals", list(range(MOST_PARTS))))
    check_condition(one("data.x", "equals", {str(number): number for number in range(MOST_PARTS)}))


def test_the_place_is_named_from_where_the_condition_stands() -> None:
    with pytest.raises(BadRequest, match=r"^audienceCondition\.groups must be"):
        check_condition({"logic": "AND"}, field="audienceCondition")


def test_fields_and_segments_are_found_at_any_depth() -> None:
    inner = {"logic": "OR", "groups": [{"filters": [a("segment.one", "memberOfSegment"), a("data.x.y", "exists")]}]}
    outer = {"logic": "AND", "groups": [{"filters": [a("event.a.b", "triggered")], "conditions": inner}, GROUP]}
    condition = check_condition(outer)
    assert list_fields(condition) == {"segment.one", "data.x.y", "event.a.b", "email"}
    assert list_segment_ids(condition) == {"one"}


@settings(max_examples=100, deadline=None)
@given(conditions(("one", "two")))
def test_whatever_the_grammar_allows_is_taken(condition: Json) -> None:
    check_condition(condition)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=10,
)
_word = st.sampled_from([*FIELDS.values(), *ALL_OPERATORS, "AND", "OR", "days", "data.", "email.x", "segment."]) | _json
_filter = st.fixed_dictionaries({}, optional={"field": _word, "operator": _word, "value": _json, "unit": _word})
_group = st.fixed_dictionaries({}, optional={"filters": st.lists(_filter | _json, max_size=3) | _json, "conditions": _json})
_nearly = st.fixed_dictionaries({}, optional={"logic": _word, "groups": st.lists(_group | _json, max_size=3) | _json})
ANYTHING = _nearly | _json


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_any_json_is_taken_or_refused(condition: Any) -> None:
    with suppress(BadRequest):  # anything else would fail
        check_condition(condition)


def _refusal(condition: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        check_condition(condition)
    return caught.value.message


def _nested(depth: int) -> Json:
    condition: Json = {"logic": "AND", "groups": [GROUP]}
    for _ in range(depth - 1):
        condition = {"logic": "AND", "groups": [{"filters": [], "conditions": condition}]}
    return condition


def _with_filters(count: int, spread: str) -> Json:
    if spread == "groups":
        return {"logic": "OR", "groups": [GROUP] * count}
    if spread == "filters":
        return {"logic": "OR", "groups": [{"filters": [FILTER] * count}]}
    inner = {"logic": "OR", "groups": [{"filters": [FILTER] * (count // 2)}]}
    return {"logic": "AND", "groups": [{"filters": [FILTER] * (count - count // 2), "conditions": inner}]}
