"""What may be done to a contact over HTTP? Made or merged, changed, looked up, deleted; flips are events."""

import asyncio
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.contacts.merge import RESERVED_FIELDS
from plunk_relay.contacts.queries import ContactFilter, count_contacts
from plunk_relay.db.tables import contacts, contents, deliveries, emails, events, suppressions
from plunk_relay.relay import Relay
from tests.kit.api import faults, refusal, sent
from tests.kit.relay import Tenant
from tests.kit.store import rows

ANN = {"email": "ann@example.net"}


async def _post(http: httpx2.AsyncClient, owner: Tenant, **fields: Any) -> httpx2.Response:
    return await http.post("/contacts", headers=owner.headers, json=ANN | fields)


async def _patch(http: httpx2.AsyncClient, owner: Tenant, contact_id: str, **fields: Any) -> httpx2.Response:
    return await http.patch(f"/contacts/{contact_id}", headers=owner.headers, json=fields)


async def _event_names(relay: Relay) -> list[str]:
    return [row["name"] for row in await rows(relay, events)]


async def test_a_new_contact_is_201_and_the_same_again_200(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    first = await _post(http, owner, data={"plan": "pro"})
    second = await _post(http, owner)
    assert (first.status_code, first.json()["_meta"]) == (201, {"isNew": True, "isUpdate": False})
    assert (second.status_code, second.json()["_meta"]) == (200, {"isNew": False, "isUpdate": True})
    assert {**first.json(), "_meta": None} == {**second.json(), "_meta": None}
    assert set(first.json()) == {"id", "email", "data", "subscribed", "projectId", "createdAt", "updatedAt", "_meta"}
    assert first.json()["createdAt"] == "2026-03-01T12:00:00.000Z"
    assert await _event_names(relay) == []


async def test_an_address_is_trimmed_and_lower_cased(http: httpx2.AsyncClient, owner: Tenant) -> None:
    first, second = await _post(http, owner, email=" Ann@Example.NET "), await _post(http, owner)
    assert first.json()["email"] == "ann@example.net"
    assert second.json()["id"] == first.json()["id"]


@pytest.mark.parametrize(("sent_flag", "stored"), [(None, True), (True, True), (False, False)])
async def test_a_new_contact_is_subscribed_unless_it_says_not(
    http: httpx2.AsyncClient, owner: Tenant, sent_flag: bool | None, stored: bool
) -> None:
    assert (await _post(http, owner, subscribed=sent_flag)).json()["subscribed"] is stored


async def test_leaving_the_subscription_out_keeps_it_and_a_flip_is_one_event(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    await _post(http, owner, subscribed=False)
    assert (await _post(http, owner, data={"a": 1})).json()["subscribed"] is False
    assert (await _post(http, owner, subscribed=True)).json()["subscribed"] is True
    assert (await _post(http, owner, subscribed=True)).json()["subscribed"] is True
    assert await _event_names(relay) == ["contact.subscribed"]


async def test_data_is_merged_key_by_key(http: httpx2.AsyncClient, owner: Tenant) -> None:
    await _post(http, owner, data={"plan": "pro", "city": "Berlin", "nested": {"a": 1}})
    merged = await _post(
        http,
        owner,
        data={"city": None, "plan": "", "nested": {"b": 2}, "code": {"value": 7, "persistent": False}}
        | dict.fromkeys(RESERVED_FIELDS, "x"),
    )
    assert merged.json()["data"] == {"plan": "pro", "nested": {"b": 2}}
    wrapped = await _post(http, owner, data={"score": {"value": 7, "persistent": True}, "plan": None, "nested": None})
    assert wrapped.json()["data"] == {"score": 7}
    assert (await _post(http, owner, data={"score": None})).json()["data"] is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("email", "invalid_type")]),
        ({"email": None}, [("email", "invalid_type")]),
        ({"email": 5}, [("email", "invalid_type")]),
        ({"email": "nobody"}, [("email", "invalid_string")]),
        ({"email": "a b@example.net"}, [("email", "invalid_string")]),
        (ANN | {"subscribed": "yes"}, [("subscribed", "invalid_type")]),
        (ANN | {"data": [1]}, [("data", "invalid_type")]),
        (ANN | {"data": "text"}, [("data", "invalid_type")]),
        ([], [("", "invalid_type")]),
    ],
)
async def test_a_body_of_another_shape_is_refused_field_by_field(
    http: httpx2.AsyncClient, owner: Tenant, body: Any, expected: list[tuple[str, str]]
) -> None:
    assert faults(await http.post("/contacts", headers=owner.headers, json=body)) == expected


