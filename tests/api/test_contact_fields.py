"""Which fields do contacts have, what do these hold, who uses them, and how do they go?"""

from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.fields import queries as field_queries
from plunk_relay.contacts.queries import find_stretch
from plunk_relay.db.tables import campaigns, contacts, events, workflow_steps, workflows
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from tests.kit.api import refusal
from tests.kit.relay import Tenant
from tests.kit.store import insert, rows

ODD_KEYS = ["a.b", "first name", "path/to", 'quote"d', "back\\slash", "100%", "ünïcode", "tab\there", "0", "$", "[1]"]


async def _make(relay: Relay, owner: Tenant, *fields: dict[str, Any] | None) -> None:
    for number, data in enumerate(fields):
        change = ContactChange(f"{number:04d}@example.net", data)
        await relay.db.write(upsert_contacts, [(owner.id, change)], now=relay.clock.now())


async def _get(http: httpx2.AsyncClient, owner: Tenant, path: str, **query: Any) -> Any:
    response = await http.get(f"/contacts/fields{path}", headers=owner.headers, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def _condition(field: str) -> dict[str, Any]:
    inner = {"logic": "OR", "groups": [{"filters": [{"field": field, "operator": "exists"}]}]}
    return {"logic": "AND", "groups": [{"filters": [], "conditions": inner}]}


async def test_a_project_without_contacts_has_the_standard_fields(http: httpx2.AsyncClient, owner: Tenant) -> None:
    listed = await _get(http, owner, "")
    assert listed["count"] == 4
    assert [(one["field"], one["type"], one["coverage"], one["isCustom"]) for one in listed["fields"]] == [
        ("createdAt", "date", 0, False),
        ("email", "string", 0, False),
        ("subscribed", "boolean", 0, False),
        ("updatedAt", "date", 0, False),
    ]


async def test_coverage_is_a_rounded_percentage(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant
) -> None:
    await _make(relay, owner, {"plan": "pro", "age": 5}, {"plan": "free"}, None)
    await _make(relay, other, {"secret": 1})
    listed = {one["field"]: one["coverage"] for one in (await _get(http, owner, ""))["fields"]}
    assert listed == {
        "createdAt": 100,
        "data.age": 33,
        "data.plan": 67,
        "email": 100,
        "subscribed": 100,
        "updatedAt": 100,
    }


async def test_half_a_percent_is_rounded_up(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    await _make(relay, owner, {"plan": "pro"}, *[None] * 7)
    [listed] = [one for one in (await _get(http, owner, ""))["fields"] if one["isCustom"]]
    assert listed["coverage"] == 13


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text", "string"),
        ("5", "string"),
        (5, "number"),
        (5.5, "number"),
        (True, "boolean"),
        (False, "boolean"),
        ("2026-05-06", "date"),
        ("2026-05-06T10:11:12", "date"),
        ("2026-05-06T10:11:12Z", "date"),
        ("2026-05-06T10:11:12.123Z", "date"),
        ("2026-05-06 10:11", "string"),
        ("06.05.2026", "string"),
        ([1, 2], "string"),
        ({"a": 1}, "string"),
    ],
)
async def test_the_oldest_value_says_the_type(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, value: Any, kind: str
) -> None:
    await _make(relay, owner, None, {"it": value}, {"it": 1}, {"it": "later"})
    [field] = [one for one in (await _get(http, owner, ""))["fields"] if one["isCustom"]]
    assert (field["field"], field["type"]) == ("data.it", kind)


async def test_values_are_different_texts_in_order_converted_back(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant
) -> None:
    values = ["b", "a", "a", True, False, 5, "5", 7.5, "007", "-3", [1], {"x": 1}, "1e5", "12345678901234567890"]
    await _make(relay, owner, *({"it": value} for value in values))
    await _make(relay, other, {"it": "theirs"})
    expected = [-3, "007", "12345678901234567890", "1e5", 5, 7.5, "a", "b", False, True]
    for name in ("data.it", "it"):
        shown = await _get(http, owner, f"/{name}/values")
        assert shown == {"field": name, "values": expected, "count": 10, "limit": 100}
    assert (await _get(http, owner, "/data.it/values", limit=2))["values"] == expected[:2]
    assert (await _get(http, owner, "/data.it/values", limit=1000))["limit"] == 200


