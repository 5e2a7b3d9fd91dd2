"""Does every endpoint ask for its key, and keep to its project? A walk over all of them."""

import re
from typing import Any

import pytest

from plunk_relay.app import FEATURES
from plunk_relay.db.tables import (
    contacts,
    domains,
    emails,
    events,
    jobs,
    segments,
    suppression_rules,
    suppressions,
    templates,
)
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.errors import ContactNotFound, NotFound
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Endpoint
from tests.api.conftest import Shared
from tests.kit.api import refusal, sent
from tests.kit.jobs import bulk, upload
from tests.kit.relay import Tenant
from tests.kit.store import add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
ASKING = [endpoint for endpoint in FEATURES if endpoint.auth is not Auth.NONE]
OPEN = [endpoint for endpoint in FEATURES if endpoint.auth is Auth.NONE]
TELLING_NOTHING = {
    "GET /events/contact/{contact_id}",
    "GET /events/{event_name}/usage",
    "DELETE /events/{event_name}",
    *(
        f"{what}"
        for below in ("", "/v1")
        for what in (
            f"GET {below}/contacts/fields/{{field}}/values",
            f"GET {below}/contacts/fields/{{field}}/usage",
            f"DELETE {below}/contacts/fields/{{field}}",
        )
    ),
}
"""Endpoints for which what is not there has no events and no contacts, instead of being not found."""
ABOUT_ONE_THING = [endpoint for endpoint in ASKING if set(endpoint.path_parameters) - {"project_id"}]
OF_ONE_THING = [one for one in ABOUT_ONE_THING if f"{one.method} {one.path}" not in TELLING_NOTHING]
OF_NOTHING = [one for one in ABOUT_ONE_THING if one not in OF_ONE_THING]


NOBODYS = {"field": f"data.field-{UNKNOWN_ID}"}
"""A name of what is not there, where an id would be no name."""
RULE = {"name": "Staging", "kind": "DOMAIN", "pattern": "example.com"}
BODIES: dict[str, dict[str, Any]] = {
    "PUT /suppressions/{rule_id}": RULE,
    "PATCH /domains/{domain_id}": {"receiving": True},
    "PATCH /contacts/{contact_id}": {"subscribed": False},
    "PATCH /v1/contacts/{contact_id}": {"subscribed": False},
    "PATCH /templates/{template_id}": {"name": "Other"},
    "PATCH /segments/{segment_id}": {"name": "Other"},
    "POST /segments/{segment_id}/members": {"emails": ["ann@example.net"]},
    "DELETE /segments/{segment_id}/members": {"emails": ["ann@example.net"]},
}


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def _path(endpoint: Endpoint, **ids: str) -> str:
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: ids.get(found[1], UNKNOWN_ID), endpoint.path)


def _body(endpoint: Endpoint) -> dict[str, Any]:
    """Return a body that the endpoint takes, so that the path alone is to blame."""
    return BODIES.get(_name(endpoint), {})


async def _things(shared: Shared, owner: Tenant) -> dict[str, str]:
    """Return an id of each kind of thing of a project, by the name of the path parameter; make what is missing."""
    [domain] = await rows(shared.relay, domains, project_id=owner.id)
    address = f"held@{owner.domain}"
    await shared.http.post("/suppressions/addresses", headers=owner.headers, json={"email": address})
    if not await rows(shared.relay, suppression_rules, project_id=owner.id):
        await shared.http.post("/suppressions", headers=owner.headers, json=RULE)
        await sent(shared.http, owner, {"to": address, "from": f"app@{owner.domain}"})
        async with Deliverer(shared.relay) as deliverer:
            await deliverer.run_once()
            await deliverer.settle()
    [rule] = await rows(shared.relay, suppression_rules, project_id=owner.id)
    [held] = await rows(shared.relay, emails, project_id=owner.id, status="SUPPRESSED")
    person = {"email": f"ann@{owner.domain}", "data": {f"field-{owner.id}": "x"}}
    contact = await shared.http.post("/contacts", headers=owner.headers, json=person)
    if not await rows(shared.relay, segments, project_id=owner.id):
        await shared.http.post("/segments", headers=owner.headers, json={"name": "It", "type": "STATIC"})
    [segment] = await rows(shared.relay, segments, project_id=owner.id)
    if not await rows(shared.relay, templates, project_id=owner.id):
        await add_template(shared.relay, owner.id, from_address=f"app@{owner.domain}")
    [template] = await rows(shared.relay, templates, project_id=owner.id)
    if not await rows(shared.relay, jobs, project_id=owner.id):
        await upload(shared.http, owner, "email\n")
        await bulk(shared.http, owner, "delete", {"contactIds": [UNKNOWN_ID]})
    [bulk_job, import_job] = await rows(shared.relay, jobs, project_id=owner.id)
    event = {"event": f"seen-{owner.id}", "email": f"ann@{owner.domain}"}
    if not await rows(shared.relay, events, name=event["event"]):
        await shared.http.post("/v1/track", headers=owner.headers, json=event)
    ids = {
        "project_id": owner.id,
        "event_name": event["event"],
        "field": f"data.field-{owner.id}",
        "contact_id": contact.json()["id"],
        "segment_id": segment["id"],
        "template_id": template["id"],
        "job_id": import_job["id"],
        "bulk_job_id": bulk_job["id"],
        "domain_id": domain["id"],
        "rule_id": rule["id"],
        "email_id": held["id"],
    }
    return ids | {"email": address}


