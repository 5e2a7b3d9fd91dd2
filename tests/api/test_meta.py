"""Is the server alive, and does it take mail? The endpoints beside the API."""

from pathlib import Path

import httpx2

from plunk_relay.clock import ManualClock
from plunk_relay.relay import Relay
from tests.kit.api import sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant, running_relay


async def test_health_tells_time_and_memory(http: httpx2.AsyncClient, clock: ManualClock) -> None:
    clock.advance(seconds=2.5)
    body = (await http.get("/health")).json()
    assert (body["status"], body["time"], body["uptime"]) == ("ok", int(clock.now().timestamp() * 1000), 2.5)
    assert isinstance(body["environment"], str)
    assert body["memoryUsage"]["rss"] > 10_000_000


async def test_ready_relay_says_so(http: httpx2.AsyncClient) -> None:
    response = await http.get("/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True, "reasons": []})


async def test_stopping_relay_is_alive_and_not_ready(relay: Relay, http: httpx2.AsyncClient) -> None:
    relay.stopping.set()
    response = await http.get("/ready")
    assert (response.status_code, response.json()) == (503, {"ready": False, "reasons": ["the server is stopping"]})
    assert response.headers["retry-after"] == "30"
    assert (await http.get("/health")).status_code == 200


async def test_relay_that_cannot_write_is_not_ready(relay: Relay, http: httpx2.AsyncClient) -> None:
    relay.db.failure = "a write to disk failed"
    response = await http.get("/ready")
    assert (response.status_code, response.json()["reasons"]) == (503, ["a write to disk failed"])


async def test_low_disk_is_not_ready_and_the_reason_names_the_setting(tmp_path: Path) -> None:
    async with running_relay(tmp_path, limits={"minimum_free_megabytes": 10**9}) as relay, running_http(relay) as http:
        response = await http.get("/ready")
    assert response.status_code == 503
    [reason] = response.json()["reasons"]
    assert "limits.minimum_free_megabytes is 1000000000" in reason
    assert str(tmp_path) in reason


async def test_relay_that_stops_stopping_is_ready_at_once(relay: Relay, http: httpx2.AsyncClient) -> None:
    relay.stopping.set()
    assert (await http.get("/ready")).status_code == 503
    relay.stopping.clear()
    assert (await http.get("/ready")).status_code == 200


async def test_metrics_count_requests_by_route_and_status(http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme)
    await http.get("/domains/project/one", headers=acme.headers)
    await http.get("/domains/project/two", headers=acme.headers)
    await http.get("/nothing/here")
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert 'plunk_relay_http_requests_total{method="POST",route="/v1/send",status="200"} 1.0' in lines
    assert 'plunk_relay_http_requests_total{method="GET",route="/domains/project/{project_id}",status="200"} 2.0' in lines
    assert 'plunk_relay_http_requests_total{method="GET",route="unknown",status="404"} 1.0' in lines
    assert 'plunk_relay_http_request_seconds_count{route="/v1/send"} 1.0' in lines


async def test_metrics_show_the_ledger(http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme, {"to": ["ann@example.net", "bob@example.net"]})
    lines = (await http.get("/metrics")).text.splitlines()
    assert 'plunk_relay_ledger_mails{state="accepted"} 2.0' in lines
    assert 'plunk_relay_ledger_mails{state="queued"} 2.0' in lines
    assert 'plunk_relay_ledger_mails{state="delivered"} 0.0' in lines


async def test_metrics_name_no_address_and_no_key(http: httpx2.AsyncClient, acme: Tenant) -> None:
    [done] = await sent(http, acme)
    await http.get(f"/manage/{done['contact']['id']}")
    text = (await http.get("/metrics")).text
    assert not [word for word in (acme.secret, "example.net", done["contact"]["id"]) if word in text]


async def test_root_leads_to_the_docs(http: httpx2.AsyncClient) -> None:
    response = await http.get("/")
    assert (response.status_code, response.headers["location"]) == (302, "http://relay.test/docs")