@pytest.mark.parametrize(
    ("field", "values"), [("subscribed", [True, False]), ("email", []), ("createdAt", []), ("updatedAt", []), ("none", [])]
)
async def test_standard_fields_have_the_values_that_are_known(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, field: str, values: list[Any]
) -> None:
    await _make(relay, owner, {"plan": "pro"})
    assert (await _get(http, owner, f"/{field}/values"))["values"] == values


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_field_may_have_any_name(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, key: str) -> None:
    await _make(relay, owner, {key: "x", "kept": 1}, {"a": {"b": "nested"}}, {key: "y"})
    place = quote(f"data.{key}", safe="")
    listed = {one["field"]: one["coverage"] for one in (await _get(http, owner, ""))["fields"]}
    assert listed[f"data.{key}"] == 67
    assert (await _get(http, owner, f"/{place}/values"))["values"] == ["x", "y"]
    assert (await _get(http, owner, f"/{place}/usage"))["contactCount"] == 2
    deleted = await http.delete(f"/contacts/fields/{place}", headers=owner.headers)
    assert deleted.json() == {"deletedFrom": 2}
    assert [row["data"] for row in await rows(relay, contacts)] == [{"kept": 1}, {"a": {"b": "nested"}}, None]


async def test_a_deleted_field_is_gone_from_every_contact_of_the_project_alone(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant
) -> None:
    await _make(relay, owner, *({"plan": "pro"} if number % 2 else {"age": 1} for number in range(1300)))
    await _make(relay, other, {"plan": "pro"})
    deleted = await http.delete("/contacts/fields/data.plan", headers=owner.headers)
    assert deleted.json() == {"deletedFrom": 650}
    left = [row["data"] for row in await rows(relay, contacts, project_id=owner.id)]
    assert left == [None if number % 2 else {"age": 1} for number in range(1300)]
    assert [row["data"] for row in await rows(relay, contacts, project_id=other.id)] == [{"plan": "pro"}]
    assert await rows(relay, events) == []
    assert "data.plan" not in {one["field"] for one in (await _get(http, owner, ""))["fields"]}


@pytest.mark.parametrize("field", ["email", "subscribed", "createdAt", "plan", "data.", "event.login"])
async def test_only_custom_fields_are_deleted(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, field: str) -> None:
    await _make(relay, owner, {"plan": "pro", "": 1})
    before = await rows(relay, contacts)
    response = await http.delete(f"/contacts/fields/{field}", headers=owner.headers)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert await rows(relay, contacts) == before


