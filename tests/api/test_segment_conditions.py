"""Is every condition taken or refused, and nothing in between? The tables of `tests/segments`, through the door."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.segments.audience import Json, a
from tests.segments.strategies import conditions
from tests.segments.test_conditions import ANYTHING, FILTERS, SHAPES

MODULE = pytest.mark.asyncio(loop_scope="module")
NUMBERS_OF_JSON = [(wrong, complaint) for wrong, complaint in FILTERS if wrong.get("value") == wrong.get("value")]
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MODULE
@pytest.mark.parametrize(("condition", "complaint"), SHAPES)
async def test_a_wrong_shape_is_a_bad_request(shared: Shared, condition: Any, complaint: str) -> None:
    response = await shared.http.post("/segments", headers=shared.acme.headers, json={"name": "It", "condition": condition})
    assert refusal(response) == (400, "BAD_REQUEST")
    if isinstance(condition, dict):
        assert complaint in response.json()["error"]["message"]


@MODULE
@pytest.mark.parametrize(("wrong", "complaint"), NUMBERS_OF_JSON, ids=lambda part: str(part)[:60])
async def test_a_wrong_filter_is_a_bad_request(shared: Shared, wrong: Json, complaint: str) -> None:
    condition = {"logic": "AND", "groups": [{"filters": [wrong]}]}
    response = await shared.http.post("/segments", headers=shared.acme.headers, json={"name": "It", "condition": condition})
    assert refusal(response) == (400, "BAD_REQUEST")
    message = response.json()["error"]["message"]
    assert message.startswith("condition.groups.0.filters.0")
    assert complaint in message


@MODULE
@FUZZ
@given(condition=conditions(()))
async def test_a_condition_of_the_grammar_is_counted(shared: Shared, condition: Json) -> None:
    for owner in (shared.acme, shared.rival):
        await shared.relay.db.write(
            upsert_contacts, [(owner.id, ContactChange("ann@example.net", {"x": 1}))], now=shared.relay.clock.now()
        )
    everybody = {
        "logic": "OR",
        "groups": [{"filters": [a("email", "contains", "")]}, {"filters": [], "conditions": condition}],
    }
    counts = []
    for chosen in (condition, everybody):
        body = {"name": "It", "condition": chosen}
        response = await shared.http.post("/segments", headers=shared.acme.headers, json=body)
        assert response.status_code == 201, response.text
        counts.append(response.json()["memberCount"])
    assert counts in ([0, 1], [1, 1])  # the other project's contact is never one of them


@MODULE
@FUZZ
@given(condition=ANYTHING)
async def test_any_json_is_taken_or_refused(shared: Shared, condition: Any) -> None:
    response = await shared.http.post("/segments", headers=shared.acme.headers, json={"name": "It", "condition": condition})
    assert response.status_code in (201, 400), response.text
