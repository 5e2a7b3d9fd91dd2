"""Does every endpoint take a right request, and say what is wrong with any other? A walk with little data an endpoint."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from plunk_relay.accounts.actions import create_user
from plunk_relay.accounts.sessions import issue_session
from plunk_relay.app import FEATURES
from plunk_relay.db.tables import memberships
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Endpoint
from tests.api.conftest import Shared
from tests.kit.api import MAIL, refusal
from tests.kit.dns import DnsTable, running_dns
from tests.kit.http import running_http
from tests.kit.images import PNG
from tests.kit.relay import Tenant, make_tenant, running_relay
from tests.kit.store import insert
from tests.kit.things import RULE, UNKNOWN_ID, make_things, name_of, path_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = {
    "api_requests_per_minute": 50_000,
    "send_burst": 10_000,
    "track_burst": 20_000,
    "contacts_burst": 30_000,
}
"""So high that no request is refused, and each so that its headers tell which it is."""
BURSTS = {None: 50_000, "send": 10_000, "track": 20_000, "contacts:write": 30_000}
IDS = {"contactIds": [UNKNOWN_ID]}
EMAILS = {"emails": ["ann@example.net"]}
CONDITION = {"logic": "AND", "groups": [{"filters": [{"field": "email", "operator": "contains", "value": "@"}]}]}
TEMPLATE = {"name": "Welcome", "subject": "Hi {{firstName}}", "body": "<p>Hi</p>", "from": "hello@acme.test"}


@dataclass(frozen=True, slots=True)
class Right:
    """The least that an endpoint takes beside its path."""

    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, str, bytes, str] | None = None
    """Name of the field, of the file, what it holds, and of which type it is."""


RIGHT: dict[str, Right] = {
    "POST /v1/send": Right(MAIL),
    "POST /v1/track": Right({"event": "seen", "email": "ann@example.net"}),
    "POST /v1/verify": Right({"email": "ann@example.net"}),
    "GET /contacts": Right(),
    "POST /contacts": Right({"email": "ann@example.net"}),
    "GET /contacts/{contact_id}": Right(),
    "PATCH /contacts/{contact_id}": Right({"subscribed": False}),
    "DELETE /contacts/{contact_id}": Right(),
    "POST /contacts/lookup": Right(EMAILS),
    "GET /contacts/fields": Right(),
    "GET /contacts/fields/{field}/values": Right(),
    "GET /contacts/fields/{field}/usage": Right(),
    "DELETE /contacts/fields/{field}": Right(),
    "POST /contacts/import": Right(file=("file", "a.csv", b"email\n", "text/csv")),
    "GET /contacts/import/{job_id}": Right(),
    "POST /contacts/bulk-subscribe": Right(IDS),
    "POST /contacts/bulk-unsubscribe": Right(IDS),
    "POST /contacts/bulk-delete": Right(IDS),
    "GET /contacts/bulk/{bulk_job_id}": Right(),
    "GET /segments": Right(),
    "POST /segments": Right({"name": "All", "condition": CONDITION}),
    "GET /segments/{segment_id}": Right(),
    "PATCH /segments/{segment_id}": Right({"name": "Other"}),
    "DELETE /segments/{segment_id}": Right(),
    "GET /segments/{segment_id}/contacts": Right(),
    "POST /segments/{segment_id}/members": Right(EMAILS),
    "DELETE /segments/{segment_id}/members": Right(EMAILS),
    "POST /segments/{segment_id}/compute": Right(),
    "POST /segments/{segment_id}/refresh": Right(),
    "GET /templates": Right(),
    "POST /templates": Right(TEMPLATE),
    "GET /templates/{template_id}": Right(),
    "PATCH /templates/{template_id}": Right({"name": "Other"}),
    "DELETE /templates/{template_id}": Right(),
    "POST /templates/{template_id}/duplicate": Right(),
    "GET /templates/{template_id}/usage": Right(),
    "POST /templates/{template_id}/preview": Right(),
    "POST /templates/bulk-update": Right({"ids": ["{template_id}"]}),
    "POST /events/track": Right({"name": "seen"}),
    "GET /events": Right(),
    "GET /events/stats": Right(),
    "GET /events/contact/{contact_id}": Right(),
    "GET /events/names": Right(),
    "GET /events/{event_name}/usage": Right(),
    "DELETE /events/{event_name}": Right(),
    "GET /domains/project/{project_id}": Right(),
    "POST /domains": Right({"domain": "{fresh}.test"}),
    "GET /domains/{domain_id}/verify": Right(),
    "PATCH /domains/{domain_id}": Right({"receiving": True}),
    "DELETE /domains/{domain_id}": Right(),
    "POST /uploads/image": Right(file=("image", "a.png", PNG, "image/png")),
    "GET /uploads/files/{key:path}": Right(),
    "GET /suppressions": Right(),
    "POST /suppressions": Right(RULE),
    "PUT /suppressions/{rule_id}": Right(RULE),
    "DELETE /suppressions/{rule_id}": Right(),
    "POST /suppressions/preview": Right({"address": "ann@example.net"}),
    "GET /suppressions/emails": Right(),
    "GET /suppressions/emails/{email_id}": Right(),
    "GET /suppressions/addresses": Right(),
    "POST /suppressions/addresses": Right({"email": "ann@example.net"}),
    "GET /suppressions/addresses/{email:path}": Right(),
    "DELETE /suppressions/addresses/{email:path}": Right(),
    "GET /contacts/public/{contact_id}": Right(),
    "POST /contacts/public/{contact_id}/subscribe": Right(),
    "POST /contacts/public/{contact_id}/unsubscribe": Right(),
    "POST /unsubscribe/{contact_id}": Right(),
    "GET /unsubscribe/{contact_id}": Right(),
    "GET /subscribe/{contact_id}": Right(),
    "GET /manage/{contact_id}": Right(),
    "POST /manage/{contact_id}": Right(query={"want": "subscribe"}),
}
"""By the name of the endpoint; those below /v1/contacts take what those below /contacts do. `{name}` stands for
the id of that thing, `{fresh}` for one that nothing has yet."""
ASKING = [one for one in FEATURES if one.auth is not Auth.NONE]
WITH_SESSIONS = [one for one in FEATURES if one.auth is Auth.DUAL]
WITH_BODY = [one for one in FEATURES if one.body is not None]
OPEN_WRITES = [one for one in FEATURES if one.auth is Auth.NONE and one.method != "GET"]
PATHS = sorted({one.path for one in FEATURES})


@dataclass(frozen=True, slots=True)
class Served(Shared):
    """A served relay, its document, and somebody who is a member of acme's project."""

    document: dict[str, Any]
    session: dict[str, str]
    """The header of a request of theirs."""
    things_of_rival: dict[str, str]
    """As they were made before the project was disabled."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Serve one relay with limits that nobody reaches; acme is asked about, and the rival's project is disabled."""
    async with running_dns(DnsTable()) as server:
        settings: dict[str, Any] = {"limits": LIMITS, "delivery": {"resolvers": [server]}}
        async with running_relay(tmp_path_factory.mktemp("served"), **settings) as relay:
            acme = await make_tenant(relay)
            rival = await make_tenant(relay, "rival", domain="rival.test")
            async with running_http(relay) as http:
                things_of_rival = await make_things(relay, http, rival)
                await disable_project(relay, rival.id)
                document = (await http.get("/openapi.json")).json()
                yield Served(relay, http, acme, rival, document, await _sign_in(relay, acme), things_of_rival)


