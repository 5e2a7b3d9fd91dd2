"""Who asked for what? One row a request, for people; never what was in it."""

import asyncio
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from plunk_relay import janitor
from plunk_relay.app import create_app
from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import api_requests, projects
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import endpoint
from plunk_relay.web.requestlog import RequestLog
from plunk_relay.web.server import HttpDoor
from tests.kit.api import MAIL, send, sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant, running_relay
from tests.kit.store import delete, insert, rows


async def test_request_is_one_row_with_everything_but_its_content(relay: Relay, acme: Tenant) -> None:
    async with running_http(relay) as http:
        response = await send(http, acme, User_Agent="Shop/1.0")
    [row] = await rows(relay, api_requests)
    assert UUID(row["id"])
    assert row == {
        "id": response.headers["x-request-id"],
        "method": "POST",
        "path": "/v1/send",
        "status_code": 200,
        "duration": 0,
        "project_id": acme.id,
        "user_id": None,
        "auth_type": "apiKey",
        "ip": "127.0.0.1",
        "user_agent": "Shop/1.0",
        "error_code": None,
        "error_message": None,
        "request_size": len(response.request.content),
        "response_size": len(response.content),
        "created_at": relay.clock.now(),
    }


async def test_refused_request_is_a_row_with_the_error(relay: Relay, acme: Tenant) -> None:
    async with running_http(relay) as http:
        await send(http, acme, {"from": "a@unknown.test"})
        await http.post("/v1/send", json=MAIL)
        await http.get("/nothing")
    found = [(row["status_code"], row["error_code"], row["project_id"]) for row in await rows(relay, api_requests)]
    assert found == [(403, "FORBIDDEN", acme.id), (401, "MISSING_AUTH", None), (404, "RESOURCE_NOT_FOUND", None)]
    assert all(row["error_message"] for row in await rows(relay, api_requests))


async def test_crash_is_a_row_without_its_words(relay: Relay) -> None:
    @endpoint("GET", "/crash", tag="Test", auth=Auth.NONE)
    async def crash() -> None:
        """Fail."""
        raise RuntimeError("swordfish")

    async with running_http(relay, pages=[crash]) as http:
        await http.get("/crash")
    [row] = await rows(relay, api_requests)
    assert (row["status_code"], row["error_code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert "swordfish" not in row["error_message"]


async def test_neither_bodies_nor_keys_nor_queries_are_logged(relay: Relay, acme: Tenant) -> None:
    async with running_http(relay) as http:
        [done] = await sent(http, acme, {"subject": "s3cret-subject", "body": "s3cret-body", "data": {"pin": "s3cret-pin"}})
        await http.post("/v1/send", headers={"Authorization": "Bearer sk_s3cret-key"}, json=MAIL)
        await http.get(f"/manage/{done['contact']['id']}?e=s3cret-query")
        await http.post("/v1/send", headers=acme.headers, content=b"s3cret-json")
    logged = str(await rows(relay, api_requests))
    assert "s3cret" not in logged
    assert acme.secret not in logged
    assert done["contact"]["id"] in logged


async def test_long_paths_and_agents_are_cut(relay: Relay) -> None:
    async with running_http(relay) as http:
        await http.get("/" + "x" * 3000, headers={"User-Agent": "y" * 3000})
    [row] = await rows(relay, api_requests)
    assert (len(row["path"]), len(row["user_agent"])) == (1000, 500)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json", "/docs", "/", "/uploads/files/p/1.png"])
async def test_watching_the_relay_leaves_no_rows(relay: Relay, path: str) -> None:
    async with running_http(relay) as http:
        await http.get(path)
    assert await rows(relay, api_requests) == []


async def test_rows_are_written_when_the_server_stops(relay: Relay, clock: ManualClock) -> None:
    log, stop = RequestLog(), asyncio.Event()
    log.add(_row(clock))
    stop.set()
    await log.run(relay, stop)
    assert len(await rows(relay, api_requests)) == 1


async def test_rows_beyond_what_may_wait_are_dropped(relay: Relay, clock: ManualClock) -> None:
    log = RequestLog()
    for _ in range(5100):
        log.add(_row(clock))
    await log.flush(relay)
    assert len(await rows(relay, api_requests)) == 5000


async def test_relay_that_cannot_write_drops_rows_and_lives_on(relay: Relay, clock: ManualClock) -> None:
    log = RequestLog()
    log.add(_row(clock))
    relay.db.failure = "a write to disk failed"
    await log.flush(relay)
    relay.db.failure = None
    await log.flush(relay)
    assert await rows(relay, api_requests) == []


async def test_rows_are_kept_for_thirty_days(relay: Relay, clock: ManualClock) -> None:
    await insert(relay, api_requests, **_row(clock))
    clock.advance(days=30)
    await insert(relay, api_requests, **_row(clock))
    await janitor.run_once(relay)
    assert len(await rows(relay, api_requests)) == 2
    clock.advance(seconds=1)
    await janitor.run_once(relay)
    assert [row["created_at"] for row in await rows(relay, api_requests)] == [clock.now().replace(second=0)]


@pytest.mark.parametrize(
    ("proxies", "seen"), [((), "127.0.0.1"), (("127.0.0.0/8",), "192.0.2.7"), (("10.0.0.0/8",), "127.0.0.1")]
)
async def test_forwarded_address_counts_only_from_trusted_proxies(
    tmp_path: Path, proxies: tuple[str, ...], seen: str
) -> None:
    async with running_relay(tmp_path) as relay:
        log, stop = RequestLog(), asyncio.Event()
        door = HttpDoor(create_app(relay, log), host="127.0.0.1", port=0, trusted_proxies=proxies)
        door.open()
        serving = asyncio.create_task(door.run(stop, grace_seconds=1))
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{door.port}") as http:
            await http.get("/nothing", headers={"X-Forwarded-For": "192.0.2.7"})
        stop.set()
        await serving
        await log.flush(relay)
        [row] = await rows(relay, api_requests)
    assert row["ip"] == seen


def _row(clock: ManualClock) -> dict[str, object]:
    values = {"method": "GET", "path": "/nothing", "status_code": 404, "duration": 1, "created_at": clock.now()}
    nothing = {column.name: None for column in api_requests.c}
    return nothing | values | {"id": new_id()}


async def test_requests_of_a_project_that_was_deleted_meanwhile_are_nobodys(relay: Relay, owner: Tenant) -> None:
    log = RequestLog()
    async with running_http(relay) as http:
        await http.get("/contacts", headers=owner.headers)
    [row] = await rows(relay, api_requests)
    await delete(relay, projects, id=owner.id)
    log.add(row | {"id": new_id()})
    await log.flush(relay)
    assert [one["project_id"] for one in await rows(relay, api_requests)] == [None, None]
