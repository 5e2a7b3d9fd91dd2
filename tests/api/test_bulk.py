"""What do bulk operations do? Subscribe, unsubscribe and delete by ids or by a filter; flips are events."""

from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.queries import ContactFilter, count_contacts
from plunk_relay.db.tables import contacts, events
from plunk_relay.ids import new_id
from plunk_relay.jobs.bulk import BulkRun, FoundIds
from plunk_relay.jobs.worker import run_once
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.kit.jobs import bulk, finish, status
from tests.kit.relay import Tenant
from tests.kit.store import rows

UNKNOWN = "00000000-0000-4000-8000-000000000000"
OPERATIONS = ["subscribe", "unsubscribe", "delete"]


async def _add(relay: Relay, tenant: Tenant, *names: str, subscribed: bool = True) -> list[str]:
    """Make contacts; return their ids."""
    changes = [(tenant.id, ContactChange(f"{name}@x.test", subscribed=subscribed)) for name in names]
    made = await relay.db.write(upsert_contacts, changes, now=relay.clock.now())
    return [contact.id for contact, _ in made]


async def _subscribed(relay: Relay, tenant: Tenant) -> dict[str, bool]:
    """Return who is there, and whether they are subscribed."""
    return {row["email"].partition("@")[0]: row["subscribed"] for row in await rows(relay, contacts, project_id=tenant.id)}


async def _flips(relay: Relay) -> list[tuple[str, str]]:
    return sorted((row["name"], row["contact_id"]) for row in await rows(relay, events))


