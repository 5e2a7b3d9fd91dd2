"""Who takes the mail when a provider blocks our address, or port 25 is closed? The smarthost, until a probe gets through."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from plunk_relay.commands import queue_resume
from plunk_relay.db.tables import provider_states
from plunk_relay.delivery.pacing import EVERYONE
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers, set_provider
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.process import free_port
from tests.kit.store import rows

DELIVERED, SENT = ("DELIVERED", "DELIVERED"), ("DELIVERED", "SENT")
BLOCKED = (
    "550 5.7.1 Unfortunately, messages from [127.0.0.1] weren't sent. Please contact your Internet service provider "
    "since part of their network is on our block list (S3150)."
)
EXCHANGER = "outlook-com.olc.protection.outlook.com"
LARGE = {
    "g.example": "aspmx.l.google.com",
    "y.example": "mta5.am0.yahoodns.net",
    "m.example": EXCHANGER,
}


@pytest.fixture
async def smart() -> AsyncIterator[Peer]:
    """Run the smarthost."""
    async with running_peer(host="127.0.0.3") as running:
        yield running


@asynccontextmanager
async def _outbox(prepared: Prepared, directory: Path, port: int, smart: Peer, **more: Any) -> AsyncIterator[Outbox]:
    """Deliver directly, with a smarthost to fall back to."""
    url = f"smtp://127.0.0.3:{smart.port}"
    async with running_outbox(prepared, directory, port=port, smarthost_url=url, **more) as outbox:
        for name in ("one", "two"):
            set_provider(outbox.dns, f"{name}.example", EXCHANGER)
        yield outbox


@pytest.mark.parametrize("step", ["banner", "mail", "rcpt", "dot"])
async def test_a_mail_that_our_address_is_blocked_for_goes_by_the_smarthost_at_once(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer, step: str
) -> None:
    peer.script = Script(**{step: BLOCKED})  # type: ignore[arg-type]  # a step's name
    async with _outbox(prepared, tmp_path, peer.port, smart) as outbox:
        [delivery_id] = await outbox.submit("ann@one.example")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == SENT
        refused, taken = await outbox.attempts(delivery_id)
        assert (refused["outcome"], refused["reply_class"], refused["rule"]) == (
            "DEFERRED",
            "reputation",
            "microsoft-blocked",
        )
        assert (taken["outcome"], taken["host"]) == ("DELIVERED", f"127.0.0.3[127.0.0.3]:{smart.port}")


async def test_from_then_on_all_mail_of_the_provider_goes_by_the_smarthost_and_other_mail_directly(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    peer.script = Script(rcpt={"ann@one.example": BLOCKED})
    async with _outbox(prepared, tmp_path, peer.port, smart) as outbox:
        await outbox.submit("ann@one.example")
        await outbox.deliver()
        [same] = await outbox.submit("bob@two.example")
        [other] = await outbox.submit("cid@example.org")
        await outbox.deliver()
        assert (await outbox.state(same), await outbox.state(other)) == (SENT, DELIVERED)
        assert [message.recipients for message in peer.taken] == [("cid@example.org",)]


async def test_what_waits_for_the_provider_moves_over(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    peer.script = Script(banner=BLOCKED)
    async with _outbox(prepared, tmp_path, peer.port, smart, per_destination=1) as outbox:
        ids = [one for number in range(20) for one in await outbox.submit("ann@one.example", message=other_message(number))]
        await outbox.deliver()
        assert {await outbox.state(one) for one in ids} == {SENT}
        assert len(peer.sessions) == 1
        assert sum([len(await outbox.attempts(one)) for one in ids]) == 21


async def test_without_a_smarthost_the_mail_bounces_and_the_provider_pauses(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=BLOCKED)
    set_provider(outbox.dns, "one.example", EXCHANGER)
    [delivery_id] = await outbox.submit("ann@one.example")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
    [state] = await rows(outbox.relay, provider_states)
    assert (state["fallback_since"], state["paused_until"]) == (None, outbox.clock.now() + timedelta(hours=12))


async def test_an_operator_can_switch_it_off(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    peer.script = Script(mail=BLOCKED)
    async with _outbox(prepared, tmp_path, peer.port, smart, fallback=False) as outbox:
        [delivery_id] = await outbox.submit("ann@one.example")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
        assert smart.sessions == []


async def test_a_route_of_its_own_is_kept_to(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    peer.script = Script(mail=BLOCKED)
    routes = [{"domain": "one.example", "route": "mx"}]
    async with _outbox(prepared, tmp_path, peer.port, smart, routes=routes) as outbox:
        [delivery_id] = await outbox.submit("ann@one.example")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
        assert smart.sessions == []


async def test_one_mail_a_day_tries_the_direct_way_and_is_not_lost_by_it(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    async with _blocked(prepared, tmp_path, peer, smart) as outbox:
        outbox.clock.advance(hours=23)
        await _send_three(outbox)
        assert len(peer.sessions) == 1
        outbox.clock.advance(hours=2)
        ids = await _send_three(outbox)
        assert len(peer.sessions) == 2
        assert [await outbox.state(one) for one in ids] == [SENT] * 3
        await _send_three(outbox)
        assert len(peer.sessions) == 2  # the day's probe was made


async def test_a_probe_that_gets_through_ends_the_fallback(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    async with _blocked(prepared, tmp_path, peer, smart) as outbox:
        peer.script = Script()
        outbox.clock.advance(hours=25)
        [probe] = await outbox.submit("bob@two.example")
        await outbox.deliver()
        [next_one] = await outbox.submit("bob@two.example")
        await outbox.deliver()
        assert [await outbox.state(one) for one in (probe, next_one)] == [DELIVERED] * 2
        [state] = await rows(outbox.relay, provider_states)
        assert (state["fallback_since"], state["probe_at"], state["pace"]) == (None, None, 10)


async def test_a_probe_to_somebody_who_is_not_there_tells_as_much(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    async with _blocked(prepared, tmp_path, peer, smart) as outbox:
        peer.script = Script(rcpt="550 5.1.1 no such user")
        outbox.clock.advance(hours=25)
        [probe] = await outbox.submit("bob@two.example")
        await outbox.deliver()
        assert await outbox.state(probe) == ("BOUNCED", "BOUNCED")
        [state] = await rows(outbox.relay, provider_states)
        assert state["fallback_since"] is None


@pytest.mark.parametrize("script", [Script(mail="451 4.3.0 try later"), Script(banner="close")])
async def test_a_probe_that_tells_nothing_leaves_it_on(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer, script: Script
) -> None:
    async with _blocked(prepared, tmp_path, peer, smart) as outbox:
        peer.script = script
        outbox.clock.advance(hours=25)
        [probe] = await outbox.submit("bob@two.example")
        await outbox.deliver()
        assert await outbox.state(probe) == SENT
        [state] = await rows(outbox.relay, provider_states)
        assert (state["fallback_since"], state["probe_at"]) == (_in_hours(outbox, -25), _in_hours(outbox, 24))


async def test_a_restart_does_not_forget_a_fallback(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    async with _blocked(prepared, tmp_path, peer, smart) as outbox:
        await outbox.deliverer.finish(0)
        await outbox.new_deliverer()
        await _send_three(outbox)
        assert len(peer.sessions) == 1


async def test_the_operator_is_told_once_and_can_end_it(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    with capture_logs() as lines:
        async with _blocked(prepared, tmp_path, peer, smart) as outbox:
            await _send_three(outbox)
            peer.script = Script()
            await queue_resume(outbox.relay, provider="microsoft")
            ids = await _send_three(outbox)
            assert [await outbox.state(one) for one in ids] == [DELIVERED] * 3
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert warnings == ["fallback: mail goes by the smarthost"]


async def test_port_25_is_closed_when_three_providers_in_a_row_take_no_connection(
    prepared: Prepared, tmp_path: Path, smart: Peer
) -> None:
    async with _closed_port(prepared, tmp_path, smart) as outbox:
        ids = await _write_to_large_ones(outbox, "g.example", "y.example")
        assert not await _looks_closed(outbox)
        ids += await _write_to_large_ones(outbox, "m.example")
        await outbox.until(_is_closed(outbox))
        outbox.clock.advance(minutes=2)
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [SENT] * 3
        [other] = await outbox.submit("dan@example.org")
        await outbox.deliver()
        assert await outbox.state(other) == SENT


async def test_a_session_in_between_shows_that_it_is_open(prepared: Prepared, tmp_path: Path, smart: Peer) -> None:
    async with _closed_port(prepared, tmp_path, smart) as outbox:
        await _write_to_large_ones(outbox, "g.example", "y.example")
        async with running_peer(host="127.0.0.1", port=outbox.relay.settings.delivery.port):
            await outbox.submit("dan@example.org")
            await outbox.deliver()
        await _write_to_large_ones(outbox, "m.example")
        assert not await _looks_closed(outbox)


async def test_a_refusal_in_between_shows_it_too(prepared: Prepared, tmp_path: Path, smart: Peer) -> None:
    async with _closed_port(prepared, tmp_path, smart) as outbox:
        await _write_to_large_ones(outbox, "g.example", "y.example")
        async with running_peer(Script(banner="554 5.3.2 go away"), port=outbox.relay.settings.delivery.port):
            await outbox.submit("dan@example.org")
            await outbox.deliver()
        await _write_to_large_ones(outbox, "m.example")
        assert not await _looks_closed(outbox)


async def test_three_mistyped_domains_do_not_close_it(prepared: Prepared, tmp_path: Path, smart: Peer) -> None:
    async with _closed_port(prepared, tmp_path, smart) as outbox:
        for number in range(3):
            set_exchangers(outbox.dns, f"typo{number}.example", "127.0.0.2")
        await outbox.submit(*(f"ann@typo{number}.example" for number in range(3)))
        await outbox.deliver()
        assert not await _looks_closed(outbox)


async def test_it_is_the_network_when_the_smarthost_does_not_answer_either(prepared: Prepared, tmp_path: Path) -> None:
    url = f"smtp://127.0.0.3:{free_port()}"
    async with running_outbox(prepared, tmp_path, port=free_port(), smarthost_url=url) as outbox:
        for domain, exchanger in LARGE.items():
            set_provider(outbox.dns, domain, exchanger, "127.0.0.2")
        await _write_to_large_ones(outbox, *LARGE)
        assert not await _looks_closed(outbox)
        assert outbox.dns.questions.count(("m.example", "MX")) == 2  # asked anew, to see whether the DNS answers
        assert await rows(outbox.relay, provider_states) == []


async def test_a_probe_that_comes_through_port_25_ends_it_for_everyone(
    prepared: Prepared, tmp_path: Path, smart: Peer
) -> None:
    async with _closed_port(prepared, tmp_path, smart) as outbox:
        await _write_to_large_ones(outbox, *LARGE)
        await outbox.until(_is_closed(outbox))
        outbox.clock.advance(hours=25)
        async with running_peer(host="127.0.0.2", port=outbox.relay.settings.delivery.port):
            [small] = await outbox.submit("dan@example.org")  # nobody knows whether it is there at all: no probe
            await outbox.deliver()
            [probe] = await outbox.submit("ann@g.example")
            await outbox.deliver()
            assert (await outbox.state(small), await outbox.state(probe)) == (SENT, DELIVERED)
            assert await rows(outbox.relay, provider_states) == []


async def test_without_a_smarthost_the_operator_is_told_of_the_closed_port(prepared: Prepared, tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with running_outbox(prepared, tmp_path, port=free_port()) as outbox:
            for domain, exchanger in LARGE.items():
                set_provider(outbox.dns, domain, exchanger, "127.0.0.2")
            for _ in range(2):
                await _write_to_large_ones(outbox, *LARGE)

                async def told() -> bool:
                    return any("set delivery.smarthost_url" in line["event"] for line in lines)

                await outbox.until(told)
    assert len([line for line in lines if line["log_level"] == "warning"]) == 1


@asynccontextmanager
async def _blocked(prepared: Prepared, directory: Path, peer: Peer, smart: Peer) -> AsyncIterator[Outbox]:
    """Begin when Microsoft has just blocked us."""
    peer.script = Script(mail=BLOCKED)
    async with _outbox(prepared, directory, peer.port, smart) as outbox:
        await outbox.submit("ann@one.example")
        await outbox.deliver()
        yield outbox


async def _send_three(outbox: Outbox) -> list[str]:
    ids = [one for number in range(3) for one in await outbox.submit("bob@two.example", message=other_message(number))]
    await outbox.deliver()
    return ids


def _in_hours(outbox: Outbox, hours: float) -> datetime:
    return outbox.clock.now() + timedelta(hours=hours)


@asynccontextmanager
async def _closed_port(prepared: Prepared, directory: Path, smart: Peer) -> AsyncIterator[Outbox]:
    """Nobody listens at the exchangers' port."""
    async with _outbox(prepared, directory, free_port(), smart) as outbox:
        for domain, exchanger in LARGE.items():
            set_provider(outbox.dns, domain, exchanger, "127.0.0.2")
        yield outbox


async def _write_to_large_ones(outbox: Outbox, *domains: str) -> list[str]:
    ids = []
    for domain in domains:
        ids += await outbox.submit(f"ann@{domain}")
        await outbox.deliver()
    return ids


async def _looks_closed(outbox: Outbox) -> bool:
    """Wait until nothing is being found out, and tell what was decided."""

    async def decided() -> bool:
        return not outbox.deliverer._traffic._confirming

    await outbox.until(decided)
    return outbox.deliverer._traffic.pacing.find(EVERYONE) is not None


def _is_closed(outbox: Outbox) -> Any:
    async def fits() -> bool:
        found = await rows(outbox.relay, provider_states)
        return [row["provider"] for row in found if row["fallback_since"] is not None] == ["everyone"]

    return fits
