"""How long is a mail of use? One-time codes come with `expiresIn`: tried in time, and never delivered late."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import deliveries
from tests.kit.api import sent
from tests.kit.http import running_http
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer, Script
from tests.kit.relay import NOON
from tests.kit.store import rows

CODE = {"to": "ann@example.org", "subject": "Your code", "body": "<p>123456</p>"}
NOT_NOW = Script(rcpt="450 4.3.0 not now")


@pytest.fixture
async def api(outbox: Outbox) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the API of the relay whose outbox it is."""
    async with running_http(outbox.relay) as client:
        yield client


async def _send_code(outbox: Outbox, api: httpx2.AsyncClient, seconds: int) -> str:
    [answer] = await sent(api, outbox.acme, CODE | {"expiresIn": seconds})
    [delivery] = await rows(outbox.relay, deliveries, email_id=answer["email"])
    delivery_id: str = delivery["id"]
    return delivery_id


async def _deliver_when_due(outbox: Outbox, delivery_id: str) -> float:
    """Let time pass until the mail is due, deliver, and return the seconds since noon."""
    row = await outbox.delivery(delivery_id)
    outbox.clock.advance(seconds=max(0.0, (row["due_at"] - outbox.clock.now()).total_seconds()))
    await outbox.deliver()
    return (outbox.clock.now() - NOON).total_seconds()


async def test_a_mail_expires_when_its_request_says(outbox: Outbox, api: httpx2.AsyncClient) -> None:
    delivery_id = await _send_code(outbox, api, 300)
    assert (await outbox.delivery(delivery_id))["expires_at"] == NOON + timedelta(seconds=300)


@pytest.mark.parametrize("fields", [{}, {"expiresIn": 345600}, {"expiresIn": None}])
async def test_a_mail_may_live_as_long_as_the_setting_says(
    outbox: Outbox, api: httpx2.AsyncClient, fields: dict[str, int | None]
) -> None:
    await sent(api, outbox.acme, CODE | fields)
    [delivery] = await rows(outbox.relay, deliveries)
    assert delivery["expires_at"] == NOON + timedelta(hours=96)


async def test_a_code_for_five_minutes_is_tried_again_after_one_and_before_its_end(
    outbox: Outbox, peer: Peer, api: httpx2.AsyncClient
) -> None:
    peer.script = NOT_NOW
    delivery_id = await _send_code(outbox, api, 300)
    moments = [await _deliver_when_due(outbox, delivery_id) for _ in range(3)]
    assert moments[0] == 0
    assert 54 <= moments[1] <= 66
    assert moments[2] == 275
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    assert [attempt["outcome"] for attempt in await outbox.attempts(delivery_id)] == ["DEFERRED"] * 3


async def test_the_last_try_may_succeed(outbox: Outbox, peer: Peer, api: httpx2.AsyncClient) -> None:
    peer.script = Script(rcpt=["450 4.2.0 Greylisted for 600 seconds", "250 2.1.5 ok"])
    delivery_id = await _send_code(outbox, api, 120)
    assert [await _deliver_when_due(outbox, delivery_id) for _ in range(2)] == [0, 95]
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


async def test_the_shortest_lifetime_has_room_for_a_second_try(outbox: Outbox, peer: Peer, api: httpx2.AsyncClient) -> None:
    peer.script = NOT_NOW
    delivery_id = await _send_code(outbox, api, 30)
    assert [await _deliver_when_due(outbox, delivery_id) for _ in range(2)] == [0, 22.5]
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")


async def test_a_code_that_comes_too_late_is_not_sent(
    outbox: Outbox, peer: Peer, clock: ManualClock, api: httpx2.AsyncClient
) -> None:
    delivery_id = await _send_code(outbox, api, 30)
    clock.advance(seconds=30)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")
    assert (await outbox.email(delivery_id))["error"] == "Not delivered within its lifetime"
    assert peer.sessions == []
    assert (await outbox.check_ledger())["expired"] == 1


async def test_an_expired_mail_tells_its_last_reply(outbox: Outbox, peer: Peer, api: httpx2.AsyncClient) -> None:
    peer.script = NOT_NOW
    delivery_id = await _send_code(outbox, api, 30)
    for _ in range(2):
        await _deliver_when_due(outbox, delivery_id)
    email = await outbox.email(delivery_id)
    assert email["error"].startswith("Not delivered within its lifetime: 450 4.3.0 not now - ")
    assert await outbox.events() == []
