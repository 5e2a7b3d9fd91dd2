"""Does SQL say what plain Python says? Random people, histories and conditions, on both databases."""

import sqlalchemy as sa
from hypothesis import given, settings

from tests.segments.audience import NOW, Audience, Json, Person
from tests.segments.evaluator import World
from tests.segments.strategies import NESTED, STATIC, TRACKED, UNTRACKED, conditions, crowds, filters


@settings(max_examples=150, deadline=None)
@given(crowd=crowds, one=filters(segments=()))
def test_a_filter_finds_whom_the_contract_means(engine: sa.Engine, crowd: list[Person], one: Json) -> None:
    assert _ask_both(engine, crowd, {"logic": "AND", "groups": [{"filters": [one]}]}, {}) == []


@settings(max_examples=60, deadline=None)
@given(
    crowd=crowds,
    condition=conditions((STATIC, TRACKED, UNTRACKED, NESTED)),
    untracked=conditions((STATIC, TRACKED)),
    nested=conditions((UNTRACKED,)),
)
def test_a_condition_finds_whom_the_contract_means(
    engine: sa.Engine, crowd: list[Person], condition: Json, untracked: Json, nested: Json
) -> None:
    assert _ask_both(engine, crowd, condition, {UNTRACKED: untracked, NESTED: nested}) == []


def _ask_both(engine: sa.Engine, crowd: list[Person], condition: Json, dynamic: dict[str, Json]) -> list[Person]:
    """Return those about whom SQL and Python disagree."""
    world = World(NOW, dynamic)
    with engine.connect() as tx, tx.begin() as transaction:
        audience = Audience(tx)
        audience.add_segment(None, segment_id=STATIC)
        audience.add_segment({"logic": "AND", "groups": [{"filters": [_ANYBODY]}]}, tracked=True, segment_id=TRACKED)
        for segment_id, own in dynamic.items():
            audience.add_segment(own, segment_id=segment_id)
        audience.add(*crowd)
        found, found_one_by_one = audience.find(condition), audience.find(condition, among="few")
        transaction.rollback()
    assert found == found_one_by_one
    return [person for person in crowd if (person.email in found) != world.fits(person, condition)]


_ANYBODY = {"field": "email", "operator": "contains", "value": ""}