async def _use(relay: Relay, http: httpx2.AsyncClient, owner: Tenant, kind: str) -> str:
    """Make something that names data.plan; return its id."""
    now, identifier = relay.clock.now(), new_id()
    times = {"created_at": now, "updated_at": now}
    common = {"id": identifier, "project_id": owner.id, "name": "It"} | times
    match kind:
        case "segment":
            body = {"name": "It", "condition": _condition("data.plan")}
            return str((await http.post("/segments", headers=owner.headers, json=body)).json()["id"])
        case "campaign":
            blank = {column.name: 0 for column in campaigns.c if not column.nullable}
            texts = dict.fromkeys(("subject", "body", "from_address"), "x")
            audience = {"audience_type": "FILTERED", "audience_condition": _condition("data.plan")}
            words = {"type": "MARKETING", "status": "DRAFT", "archived": False}
            await insert(relay, campaigns, **(blank | texts | audience | words | common))
        case _:
            await insert(
                relay, workflows, enabled=False, trigger_type="EVENT", trigger_event="x", allow_reentry=False, **common
            )
            configs: dict[str, dict[str, Any]] = {
                "condition": {"field": "data.plan", "operator": "equals", "value": "pro"},
                "multi": {"mode": "multi", "field": "contact.data.plan", "branches": []},
                "update": {"updates": {"plan": "pro"}},
                "update alias": {"data": {"plan": "pro"}},
            }
            step = {"type": "UPDATE_CONTACT" if kind.startswith("update") else "CONDITION", "config": configs[kind]}
            ids = {"id": new_id(), "workflow_id": identifier, "name": "Step", "position": {"x": 0, "y": 0}}
            await insert(relay, workflow_steps, **(ids | step | times))
    return identifier


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("segment", "usedInSegments"),
        ("campaign", "usedInCampaigns"),
        ("condition", "usedInWorkflows"),
        ("multi", "usedInWorkflows"),
        ("update", "usedInWorkflows"),
        ("update alias", "usedInWorkflows"),
    ],
)
async def test_a_field_that_is_used_stays_and_its_users_are_named(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant, kind: str, place: str
) -> None:
    await _make(relay, owner, {"plan": "pro", "plans": 1})
    await _make(relay, other, {"plan": "pro"})
    user = await _use(relay, http, owner, kind)
    nobody = {"usedInSegments": [], "usedInCampaigns": [], "usedInWorkflows": [], "contactCount": 1}
    usage = await _get(http, owner, "/data.plan/usage")
    assert usage == nobody | {place: [{"id": user, "name": "It"}], "canDelete": False}
    refused = await http.delete("/contacts/fields/data.plan", headers=owner.headers)
    assert refusal(refused) == (400, "BAD_REQUEST")
    assert "It" in refused.json()["error"]["message"]
    assert await _get(http, owner, "/data.plans/usage") == nobody | {"canDelete": True}
    assert await _get(http, other, "/data.plan/usage") == nobody | {"canDelete": True}


async def test_who_names_what_is_inside_a_field_uses_it(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    await _make(relay, owner, {"company": {"name": "Acme"}, "company.name": "Acme", "comp": 1})
    body = {"name": "Acme", "condition": _condition("data.company.name")}
    assert (await http.post("/segments", headers=owner.headers, json=body)).status_code == 201
    fields = ("data.company", "data.company.name", "data.comp", "data.company.size")
    used = {field: bool((await _get(http, owner, f"/{field}/usage"))["usedInSegments"]) for field in fields}
    assert used == {"data.company": True, "data.company.name": True, "data.comp": False, "data.company.size": False}
    refused = await http.delete("/contacts/fields/data.company", headers=owner.headers)
    assert refusal(refused) == (400, "BAD_REQUEST")


async def test_standard_fields_are_everybodys_and_a_bare_name_is_nobodys(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant
) -> None:
    await _make(relay, owner, {"plan": "pro"}, None)
    counts = {name: (await _get(http, owner, f"/{name}/usage"))["contactCount"] for name in ("email", "plan", "data.x")}
    assert counts == {"email": 2, "plan": 0, "data.x": 0}


@pytest.mark.parametrize("field", ["email", "subscribed", "plan", "data."])
async def test_what_cannot_be_deleted_says_so(http: httpx2.AsyncClient, owner: Tenant, field: str) -> None:
    assert (await _get(http, owner, f"/{field}/usage"))["canDelete"] is False


async def test_a_walk_in_stretches_sees_every_contact_once(relay: Relay, owner: Tenant, other: Tenant) -> None:
    await _make(relay, owner, *({"n": number} for number in range(25)))
    await _make(relay, other, *({"n": number} for number in range(5)))
    seen, after = 0, ""
    while stretch := await relay.db.read(find_stretch, owner.id, after, limit=10):
        seen += sum(count for _, count, _ in await relay.db.read(field_queries.count_keys, stretch))
        after = stretch.upto
    assert seen == 25