async def _sign_in(relay: Relay, project: Tenant) -> dict[str, str]:
    """Return the header of a request of a new member of a project."""
    user = await create_user(relay, "member@example.net", password="password")
    times = {"created_at": relay.clock.now(), "updated_at": relay.clock.now()}
    await insert(relay, memberships, user_id=user.id, project_id=project.id, role="MEMBER", **times)
    return {"Cookie": f"next_token={issue_session(relay, user.id)}"}


async def test_every_endpoint_has_a_right_request() -> None:
    assert {_plain_name(endpoint) for endpoint in FEATURES} == set(RIGHT)


@pytest.mark.parametrize("endpoint", FEATURES, ids=name_of)
async def test_right_request_is_answered_as_documented(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    response = await _ask(served, endpoint, things, served.acme.headers)
    assert response.status_code in (endpoint.status, *endpoint.also), response.text
    assert response.status_code < 400
    if response.headers.get("content-type") == "application/json":
        _check_names_and_times(response.json())
    if endpoint.auth is Auth.NONE:
        assert "ratelimit-limit" not in response.headers
    else:
        assert response.headers["ratelimit-limit"] == str(BURSTS[endpoint.bucket])
        assert int(response.headers["ratelimit-remaining"]) < BURSTS[endpoint.bucket]
        assert response.headers["ratelimit-reset"] == "1"


@pytest.mark.parametrize("endpoint", [one for one in FEATURES if one.method == "GET"], ids=name_of)
async def test_head_is_answered_like_get_without_the_body(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    path = path_of(endpoint, **things)
    whole = await served.http.get(path, headers=served.acme.headers)
    head = await served.http.head(path, headers=served.acme.headers)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_tells_its_methods(served: Served, path: str) -> None:
    endpoints = [one for one in FEATURES if one.path == path]
    fitting = [one for one in FEATURES if re.fullmatch(re.sub(r"{[^/]+}", "[^/]+", one.path), path)]
    methods = {one.method for one in fitting} | {"OPTIONS"}
    methods |= {"HEAD"} if "GET" in methods else set()
    allowed = ", ".join(sorted(methods))
    asked = path_of(endpoints[0], key="a/b")
    options = await served.http.options(asked)
    assert (options.status_code, options.headers["allow"], options.content) == (200, allowed, b"")
    wrong = await served.http.request("TRACE", asked)
    assert refusal(wrong) == (405, "BAD_REQUEST")
    assert wrong.headers["allow"] == allowed
    for response in (options, wrong):
        below_v1 = path.startswith("/v1/")
        assert response.headers.get("access-control-allow-origin") == ("*" if below_v1 else None)


@pytest.mark.parametrize("endpoint", WITH_SESSIONS, ids=name_of)
async def test_session_opens_it_when_the_project_is_named(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    assert refusal(await _ask(served, endpoint, things, served.session)) == (400, "BAD_REQUEST")
    response = await _ask(served, endpoint, things, served.session | {"X-Project-Id": served.acme.id})
    assert response.status_code in (endpoint.status, *endpoint.also), response.text


@pytest.mark.parametrize("endpoint", ASKING, ids=name_of)
async def test_disabled_project_is_read_and_not_written(served: Served, endpoint: Endpoint) -> None:
    response = await _ask(served, endpoint, served.things_of_rival, served.rival.headers)
    if endpoint.method == "GET":
        assert response.status_code == 200, response.text
    else:
        assert refusal(response) == (403, "PROJECT_DISABLED")


@pytest.mark.parametrize("endpoint", OPEN_WRITES, ids=name_of)
async def test_contacts_of_a_disabled_project_are_never_blocked(served: Served, endpoint: Endpoint) -> None:
    response = await _ask(served, endpoint, served.things_of_rival, {})
    assert response.status_code == endpoint.status


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
async def test_unknown_field_is_passed_over(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    response = await _ask(served, endpoint, things, served.acme.headers, {"unknownField": {"a": [1]}})
    if endpoint.tag == "Suppressions" and endpoint.path != "/suppressions/addresses":  # contract section 20
        assert refusal(response) == (400, "BAD_REQUEST")
    else:
        assert response.status_code in (endpoint.status, *endpoint.also), response.text


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
async def test_field_of_another_type_is_named(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    for name, value in _wrong_fields(served.document, endpoint, _body(endpoint, things)):
        response = await _ask(served, endpoint, things, served.acme.headers, {name: value})
        assert response.status_code in (400, 422), (name, value, response.text)
        assert name in _named_fields(response), (name, value, response.text)


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
async def test_field_that_is_missing_is_named(served: Served, endpoint: Endpoint) -> None:
    things = await make_things(served.relay, served.http, served.acme)
    for name in _required_fields(served.document, endpoint, _body(endpoint, things)):
        response = await _ask(served, endpoint, things, served.acme.headers, {name: ...})
        assert response.status_code in (400, 422), (name, response.text)
        assert name in _named_fields(response), (name, response.text)


def _plain_name(endpoint: Endpoint) -> str:
    return name_of(endpoint).replace(" /v1/contacts", " /contacts")


def _body(endpoint: Endpoint, things: Mapping[str, str]) -> dict[str, Any]:
    values = {**things, "fresh": new_id()}
    text = json.dumps(dict(RIGHT[_plain_name(endpoint)].body))
    body: dict[str, Any] = json.loads(re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text))
    return body


async def _ask(
    served: Served,
    endpoint: Endpoint,
    things: Mapping[str, str],
    headers: Mapping[str, str],
    changes: Mapping[str, Any] | None = None,
) -> httpx2.Response:
    """Make the right request, with `changes` of its body; those that are `...` are left out."""
    right = RIGHT[_plain_name(endpoint)]
    body = {name: value for name, value in (_body(endpoint, things) | dict(changes or {})).items() if value is not ...}
    sent: dict[str, Any] = {"json": body} if endpoint.body is not None else {}
    if right.file is not None:
        sent = {"files": {right.file[0]: right.file[1:]}}
    path = path_of(endpoint, **things)
    return await served.http.request(endpoint.method, path, headers=dict(headers), params=dict(right.query), **sent)


def _forms(document: dict[str, Any], endpoint: Endpoint, body: object) -> Iterator[dict[str, Any]]:
    """Return the schemas of objects that a body fits, out of those that the endpoint takes."""
    assert endpoint.body is not None
    waiting: list[dict[str, Any]] = [{"$ref": f"#/components/schemas/{endpoint.body.__name__}"}]
    while waiting:
        schema = waiting.pop()
        if "$ref" in schema:
            waiting.append(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        elif "anyOf" in schema:
            waiting += schema["anyOf"]
        elif _fits(document, schema, body):
            yield schema


def _fits(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    return Draft202012Validator({**schema, "components": document["components"]}).is_valid(value)


def _wrong_fields(document: dict[str, Any], endpoint: Endpoint, body: object) -> list[tuple[str, Any]]:
    """Return each field that has a type, with a value of another one."""
    found = []
    for form in _forms(document, endpoint, body):
        for name, schema in form["properties"].items():
            wrong = [value for value in ("true", 1, {"a": 1}, [1]) if not _fits(document, schema, value)]
            found += [(name, value) for value in wrong[:1]]
    return found


def _required_fields(document: dict[str, Any], endpoint: Endpoint, body: object) -> list[str]:
    return [name for form in _forms(document, endpoint, body) for name in form.get("required", [])]


def _named_fields(response: httpx2.Response) -> set[str]:
    """Return the fields that an error names: in `errors`, or in its message."""
    error = response.json()["error"]
    assert error["code"] == ("VALIDATION_ERROR" if response.status_code == 422 else "BAD_REQUEST")
    return {fault["field"].partition(".")[0] for fault in error.get("errors", [])} | set(
        re.findall(r"\w+", error["message"])
    )


def _check_names_and_times(value: Any) -> None:
    """Check that names are camelCase and times have milliseconds and Z; what a client made up is passed over."""
    if isinstance(value, list):
        for one in value:
            _check_names_and_times(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            assert re.fullmatch(r"_?[a-z][a-zA-Z0-9]*", name), name
            if name != "data" or "projectId" not in value:
                _check_names_and_times(one)
    elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value), value