async def _seen(shared: Shared, owner: Tenant) -> list[list[dict[str, Any]]]:
    """Return the rows that the walk could have changed."""
    tables = (contacts, jobs, templates, segments, events, domains, suppression_rules, suppressions, emails)
    return [await rows(shared.relay, table, project_id=owner.id) for table in tables]


async def test_the_walk_sees_endpoints_of_both_kinds() -> None:
    assert {"POST /v1/send", "DELETE /domains/{domain_id}"} <= {_name(endpoint) for endpoint in ASKING}
    assert [endpoint for endpoint in OPEN if endpoint.tag not in ("Public pages", "Uploads")] == []


@pytest.mark.parametrize("endpoint", ASKING, ids=_name)
async def test_without_a_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    response = await shared.http.request(endpoint.method, _path(endpoint), content="{")
    assert refusal(response) == (401, "UNAUTHORIZED" if endpoint.auth is Auth.DUAL else "MISSING_AUTH")


@pytest.mark.parametrize("endpoint", ASKING, ids=_name)
async def test_with_half_a_header_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": shared.acme.secret}
    response = await shared.http.request(endpoint.method, _path(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "MISSING_AUTH")


@pytest.mark.parametrize("endpoint", ASKING, ids=_name)
async def test_with_a_wrong_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": f"Bearer sk_{'0' * 64}"}
    response = await shared.http.request(endpoint.method, _path(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "INVALID_API_KEY")


@pytest.mark.parametrize("endpoint", [one for one in ASKING if one.auth is not Auth.ANY_KEY], ids=_name)
async def test_with_the_public_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": f"Bearer {shared.acme.public}"}
    response = await shared.http.request(endpoint.method, _path(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "INVALID_API_KEY")


@pytest.mark.parametrize("endpoint", OF_ONE_THING, ids=_name)
async def test_thing_of_another_project_is_not_found(shared: Shared, endpoint: Endpoint) -> None:
    theirs = await _things(shared, shared.rival)
    path = _path(endpoint, **theirs)
    assert UNKNOWN_ID not in path, "say in _things how a foreign one is made"
    before = await _seen(shared, shared.rival)
    response = await shared.http.request(endpoint.method, path, headers=shared.acme.headers, json=_body(endpoint))
    assert response.status_code == 404
    assert shared.rival.domain not in response.text.replace(path, "").replace(theirs["email"], "")
    assert await _seen(shared, shared.rival) == before


@pytest.mark.parametrize("endpoint", OF_NOTHING, ids=_name)
async def test_thing_of_another_project_is_like_one_that_is_not_there(shared: Shared, endpoint: Endpoint) -> None:
    theirs = await _things(shared, shared.rival)
    path = _path(endpoint, **theirs)
    assert UNKNOWN_ID not in path, "say in _things how a foreign one is made"
    before = await _seen(shared, shared.rival)
    answers = [
        await shared.http.request(endpoint.method, one, headers=shared.acme.headers)
        for one in (path, _path(endpoint, **NOBODYS))
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text.replace(theirs["field"], NOBODYS["field"]) == answers[1].text
    assert await _seen(shared, shared.rival) == before


@pytest.mark.parametrize("endpoint", OF_ONE_THING, ids=_name)
async def test_thing_that_is_not_there_is_not_found(shared: Shared, endpoint: Endpoint) -> None:
    path = _path(endpoint)
    response = await shared.http.request(endpoint.method, path, headers=shared.acme.headers, json=_body(endpoint))
    assert response.status_code == 404


@pytest.mark.parametrize("endpoint", [one for one in ASKING if one.body is not None], ids=_name)
async def test_body_that_is_no_json_is_refused(shared: Shared, endpoint: Endpoint) -> None:
    response = await shared.http.request(endpoint.method, _path(endpoint), headers=shared.acme.headers, content="{")
    assert refusal(response) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("endpoint", OPEN, ids=_name)
async def test_open_endpoint_asks_for_no_key_and_takes_a_wrong_one(shared: Shared, endpoint: Endpoint) -> None:
    for headers in ({}, {"Authorization": "nonsense"}):
        response = await shared.http.request(endpoint.method, _path(endpoint), headers=headers, params={"want": "subscribe"})
        assert response.status_code == (404 if ContactNotFound in endpoint.errors or NotFound in endpoint.errors else 200)
