"""Would a test notice an answer that the document does not know? What `SchemaCheck` of the kit lets pass."""

import json
from typing import Any

import pytest

from plunk_relay.errors import NotFound
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, ApiModel, endpoint
from plunk_relay.web.openapi import build_document
from tests.kit.http import SchemaCheck, SchemaMismatch


class Thing(ApiModel):
    """A thing."""

    name: str


@endpoint("GET", "/things/{thing_id}", tag="Test", auth=Auth.NONE, errors=(NotFound,))
async def show_thing(thing_id: str) -> Thing:
    """Show a thing."""
    return Thing(name=thing_id)


@endpoint("DELETE", "/things/all", tag="Test", auth=Auth.NONE, status=204)
async def delete_things() -> None:
    """Delete every thing."""


@endpoint("GET", "/page", tag="Test", auth=Auth.NONE, also=(303,), produces=("text/html",))
async def show_page() -> Answer:
    """Show a page."""
    return Answer(b"<p>", content_type="text/html; charset=utf-8")


CHECK = SchemaCheck(build_document([show_thing, delete_things, show_page], version="1", server_url="http://relay.test"))
JSON = "application/json"
ENVELOPE: dict[str, Any] = {
    "success": False,
    "error": {"code": "X", "message": "x", "statusCode": 404, "requestId": "x"},
    "timestamp": "2026-03-01T12:00:00.000Z",
}


def _check(method: str, path: str, status: int, kind: str | None, body: object) -> None:
    text = b"" if body is None else json.dumps(body).encode()
    CHECK.check_answer(method, path, status, kind, text)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "body"),
    [
        ("GET", "/things/1", 200, JSON, {"name": "x"}),
        ("GET", "/things/a%2Fb", 200, JSON, {"name": "x"}),
        ("GET", "/things/all", 200, JSON, {"name": "all"}),
        ("GET", "/things/1", 404, JSON, ENVELOPE),
        ("DELETE", "/things/all", 204, None, None),
        ("GET", "/page", 200, "text/html; charset=utf-8", "<p>"),
        ("GET", "/page", 303, None, None),
        ("POST", "/page", 405, JSON, ENVELOPE),
        ("GET", "/nothing", 404, JSON, ENVELOPE),
        ("OPTIONS", "/things/1", 200, None, None),
    ],
)
def test_an_answer_that_is_documented_passes(method: str, path: str, status: int, kind: str | None, body: object) -> None:
    _check(method, path, status, kind, body)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "body"),
    [
        pytest.param("GET", "/things/1", 201, JSON, {"name": "x"}, id="status"),
        pytest.param("GET", "/things/1", 500, JSON, ENVELOPE, id="crash"),
        pytest.param("GET", "/things/1", 200, JSON, {"name": 7}, id="type of a field"),
        pytest.param("GET", "/things/1", 200, JSON, {}, id="missing field"),
        pytest.param("GET", "/things/a%2Fb", 200, JSON, {}, id="missing field behind a name with a slash"),
        pytest.param("GET", "/things/1", 200, "text/plain", {"name": "x"}, id="other media type"),
        pytest.param("GET", "/things/1", 200, None, None, id="empty"),
        pytest.param("GET", "/things/1", 404, JSON, {"error": "x"}, id="error without an envelope"),
        pytest.param("DELETE", "/things/all", 204, JSON, {}, id="body where none is documented"),
        pytest.param("GET", "/page", 200, JSON, {}, id="JSON instead of a page"),
        pytest.param("GET", "/nothing", 404, JSON, {"error": "x"}, id="unknown path without an envelope"),
        pytest.param("POST", "/page", 405, JSON, {"error": "x"}, id="unknown method without an envelope"),
    ],
)
def test_another_answer_fails_the_test(method: str, path: str, status: int, kind: str | None, body: object) -> None:
    with pytest.raises(SchemaMismatch):
        _check(method, path, status, kind, body)
