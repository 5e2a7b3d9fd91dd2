"""How does a job get from its request to its end? In turn, batch by batch, through errors, stops and restarts."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts, events, job_inputs, jobs
from plunk_relay.jobs import actions, queries, worker
from plunk_relay.jobs.queries import Job, Kind
from plunk_relay.jobs.worker import AT_ONCE, LEASE, run_once, take_over
from plunk_relay.projects.actions import create_project, disable_project, enable_project
from plunk_relay.relay import Relay
from tests.kit.api import refusal
from tests.kit.http import running_http
from tests.kit.jobs import finish, status, upload
from tests.kit.relay import NOON, Tenant, running_relay
from tests.kit.store import change, rows

ROWS = 3000
MANY = "email,n,subscribed\n" + "".join(f"c{number}@x.test,{number},yes\n" for number in range(ROWS))
MANY += "".join(f"c{number}@x.test,,no\n" for number in range(ROWS))
"""Each contact twice: made, then unsubscribed."""


async def _import(relay: Relay, project_id: str, text: str = "email\nann@x.test\n") -> str:
    return await actions.start_import(relay, project_id, "people.csv", text.encode())


async def _unsubscribe_all(relay: Relay, project_id: str) -> str:
    return await actions.start_bulk(relay, project_id, "unsubscribe", {"mode": "query", "filter": {}, "excludeIds": []})


async def _job(relay: Relay, job_id: str) -> dict[str, Any]:
    [row] = await rows(relay, jobs, id=job_id)
    return row


async def _project(relay: Relay, name: str) -> str:
    project, _ = await create_project(relay, name, owner_id=None)
    return project.id


async def _claim(relay: Relay, kind: Kind = "IMPORT") -> Job | None:
    return await relay.db.write(queries.claim_job, kind, most=AT_ONCE, lease=LEASE, now=relay.clock.now())


async def _stop_on_the_way(relay: Relay, job_id: str, is_reached: Callable[[int], bool]) -> int:
    """Work on a job and ask for the end when its progress is reached; return the progress that is left with it."""
    stop = asyncio.Event()
    working = asyncio.create_task(run_once(relay, stop=stop))
    while not is_reached((await _job(relay, job_id))["progress"]) and not working.done():
        pass
    stop.set()
    assert await working
    return int((await _job(relay, job_id))["progress"])


async def _assert_many_are_imported_once(relay: Relay, job_id: str) -> None:
    """Each row once: a row that was done twice would be one update more, a flip that was lost one event less."""
    result = (await _job(relay, job_id))["result"]
    assert (result["totalRows"], result["createdCount"], result["updatedCount"]) == (2 * ROWS, ROWS, ROWS)
    assert result["failureCount"] == 0
    found = {row["email"]: (row["data"], row["subscribed"]) for row in await rows(relay, contacts)}
    assert found == {f"c{number}@x.test": ({"n": number}, False) for number in range(ROWS)}
    flips = [row["contact_id"] for row in await rows(relay, events, name="contact.unsubscribed")]
    assert len(flips) == len(set(flips)) == ROWS


async def test_a_job_that_is_stopped_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    seen = []
    async with running_relay(tmp_path) as relay:
        job_id = await _import(relay, await _project(relay, "acme"), MANY)
        seen.append(await _stop_on_the_way(relay, job_id, lambda progress: progress >= 20))
        stopped = await _job(relay, job_id)
        assert (stopped["state"], stopped["lease_until"]) == ("waiting", None)
        assert 0 < len(await rows(relay, contacts)) < 2 * ROWS
    async with running_relay(tmp_path) as relay:
        seen.append(await _stop_on_the_way(relay, job_id, lambda progress: progress >= 60))
    async with running_relay(tmp_path) as relay:
        assert await run_once(relay)
        seen.append((await _job(relay, job_id))["progress"])
        await _assert_many_are_imported_once(relay, job_id)
    assert 20 <= seen[0] < seen[1] < seen[2] == 100


async def test_bad_rows_of_before_a_restart_are_told_after_it(tmp_path: Path) -> None:
    lines = "".join(f"c{number}@x.test\n" if number % 3 else "nobody\n" for number in range(3000))
    async with running_relay(tmp_path) as relay:
        job_id = await _import(relay, await _project(relay, "acme"), "email\n" + lines)
        assert await _stop_on_the_way(relay, job_id, lambda progress: progress >= 40) < 100
    async with running_relay(tmp_path) as relay:
        assert await run_once(relay)
        result = (await _job(relay, job_id))["result"]
    assert (result["totalRows"], result["successCount"], result["failureCount"]) == (3000, 2000, 1000)
    assert [error["row"] for error in result["errors"]] == list(range(2, 3002, 3))


async def test_a_bulk_operation_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay:
        project_id = await _project(relay, "acme")
        await _import(relay, project_id, "email\n" + "".join(f"c{number}@x.test\n" for number in range(ROWS)))
        assert await run_once(relay)
        job_id = await _unsubscribe_all(relay, project_id)
        assert 0 < await _stop_on_the_way(relay, job_id, lambda progress: progress >= 30) < 100
    async with running_relay(tmp_path) as relay:
        assert await run_once(relay)
        result = (await _job(relay, job_id))["result"]
        assert (result["totalRequested"], result["successCount"], result["unchangedCount"]) == (ROWS, ROWS, 0)
        assert len(await rows(relay, events, name="contact.unsubscribed")) == ROWS


async def test_a_job_that_is_stopped_before_its_first_batch_is_not_begun(relay: Relay, owner: Tenant) -> None:
    job_id = await _import(relay, owner.id)
    stop = asyncio.Event()
    stop.set()
    assert await run_once(relay, stop=stop)
    assert (await _job(relay, job_id))["state"] == "waiting"
    assert await rows(relay, contacts) == []


async def test_the_worker_does_what_comes_and_ends_when_it_is_asked_to(relay: Relay, owner: Tenant) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(relay, stop))
    ids = [await _import(relay, owner.id), await _unsubscribe_all(relay, owner.id), await _import(relay, owner.id)]
    while {(await _job(relay, job_id))["state"] for job_id in ids} != {"completed"}:
        pass
    stop.set()
    await working


async def test_a_lease_of_a_process_that_died_is_taken_over_at_the_start(relay: Relay, owner: Tenant) -> None:
    job_id = await _import(relay, owner.id)
    assert await _claim(relay) is not None
    assert not await run_once(relay)
    await take_over(relay)
    assert (await _job(relay, job_id))["state"] == "waiting"
    assert await run_once(relay)
    assert (await _job(relay, job_id))["state"] == "completed"


async def test_a_job_whose_lease_ran_out_is_done_by_another(relay: Relay, owner: Tenant, clock: ManualClock) -> None:
    job_id = await _import(relay, owner.id)
    assert await _claim(relay) is not None
    clock.advance(seconds=LEASE.total_seconds() - 1)
    assert not await run_once(relay)
    clock.advance(seconds=1)
    assert await run_once(relay)
    assert (await _job(relay, job_id))["state"] == "completed"


async def test_who_lost_a_job_stores_nothing_of_it(relay: Relay, owner: Tenant, clock: ManualClock) -> None:
    await _import(relay, owner.id)
    slow = await _claim(relay)
    clock.advance(seconds=LEASE.total_seconds())
    fast = await _claim(relay)
    assert slow is not None
    assert fast is not None
    now = clock.now()
    for attempt in (
        lambda tx: queries.renew_lease(tx, slow, until=now + LEASE),
        lambda tx: queries.complete_job(tx, slow, result={}, now=now),
        lambda tx: queries.fail_job(tx, slow, reason="late", now=now),
        lambda tx: queries.give_back_job(tx, slow, now=now),
    ):
        with pytest.raises(queries.JobLost):
            await relay.db.write(attempt)
    await relay.db.write(queries.renew_lease, fast, until=now + LEASE)


async def test_jobs_of_a_project_are_done_in_the_order_of_their_requests(relay: Relay, owner: Tenant) -> None:
    ids = [await _import(relay, owner.id, f"email,n\nann@x.test,{number}\n") for number in range(3)]
    for number, _ in enumerate(ids):
        assert await _claim(relay) is not None
        assert await _claim(relay) is None, "one at a time"
        await take_over(relay)
        assert await run_once(relay)
        assert [(await _job(relay, job_id))["state"] for job_id in ids] == ["completed"] * (number + 1) + ["waiting"] * (
            2 - number
        )
    [ann] = await rows(relay, contacts)
    assert ann["data"] == {"n": 2}


async def test_two_imports_are_done_at_once_and_bulk_operations_beside_them(relay: Relay, clock: ManualClock) -> None:
    projects = [await _project(relay, f"p{number}") for number in range(3)]
    for project_id in projects:
        await _import(relay, project_id)
        await _unsubscribe_all(relay, project_id)
    for kind in worker.KINDS:
        held = [await _claim(relay, kind) for _ in range(3)]
        assert [job is not None and job.project_id for job in held] == [projects[0], projects[1], False]
    clock.advance(seconds=LEASE.total_seconds())
    assert await run_once(relay)


async def test_a_project_with_many_imports_lets_others_go_first(relay: Relay, clock: ManualClock) -> None:
    busy, late = await _project(relay, "busy"), await _project(relay, "late")
    many = [await _import(relay, busy) for _ in range(3)]
    clock.advance(seconds=1)
    one = await _import(relay, late)
    order = []
    while await run_once(relay):
        clock.advance(seconds=1)
        order += [row["id"] for row in await rows(relay, jobs, state="completed") if row["id"] not in order]
    assert order == [many[0], one, *many[1:]]


async def test_a_job_of_a_disabled_project_waits_until_it_is_enabled(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    started = await upload(http, owner, "email\nann@x.test\n")
    await disable_project(relay, owner.id)
    assert not await run_once(relay)
    assert (await status(http, owner, started.json()["jobId"]))["state"] == "waiting"
    assert refusal(await upload(http, owner, "email\n")) == (403, "PROJECT_DISABLED")
    await enable_project(relay, owner.id)
    assert (await finish(relay, http, owner, started))["state"] == "completed"


async def test_a_project_that_is_disabled_on_the_way_has_no_more_rows_imported(relay: Relay, owner: Tenant) -> None:
    job_id = await _import(relay, owner.id, MANY)
    working = asyncio.create_task(run_once(relay))
    while not (await _job(relay, job_id))["progress"]:
        pass
    await disable_project(relay, owner.id)
    await working
    stopped = await _job(relay, job_id)
    assert (stopped["state"], stopped["lease_until"], stopped["attempts"]) == ("waiting", None, 0)
    assert not await run_once(relay)
    await enable_project(relay, owner.id)
    assert await run_once(relay)
    await _assert_many_are_imported_once(relay, job_id)


def _refuse(tx: sa.Connection, email: str) -> None:
    """Let the database refuse a contact, as a broken index would."""
    condition = f"WHEN new.email = '{email}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
    tx.execute(sa.text(f"CREATE TRIGGER refusing BEFORE INSERT ON contacts {condition}"))


def _take_again(tx: sa.Connection) -> None:
    tx.execute(sa.text("DROP TRIGGER refusing"))


async def test_a_job_that_breaks_off_is_tried_again_after_5_seconds_from_where_it_was(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, clock: ManualClock
) -> None:
    started = await upload(http, owner, MANY)
    job_id = started.json()["jobId"]
    await relay.db.write(_refuse, "c1500@x.test")
    assert await run_once(relay)
    delayed = await status(http, owner, job_id)
    assert delayed["state"] == "delayed"
    assert 0 < delayed["progress"] < 100
    assert len(await rows(relay, contacts)) == 1500
    clock.advance(seconds=4)
    assert not await run_once(relay)
    await relay.db.write(_take_again)
    clock.advance(seconds=1)
    assert await run_once(relay)
    await _assert_many_are_imported_once(relay, job_id)


async def test_a_job_that_breaks_off_twice_fails(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, clock: ManualClock
) -> None:
    started = await upload(http, owner, "email\n" + "".join(f"c{number}@x.test\n" for number in range(120)))
    await relay.db.write(_refuse, "c70@x.test")
    assert await run_once(relay)
    clock.advance(seconds=5)
    failed = await finish(relay, http, owner, started)
    assert (failed["state"], failed["result"]) == ("failed", None)
    assert f"{failed['progress']} %" in failed["failedReason"]
    assert "refused" not in failed["failedReason"], "what goes on inside is nobody's business"
    assert await rows(relay, job_inputs) == []
    assert not await run_once(relay)


async def test_the_last_50_completed_and_100_failed_jobs_of_a_project_are_kept(
    relay: Relay, owner: Tenant, other: Tenant, clock: ManualClock
) -> None:
    first = await _import(relay, other.id)
    ids = []
    for number in range(154):
        clock.advance(seconds=1)
        ids.append(await _import(relay, owner.id, "email\nann@x.test\n" if number < 52 else "nothing\n"))
    while await run_once(relay):
        clock.advance(seconds=1)
    kept = [row["id"] for row in await rows(relay, jobs, project_id=owner.id)]
    assert sorted(kept) == sorted(ids[2:52] + ids[54:])
    assert (await _job(relay, first))["state"] == "completed"


async def test_too_many_waiting_jobs_of_a_project_are_refused(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant
) -> None:
    job_id = (await upload(http, owner, "email\n")).json()["jobId"]
    [row] = await rows(relay, jobs, id=job_id)
    await relay.db.write(_insert_copies, row, 999)
    response = await upload(http, owner, "email\n")
    assert refusal(response) == (429, "RATE_LIMIT_EXCEEDED")
    assert response.headers["retry-after"] == "10"
    assert (await upload(http, other, "email\n")).status_code == 202
    await change(relay, jobs, job_id, state="completed")
    assert (await upload(http, owner, "email\n")).status_code == 202


async def test_waiting_files_of_too_many_bytes_are_refused(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    job_id = (await upload(http, owner, "email\n")).json()["jobId"]
    await relay.db.write(_enlarge_input, job_id, actions.MOST_UNFINISHED_BYTES)
    assert refusal(await upload(http, owner, "email\n")) == (429, "RATE_LIMIT_EXCEEDED")


def _enlarge_input(tx: sa.Connection, job_id: str, size: int) -> None:
    tx.execute(sa.text("UPDATE job_inputs SET data = zeroblob(:size) WHERE job_id = :id"), {"size": size, "id": job_id})


def _insert_copies(tx: sa.Connection, row: dict[str, Any], number: int) -> None:
    tx.execute(sa.insert(jobs), [row | {"id": f"{row['id']}-{copy}"} for copy in range(number)])


async def test_a_full_disk_is_told_as_503_and_the_job_waits(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    async with running_relay(tmp_path, clock=clock) as relay, running_http(relay) as http:
        project, keys = await create_project(relay, "acme", owner_id=None)
        tenant = Tenant(project.id, keys.public, keys.secret, "")
        job_id = await _import(relay, project.id, MANY)
        await relay.db.migrate(lambda raw: raw.execute("PRAGMA max_page_count=1").fetchall())
        assert await run_once(relay)
        assert (await _job(relay, job_id))["state"] in ("active", "waiting")
        filler = "email\n" + "".join(f"{number * 7919:x}@x.test\n" for number in range(20_000))
        assert refusal(await upload(http, tenant, filler)) == (503, "INTERNAL_SERVER_ERROR")
        await relay.db.migrate(lambda raw: raw.execute("PRAGMA max_page_count=1073741823").fetchall())
        clock.advance(seconds=LEASE.total_seconds())
        assert await run_once(relay)
        await _assert_many_are_imported_once(relay, job_id)
