"""What does a condition see beside its contacts? Other segments of its project; nothing of another project."""

from typing import Any

import pytest

from plunk_relay.conditions import MOST_DEEP, MOST_FILTERS, MOST_PARTS
from plunk_relay.errors import BadRequest
from plunk_relay.ids import new_id
from plunk_relay.segments.filters import LONGEST_CHAIN, MOST_TESTS
from tests.segments.audience import Audience, Json, Person, a, ago, one

PRO = one("data.plan", "equals", "pro")


@pytest.mark.parametrize("kind", ["static", "tracked"])
def test_members_of_a_segment_with_a_table_are_those_in_it(audience: Audience, kind: str) -> None:
    segment = audience.add_segment(None) if kind == "static" else audience.add_segment(PRO, tracked=True)
    inside, left = Person(segments=[segment]), Person(left=[segment])
    fitting = Person(data={"plan": "pro"})  # not computed yet
    audience.add(inside, left, fitting)
    _check_members(audience, segment, {inside.email}, {left.email, fitting.email})


def test_members_of_a_segment_without_a_table_are_those_who_fit_it_now(audience: Audience) -> None:
    segment = audience.add_segment(PRO)
    pro, free, empty = Person(data={"plan": "pro"}), Person(data={"plan": "free"}), Person()
    listed = Person(data={"plan": "free"}, segments=[segment])  # from when it was tracked
    audience.add(pro, free, empty, listed)
    _check_members(audience, segment, {pro.email}, {free.email, empty.email, listed.email})


def test_a_segment_may_name_one_that_names_another(audience: Audience) -> None:
    pro = audience.add_segment(PRO)
    not_pro = audience.add_segment(one(f"segment.{pro}", "notMemberOfSegment"))
    both = {"logic": "AND", "groups": [{"filters": [a(f"segment.{not_pro}", "memberOfSegment"), a("data.x", "exists")]}]}
    people = [Person(data={"x": 1}), Person(), Person(data={"plan": "pro", "x": 1})]
    audience.add(*people)
    assert audience.find(both) == {people[0].email}
    assert audience.find(one(f"segment.{audience.add_segment(both)}", "notMemberOfSegment")) == {
        people[1].email,
        people[2].email,
    }


def test_a_segment_may_be_named_twice(audience: Audience) -> None:
    segment = audience.add_segment(PRO)
    twice = {"logic": "OR", "groups": [{"filters": [a(f"segment.{segment}", "memberOfSegment")] * 2}] * 2}
    person = Person(data={"plan": "pro"})
    audience.add(person)
    assert audience.find(twice) == {person.email}


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_refused(audience: Audience, length: int, tracked: bool) -> None:
    ids = [new_id() for _ in range(length)]
    for place, segment_id in enumerate(ids):
        following = ids[(place + 1) % length]
        audience.add_segment(one(f"segment.{following}", "memberOfSegment"), tracked=tracked, segment_id=segment_id)
    with pytest.raises(BadRequest, match="leads back to the segment"):
        audience.find(one(f"segment.{ids[0]}", "notMemberOfSegment"))
    with pytest.raises(BadRequest, match=f"leads back to the segment {ids[0]}"):
        audience.find(one(f"segment.{ids[-1]}", "memberOfSegment"), within=frozenset({ids[0]}))


def test_a_circle_of_two_that_are_both_named_is_refused(audience: Audience) -> None:
    first, second = new_id(), new_id()
    audience.add_segment(one(f"segment.{second}", "memberOfSegment"), segment_id=first)
    audience.add_segment(one(f"segment.{first}", "memberOfSegment"), segment_id=second)
    both = [a(f"segment.{segment}", "memberOfSegment") for segment in (first, second)]
    with pytest.raises(BadRequest, match="leads back to the segment"):
        audience.find({"logic": "AND", "groups": [{"filters": both}]})


def test_a_chain_of_segments_may_only_be_so_long(audience: Audience) -> None:
    """Tracked ones are not looked into but for circles; still somebody has to go through them."""
    named = audience.add_segment(PRO, tracked=True)
    for _ in range(LONGEST_CHAIN - 1):
        named = audience.add_segment(one(f"segment.{named}", "memberOfSegment"), tracked=True)
    assert audience.find(one(f"segment.{named}", "memberOfSegment")) == set()
    for _ in range(1_000):
        named = audience.add_segment(one(f"segment.{named}", "memberOfSegment"), tracked=True)
    with pytest.raises(BadRequest, match="and so on, over more than 50"):
        audience.find(one(f"segment.{named}", "memberOfSegment"))


def test_a_segment_cannot_name_itself(audience: Audience) -> None:
    segment = audience.add_segment(PRO)
    with pytest.raises(BadRequest, match="cannot depend on itself"):
        audience.find(one(f"segment.{segment}", "memberOfSegment"), within=frozenset({segment}))


def test_an_unknown_segment_is_refused(audience: Audience) -> None:
    with pytest.raises(BadRequest, match="names the segment nowhere, which this project does not have"):
        audience.find(one("segment.nowhere", "memberOfSegment"))


def test_a_segment_of_another_project_is_unknown(audience: Audience) -> None:
    rival = Audience(audience.tx)
    for segment in (rival.add_segment(None), rival.add_segment(PRO), rival.add_segment(PRO, tracked=True)):
        with pytest.raises(BadRequest, match=f"names the segment {segment}, which this project does not have"):
            audience.find(one(f"segment.{segment}", "notMemberOfSegment"))


