"""What uses a template, and when may it go? Not while a step sends it; mails that were made of it stay."""

import asyncio
import threading
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from plunk_relay.db.tables import emails, templates
from tests.api.conftest import Shared
from tests.kit.api import faults, refusal, send, sent
from tests.kit.store import add_step, add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
MANY = 2001


async def _delete(shared: Shared, template_id: str) -> httpx2.Response:
    return await shared.http.delete(f"/templates/{template_id}", headers=shared.acme.headers)


async def _bulk(shared: Shared, body: dict[str, Any]) -> httpx2.Response:
    return await shared.http.post("/templates/bulk-update", headers=shared.acme.headers, json=body)


async def _usage(shared: Shared, template_id: str) -> dict[str, Any]:
    response = await shared.http.get(f"/templates/{template_id}/usage", headers=shared.acme.headers)
    assert response.status_code == 200
    usage: dict[str, Any] = response.json()
    return usage


async def _exists(shared: Shared, template_id: str) -> bool:
    return bool(await rows(shared.relay, templates, id=template_id))


async def _send(shared: Shared, template_id: str) -> str:
    [mail] = await sent(shared.http, shared.acme, {"subject": ..., "body": ..., "template": template_id})
    return str(mail["email"])


async def test_unused_template_is_deleted(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    response = await _delete(shared, template_id)
    assert (response.status_code, response.content) == (204, b"")
    assert not await _exists(shared, template_id)
    assert refusal(await _delete(shared, template_id)) == (404, "TEMPLATE_NOT_FOUND")


async def test_template_that_a_step_sends_stays_and_the_step_is_named(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    await add_step(shared.relay, shared.acme.id, template_id, workflow="Onboarding", name="Day one")
    response = await _delete(shared, template_id)
    assert refusal(response) == (409, "CONFLICT")
    assert "Day one of Onboarding" in response.json()["error"]["message"]
    assert await _exists(shared, template_id)


async def test_mails_stay_when_their_template_goes(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    mail_id = await _send(shared, template_id)
    assert (await _delete(shared, template_id)).status_code == 204
    [mail] = await rows(shared.relay, emails, id=mail_id)
    assert (mail["template_id"], mail["subject"]) == (None, "Template subject")


async def test_template_of_very_many_mails_is_deleted_in_pieces(shared: Shared) -> None:
    template_id, other_id = [await add_template(shared.relay, shared.acme.id) for _ in range(2)]
    [mail] = await rows(shared.relay, emails, id=await _send(shared, template_id))

    def copy(tx: sa.Connection) -> None:
        copies = [mail | {"id": f"{template_id[:-6]}{number:06}"} for number in range(MANY)]
        tx.execute(sa.insert(emails), copies)

    await shared.relay.db.write(copy)
    kept = await _send(shared, other_id)
    assert (await _usage(shared, template_id))["emailsSent"] == MANY + 1
    changes: list[int] = []

    def note(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE emails"):
            changes.append(cursor.rowcount)

    writer = shared.relay.db._writer.core
    sa.event.listen(writer, "after_cursor_execute", note)
    try:
        assert (await _delete(shared, template_id)).status_code == 204
    finally:
        sa.event.remove(writer, "after_cursor_execute", note)
    assert changes == [1000, 1000, 2]
    assert not await _exists(shared, template_id)
    assert await rows(shared.relay, emails, template_id=template_id) == []
    assert [one["id"] for one in await rows(shared.relay, emails, template_id=other_id)] == [kept]


async def test_unused_template_has_no_usage(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    assert await _usage(shared, template_id) == {"workflowSteps": 0, "emailsSent": 0, "campaigns": [], "steps": []}


async def test_usage_lists_steps_and_counts_mails(shared: Shared) -> None:
    template_id, other_id = [await add_template(shared.relay, shared.acme.id) for _ in range(2)]
    steps = [
        await add_step(shared.relay, shared.acme.id, template_id, workflow=workflow, name="Send") for workflow in ("A", "B")
    ]
    await add_step(shared.relay, shared.acme.id, other_id)
    for used in (template_id, template_id, other_id):
        await _send(shared, used)
    usage = await _usage(shared, template_id)
    assert (usage["workflowSteps"], usage["emailsSent"], usage["campaigns"]) == (2, 2, [])
    assert [(step["id"], step["name"], step["workflowName"]) for step in usage["steps"]] == [
        (steps[0], "Send", "A"),
        (steps[1], "Send", "B"),
    ]
    assert all(step["workflowId"] for step in usage["steps"])


async def test_bulk_update_deletes_all_that_are_named(shared: Shared) -> None:
    ids = [await add_template(shared.relay, shared.acme.id) for _ in range(3)]
    response = await _bulk(shared, {"ids": [ids[0].upper(), ids[1], ids[1]], "delete": True})
    assert (response.status_code, response.json()) == (200, {"deleted": 2})
    assert [await _exists(shared, template_id) for template_id in ids] == [False, False, True]


@pytest.mark.parametrize("more", [{}, {"delete": None}])
async def test_bulk_update_that_deletes_nothing_changes_nothing(shared: Shared, more: dict[str, None]) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    response = await _bulk(shared, {"ids": [template_id]} | more)
    assert (response.status_code, response.json()) == (200, {"updated": 0})
    assert await _exists(shared, template_id)


@pytest.mark.parametrize("delete", [{"delete": True}, {}])
async def test_bulk_update_with_an_id_of_nobody_or_of_another_project_does_nothing(
    shared: Shared, delete: dict[str, bool]
) -> None:
    mine = await add_template(shared.relay, shared.acme.id)
    theirs = await add_template(shared.relay, shared.rival.id)
    for other in (UNKNOWN_ID, theirs):
        response = await _bulk(shared, {"ids": [mine, other]} | delete)
        assert refusal(response) == (404, "TEMPLATE_NOT_FOUND")
        assert response.json()["error"]["details"]["id"] == other
    assert await _exists(shared, mine)
    assert await _exists(shared, theirs)


async def test_bulk_deletion_with_one_that_a_step_sends_does_nothing(shared: Shared) -> None:
    ids = [await add_template(shared.relay, shared.acme.id) for _ in range(2)]
    for number in range(7):
        await add_step(shared.relay, shared.acme.id, ids[1], workflow=f"W{number}")
    response = await _bulk(shared, {"ids": ids, "delete": True})
    assert refusal(response) == (409, "CONFLICT")
    assert "Send of W4 and 2 more" in response.json()["error"]["message"]
    assert [await _exists(shared, template_id) for template_id in ids] == [True, True]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("ids", "invalid_type")]),
        ({"ids": []}, [("ids", "too_small")]),
        ({"ids": [UNKNOWN_ID] * 1001}, [("ids", "too_big")]),
        ({"ids": "all"}, [("ids", "invalid_type")]),
        ({"ids": [UNKNOWN_ID, "x"]}, [("ids.1", "invalid_string")]),
        ({"ids": [UNKNOWN_ID], "delete": False}, [("delete", "invalid_enum_value")]),
        ({"ids": [UNKNOWN_ID], "delete": "yes"}, [("delete", "invalid_enum_value")]),
    ],
)
async def test_bulk_update_names_bad_fields(shared: Shared, body: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults(await _bulk(shared, body)) == expected


async def test_mail_whose_template_is_deleted_meanwhile_is_not_queued(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    before = await rows(shared.relay, emails, project_id=shared.acme.id)
    held, running = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: sa.Connection) -> None:
        loop.call_soon_threadsafe(running.set)
        held.wait(10)

    holding = asyncio.create_task(shared.relay.db.write(hold))
    await running.wait()
    deleting = asyncio.create_task(_delete(shared, template_id))
    await _until_waiting(shared, 1)
    sending = asyncio.create_task(send(shared.http, shared.acme, {"subject": ..., "body": ..., "template": template_id}))
    await _until_waiting(shared, 2)
    held.set()
    await holding
    assert (await deleting).status_code == 204
    assert refusal(await sending) == (404, "TEMPLATE_NOT_FOUND")
    assert await rows(shared.relay, emails, project_id=shared.acme.id) == before


async def _until_waiting(shared: Shared, count: int) -> None:
    """Let others work until so many units wait for the writer."""
    while len(shared.relay.db._waiting) < count:  # noqa: ASYNC110  the database tells nobody
        await asyncio.sleep(0)
