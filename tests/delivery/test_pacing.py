"""What does a provider's reply do to the rest of its mail? It goes slower, or waits, and comes back by itself."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from plunk_relay.commands import queue_providers, queue_resume
from plunk_relay.db.tables import provider_states
from plunk_relay.errors import NotFound
from tests.kit.http import running_http
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers, set_provider
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.store import insert, rows

DELIVERED = ("DELIVERED", "DELIVERED")
SLOWER = "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address"
PAUSE = "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to unexpected volume or user complaints"


async def test_a_reply_that_asks_for_less_halves_the_pace_of_the_provider(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=SLOWER)
    set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
    await outbox.submit("ann@one.example")
    await outbox.deliver()
    [state] = await rows(outbox.relay, provider_states)
    assert (state["provider"], state["pace"], state["paused_until"]) == ("google", 50, None)
    assert state["reason"] == SLOWER


async def test_replies_of_one_moment_halve_it_once(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=SLOWER)
    for number in range(8):
        set_provider(outbox.dns, f"d{number}.example", "aspmx.l.google.com")
    await outbox.submit(*(f"ann@d{number}.example" for number in range(8)))
    await outbox.deliver()
    assert await _pace(outbox) == {"google": 50}
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    assert await _pace(outbox) == {"google": 25}


async def test_a_paused_provider_s_other_mail_waits_uncounted(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=PAUSE)
    for name in ("one", "two"):
        set_provider(outbox.dns, f"{name}.example", "mta5.am0.yahoodns.net")
    [first] = await outbox.submit("ann@one.example")
    await outbox.deliver()
    [second] = await outbox.submit("ann@two.example")
    await outbox.deliver()
    counted, waiting = await outbox.delivery(first), await outbox.delivery(second)
    assert (counted["attempts"], waiting["attempts"]) == (1, 0)
    assert waiting["state"] == "QUEUED"
    assert waiting["due_at"] == outbox.clock.now() + timedelta(minutes=60)
    assert waiting["last_reply"] == f"yahoo is paused until 2026-03-01 13:00 UTC: {PAUSE}"
    assert await outbox.attempts(second) == []
    assert len(peer.sessions) == 1


async def test_what_waits_behind_the_refused_mail_is_put_back_uncounted(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(banner=PAUSE)
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        for name in ("one", "two"):
            set_provider(outbox.dns, f"{name}.example", "mta5.am0.yahoodns.net")
        ids = [
            one
            for number in range(20)
            for name in ("one", "two")
            for one in await outbox.submit(f"ann@{name}.example", message=other_message(number))
        ]
        await outbox.deliver()
        attempts = [(await outbox.delivery(one))["attempts"] for one in ids]
        assert 1 <= sum(attempts) <= 2  # one for each destination that was on its way
        assert len(peer.sessions) <= 2
        assert {(await outbox.delivery(one))["state"] for one in ids} == {"QUEUED"}
        assert {(await outbox.delivery(one))["dot_sent_at"] for one in ids} == {None}


async def test_other_providers_go_on_while_one_is_paused(outbox: Outbox, peer: Peer) -> None:
    set_provider(outbox.dns, "one.example", "mta5.am0.yahoodns.net", "127.0.0.2")
    async with running_peer(Script(mail=PAUSE), host="127.0.0.2", port=peer.port):
        await outbox.submit("ann@one.example")
        [other] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert await outbox.state(other) == DELIVERED


async def test_a_pause_ends_by_itself_and_begins_slowly(outbox: Outbox, peer: Peer) -> None:
    [waiting] = await _pause(outbox, peer)
    outbox.clock.advance(minutes=61)
    peer.script = Script()
    await outbox.deliver()
    assert await outbox.state(waiting) == DELIVERED
    assert await _pace(outbox) == {"yahoo": 10}


async def test_a_restart_does_not_forget_a_pause(outbox: Outbox, peer: Peer) -> None:
    await _pause(outbox, peer)
    await outbox.deliverer.finish(0)
    await outbox.new_deliverer()
    [another] = await outbox.submit("bob@two.example")
    await outbox.deliver()
    assert (await outbox.delivery(another))["last_reply"].startswith("yahoo is paused until 2026-03-01 13:00 UTC")
    assert len(peer.sessions) == 1


async def test_ten_messages_that_get_through_win_a_step_back(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=[SLOWER, "250 2.1.0 ok"])
    set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
    await outbox.submit("ann@one.example")
    await outbox.deliver()
    outbox.clock.advance(minutes=61)  # the rule's hour
    for number in range(10):
        await outbox.submit("bob@one.example", message=other_message(number))
    await outbox.deliver()
    assert await _pace(outbox) == {"google": 60}


async def test_the_operator_is_told_once(outbox: Outbox, peer: Peer) -> None:
    with capture_logs() as lines:
        await _pause(outbox, peer)
        for number in range(5):
            await outbox.submit("bob@two.example", message=other_message(number))
        await outbox.deliver()
    [warning] = [line for line in lines if line["log_level"] == "warning"]
    assert (warning["event"], warning["provider"], warning["reason"]) == ("provider paused", "yahoo", PAUSE)
    [state] = await rows(outbox.relay, provider_states)
    assert state["alerted_at"] == outbox.clock.now()


async def test_a_providers_destinations_share_its_connections(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    for number in range(8):
        set_provider(outbox.dns, f"d{number}.example", "smtp-in.orange.fr")
    ids = await outbox.submit(*(f"ann@d{number}.example" for number in range(8)))
    [other] = await outbox.submit("ann@example.org")
    await outbox.claim()
    await peer.until(lambda peer: len(peer.received) == 3)
    assert sorted(message.recipients[0] for message in peer.received)[2] == "ann@example.org"
    assert len(peer.sessions) == 3  # two of orange, which bears no more
    peer.let_go()
    await outbox.deliver()
    assert [await outbox.state(one) for one in (*ids, other)] == [DELIVERED] * 9


async def test_a_slowed_provider_gets_fewer_connections(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=[SLOWER, "250 2.1.0 ok"], dot="wait + 250 2.0.0 taken")
    set_provider(outbox.dns, "one.example", "outlook-com.olc.protection.outlook.com")
    await outbox.submit("ann@one.example")
    await outbox.deliver()
    outbox.clock.advance(minutes=2)
    for number in range(4):
        set_provider(outbox.dns, f"d{number}.example", "outlook-com.olc.protection.outlook.com")
    await outbox.submit(*(f"ann@d{number}.example" for number in range(4)))
    await outbox.claim()
    await peer.until(lambda peer: len(peer.received) == 2)  # half of five
    assert sum(not session.over for session in peer.sessions) == 2
    peer.let_go()
    await outbox.deliver()
    assert len(peer.taken) == 5


async def test_a_provider_s_connections_end_after_as_many_messages_as_the_table_says(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        set_provider(outbox.dns, "one.example", "mta5.am0.yahoodns.net")
        for number in range(45):
            await outbox.submit("ann@one.example", message=other_message(number))
        await outbox.deliver()
        assert [len(session.received) for session in peer.sessions] == [20, 20, 5]


async def test_a_connection_refused_for_their_number_leaves_the_others_at_work(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(banner=["220 mx.test ESMTP", "421 4.3.2 too many connections"])
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=3) as outbox:
        ids = [one for number in range(12) for one in await outbox.submit(message=other_message(number))]
        await outbox.deliver()
        states = [await outbox.state(one) for one in ids]
        assert states.count(DELIVERED) >= 8
        assert sum([(await outbox.delivery(one))["attempts"] for one in ids]) <= 12 + 2


async def test_more_mail_than_a_slowed_provider_takes_in_a_minute_waits_in_the_queue_for_its_turn(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(mail="hang")
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=20) as outbox:
        slowed = {"provider": "google", "source_address": "", "pace": 10, "reason": SLOWER}
        await insert(outbox.relay, provider_states, **slowed, updated_at=outbox.clock.now())
        for number in range(90):
            set_provider(outbox.dns, f"d{number}.example", "aspmx.l.google.com")
        ids = await outbox.submit(*(f"ann@d{number}.example" for number in range(90)))
        await outbox.claim()

        async def some_wait() -> bool:
            return len(await _due_later(outbox, ids)) >= 25

        await outbox.until(some_wait)
        waiting = await _due_later(outbox, ids)
        assert {row["attempts"] for row in waiting} == {0}
        assert {row["last_reply"] for row in waiting} == {f"google is slowed down to 10 %: {SLOWER}"}
        assert outbox.deliverer.in_hand >= 60


async def test_an_operator_sees_and_ends_a_pause(outbox: Outbox, peer: Peer) -> None:
    [waiting] = await _pause(outbox, peer)
    [shown] = await queue_providers(outbox.relay)
    assert (shown["provider"], shown["pace"], shown["reason"]) == ("yahoo", 10, PAUSE)
    assert shown["paused_until"] == outbox.clock.now() + timedelta(minutes=60)
    peer.script = Script()
    assert await queue_resume(outbox.relay, provider="Yahoo") == {"resumed": "yahoo", "due": 1}
    await outbox.deliver()
    assert await outbox.state(waiting) == DELIVERED
    assert await queue_providers(outbox.relay) == []
    with pytest.raises(NotFound, match="nothing is wrong with yahoo"):
        await queue_resume(outbox.relay, provider="yahoo")


async def test_metrics_show_the_pace_of_those_that_are_not_normal(outbox: Outbox, peer: Peer) -> None:
    await _pause(outbox, peer)
    async with running_http(outbox.relay) as http:
        assert 'plunk_relay_provider_pace_percent{provider="yahoo"} 0.0\n' in (await http.get("/metrics")).text
        outbox.clock.advance(minutes=61)
        assert 'plunk_relay_provider_pace_percent{provider="yahoo"} 10.0\n' in (await http.get("/metrics")).text
        await queue_resume(outbox.relay, provider="yahoo")
        assert "yahoo" not in (await http.get("/metrics")).text


async def test_captured_and_smarthost_mail_asks_nobody_for_its_provider(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://127.0.0.1:{peer.port}"}
    peer.script = Script(mail=PAUSE)
    async with running_outbox(prepared, tmp_path, **settings) as outbox:
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        assert (await outbox.delivery(delivery_id))["attempts"] == 1
        assert await rows(outbox.relay, provider_states) == []
        assert outbox.dns.questions == []


async def test_mail_whose_dns_is_in_trouble_holds_no_connection(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=1) as outbox:
        outbox.dns.fail("silent.example", "MX", "silent")
        set_exchangers(outbox.dns, "other.example", "127.0.0.1")
        await outbox.submit("ann@silent.example")
        [other] = await outbox.submit("ann@other.example")
        await outbox.claim()
        await peer.until(lambda peer: peer.taken)

        async def delivered() -> bool:
            return await outbox.state(other) == DELIVERED

        await outbox.until(delivered)
        assert outbox.deliverer.in_hand == 1


async def _pause(outbox: Outbox, peer: Peer) -> list[str]:
    """Let Yahoo ask for a break with one.example; return the delivery to two.example that waits for it."""
    peer.script = Script(mail=PAUSE)
    for name in ("one", "two"):
        set_provider(outbox.dns, f"{name}.example", "mta5.am0.yahoodns.net")
    await outbox.submit("ann@one.example")
    await outbox.deliver()
    waiting = await outbox.submit("ann@two.example")
    await outbox.deliver()
    return waiting


async def _due_later(outbox: Outbox, ids: list[str]) -> list[dict[str, Any]]:
    found = [await outbox.delivery(one) for one in ids]
    return [row for row in found if row["lease_owner"] is None and row["due_at"] > outbox.clock.now()]


async def _pace(outbox: Outbox) -> dict[str, int]:
    return {row["provider"]: row["pace"] for row in await rows(outbox.relay, provider_states)}
