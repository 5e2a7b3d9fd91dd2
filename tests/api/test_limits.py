"""How fast may a project ask? Buckets by project, told in headers, refilled by the clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.errors import RateLimited
from plunk_relay.sections import LimitSettings
from plunk_relay.web.ratelimit import Rate, RateLimiter, read_rates
from tests.kit.api import MAIL, refusal, send, sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay

LIST = "/domains/project/x"


async def test_thousand_requests_a_minute_and_no_more(http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock) -> None:
    first = await http.get(LIST, headers=acme.headers)
    assert _rates(first) == (1000, 999, 1)
    for _ in range(999):
        last = await http.get(LIST, headers=acme.headers)
    assert (last.status_code, _rates(last)) == (200, (1000, 0, 60))
    assert refusal(await http.get(LIST, headers=acme.headers)) == (429, "RATE_LIMIT_EXCEEDED")
    clock.advance(seconds=60)
    assert _rates(await http.get(LIST, headers=acme.headers)) == (1000, 999, 1)


async def test_refusal_says_when_to_come_back(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=2) as (http, acme, _):
        for _ in range(2):
            await http.get(LIST, headers=acme.headers)
        response = await http.get(LIST, headers=acme.headers)
        error = response.json()["error"]
        assert refusal(response) == (429, "RATE_LIMIT_EXCEEDED")
        assert (response.headers["retry-after"], error["details"]) == ("30", {"retryAfter": 30})
        assert _rates(response) == (2, 0, 60)
        assert "suggestion" in error
        clock.advance(seconds=29)
        assert (await http.get(LIST, headers=acme.headers)).headers["retry-after"] == "1"
        clock.advance(seconds=1)
        assert (await http.get(LIST, headers=acme.headers)).status_code == 200
        assert (await http.get(LIST, headers=acme.headers)).status_code == 429


async def test_sending_has_a_bucket_of_its_own(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, send_per_second=2, send_burst=3) as (http, acme, _):
        answers = [await send(http, acme) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [_rates(answer)[:2] for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0)]
        assert answers[3].headers["retry-after"] == "1"
        assert (await http.get(LIST, headers=acme.headers)).status_code == 200
        clock.advance(seconds=1)
        assert [(await send(http, acme)).status_code for _ in range(3)] == [200, 200, 429]


async def test_sending_counts_for_the_general_limit_too(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=2) as (http, acme, _):
        await sent(http, acme)
        assert _rates(await http.get(LIST, headers=acme.headers))[:2] == (2, 0)
        response = await send(http, acme)
        assert refusal(response) == (429, "RATE_LIMIT_EXCEEDED")
        assert _rates(response)[0] == 2


async def test_refused_send_costs_nothing_of_the_general_limit(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, send_per_second=1, send_burst=1, api_requests_per_minute=10) as (http, acme, _):
        for _ in range(5):
            await send(http, acme)
        assert _rates(await http.get(LIST, headers=acme.headers))[1] == 8


async def test_projects_do_not_use_up_each_others_limits(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=1) as (http, acme, rival):
        await http.get(LIST, headers=acme.headers)
        assert (await http.get(LIST, headers=acme.headers)).status_code == 429
        assert (await http.get(LIST, headers=rival.headers)).status_code == 200


async def test_requests_that_fail_later_count(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, send_per_second=1, send_burst=1) as (http, acme, _):
        assert (await send(http, acme, {"to": "bad"})).status_code == 422
        assert (await send(http, acme)).status_code == 429


async def test_requests_without_a_right_key_do_not_count(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=1) as (http, acme, _):
        wrong = await http.get(LIST, headers={"Authorization": f"Bearer {acme.public}"})
        assert wrong.status_code == 401
        assert "ratelimit-limit" not in wrong.headers
        assert (await http.get(LIST, headers=acme.headers)).status_code == 200


async def test_one_click_unsubscribe_and_operating_endpoints_are_never_limited(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=1) as (http, acme, _):
        [done] = await sent(http, acme, {"subscribed": True})
        for _ in range(5):
            for response in (
                await http.post(f"/unsubscribe/{done['contact']['id']}"),
                await http.get("/health"),
                await http.get(f"/manage/{done['contact']['id']}"),
            ):
                assert response.status_code == 200
                assert "ratelimit-limit" not in response.headers


async def test_zero_switches_the_general_limit_off(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, api_requests_per_minute=0) as (http, acme, _):
        response = await http.get(LIST, headers=acme.headers)
        assert "ratelimit-limit" not in response.headers
        assert _rates(await send(http, acme))[0] == 50


@pytest.mark.parametrize(
    ("bucket", "path", "body"),
    [
        ("send", "/v1/send", MAIL),
        ("track", "/v1/track", {"event": "seen", "email": "ann@example.net"}),
        ("contacts", "/contacts", {"email": "ann@example.net"}),
    ],
)
async def test_zero_switches_one_limit_off(
    tmp_path: Path, clock: ManualClock, bucket: str, path: str, body: dict[str, Any]
) -> None:
    limits = {f"{bucket}_per_second": 0, f"{bucket}_burst": 1}
    async with _serve(tmp_path, clock, **limits) as (http, acme, _):
        for _ in range(3):
            response = await http.post(path, headers=acme.headers, json=body)
            assert response.is_success
        assert _rates(response)[:2] == (1000, 997)


async def test_a_request_is_limited_before_its_key_and_its_body_are_looked_at(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, send_per_second=1, send_burst=1) as (http, acme, _):
        await sent(http, acme)
        for key, content in (("", "{"), ("order-1", "{")):
            headers = acme.headers | {"Idempotency-Key": key}
            response = await http.post("/v1/send", headers=headers, content=content)
            assert refusal(response) == (429, "RATE_LIMIT_EXCEEDED")
        clock.advance(seconds=1)
        assert (await send(http, acme, Idempotency_Key="order-1")).status_code == 200


async def test_who_is_limited_has_been_identified(tmp_path: Path, clock: ManualClock) -> None:
    async with _serve(tmp_path, clock, send_per_second=1, send_burst=1) as (http, acme, _):
        await sent(http, acme)
        response = await http.post("/v1/send", headers={"Authorization": "Bearer sk_x"}, content="{")
        assert refusal(response) == (401, "INVALID_API_KEY")


@pytest.mark.parametrize("fields", [{}, {"to": "bad"}, {"from": "a@unknown.test"}], ids=["taken", "invalid", "forbidden"])
async def test_every_answer_of_a_limited_endpoint_tells_its_limit(
    tmp_path: Path, clock: ManualClock, fields: dict[str, Any]
) -> None:
    async with _serve(tmp_path, clock) as (http, acme, _):
        assert _rates(await send(http, acme, fields)) == (50, 49, 1)


def test_default_rates_are_those_of_the_reference_and_the_contract() -> None:
    assert read_rates(LimitSettings()) == {
        "api": Rate(1000 / 60, 1000),
        "send": Rate(20, 50),
        "track": Rate(100, 200),
        "contacts:write": Rate(50, 100),
    }


def test_bucket_never_holds_more_than_its_burst(clock: ManualClock) -> None:
    limiter = RateLimiter({"api": Rate(1, 2)}, clock.monotonic)
    limiter.spend("acme", None)
    clock.advance(hours=1)
    assert [dict(limiter.spend("acme", None))["ratelimit-remaining"] for _ in range(2)] == ["1", "0"]
    with pytest.raises(RateLimited):
        limiter.spend("acme", None)


@pytest.mark.parametrize(("per_second", "reset"), [(0.5, "2"), (3, "1"), (1000, "1")])
def test_reset_is_in_whole_seconds_rounded_up(clock: ManualClock, per_second: float, reset: str) -> None:
    limiter = RateLimiter({"api": Rate(per_second, 10)}, clock.monotonic)
    assert dict(limiter.spend("acme", None))["ratelimit-reset"] == reset


@asynccontextmanager
async def _serve(
    directory: Path, clock: ManualClock, **limits: float
) -> AsyncIterator[tuple[httpx2.AsyncClient, Tenant, Tenant]]:
    async with running_relay(directory, clock=clock, limits=limits) as relay:
        acme, rival = await make_tenant(relay), await make_tenant(relay, "rival", domain="rival.test")
        async with running_http(relay) as http:
            yield http, acme, rival


def _rates(response: httpx2.Response) -> tuple[int, int, int]:
    """Return limit, remaining and reset."""
    limit, remaining, reset = (int(response.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))
    return limit, remaining, reset
