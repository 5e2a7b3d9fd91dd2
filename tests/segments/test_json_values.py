"""Do both databases call what is in a JSON column by the same names?"""

from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.db.json_values import is_number, json_kind
from plunk_relay.db.tables import contacts
from tests.segments.audience import Audience, Person

KINDS: list[tuple[Any, str]] = [
    ("5", "text"),
    ("", "text"),
    (True, "true"),
    (False, "false"),
    (None, "null"),
    ([1], "array"),
    ({"a": 1}, "object"),
]


@pytest.mark.parametrize(("stored", "kind"), KINDS)
def test_a_value_is_of_a_kind(audience: Audience, stored: Any, kind: str) -> None:
    audience.add(Person(data={"x": {"y": stored}}))
    assert _ask(audience, json_kind(contacts.c.data, ["x", "y"])) == kind
    assert not _ask(audience, is_number(contacts.c.data, ["x", "y"]))


@pytest.mark.parametrize("stored", [0, -5, 2**53, 0.5, 1e300])
def test_a_number_is_one(audience: Audience, stored: float) -> None:
    audience.add(Person(data={"x": stored}))
    assert _ask(audience, json_kind(contacts.c.data, ["x"])) in ("integer", "real")
    assert _ask(audience, is_number(contacts.c.data, ["x"]))


@pytest.mark.parametrize("data", [None, {}, {"y": 1}, {"x": {"z": 1}}, {"x": "y"}])
def test_what_is_not_there_has_no_kind(audience: Audience, data: dict[str, Any] | None) -> None:
    audience.add(Person(data=data))
    assert _ask(audience, json_kind(contacts.c.data, ["x", "y"])) is None


def _ask(audience: Audience, question: sa.ColumnElement[Any]) -> Any:
    return audience.tx.execute(sa.select(question).where(contacts.c.project_id == audience.project_id)).scalar_one()
