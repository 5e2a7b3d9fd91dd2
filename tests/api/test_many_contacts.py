"""Is an audience answered and changed the same way when it is large? What is done in pieces, and found by another way."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.db.tables import contacts, contents, deliveries, emails, events
from plunk_relay.emails.ledger.queries import find_imbalances, is_balanced, read_ledger
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import create_project
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import sent
from tests.kit.jobs import bulk, finish
from tests.kit.relay import Tenant
from tests.kit.store import rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 10_100
AT_ONCE = 500
MAILS, EVENTS = 520, 1_020


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(shared: Shared) -> AsyncIterator[Tenant]:
    """Make a project with many contacts: every second begins with `a`, hardly any is unsubscribed."""
    project, keys = await create_project(shared.relay, "crowd", owner_id=None)
    changes = [
        ContactChange(
            f"{'ab'[number % 2]}{number * 7919 % MANY:05d}@{'x' if number % 3 else 'y'}.test",
            {"number": number % 250, "kept": True} if number % 4 else None,
            subscribed=number % 1_000 != 1 and number % 2_000 != 2,
        )
        for number in range(MANY)
    ]
    for start in range(0, MANY, AT_ONCE):
        some = [(project.id, change) for change in changes[start : start + AT_ONCE]]
        await shared.relay.db.write(upsert_contacts, some, now=shared.relay.clock.now())
    yield Tenant(project.id, keys.public, keys.secret, "")


async def _get(http: httpx2.AsyncClient, tenant: Tenant, path: str, **query: Any) -> Any:
    response = await http.get(path, headers=tenant.headers, params=query)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["email", "createdAt"])
@pytest.mark.parametrize(
    "query",
    [
        {"subscribed": "false"},
        {"subscribed": "false", "prefix": "a"},
        {"subscribed": "false", "prefix": "b", "search": "@x"},
        {"subscribed": "false", "search": "@y"},
        {"subscribed": "true", "prefix": "a00"},
        {"subscribed": "true", "prefix": "b00", "search": "1"},
    ],
    ids=str,
)
async def test_rare_and_frequent_ones_are_walked_alike(
    shared: Shared, crowd: Tenant, query: dict[str, str], sort: str, direction: str
) -> None:
    fitting = [
        row
        for row in await rows(shared.relay, contacts, project_id=crowd.id)
        if row["subscribed"] is (query["subscribed"] == "true")
        and row["email"].startswith(query.get("prefix", ""))
        and query.get("search", "") in row["email"]
    ]
    fitting.sort(key=lambda row: row["email"] if sort == "email" else row["id"], reverse=direction == "desc")
    listed: list[str] = []
    page: dict[str, Any] = {"hasMore": True}
    while page["hasMore"]:
        cursor = {"cursor": page["cursor"]} if listed else {}
        page = await _get(shared.http, crowd, "/contacts", limit=7, sort=sort, dir=direction, **query, **cursor)
        assert page["total"] == (0 if listed else len(fitting))
        listed += [one["id"] for one in page["data"]]
    assert listed == [row["id"] for row in fitting]


async def test_fields_are_gathered_from_all_stretches(shared: Shared, crowd: Tenant) -> None:
    having = sum(number % 4 > 0 for number in range(MANY))
    fields = {one["field"]: one["coverage"] for one in (await _get(shared.http, crowd, "/contacts/fields"))["fields"]}
    assert (fields["data.number"], fields["email"]) == (75, 100)
    usage = await _get(shared.http, crowd, "/contacts/fields/data.number/usage")
    assert usage["contactCount"] == having
    texts = sorted({str(number % 250) for number in range(MANY) if number % 4})
    for limit in (5, 200):
        shown = await _get(shared.http, crowd, "/contacts/fields/data.number/values", limit=limit)
        assert shown["values"] == [int(text) for text in texts[:limit]]


async def test_a_field_is_deleted_from_all_stretches(shared: Shared) -> None:
    project, keys = await create_project(shared.relay, "fields", owner_id=None)
    changes = [
        (project.id, ContactChange(f"{n}@x.test", {"gone": n, "kept": 1} if n % 3 else {"kept": 1})) for n in range(MANY)
    ]
    await shared.relay.db.write(upsert_contacts, changes, now=shared.relay.clock.now())
    owner = Tenant(project.id, keys.public, keys.secret, "")
    deleted = await shared.http.delete("/contacts/fields/data.gone", headers=owner.headers)
    assert deleted.json() == {"deletedFrom": sum(n % 3 > 0 for n in range(MANY))}
    assert {str(row["data"]) for row in await rows(shared.relay, contacts, project_id=project.id)} == {"{'kept': 1}"}


async def _age(relay: Relay, tenant: Tenant, contact_id: str, mail_id: str) -> None:
    """Give a contact the history of years: copies of a mail, each with its delivery and content, and events."""
    [mail] = await rows(relay, emails, id=mail_id)
    [delivery] = await rows(relay, deliveries, email_id=mail_id)
    [content] = await rows(relay, contents, id=mail["content_id"])
    new = [{"email": new_id(), "delivery": new_id(), "content": new_id()} for _ in range(MAILS)]
    seen = {"name": "seen", "project_id": tenant.id, "contact_id": contact_id, "dispatch_attempts": 0}

    def copy(tx: sa.Connection) -> None:
        tx.execute(sa.insert(contents), [content | {"id": one["content"]} for one in new])
        tx.execute(sa.insert(emails), [mail | {"id": one["email"], "content_id": one["content"]} for one in new])
        tx.execute(sa.insert(deliveries), [delivery | {"id": one["delivery"], "email_id": one["email"]} for one in new])
        times = {"created_at": relay.clock.now(), "processed_at": relay.clock.now()}
        tx.execute(sa.insert(events), [seen | times | {"id": new_id()} for _ in range(EVENTS)])

    await relay.db.write(copy)


@pytest.mark.parametrize("way", ["one", "bulk"])
async def test_a_contact_with_a_long_history_is_deleted_in_pieces(shared: Shared, way: str) -> None:
    ann, bob = await sent(shared.http, shared.acme, {"to": [f"ann-{way}@example.net", f"bob-{way}@example.net"]})
    await _age(shared.relay, shared.acme, ann["contact"]["id"], ann["email"])
    removed: list[int] = []

    def note(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith(("DELETE FROM emails", "DELETE FROM events")):
            removed.append(cursor.rowcount)

    writer = shared.relay.db._writer.core
    sa.event.listen(writer, "after_cursor_execute", note)
    try:
        await _delete(shared, ann["contact"]["id"], way)
    finally:
        sa.event.remove(writer, "after_cursor_execute", note)
    assert removed
    assert max(removed) <= AT_ONCE
    assert await rows(shared.relay, contacts, id=ann["contact"]["id"]) == []
    assert await rows(shared.relay, events, contact_id=ann["contact"]["id"]) == []
    [kept] = await rows(shared.relay, emails, recipient=f"bob-{way}@example.net")
    assert kept["id"] == bob["email"]
    used = {row["content_id"] for row in await rows(shared.relay, emails)}
    assert {row["id"] for row in await rows(shared.relay, contents)} == used
    ledger = await shared.relay.db.read(read_ledger)
    assert is_balanced(ledger)
    assert await shared.relay.db.read(find_imbalances) == []


async def _delete(shared: Shared, contact_id: str, way: str) -> None:
    if way == "one":
        response = await shared.http.delete(f"/contacts/{contact_id}", headers=shared.acme.headers)
        assert response.status_code == 204
        return
    job = await finish(
        shared.relay, shared.http, shared.acme, await bulk(shared.http, shared.acme, "delete", {"contactIds": [contact_id]})
    )
    assert job["result"]["successCount"] == 1


async def test_the_history_of_a_foreign_contact_is_left_alone(shared: Shared) -> None:
    [mail] = await sent(shared.http, shared.acme, {"to": "eve@example.net"})
    await _age(shared.relay, shared.acme, mail["contact"]["id"], mail["email"])
    response = await shared.http.delete(f"/contacts/{mail['contact']['id']}", headers=shared.rival.headers)
    assert response.status_code == 404
    assert len(await rows(shared.relay, emails, contact_id=mail["contact"]["id"])) == MAILS + 1
    assert len(await rows(shared.relay, events, contact_id=mail["contact"]["id"])) == EVENTS
