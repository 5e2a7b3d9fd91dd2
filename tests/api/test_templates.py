"""What may be written into a template, and what becomes of it? All fields are checked; the next mail has the new text."""

from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock, format_time
from plunk_relay.db.tables import contents, emails, templates
from plunk_relay.domains.actions import add_domain
from tests.api.conftest import Shared
from tests.kit.api import faults, refusal, sent
from tests.kit.store import add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEMPLATE: dict[str, Any] = {
    "name": "Welcome",
    "subject": "Hello {{name}}",
    "body": "<p>Welcome</p>",
    "from": "hello@acme.test",
}
FULL = TEMPLATE | {
    "description": "After sign-up",
    "fromName": "Acme",
    "replyTo": "help@example.org",
    "type": "TRANSACTIONAL",
}
BAD_FIELDS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"name": ""}, [("name", "too_small")]),
    ({"name": "x" * 101}, [("name", "too_big")]),
    ({"name": None}, [("name", "invalid_type")]),
    ({"name": 5}, [("name", "invalid_type")]),
    ({"description": "x" * 501}, [("description", "too_big")]),
    ({"subject": ""}, [("subject", "too_small")]),
    ({"subject": None}, [("subject", "invalid_type")]),
    ({"body": ""}, [("body", "too_small")]),
    ({"body": None}, [("body", "invalid_type")]),
    ({"from": "nobody"}, [("from", "invalid_string")]),
    ({"from": " a@acme.test"}, [("from", "invalid_string")]),
    ({"from": None}, [("from", "invalid_type")]),
    ({"from": {"email": "a@acme.test"}}, [("from", "invalid_type")]),
    ({"fromName": "x" * 101}, [("fromName", "too_big")]),
    ({"fromName": "Acme\r\nBcc: x@y.test"}, [("fromName", "invalid_string")]),
    ({"replyTo": "nobody"}, [("replyTo", "invalid_string")]),
    ({"type": "NEWSLETTER"}, [("type", "invalid_enum_value")]),
    ({"type": None}, [("type", "invalid_enum_value")]),
    ({"name": "", "replyTo": "x"}, [("name", "too_small"), ("replyTo", "invalid_string")]),
]
BROKEN: list[tuple[str, int, int]] = [
    ("{{ name", 1, 1),
    ("one\ntwo {% if a %}", 2, 8),
    ("{{ name | shout }}", 1, 11),
    ("{% nothing %}", 1, 4),
    ("{% include 'a' %}", 1, 4),
    ("a\n\n{% endif %}", 3, 4),
]


async def _create(shared: Shared, fields: dict[str, Any] | None = None) -> httpx2.Response:
    return await shared.http.post("/templates", headers=shared.acme.headers, json=TEMPLATE | (fields or {}))


async def _patch(shared: Shared, template_id: str, fields: dict[str, Any]) -> httpx2.Response:
    return await shared.http.patch(f"/templates/{template_id}", headers=shared.acme.headers, json=fields)


async def test_created_template_is_answered_whole_and_is_there(shared: Shared) -> None:
    response = await _create(shared, FULL)
    assert response.status_code == 201
    template = response.json()
    now = format_time(shared.relay.clock.now())
    assert template == FULL | {"id": template["id"], "projectId": shared.acme.id, "createdAt": now, "updatedAt": now}
    again = await shared.http.get(f"/templates/{template['id']}", headers=shared.acme.headers)
    assert (again.status_code, again.json()) == (200, template)


async def test_template_is_for_marketing_unless_it_says_otherwise(shared: Shared) -> None:
    template = (await _create(shared)).json()
    assert template["type"] == "MARKETING"
    assert {name: template[name] for name in ("description", "fromName", "replyTo")} == {
        "description": None,
        "fromName": None,
        "replyTo": None,
    }


@pytest.mark.parametrize("field", ["name", "subject", "body", "from"])
async def test_template_needs_name_subject_body_and_sender(shared: Shared, field: str) -> None:
    body = {name: value for name, value in TEMPLATE.items() if name != field}
    response = await shared.http.post("/templates", headers=shared.acme.headers, json=body)
    assert faults(response) == [(field, "invalid_type")]