def test_another_projects_contacts_events_and_mails_are_not_seen(audience: Audience) -> None:
    rival = Audience(audience.tx)
    mine, theirs = (
        Person(email="ann@example.com", data={"plan": "pro"}),
        Person(email="ann@example.com", data={"plan": "pro"}),
    )
    audience.add(mine)
    rival.add(theirs, Person(events=[("signup", ago(1))], mails=[{"opened_at": ago(1)}], data={"plan": "pro"}))
    for condition in (
        PRO,
        one("email", "contains", ""),
        one("event.signup", "notTriggered"),
        one("email.opened", "notTriggered"),
    ):
        assert audience.find(condition) == {mine.email}
        assert audience.find(condition, among="few") == {mine.email}
    for condition in (one("event.signup", "triggered"), one("email.opened", "triggered")):
        assert audience.find(condition) == set()
        assert audience.find(condition, among="few") == set()


def test_rows_of_another_project_about_our_contact_do_not_count(audience: Audience) -> None:
    """No door writes such rows; were one to, they would still be the other project's."""
    rival = Audience(audience.tx)
    audience.add(Person())
    (contact_id,) = audience.contact_ids()
    rival.add_event(contact_id, "signup", ago(1))
    rival.add_mail(contact_id, "ann@example.com", {"opened_at": ago(1), "sent_at": ago(1)})
    for condition in (one("event.signup", "triggered"), one("email.opened", "triggered"), one("email.sent", "triggered")):
        assert audience.find(condition) == set()
        assert audience.find(condition, among="few") == set()


def test_the_largest_condition_can_be_asked(audience: Audience) -> None:
    """Nested as deep as may be, with as many filters and values as may be: no database gives up."""
    value = {'"': {"b": list(range(MOST_PARTS - 10))}}
    widest = [a('data.x".y.z', "notEquals", value), *_some_of_each(MOST_FILTERS - MOST_DEEP)]
    condition: Json = {"logic": "OR", "groups": [{"filters": widest}]}
    for _ in range(MOST_DEEP - 1):
        deeper = {"filters": [a("email", "contains", "@")], "conditions": condition}
        condition = {"logic": "OR", "groups": [deeper]}
    person = Person()
    audience.add(person)
    assert audience.find(condition) == set()
    assert audience.find(condition, among="few") == set()


@pytest.mark.parametrize(("by", "width"), [("conditions", 7), ("segments", 7), ("segments", 32)])
@pytest.mark.parametrize("operator", ["memberOfSegment", "notMemberOfSegment"])
def test_the_deepest_condition_can_be_asked(audience: Audience, by: str, width: int, operator: str) -> None:
    """Parentheses in each other, all of which a parser has to remember."""
    some = [a("email", "contains", "@"), a("event.signup", "notTriggeredWithin", 5, "days"), a("data.no.way", "notExists")]
    filters = some + [a("email", "contains", "@")] * width
    nobody = {"filters": [a("email", "equals", "x")]}
    condition: Json = {"logic": "AND", "groups": [{"filters": [a('data.a.".b', "notEquals", {'"': [{"b": [1]}]})]}]}
    for _ in range(MOST_DEEP - 1):
        if by == "conditions":
            group: Json = {"filters": filters, "conditions": condition}
        else:
            group = {"filters": [*filters, a(f"segment.{audience.add_segment(condition)}", operator)]}
        condition = {"logic": "OR", "groups": [*[nobody] * width, group]}
    person = Person()
    audience.add(person)
    inside = by == "conditions" or operator == "memberOfSegment"
    expected = {person.email} if inside else set()
    assert audience.find(condition) == expected
    assert audience.find(condition, among="few") == expected


def test_segments_that_are_named_count_for_depth(audience: Audience) -> None:
    named = audience.add_segment(PRO)
    for _ in range(MOST_DEEP - 2):
        named = audience.add_segment(one(f"segment.{named}", "notMemberOfSegment"))
    audience.find(one(f"segment.{named}", "memberOfSegment"))
    named = audience.add_segment(one(f"segment.{named}", "notMemberOfSegment"))
    with pytest.raises(BadRequest, match="nested 10 deep, with those of the segments they name"):
        audience.find(one(f"segment.{named}", "memberOfSegment"))


def test_segments_that_are_named_count_for_size(audience: Audience) -> None:
    """Two hundred filters that each stand for two hundred would be forty thousand."""
    many = audience.add_segment({"logic": "AND", "groups": [{"filters": [a("data.x", "contains", "1")] * MOST_FILTERS}]})
    some = [a(f"segment.{many}", "memberOfSegment")] * (MOST_TESTS // (MOST_FILTERS + 1))
    assert audience.find({"logic": "AND", "groups": [{"filters": some}]}) == set()
    with pytest.raises(BadRequest, match=f"more than {MOST_TESTS} filters, with those of the segments it names"):
        audience.find({"logic": "AND", "groups": [{"filters": [*some, a(f"segment.{many}", "memberOfSegment")]}]})


def _check_members(audience: Audience, segment: str, inside: set[str], outside: set[str]) -> None:
    for among in ("all", "few"):
        assert audience.find(one(f"segment.{segment}", "memberOfSegment"), among=among) == inside
        assert audience.find(one(f"segment.{segment}", "notMemberOfSegment"), among=among) == outside


def _some_of_each(count: int) -> list[Json]:
    some: list[Any] = [
        a("data.a.b", "greaterThan", 5),
        a("event.signup", "triggeredOlderThan", 5, "days"),
        a("email.opened", "notTriggeredWithin", 5, "days"),
        a("data.x", "equals", [1, {"y": None}]),
        a("createdAt", "notEquals", "2026-03-01"),
    ]
    return (some * count)[:count]
