"""When is a mail brought to the very host that had it before? After greylisting, and when nobody knows."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import deliveries
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.store import change

GREY = "450 4.7.1 greylisted, come back later + close"
MANY = 6


@asynccontextmanager
async def many_addresses(
    prepared: Prepared, directory: Path, script: Script, **delivery: Any
) -> AsyncIterator[tuple[Outbox, list[Peer]]]:
    """Run equal exchangers of example.org with two addresses each: which one is asked first is chance."""
    async with AsyncExitStack() as stack:
        peers: list[Peer] = []
        for number in range(1, MANY + 1):
            port = peers[0].port if peers else 0
            peers.append(await stack.enter_async_context(running_peer(script, host=f"127.0.0.{number}", port=port)))
        outbox = await stack.enter_async_context(running_outbox(prepared, directory, port=peers[0].port, **delivery))
        outbox.dns.set("example.org", "MX", *(f"10 mx{n}.example.org." for n in range(1, MANY // 2 + 1)))
        for number in range(1, MANY // 2 + 1):
            outbox.dns.set(f"mx{number}.example.org", "A", f"127.0.0.{2 * number - 1}", f"127.0.0.{2 * number}")
        yield outbox, peers


def asked(peers: list[Peer]) -> list[str]:
    """Return the hosts that were asked to take mail."""
    return [peer.host for peer in peers for command in peer.commands if command.startswith("MAIL")]


@pytest.mark.parametrize(
    "script",
    [
        Script(mail=GREY),
        Script(rcpt=GREY),
        Script(rcpt="451 4.2.0 come back later + close"),
        Script(rcpt="450 busy + close"),
        Script(dot="451 4.7.1 greylisted + close"),
    ],
    ids=["mail", "rcpt", "4.2.0", "no status", "dot"],
)
async def test_a_greylisted_mail_comes_back_to_the_same_address(prepared: Prepared, tmp_path: Path, script: Script) -> None:
    async with many_addresses(prepared, tmp_path, script) as (outbox, peers):
        [delivery_id] = await outbox.submit("ann@example.org")
        for _ in range(5):
            await outbox.deliver()
            outbox.clock.advance(hours=1)
        hosts = asked(peers)
        assert hosts == [hosts[0]] * 5
        assert (await outbox.delivery(delivery_id))["last_address"] == hosts[0]


async def test_a_mail_without_a_reply_comes_back_to_the_same_address_first(prepared: Prepared, tmp_path: Path) -> None:
    async with many_addresses(prepared, tmp_path, Script(dot="close")) as (outbox, peers):
        await outbox.submit("ann@example.org")
        for _ in range(5):
            await outbox.deliver()
            outbox.clock.advance(hours=1)
        hosts = asked(peers)
        assert hosts == [hosts[0]] * 5
        messages = [received.message for peer in peers for received in peer.received]
        assert messages == [messages[0]] * 5
        assert messages[0].count(b"Message-ID: <1@acme.test>\r\n") == 1


async def test_another_host_gets_it_when_the_preferred_one_is_gone(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port) as outbox:
        set_exchangers(outbox.dns, "example.org", "127.0.0.1", "127.0.0.99")
        [delivery_id] = await outbox.submit("ann@example.org")
        await change(outbox.relay, deliveries, delivery_id, last_address="127.0.0.99")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        [attempt] = await outbox.attempts(delivery_id)
        first_line = attempt["conversation"].partition("\n")[0]
        assert first_line.endswith(f" *: connecting to mx2.example.org[127.0.0.99]:{peer.port}")


@pytest.mark.parametrize("reply", ["451 4.3.0 disk full", "452 4.2.2 mailbox full", "421 4.7.0 busy"])
async def test_a_host_in_trouble_is_not_preferred(outbox: Outbox, peer: Peer, reply: str) -> None:
    peer.script = Script(rcpt=reply)
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["attempts"], row["last_address"]) == (1, None)


async def test_loyalty_ends_after_some_attempts(prepared: Prepared, tmp_path: Path) -> None:
    async with many_addresses(prepared, tmp_path, Script(rcpt=GREY)) as (outbox, peers):
        ids = [one for number in range(4) for one in await outbox.submit(message=other_message(number))]
        for delivery_id in ids:
            await change(outbox.relay, deliveries, delivery_id, attempts=7, last_address="127.0.0.1")
        for _ in range(8):
            await outbox.deliver()
            outbox.clock.advance(hours=3)
        assert len(set(asked(peers))) > 1


async def test_an_open_connection_to_another_address_is_not_used_for_it(prepared: Prepared, tmp_path: Path) -> None:
    async with many_addresses(prepared, tmp_path, Script(), per_destination=1) as (outbox, peers):
        await outbox.submit("ann@example.org")
        await outbox.deliver()
        [first] = [peer.host for peer in peers if peer.taken]
        other = next(peer.host for peer in peers if peer.host != first)
        [delivery_id] = await outbox.submit("ann@example.org", message=other_message(2))
        await change(outbox.relay, deliveries, delivery_id, last_address=other)
        await outbox.deliver()
        assert sorted(peer.host for peer in peers if peer.taken) == sorted([first, other])


async def test_the_address_that_a_dead_process_was_talking_to_is_known(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="hang")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    assert (await outbox.delivery(delivery_id))["last_address"] == "127.0.0.1"


async def test_a_domain_and_a_host_always_see_the_same_source_address(prepared: Prepared, tmp_path: Path) -> None:
    sources = [f"127.0.1.{number}" for number in range(1, 9)]
    script = Script(rcpt=GREY)
    async with many_addresses(prepared, tmp_path, script, source_addresses=[*sources, "::1"]) as (outbox, peers):
        for number in range(12):
            await outbox.submit("ann@example.org", message=other_message(number))
            await outbox.deliver()
            outbox.clock.advance(hours=1)
        seen = [{session.peername for session in peer.sessions} for peer in peers if peer.sessions]
        assert all(len(addresses) == 1 for addresses in seen)
        assert set.union(*seen) <= set(sources)


async def test_different_domains_are_spread_over_the_source_addresses(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    sources = ["127.0.1.1", "127.0.1.2"]
    async with running_outbox(prepared, tmp_path, port=peer.port, source_addresses=sources) as outbox:
        for number in range(12):
            set_exchangers(outbox.dns, f"d{number}.example", "127.0.0.1")
        await outbox.submit(*(f"ann@d{number}.example" for number in range(12)))
        await outbox.deliver()
    assert {session.peername for session in peer.sessions} == set(sources)
