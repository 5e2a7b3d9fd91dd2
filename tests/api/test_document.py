"""Does the API say truly what it takes and answers? The OpenAPI document and the page made from it."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from plunk_relay import __version__
from plunk_relay.app import FEATURES
from plunk_relay.web.access import Auth
from tests.api.conftest import Shared
from tests.kit.api import MAIL, send, sent

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = {"get", "post", "put", "patch", "delete"}


async def test_document_is_openapi_3_1_of_this_version_and_server(shared: Shared) -> None:
    document = await _document(shared.http)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    assert document["servers"] == [{"url": "http://relay.test"}]


async def test_document_has_every_endpoint_with_its_guard(shared: Shared) -> None:
    paths = (await _document(shared.http))["paths"]
    for endpoint in FEATURES:
        operation = paths[endpoint.path.replace(":path}", "}")][endpoint.method.lower()]
        assert bool(operation["security"]) == (endpoint.auth is not Auth.NONE)
        assert operation["summary"]
    assert {"/health", "/ready"} <= set(paths)


async def test_every_operation_has_a_name_of_its_own(shared: Shared) -> None:
    names = Counter(operation["operationId"] for _, _, operation in _operations(await _document(shared.http)))
    assert [name for name, count in names.items() if count > 1 or not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


async def test_every_reference_of_the_document_leads_somewhere(shared: Shared) -> None:
    document = await _document(shared.http)
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= schemas
    schemes = set(document["components"]["securitySchemes"])
    assert {name for _, _, one in _operations(document) for entry in one["security"] for name in entry} <= schemes


async def test_every_schema_of_the_document_is_valid(shared: Shared) -> None:
    document = await _document(shared.http)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for _, _, operation in _operations(document):
        for parameter in operation["parameters"]:
            Draft202012Validator.check_schema(parameter["schema"])


async def test_every_parameter_of_a_path_is_declared_once(shared: Shared) -> None:
    for path, _, operation in _operations(await _document(shared.http)):
        parameters = [(one["name"], one["in"]) for one in operation["parameters"]]
        assert len(set(parameters)) == len(parameters)
        assert {name for name, place in parameters if place == "path"} == set(re.findall(r"\{(\w+)\}", path))
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")


async def test_every_parameter_says_what_it_is(shared: Shared) -> None:
    for path, method, operation in _operations(await _document(shared.http)):
        told = {one["name"]: one.get("description") or one["schema"].get("description") for one in operation["parameters"]}
        assert [name for name, text in told.items() if not text] == [], f"{method} {path}"


async def test_every_field_of_a_body_says_what_it_is(shared: Shared) -> None:
    document = await _document(shared.http)
    for path, method, operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            untold = [name for name, schema in _fields(document, content["schema"]) if not schema.get("description")]
            assert untold == [], f"{method} {path}"


async def test_every_body_has_examples_that_are_as_it_says(shared: Shared) -> None:
    document = await _document(shared.http)
    for path, method, operation in _operations(document):
        if (content := operation.get("requestBody", {}).get("content", {}).get("application/json")) is None:
            continue
        reference = content["schema"]["$ref"].rpartition("/")[2]
        examples = document["components"]["schemas"][reference].get("examples")
        assert examples, f"{method} {path} has no example"
        assert [example for example in examples if not _fits(document, example, reference)] == [], reference


async def test_every_answer_that_carries_something_says_of_which_type(shared: Shared) -> None:
    empty = {204, 302, 303, 304}
    for path, method, operation in _operations(await _document(shared.http)):
        for status, answer in operation["responses"].items():
            assert bool(answer.get("content")) == (int(status) not in empty), f"{method} {path} {status}"


async def test_every_answer_is_described_and_errors_have_the_envelope(shared: Shared) -> None:
    for path, _, operation in _operations(await _document(shared.http)):
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status)
            assert answer["description"]
            if int(status) >= 400 and path != "/ready":
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}


async def test_examples_of_the_document_are_taken(shared: Shared) -> None:
    schemas = (await _document(shared.http))["components"]["schemas"]
    [example] = schemas["SendRequest"]["examples"]
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, json=example | {"from": "hello@acme.test"})
    assert response.status_code == 200
    assert _fits(await _document(shared.http), example, "SendRequest")
    [example] = schemas["NewDomain"]["examples"]
    assert (await shared.http.post("/domains", headers=shared.acme.headers, json=example)).status_code == 201


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"to": ["ann@example.net", {"email": "bob@example.net", "name": "Bob"}], "from": {"email": "a@acme.test"}},
        {"to": {"email": "ann@example.net"}, "from": "a@acme.test", "data": {"a": [1]}, "headers": {"X-A": "b"}},
        {"attachments": [{"filename": "a", "content": "aGk=", "contentType": "text/plain", "contentId": "x"}]},
    ],
)
async def test_request_that_is_taken_fits_the_document(shared: Shared, fields: dict[str, Any]) -> None:
    await sent(shared.http, shared.acme, fields)
    assert _fits(await _document(shared.http), MAIL | fields, "SendRequest")


@pytest.mark.parametrize(
    "fields", [{"to": 7}, {"subject": ""}, {"attachments": [{}]}, {"headers": {"X-A": 1}}, {"from": []}]
)
async def test_request_that_is_refused_for_its_shape_does_not_fit_the_document(
    shared: Shared, fields: dict[str, Any]
) -> None:
    assert (await send(shared.http, shared.acme, fields)).status_code == 422
    assert not _fits(await _document(shared.http), MAIL | fields, "SendRequest")


async def test_docs_page_has_every_endpoint_and_every_field(shared: Shared) -> None:
    document = await _document(shared.http)
    response = await shared.http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for path, method, operation in _operations(document):
        assert f'<section id="{operation["operationId"]}">' in response.text
        assert f'<a href="#{operation["operationId"]}">' in response.text
        assert f"curl -X {method.upper()} http://relay.test{path}" in response.text
    schemas = document["components"]["schemas"]
    inner = [f"attachments[].{name}" for name in schemas["AttachmentBody"]["properties"]]
    for name in (*schemas["SendRequest"]["properties"], *inner, "Idempotency-Key"):
        assert f"<code>{name}</code>" in response.text


async def test_docs_page_needs_no_other_server_and_no_script(shared: Shared) -> None:
    response = await shared.http.get("/docs")
    links = re.findall(r"""(?:href|src|action)\s*=\s*["']?([^"'\s>]+)""", response.text)
    assert [link for link in links if not link.startswith("#") and link not in ("openapi.json", "docs/errors")] == []
    assert "<script" not in response.text
    assert "url(" not in response.text
    assert "@import" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def _document(http: httpx2.AsyncClient) -> dict[str, Any]:
    response = await http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    document: dict[str, Any] = response.json()
    return document


def _fits(document: dict[str, Any], body: dict[str, Any], name: str) -> bool:
    """Tell whether a body is as the schema of this name says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(schema).is_valid(body)


def _fields(document: dict[str, Any], body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the fields of a body and of the objects inside, by name."""
    waiting, seen = [body], set[str]()
    while waiting:
        schema = waiting.pop()
        yield from schema.get("properties", {}).items()
        waiting += [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
        waiting += [schema["items"]] if isinstance(schema.get("items"), dict) else []
        name = schema.get("$ref", "").rpartition("/")[2]
        if name and name not in seen:
            seen.add(name)
            waiting.append(document["components"]["schemas"][name])


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return path, method and operation of each."""
    for path, item in document["paths"].items():
        assert set(item) <= METHODS
        for method, operation in item.items():
            yield path, method, operation


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