async def test_a_locale_that_is_no_text_is_a_bad_request_and_changes_nothing(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    contact = (await _post(http, owner, data={"locale": "de"})).json()
    for response in (
        await _post(http, owner, subscribed=False, data={"locale": 5}),
        await _patch(http, owner, contact["id"], subscribed=False, data={"locale": True}),
    ):
        assert refusal(response) == (400, "BAD_REQUEST")
    [row] = await rows(relay, contacts)
    assert (row["data"], row["subscribed"]) == ({"locale": "de"}, True)
    assert await _event_names(relay) == []


async def test_first_requests_at_the_same_time_make_one_contact(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    answers = await asyncio.gather(*(_post(http, owner, data={f"key{number}": number}) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    [row] = await rows(relay, contacts)
    assert set(row["data"]) == {f"key{number}" for number in range(8)}
    assert await relay.db.read(count_contacts, owner.id, ContactFilter()) == 1


async def test_patch_changes_what_it_names(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    contact = (await _post(http, owner, data={"plan": "pro", "city": "Berlin"})).json()
    assert (await _patch(http, owner, contact["id"])).json() == {k: v for k, v in contact.items() if k != "_meta"}
    changed = await _patch(http, owner, contact["id"], email=" New@Example.net", data={"city": None, "age": 5})
    assert (changed.json()["email"], changed.json()["data"]) == ("new@example.net", {"plan": "pro", "age": 5})
    assert (await _patch(http, owner, contact["id"], data={})).json()["data"] == {"plan": "pro", "age": 5}
    assert (await _patch(http, owner, contact["id"], data=None)).json()["data"] is None
    flipped = await _patch(http, owner, contact["id"], subscribed=False)
    assert (flipped.json()["subscribed"], await _event_names(relay)) == (False, ["contact.unsubscribed"])
    [event] = await rows(relay, events)
    assert (event["email_id"], event["data"]) == (None, None)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"data": [1]}, (400, "BAD_REQUEST")),
        ({"data": "text"}, (400, "BAD_REQUEST")),
        ({"data": 5}, (400, "BAD_REQUEST")),
        ({"email": "bob@example.net"}, (409, "CONFLICT")),
        ({"email": "nobody"}, (422, "VALIDATION_ERROR")),
        ({"email": None}, (422, "VALIDATION_ERROR")),
        ({"subscribed": "no"}, (422, "VALIDATION_ERROR")),
        ({"subscribed": None}, (422, "VALIDATION_ERROR")),
    ],
)
async def test_a_bad_patch_changes_nothing(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, fields: dict[str, Any], answer: tuple[int, str]
) -> None:
    await _post(http, owner, email="bob@example.net")
    contact = (await _post(http, owner, data={"plan": "pro"})).json()
    before = await rows(relay, contacts)
    assert refusal(await _patch(http, owner, contact["id"], **({"subscribed": False} | fields))) == answer
    assert await rows(relay, contacts) == before


async def test_a_new_address_changes_neither_mails_nor_suppressions(
    http: httpx2.AsyncClient, relay: Relay, acme: Tenant
) -> None:
    [mail] = await sent(http, acme, {"to": "ann@example.net"})
    await http.post("/suppressions/addresses", headers=acme.headers, json={"email": "ann@example.net"})
    tables = (emails, deliveries, suppressions, events)
    before = [await rows(relay, table) for table in tables]
    assert (await _patch(http, acme, mail["contact"]["id"], email="new@example.net")).status_code == 200
    assert [await rows(relay, table) for table in tables] == before


async def test_an_address_may_be_that_of_another_projects_contact(
    http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    await _post(http, other, email="bob@example.net")
    contact = (await _post(http, owner)).json()
    assert (await _patch(http, owner, contact["id"], email="bob@example.net")).status_code == 200


async def test_lookup_answers_with_what_was_asked(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    await _post(http, owner)
    await _post(http, other, email="bob@example.net")
    asked = ["Ann@Example.net", "bob@example.net", "", "ann@example.net", " ann@example.net ", "bob@example.net"]
    response = await http.post("/contacts/lookup", headers=owner.headers, json={"emails": asked})
    assert response.json() == {
        "found": ["Ann@Example.net", "ann@example.net", " ann@example.net "],
        "notFound": ["bob@example.net", "", "bob@example.net"],
    }


@pytest.mark.parametrize(("number", "status"), [(0, 400), (1, 200), (500, 200), (501, 400)])
async def test_lookup_takes_one_to_five_hundred(http: httpx2.AsyncClient, owner: Tenant, number: int, status: int) -> None:
    response = await http.post("/contacts/lookup", headers=owner.headers, json={"emails": ["a@example.net"] * number})
    assert response.status_code == status
    assert status == 200 or refusal(response) == (400, "BAD_REQUEST")


async def test_the_three_writes_share_one_budget(http: httpx2.AsyncClient, owner: Tenant) -> None:
    contact = (await _post(http, owner)).json()
    remaining = [
        int((await _patch(http, owner, contact["id"])).headers["ratelimit-remaining"]),
        int((await _post(http, owner)).headers["ratelimit-remaining"]),
        int((await http.delete(f"/contacts/{contact['id']}", headers=owner.headers)).headers["ratelimit-remaining"]),
    ]
    assert remaining == [98, 97, 96]


async def test_a_deleted_contact_takes_everything_along(http: httpx2.AsyncClient, relay: Relay, acme: Tenant) -> None:
    [first] = await sent(http, acme, {"to": "ann@example.net"})
    await sent(http, acme, {"to": ["ann@example.net", "bob@example.net"], "attachments": [_file()]})
    response = await http.delete(f"/contacts/{first['contact']['id']}", headers=acme.headers)
    assert (response.status_code, response.content) == (204, b"")
    assert [row["recipient"] for row in await rows(relay, emails)] == ["bob@example.net"]
    assert [row["recipient"] for row in await rows(relay, deliveries)] == ["bob@example.net"]
    [kept] = await rows(relay, emails)
    assert {row["id"] for row in await rows(relay, contents)} == {kept["content_id"], kept["attachments_id"]}
    assert "contact.unsubscribed" not in await _event_names(relay)
    assert (await http.delete(f"/contacts/{first['contact']['id']}", headers=acme.headers)).status_code == 404


def _file() -> dict[str, str]:
    return {"filename": "a.txt", "content": "aGk=", "contentType": "text/plain"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


async def test_no_body_breaks_anything(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    contact = (await _post(http, owner)).json()
    keys = st.sampled_from(["email", "subscribed", "data", "id", "projectId", "_meta", ""])
    bodies = st.dictionaries(keys, _json | st.just("ann@example.net"), max_size=4) | _json
    tried: list[Any] = []

    @settings(max_examples=60, deadline=None)
    @given(bodies)
    def collect(body: Any) -> None:
        tried.append(body)

    collect()
    paths = [("POST", "/contacts"), ("PATCH", f"/contacts/{contact['id']}"), ("POST", "/contacts/lookup")]
    for body in tried:
        for method, path in paths:
            response = await http.request(method, path, headers=owner.headers, json=body)
            assert response.status_code in (200, 201, 400, 409, 422, 429), response.text
