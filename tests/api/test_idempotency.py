"""What does an Idempotency-Key promise? One effect a project and key, and the truth about it to whoever asks again."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plunk_relay import janitor
from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import emails, idempotency_keys
from plunk_relay.errors import BadRequest
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.web.access import Auth, Caller
from plunk_relay.web.endpoint import KeyHold, RequestInfo, endpoint
from plunk_relay.web.idempotency import claim_key, release_unsettled
from plunk_relay.web.queries import settle_key
from tests.api.conftest import Shared
from tests.kit.api import MAIL, refusal, send
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay
from tests.kit.store import add_template, rows

KEY = "order-1"
MODULE = pytest.mark.asyncio(loop_scope="module")


async def test_second_request_is_refused_and_told_of_the_first(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock
) -> None:
    assert (await _send(http, acme)).status_code == 200
    clock.advance(minutes=1)
    response = await _send(http, acme)
    assert refusal(response) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert response.json()["error"]["details"] == {
        "key": KEY,
        "originalRequest": "POST /v1/send",
        "originalRequestAt": "2026-03-01T12:00:00.000Z",
        "originalStatusCode": 200,
    }
    assert "suggestion" in response.json()["error"]
    assert len(await rows(relay, emails)) == 1


async def test_a_key_is_looked_at_before_the_body(http: httpx2.AsyncClient, acme: Tenant) -> None:
    for path in ("/v1/send", "/v1/track"):
        response = await http.post(path, headers=acme.headers | {"Idempotency-Key": ""}, content="{")
        assert refusal(response) == (400, "BAD_REQUEST")


async def test_body_is_not_compared(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await _send(http, acme)
    assert refusal(await _send(http, acme, {"to": "bob@example.net"})) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert len(await rows(relay, emails)) == 1


async def test_requests_without_a_key_are_all_taken(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    for _ in range(2):
        assert (await send(http, acme)).status_code == 200
    assert len(await rows(relay, emails)) == 2
    assert await rows(relay, idempotency_keys) == []


async def test_each_project_has_keys_of_its_own(http: httpx2.AsyncClient, acme: Tenant, rival: Tenant) -> None:
    assert [(await _send(http, tenant)).status_code for tenant in (acme, rival)] == [200, 200]


@MODULE
@pytest.mark.parametrize(
    "key",
    [b"", b"x" * 256, b"caf\xe9", "ключ".encode(), b"a\tb"],
    ids=["empty", "256 characters", "latin-1", "utf-8", "tab"],
)
async def test_key_outside_1_to_255_printable_ascii_is_a_bad_request(shared: Shared, key: bytes) -> None:
    headers = [(b"Authorization", f"Bearer {shared.acme.secret}".encode()), (b"Idempotency-Key", key)]
    assert refusal(await shared.http.post("/v1/send", headers=headers, json=MAIL)) == (400, "BAD_REQUEST")
    assert await rows(shared.relay, idempotency_keys, key=key.decode("latin-1")) == []


@MODULE
@pytest.mark.parametrize("key", ["x" * 255, "a b ~!", "0"])
async def test_printable_ascii_up_to_255_characters_is_a_key(shared: Shared, key: str) -> None:
    assert [(await _send(shared.http, shared.acme, key=key)).status_code for _ in range(2)] == [200, 409]


async def test_other_endpoints_pass_the_header_over(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    headers = acme.headers | {"Idempotency-Key": KEY}
    assert (await http.post("/domains", headers=headers, json={"domain": "other.test"})).status_code == 201
    assert await rows(relay, idempotency_keys) == []
    assert (await _send(http, acme)).status_code == 200


async def test_one_key_covers_all_endpoints_of_a_project(relay: Relay, acme: Tenant) -> None:
    @endpoint("POST", "/v1/other", tag="Test", auth=Auth.SECRET_KEY, idempotent=True)
    async def do_other(caller: Caller) -> dict[str, str]:
        """Do something else."""
        return {"project": caller.project_id}

    async with running_http(relay, pages=[do_other]) as http:
        headers = acme.headers | {"Idempotency-Key": KEY}
        assert (await http.post("/v1/other", headers=headers)).status_code == 200
        response = await _send(http, acme)
    assert response.json()["error"]["details"]["originalRequest"] == "POST /v1/other"


@MODULE
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"to": "bad"}, 422),
        ({"from": "a@unknown.test"}, 403),
        ({"template": "00000000-0000-4000-8000-000000000000"}, 404),
        ({"data": {"locale": 7}}, 400),
    ],
)
async def test_refused_request_frees_its_key(shared: Shared, fields: dict[str, Any], status: int) -> None:
    assert (await _send(shared.http, shared.acme, fields, key=f"refused-{status}")).status_code == status
    assert (await _send(shared.http, shared.acme, key=f"refused-{status}")).status_code == 200


async def test_malformed_body_frees_its_key(http: httpx2.AsyncClient, acme: Tenant) -> None:
    headers = acme.headers | {"Idempotency-Key": KEY}
    assert (await http.post("/v1/send", headers=headers, content="{")).status_code == 400
    assert (await _send(http, acme)).status_code == 200


async def test_request_that_fails_for_one_of_many_wrote_nothing_and_frees_its_key(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await send(http, acme, {"subscribed": True})
    template = await add_template(relay, acme.id, type="MARKETING")
    fields = {"template": template, "to": ["ann@example.net", "stranger@example.net"]}
    assert (await _send(http, acme, fields)).status_code == 400
    assert len(await rows(relay, emails)) == 1
    assert (await _send(http, acme, fields | {"to": "ann@example.net"})).status_code == 200


async def test_request_refused_for_want_of_room_frees_its_key(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    relay.stopping.set()
    assert (await _send(http, acme)).status_code == 503
    relay.stopping.clear()
    assert (await _send(http, acme)).status_code == 200


async def test_crash_keeps_the_key_and_its_status(relay: Relay, acme: Tenant) -> None:
    @endpoint("POST", "/v1/crash", tag="Test", auth=Auth.SECRET_KEY, idempotent=True)
    async def crash(caller: Caller) -> None:
        """Fail."""
        raise RuntimeError(caller.project_id)

    async with running_http(relay, pages=[crash]) as http:
        headers = acme.headers | {"Idempotency-Key": KEY}
        assert (await http.post("/v1/crash", headers=headers)).status_code == 500
        response = await http.post("/v1/crash", headers=headers)
    assert refusal(response) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert response.json()["error"]["details"]["originalStatusCode"] == 500


async def test_refusal_after_something_was_written_keeps_the_key(relay: Relay, acme: Tenant) -> None:
    @endpoint("POST", "/v1/half", tag="Test", auth=Auth.SECRET_KEY, idempotent=True)
    async def write_half(relay: Relay, request: RequestInfo) -> None:
        """Store an effect and the key in one unit, then fail."""
        assert request.hold is not None
        await relay.db.write(settle_key, request.hold, 200)
        raise BadRequest("The other half is not possible.")

    async with running_http(relay, pages=[write_half]) as http:
        headers = acme.headers | {"Idempotency-Key": KEY}
        answers = [await http.post("/v1/half", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 409]
    assert answers[1].json()["error"]["details"]["originalStatusCode"] == 200


async def test_request_in_flight_has_no_status_and_its_claim_stays(relay: Relay, acme: Tenant) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    @endpoint("POST", "/v1/slow", tag="Test", auth=Auth.SECRET_KEY, idempotent=True)
    async def take_time(caller: Caller) -> dict[str, str]:
        """Wait for the test."""
        begun.set()
        await may_end.wait()
        return {"project": caller.project_id}

    async with running_http(relay, pages=[take_time]) as http:
        headers = acme.headers | {"Idempotency-Key": KEY}
        first = asyncio.create_task(http.post("/v1/slow", headers=headers))
        await begun.wait()
        loser = await _send(http, acme)
        may_end.set()
        assert (await first).status_code == 200
        late = await _send(http, acme)
    assert [answer.json()["error"]["details"]["originalStatusCode"] for answer in (loser, late)] == [None, 200]


async def test_late_end_of_an_expired_claim_leaves_its_successor_alone(
    relay: Relay, acme: Tenant, clock: ManualClock
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    @endpoint("POST", "/v1/slow", tag="Test", auth=Auth.SECRET_KEY, idempotent=True)
    async def refuse_late(caller: Caller) -> None:
        """Wait for the test, then refuse."""
        begun.set()
        await may_end.wait()
        raise BadRequest(f"{caller.project_id} was too slow.")

    async with running_http(relay, pages=[refuse_late]) as http:
        first = asyncio.create_task(http.post("/v1/slow", headers=acme.headers | {"Idempotency-Key": KEY}))
        await begun.wait()
        clock.advance(hours=24)
        assert (await _send(http, acme)).status_code == 200
        may_end.set()
        assert (await first).status_code == 400
        assert (await _send(http, acme)).json()["error"]["details"]["originalStatusCode"] == 200


async def test_of_many_at_once_exactly_one_is_taken(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    answers = await asyncio.gather(*(_send(http, acme) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    assert len(await rows(relay, emails)) == 1


@pytest.mark.parametrize("reason", ["key", "limit"])
async def test_request_stopped_earlier_claims_nothing(tmp_path: Path, reason: str) -> None:
    async with running_relay(tmp_path, limits={"send_per_second": 1, "send_burst": 1}) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            if reason == "limit":
                await send(http, acme)
                assert (await _send(http, acme)).status_code == 429
            else:
                headers = {"Authorization": f"Bearer {acme.public}", "Idempotency-Key": KEY}
                assert (await http.post("/v1/send", headers=headers, json=MAIL)).status_code == 401
        assert await rows(relay, idempotency_keys) == []


async def test_key_is_free_again_after_24_hours(http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock) -> None:
    await _send(http, acme)
    clock.advance(hours=23, minutes=59)
    assert (await _send(http, acme)).status_code == 409
    clock.advance(minutes=1)
    assert [(await _send(http, acme)).status_code for _ in range(2)] == [200, 409]


async def test_expired_keys_are_removed_and_living_ones_stay(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock
) -> None:
    await _send(http, acme, key="old")
    clock.advance(hours=12)
    await _send(http, acme, key="young")
    clock.advance(hours=12)
    await janitor.run_once(relay)
    assert [row["key"] for row in await rows(relay, idempotency_keys)] == ["young"]


async def test_a_key_whose_request_died_without_effect_is_free_after_the_restart(relay: Relay, acme: Tenant) -> None:
    await claim_key(relay, KeyHold(acme.id, "died", new_id()), method="POST", path="/v1/send")
    async with running_http(relay) as http:
        await _send(http, acme, key="queued")
        assert (await _send(http, acme, key="died")).status_code == 409
        await release_unsettled(relay)
        assert [(await _send(http, acme, key=key)).status_code for key in ("died", "queued")] == [200, 409]


async def test_mail_and_key_are_settled_in_one_unit(relay: Relay, acme: Tenant) -> None:
    hold = KeyHold(acme.id, KEY, new_id())
    await claim_key(relay, hold, method="POST", path="/v1/send")
    await send_message(relay, acme.id, SendRequest.model_validate(MAIL), hold=hold)
    [row] = await rows(relay, idempotency_keys)
    assert row["status_code"] == 200


async def test_key_outlives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    async with running_relay(tmp_path, clock=clock) as relay:
        acme = await make_tenant(relay)
        async with running_http(relay) as http:
            await _send(http, acme)
    async with running_relay(tmp_path, clock=clock) as relay, running_http(relay) as http:
        assert (await _send(http, acme)).status_code == 409


async def _send(
    http: httpx2.AsyncClient, tenant: Tenant, fields: dict[str, Any] | None = None, *, key: str = KEY
) -> httpx2.Response:
    return await send(http, tenant, fields, Idempotency_Key=key)
