"""Does every endpoint ask for its key, and keep to its project? A walk over all of them."""

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
from plunk_relay.errors import ContactNotFound, NotFound
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Endpoint
from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.kit.relay import Tenant
from tests.kit.store import rows
from tests.kit.things import RULE, UNKNOWN_ID, make_things, name_of, path_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

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


def _body(endpoint: Endpoint) -> dict[str, Any]:
    """Return a body that the endpoint takes, so that the path alone is to blame."""
    return BODIES.get(name_of(endpoint), {})


async def _things(shared: Shared, owner: Tenant) -> dict[str, str]:
    return await make_things(shared.relay, shared.http, owner)


async def _seen(shared: Shared, owner: Tenant) -> list[list[dict[str, Any]]]:
    """Return the rows that the walk could have changed."""
    tables = (contacts, jobs, templates, segments, events, domains, suppression_rules, suppressions, emails)
    return [await rows(shared.relay, table, project_id=owner.id) for table in tables]


async def test_the_walk_sees_endpoints_of_both_kinds() -> None:
    assert {"POST /v1/send", "DELETE /domains/{domain_id}"} <= {name_of(endpoint) for endpoint in ASKING}
    assert [endpoint for endpoint in OPEN if endpoint.tag not in ("Public pages", "Uploads")] == []


@pytest.mark.parametrize("endpoint", ASKING, ids=name_of)
async def test_without_a_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    response = await shared.http.request(endpoint.method, path_of(endpoint), content="{")
    assert refusal(response) == (401, "UNAUTHORIZED" if endpoint.auth is Auth.DUAL else "MISSING_AUTH")


@pytest.mark.parametrize("endpoint", ASKING, ids=name_of)
async def test_with_half_a_header_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": shared.acme.secret}
    response = await shared.http.request(endpoint.method, path_of(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "MISSING_AUTH")


@pytest.mark.parametrize("endpoint", ASKING, ids=name_of)
async def test_with_a_wrong_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": f"Bearer sk_{'0' * 64}"}
    response = await shared.http.request(endpoint.method, path_of(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "INVALID_API_KEY")


@pytest.mark.parametrize("endpoint", [one for one in ASKING if one.auth is not Auth.ANY_KEY], ids=name_of)
async def test_with_the_public_key_nothing_is_done(shared: Shared, endpoint: Endpoint) -> None:
    headers = {"Authorization": f"Bearer {shared.acme.public}"}
    response = await shared.http.request(endpoint.method, path_of(endpoint), headers=headers, content="{")
    assert refusal(response) == (401, "INVALID_API_KEY")


@pytest.mark.parametrize("endpoint", OF_ONE_THING, ids=name_of)
async def test_thing_of_another_project_is_not_found(shared: Shared, endpoint: Endpoint) -> None:
    theirs = await _things(shared, shared.rival)
    path = path_of(endpoint, **theirs)
    assert UNKNOWN_ID not in path, "say in make_things how a foreign one is made"
    before = await _seen(shared, shared.rival)
    response = await shared.http.request(endpoint.method, path, headers=shared.acme.headers, json=_body(endpoint))
    assert response.status_code == 404
    assert shared.rival.domain not in response.text.replace(path, "").replace(theirs["email"], "")
    assert await _seen(shared, shared.rival) == before


@pytest.mark.parametrize("endpoint", OF_NOTHING, ids=name_of)
async def test_thing_of_another_project_is_like_one_that_is_not_there(shared: Shared, endpoint: Endpoint) -> None:
    theirs = await _things(shared, shared.rival)
    path = path_of(endpoint, **theirs)
    assert UNKNOWN_ID not in path, "say in make_things how a foreign one is made"
    before = await _seen(shared, shared.rival)
    answers = [
        await shared.http.request(endpoint.method, one, headers=shared.acme.headers)
        for one in (path, path_of(endpoint, **NOBODYS))
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text.replace(theirs["field"], NOBODYS["field"]) == answers[1].text
    assert await _seen(shared, shared.rival) == before


@pytest.mark.parametrize("endpoint", OF_ONE_THING, ids=name_of)
async def test_thing_that_is_not_there_is_not_found(shared: Shared, endpoint: Endpoint) -> None:
    path = path_of(endpoint)
    response = await shared.http.request(endpoint.method, path, headers=shared.acme.headers, json=_body(endpoint))
    assert response.status_code == 404


@pytest.mark.parametrize("endpoint", [one for one in ASKING if one.body is not None], ids=name_of)
async def test_body_that_is_no_json_is_refused(shared: Shared, endpoint: Endpoint) -> None:
    response = await shared.http.request(endpoint.method, path_of(endpoint), headers=shared.acme.headers, content="{")
    assert refusal(response) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("endpoint", OPEN, ids=name_of)
async def test_open_endpoint_asks_for_no_key_and_takes_a_wrong_one(shared: Shared, endpoint: Endpoint) -> None:
    for headers in ({}, {"Authorization": "nonsense"}):
        response = await shared.http.request(
            endpoint.method, path_of(endpoint), headers=headers, params={"want": "subscribe"}
        )
        assert response.status_code == (404 if ContactNotFound in endpoint.errors or NotFound in endpoint.errors else 200)