@pytest.mark.parametrize(("fields", "expected"), BAD_FIELDS)
async def test_bad_fields_of_a_new_template_are_named(
    shared: Shared, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert faults(await _create(shared, fields)) == expected


@pytest.mark.parametrize(("fields", "expected"), BAD_FIELDS)
async def test_bad_fields_of_a_change_are_named_and_nothing_changes(
    shared: Shared, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    before = (await _create(shared, FULL)).json()
    assert faults(await _patch(shared, before["id"], fields)) == expected
    assert (await shared.http.get(f"/templates/{before['id']}", headers=shared.acme.headers)).json() == before


async def test_longest_fields_are_taken(shared: Shared) -> None:
    longest = {"name": "é" * 100, "description": "x" * 500, "fromName": "x" * 100}
    assert (await _create(shared, longest)).status_code == 201


@pytest.mark.parametrize("field", ["subject", "body"])
@pytest.mark.parametrize(("source", "line", "column"), BROKEN)
async def test_text_that_does_not_parse_is_refused_with_its_place(
    shared: Shared, field: str, source: str, line: int, column: int
) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    for response in (await _create(shared, {field: source}), await _patch(shared, template_id, {field: source})):
        assert refusal(response) == (400, "VALIDATION_ERROR")
        error = response.json()["error"]
        assert error["details"] == {"field": field, "line": line, "column": column}
        assert "errors" not in error
    [template] = await rows(shared.relay, templates, id=template_id)
    assert source not in (template["subject"], template["body"])


async def test_text_beyond_what_is_ever_parsed_is_refused(shared: Shared) -> None:
    response = await _create(shared, {"body": "x" * 2_000_001})
    assert refusal(response) == (400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"]["field"] == "body"


async def test_sender_must_be_on_a_verified_domain_of_the_project(shared: Shared) -> None:
    await add_domain(shared.relay, shared.acme.id, "waiting.test")
    template_id = await add_template(shared.relay, shared.acme.id)
    for sender in ("a@waiting.test", "a@rival.test", "a@unknown.test", "a@sub.acme.test"):
        assert refusal(await _create(shared, {"from": sender})) == (403, "FORBIDDEN")
        assert refusal(await _patch(shared, template_id, {"from": sender})) == (403, "FORBIDDEN")
    assert (await _create(shared, {"from": "A@ACME.test"})).status_code == 201


def _wait(shared: Shared) -> str:
    """Let five minutes pass; return the time as the API tells it."""
    assert isinstance(shared.relay.clock, ManualClock)
    shared.relay.clock.advance(minutes=5)
    return format_time(shared.relay.clock.now())


async def test_change_sets_what_is_given_and_leaves_the_rest(shared: Shared) -> None:
    before = (await _create(shared, FULL)).json()
    now = _wait(shared)
    changes = {"name": "Bye", "type": "HEADLESS", "from": "b@acme.test"}
    response = await _patch(shared, before["id"], changes)
    assert (response.status_code, response.json()) == (200, before | changes | {"updatedAt": now})


@pytest.mark.parametrize(
    "nothing", [{}, {"id": "x", "projectId": "x", "createdAt": "2020-01-01T00:00:00.000Z", "sender": "x"}]
)
async def test_change_of_nothing_changes_nothing(shared: Shared, nothing: dict[str, str]) -> None:
    before = (await _create(shared, FULL)).json()
    _wait(shared)
    response = await _patch(shared, before["id"], nothing)
    assert (response.status_code, response.json()) == (200, before)


@pytest.mark.parametrize("field", ["description", "fromName", "replyTo"])
async def test_null_clears_what_may_be_missing(shared: Shared, field: str) -> None:
    before = (await _create(shared, FULL)).json()
    now = _wait(shared)
    assert (await _patch(shared, before["id"], {field: None})).json() == before | {field: None, "updatedAt": now}


async def test_change_counts_for_the_next_mail(shared: Shared) -> None:
    template_id = (await _create(shared, {"type": "TRANSACTIONAL"})).json()["id"]
    request = {"subject": ..., "body": ..., "template": template_id, "data": {"name": "Ann"}}
    await sent(shared.http, shared.acme, request)
    await _patch(shared, template_id, {"subject": "Bye {{name}}", "body": "<p>New</p>", "from": "bye@acme.test"})
    [mail] = await sent(shared.http, shared.acme, request)
    [row] = await rows(shared.relay, emails, id=mail["email"])
    [content] = await rows(shared.relay, contents, id=row["content_id"])
    assert (row["subject"], row["from_address"], content["data"]) == ("Bye Ann", "bye@acme.test", b"<p>New</p>")


async def test_copy_is_a_template_of_its_own_whose_name_says_so(shared: Shared) -> None:
    original = (await _create(shared, FULL)).json()
    now = _wait(shared)
    response = await shared.http.post(f"/templates/{original['id']}/duplicate", headers=shared.acme.headers)
    assert response.status_code == 201
    copy = response.json()
    assert copy["id"] != original["id"]
    assert copy == original | {"id": copy["id"], "name": "Welcome (Copy)", "createdAt": now, "updatedAt": now}
    await _patch(shared, copy["id"], {"name": "Mine"})
    response = await shared.http.get(f"/templates/{original['id']}", headers=shared.acme.headers)
    assert response.json() == original


async def test_name_of_a_copy_stays_within_the_limit(shared: Shared) -> None:
    template_id = (await _create(shared, {"name": "x" * 100})).json()["id"]
    copy = (await shared.http.post(f"/templates/{template_id}/duplicate", headers=shared.acme.headers)).json()
    assert copy["name"] == "x" * 93 + " (Copy)"
    assert (await _patch(shared, copy["id"], {"name": copy["name"]})).status_code == 200


@pytest.mark.parametrize("template_id", ["nothing", "00000000-0000-4000-8000-000000000000", "%00", "a%2Fb"])
async def test_template_that_is_not_there_is_a_404_of_its_own_code(shared: Shared, template_id: str) -> None:
    calls = [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/duplicate"), ("GET", "/usage"), ("POST", "/preview")]
    for method, rest in calls:
        body = {"name": "x"} if method == "PATCH" else {}
        path = f"/templates/{template_id}{rest}"
        response = await shared.http.request(method, path, headers=shared.acme.headers, json=body)
        assert refusal(response) == (404, "TEMPLATE_NOT_FOUND"), path