def _counts(job: dict[str, Any]) -> tuple[int, int, int, int]:
    result = job["result"]
    return result["totalRequested"], result["successCount"], result["unchangedCount"], result["failureCount"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_job_is_queued_and_shows_what_was_asked_for(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, operation: str
) -> None:
    [ann] = await _add(relay, owner, "ann")
    started = await bulk(http, owner, operation, {"contactIds": [ann.upper(), ann]})
    assert started.status_code == 202
    milliseconds = int(relay.clock.now().timestamp() * 1000)
    assert started.json()["jobId"] == f"bulk-{operation}-{owner.id}-{milliseconds}"
    data = {"projectId": owner.id, "operation": operation, "selector": {"mode": "ids", "contactIds": [ann]}}
    waiting = await status(http, owner, started.json()["jobId"])
    assert waiting == {"id": started.json()["jobId"], "state": "waiting", "progress": 0, "result": None, "data": data}
    done = await finish(relay, http, owner, started)
    assert (done["state"], done["progress"], done["data"]) == ("completed", 100, data)
    assert done["result"]["operation"] == operation
    assert done["result"]["totalRequested"] == 1


@pytest.mark.parametrize("subscribed", [True, False])
async def test_changed_unchanged_and_failed_are_counted_and_only_flips_are_events(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant, subscribed: bool
) -> None:
    there = await _add(relay, owner, "a", "b", subscribed=subscribed)
    flipped = await _add(relay, owner, "c", subscribed=not subscribed)
    foreign = await _add(relay, other, "d", subscribed=not subscribed)
    operation = "subscribe" if subscribed else "unsubscribe"
    body = {"mode": "ids", "contactIds": [*there, *flipped, *foreign, UNKNOWN]}
    job = await finish(relay, http, owner, await bulk(http, owner, operation, body))
    assert _counts(job) == (5, 1, 2, 2)
    errors = [(error["contactId"], error["email"]) for error in job["result"]["errors"]]
    assert errors == [(foreign[0], ""), (UNKNOWN, "")]
    assert await _subscribed(relay, owner) == dict.fromkeys("abc", subscribed)
    assert await _subscribed(relay, other) == {"d": not subscribed}
    assert await _flips(relay) == [(f"contact.{operation}d", flipped[0])]
    assert await relay.db.read(count_contacts, owner.id, ContactFilter(subscribed=subscribed)) == 3


async def test_deleting_removes_those_of_the_project_and_records_nothing(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    mine = await _add(relay, owner, "a", "b", "c")
    foreign = await _add(relay, other, "a")
    body = {"contactIds": [*mine[:2], *foreign, UNKNOWN]}
    job = await finish(relay, http, owner, await bulk(http, owner, "delete", body))
    assert _counts(job) == (4, 2, 0, 2)
    assert list(await _subscribed(relay, owner)) == ["c"]
    assert list(await _subscribed(relay, other)) == ["a"]
    assert await _flips(relay) == []
    assert await relay.db.read(count_contacts, owner.id, ContactFilter()) == 1


async def test_a_filter_means_everybody_who_fits_but_the_excluded(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    ids = await _add(relay, owner, *(f"ann{number}" for number in range(130)))
    await _add(relay, owner, "bob")
    await _add(relay, other, "ann")
    body = {"mode": "query", "filter": {"search": "ANN"}, "excludeIds": [ids[3], ids[129].upper(), UNKNOWN]}
    job = await finish(relay, http, owner, await bulk(http, owner, "unsubscribe", body))
    assert _counts(job) == (128, 128, 0, 0)
    subscribed = [name for name, is_subscribed in (await _subscribed(relay, owner)).items() if is_subscribed]
    assert subscribed == ["ann3", "ann129", "bob"]
    assert await _subscribed(relay, other) == {"ann": True}
    assert len(await _flips(relay)) == 128


@pytest.mark.parametrize(
    ("chosen", "gone"),
    [({}, "abcd"), ({"subscribed": True}, "ab"), ({"subscribed": False}, "cd"), ({"search": ""}, "abcd")],
)
async def test_a_filter_may_look_at_the_subscription_or_at_nothing(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, chosen: dict[str, Any], gone: str
) -> None:
    await _add(relay, owner, "a", "b")
    await _add(relay, owner, "c", "d", subscribed=False)
    started = await bulk(http, owner, "delete", {"mode": "query", "filter": chosen})
    job = await finish(relay, http, owner, started)
    assert _counts(job) == (len(gone), len(gone), 0, 0)
    assert "".join(await _subscribed(relay, owner)) == "".join(sorted(set("abcd") - set(gone)))


async def test_a_filter_that_flips_empty_itself_misses_nobody(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    await _add(relay, owner, *(f"c{number}" for number in range(250)), subscribed=False)
    body = {"mode": "query", "filter": {"subscribed": False}}
    job = await finish(relay, http, owner, await bulk(http, owner, "subscribe", body))
    assert _counts(job) == (250, 250, 0, 0)
    again = await finish(relay, http, owner, await bulk(http, owner, "subscribe", {"mode": "query"}))
    assert _counts(again) == (250, 0, 250, 0)


async def test_contacts_that_are_made_after_the_request_are_not_touched(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    await _add(relay, owner, "old")
    started = await bulk(http, owner, "delete", {"mode": "query"})
    await _add(relay, owner, "new")
    assert _counts(await finish(relay, http, owner, started)) == (1, 1, 0, 0)
    assert list(await _subscribed(relay, owner)) == ["new"]


async def test_a_contact_that_no_longer_fits_when_its_turn_comes_is_spared(relay: Relay, owner: Tenant) -> None:
    await _add(relay, owner, "a", "b", subscribed=False)
    run = BulkRun(relay, owner.id, "delete", FoundIds(relay, owner.id, ContactFilter(subscribed=False), []))
    batch = await run.prepare({"place": new_id()})
    assert batch is not None
    await relay.db.write(upsert_contacts, [(owner.id, ContactChange("a@x.test", subscribed=True))], now=relay.clock.now())
    step = await relay.db.write(batch.apply, relay.clock.now())
    assert (step.cursor["changed"], step.cursor["failed"]) == (1, 1)
    assert [error["email"] for error in step.cursor["errors"]] == ["a@x.test"]
    assert await _subscribed(relay, owner) == {"a": True}


async def test_nobody_who_fits_is_a_job_that_is_completed(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    job = await finish(relay, http, owner, await bulk(http, owner, "delete", {"mode": "query"}))
    assert (job["state"], job["progress"], _counts(job)) == ("completed", 100, (0, 0, 0, 0))


async def test_a_batch_that_cannot_be_done_is_told_and_the_others_are(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    ids = await _add(relay, owner, *(f"c{number}" for number in range(120)))
    await relay.db.write(_refuse_updates_of, ids[60])
    job = await finish(relay, http, owner, await bulk(http, owner, "unsubscribe", {"contactIds": ids}))
    assert (job["state"], _counts(job)) == ("completed", (120, 70, 0, 50))
    assert [error["contactId"] for error in job["result"]["errors"]] == ["batch"]
    assert len(await _flips(relay)) == 70


def _refuse_updates_of(tx: sa.Connection, contact_id: str) -> None:
    """Let the database refuse a change, as a broken index would."""
    condition = f"WHEN old.id = '{contact_id}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
    tx.execute(sa.text(f"CREATE TRIGGER refusing BEFORE UPDATE ON contacts {condition}"))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "mode"),
        ([], "mode"),
        ("ids", "mode"),
        ({"mode": "all"}, "mode"),
        ({"mode": ["ids"]}, "mode"),
        ({"mode": None, "contactIds": [UNKNOWN]}, "mode"),
        ({"mode": "ids"}, "contactIds"),
        ({"contactIds": None}, "contactIds"),
        ({"contactIds": []}, "contactIds"),
        ({"contactIds": ["x"]}, "contactIds.0"),
        ({"contactIds": [UNKNOWN, 7]}, "contactIds.1"),
        ({"contactIds": [UNKNOWN] * 1001}, "contactIds"),
        ({"mode": "query", "filter": []}, "filter"),
        ({"mode": "query", "filter": {"search": 7}}, "filter.search"),
        ({"mode": "query", "filter": {"search": "x" * 256}}, "filter.search"),
        ({"mode": "query", "filter": {"subscribed": "true"}}, "filter.subscribed"),
        ({"mode": "query", "excludeIds": ["x"]}, "excludeIds.0"),
        ({"mode": "query", "excludeIds": [UNKNOWN] * 10_001}, "excludeIds"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_selector_of_another_shape_is_refused_by_the_field(
    shared: Shared, operation: str, body: object, field: str
) -> None:
    response = await bulk(shared.http, shared.acme, operation, body)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert response.json()["error"]["message"].startswith((f"{field}:", f"{field} "))
    assert not await run_once(shared.relay)


@pytest.mark.parametrize(
    "body",
    [
        {"contactIds": [UNKNOWN] * 1000},
        {"mode": "query", "filter": {"search": "x" * 255, "subscribed": True}, "excludeIds": [UNKNOWN] * 10_000},
        {"mode": "query", "unknown": 1},
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_selector_of_the_largest_size_is_taken(shared: Shared, body: dict[str, Any]) -> None:
    job = await finish(shared.relay, shared.http, shared.acme, await bulk(shared.http, shared.acme, "delete", body))
    assert job["state"] == "completed"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_alias_below_v1_is_the_same(shared: Shared) -> None:
    headers = shared.acme.headers
    started = await shared.http.post("/v1/contacts/bulk-subscribe", headers=headers, json={"mode": "query"})
    done = await finish(shared.relay, shared.http, shared.acme, started)
    below = await shared.http.get(f"/v1/contacts/bulk/{done['id']}", headers=headers)
    assert below.json() == done


@pytest.mark.asyncio(loop_scope="module")
async def test_any_body_is_a_job_that_ends_or_a_bad_request(shared: Shared) -> None:
    await _add(shared.relay, shared.rival, "untouched")
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(UNKNOWN)
    keys = st.sampled_from(["mode", "contactIds", "filter", "excludeIds", "search", "subscribed"])
    anything = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))
    likely = st.fixed_dictionaries({"mode": st.sampled_from(["ids", "query"])}, optional={"filter": anything})
    tried: list[object] = []

    @settings(max_examples=60, deadline=None)
    @given(anything | likely)
    def collect(body: object) -> None:
        tried.append(body)

    collect()
    for body in tried:
        response = await bulk(shared.http, shared.acme, "delete", body)
        assert response.status_code in (202, 400), body
        if response.status_code == 202:
            job = await finish(shared.relay, shared.http, shared.acme, response)
            assert job["state"] == "completed", body
    assert await _subscribed(shared.relay, shared.rival) == {"untouched": True}


async def test_a_job_of_another_project_or_kind_is_not_found(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    job_id = (await bulk(http, owner, "delete", {"contactIds": [UNKNOWN]})).json()["jobId"]
    for tenant, path in [(other, f"bulk/{job_id}"), (owner, f"import/{job_id}"), (owner, f"bulk/bulk-delete-{UNKNOWN}-1")]:
        response = await http.get(f"/contacts/{path}", headers=tenant.headers)
        assert refusal(response) == (404, "RESOURCE_NOT_FOUND"), path
