"""How does the API say no? In one envelope, whatever went wrong and wherever."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from plunk_relay.projects.actions import disable_project
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import endpoint
from tests.api.conftest import Shared
from tests.kit.api import MAIL, refusal
from tests.kit.http import running_http
from tests.kit.relay import make_tenant, running_relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
CASES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v1/send", {"content": "{"}, 400, "VALIDATION_ERROR"),
    ("POST", "/v1/send", {"json": MAIL | {"data": {"locale": 1}}}, 400, "BAD_REQUEST"),
    ("POST", "/v1/send", {"json": MAIL, "headers": {}}, 401, "MISSING_AUTH"),
    ("POST", "/v1/send", {"json": MAIL, "headers": {"Authorization": "Bearer sk_x"}}, 401, "INVALID_API_KEY"),
    ("GET", "/domains/project/x", {"headers": {}}, 401, "UNAUTHORIZED"),
    ("POST", "/v1/send", {"json": MAIL | {"from": "a@unknown.test"}}, 403, "FORBIDDEN"),
    ("POST", "/v1/send", {"json": MAIL | {"template": UNKNOWN_ID}}, 404, "TEMPLATE_NOT_FOUND"),
    ("DELETE", f"/domains/{UNKNOWN_ID}", {}, 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/nothing", {}, 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/v1/send/", {"headers": {}}, 404, "RESOURCE_NOT_FOUND"),
    ("POST", "/v1/a/b/c", {"headers": {}}, 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/v1/send", {"headers": {}}, 405, "BAD_REQUEST"),
    ("DELETE", "/health", {"headers": {}}, 405, "BAD_REQUEST"),
    ("POST", "/v1/send", {"json": {}}, 422, "VALIDATION_ERROR"),
    ("POST", "/manage/x?want=nothing", {"headers": {}}, 422, "VALIDATION_ERROR"),
]


@pytest.mark.parametrize(("method", "path", "request_parts", "status", "code"), CASES)
async def test_every_error_comes_in_the_envelope(
    shared: Shared, method: str, path: str, request_parts: dict[str, Any], status: int, code: str
) -> None:
    response = await shared.http.request(method, path, **{"headers": shared.acme.headers} | request_parts)
    _check(response, status, code)


@pytest.mark.parametrize("content", ["{", "nope", "{'to': 1}", '{"to": NaN}', "\ufeff{}", '{"a": "\\ud800"}'])
async def test_malformed_json_is_told_without_fields(shared: Shared, content: str) -> None:
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, content=content.encode())
    error = _check(response, 400, "VALIDATION_ERROR")
    assert "errors" not in error
    assert "JSON" in error["suggestion"]
    assert "Content-Type" in error["suggestion"]


@pytest.mark.parametrize("content", [b"to=ann%40example.net", b"\xff\xfe", b"PK\x03\x04"])
async def test_body_of_another_kind_is_malformed(shared: Shared, content: bytes) -> None:
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, content=content)
    _check(response, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(("content", "field"), [("[]", ""), ('"x"', ""), ("7", ""), ("null", ""), ("", "to"), ("{}", "to")])
async def test_body_that_is_no_object_fails_at_the_root(shared: Shared, content: str, field: str) -> None:
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, content=content)
    error = _check(response, 422, "VALIDATION_ERROR")
    assert [(fault["field"], fault["code"]) for fault in error["errors"]] == [(field, "invalid_type")]


@pytest.mark.parametrize("path", ["/unsubscribe/x", f"/contacts/public/{UNKNOWN_ID}/unsubscribe"])
async def test_what_follows_the_first_hundred_fields_of_a_query_is_passed_over(shared: Shared, path: str) -> None:
    many = "&".join(f"a{number}={number}" for number in range(200))
    plain = await shared.http.post(path)
    assert (await shared.http.post(f"{path}?{many}")).status_code == plain.status_code
    listed = await shared.http.get(f"/contacts?limit=7&{many}", headers=shared.acme.headers)
    assert listed.status_code == 200


async def test_schema_failure_has_the_words_of_the_reference(shared: Shared) -> None:
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, json=MAIL | {"to": "bad", "subject": 7})
    error = _check(response, 422, "VALIDATION_ERROR")
    assert error["message"] == "Request validation failed"
    assert error["errors"][0] == {"field": "to", "message": "Invalid email", "code": "invalid_string"}
    assert error["suggestion"] == (
        "One or more fields have incorrect types. Check that strings are quoted, numbers are unquoted, "
        "and booleans are true/false."
    )
    assert "details" not in error


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subject": 7}, "incorrect types"),
        ({"to": ...}, "incorrect types"),
        ({"subject": ...}, "required fields are missing"),
        ({"to": "bad"}, "/docs"),
        ({"to": "bad", "subject": 7}, "incorrect types"),
    ],
)
async def test_suggestion_fits_the_kind_of_fault(shared: Shared, fields: dict[str, Any], words: str) -> None:
    body = {name: value for name, value in (MAIL | fields).items() if value is not ...}
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, json=body)
    assert words in response.json()["error"]["suggestion"]


async def test_method_that_is_not_there_names_those_that_are(shared: Shared) -> None:
    response = await shared.http.put("/unsubscribe/x")
    _check(response, 405, "BAD_REQUEST")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_every_request_has_an_id_of_its_own(shared: Shared) -> None:
    ids = [(await shared.http.get(path)).headers["x-request-id"] for path in ("/health", "/health", "/nothing", "/docs")]
    assert len({UUID(request_id) for request_id in ids}) == 4


async def test_answer_to_head_has_no_body(shared: Shared) -> None:
    for path, status in (("/health", 200), ("/nothing", 404), ("/docs", 200)):
        response = await shared.http.head(path)
        assert (response.status_code, response.content) == (status, b"")
        assert int(response.headers["content-length"]) > 0


async def test_every_answer_forbids_sniffing_framing_and_referrers(shared: Shared) -> None:
    for path in ("/health", "/nothing", "/docs", f"/unsubscribe/{UNKNOWN_ID}"):
        headers = (await shared.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


async def test_declared_body_beyond_50_megabytes_is_refused_before_it_is_read(shared: Shared) -> None:
    url = shared.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /v1/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.acme.secret}\r\n"
    writer.write(head.encode() + b"Content-Length: 52428801\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()


@pytest.mark.parametrize("declared", [True, False], ids=["length declared", "chunked"])
async def test_body_beyond_the_limit_is_refused(tmp_path: Path, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    async with running_relay(tmp_path, http={"max_body_bytes": 1024}) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            content = b" " * 2000 if declared else chunks()
            response = await http.post("/v1/send", headers=acme.headers, content=content)
            _check(response, 413, "BAD_REQUEST")
            assert (await http.post("/v1/send", headers=acme.headers, json=MAIL)).status_code == 200


async def test_crash_tells_nothing_but_the_request_id(shared: Shared) -> None:
    @endpoint("GET", "/crash", tag="Test", auth=Auth.NONE)
    async def crash() -> None:
        """Fail."""
        raise RuntimeError("the password is swordfish")

    async with running_http(shared.relay, pages=[crash]) as http:
        response = await http.get("/crash")
    error = _check(response, 500, "INTERNAL_SERVER_ERROR")
    assert error["requestId"] in error["suggestion"]
    assert "swordfish" not in response.text
    assert "RuntimeError" not in response.text
    assert "Traceback" not in response.text


async def test_refusal_for_want_of_room_says_when_to_come_back(tmp_path: Path) -> None:
    async with running_relay(tmp_path, limits={"minimum_free_megabytes": 10**9}) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            response = await http.post("/v1/send", headers=acme.headers, json=MAIL)
    error = _check(response, 503, "INTERNAL_SERVER_ERROR")
    assert response.headers["retry-after"] == "30"
    assert str(tmp_path) not in response.text
    assert "suggestion" in error


async def test_disabled_project_is_told_what_to_do(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay:
        acme = await make_tenant(relay)
        await disable_project(relay, acme.id)
        async with running_http(relay) as http:
            response = await http.post("/v1/send", headers=acme.headers, json=MAIL)
    assert "operator" in _check(response, 403, "PROJECT_DISABLED")["suggestion"]


def _check(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check everything that all errors have in common; return `error`."""
    assert refusal(response) == (status, code), response.text
    body = response.json()
    error: dict[str, Any] = body["error"]
    assert list(body) == ["success", "error", "timestamp"]
    assert body["success"] is False
    assert error["statusCode"] == status
    assert error["requestId"] == response.headers["x-request-id"]
    assert UUID(error["requestId"])
    assert error["message"]
    assert not set(error) - {"code", "message", "statusCode", "requestId", "errors", "details", "suggestion"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert response.headers["content-type"] == "application/json"
    return error
