"""Which of a domain's hosts gets the mail when some of them refuse or are gone?"""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.worker import Deliverer
from plunk_relay.mail.dns import Resolver
from tests.kit.dns import Fault
from tests.kit.outbox import Outbox, Prepared, running_outbox, set_exchangers, usual_dns
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.silence import silent_listener

NOBODY = "127.0.0.99"


@asynccontextmanager
async def hosts(prepared: Prepared, directory: Path, *scripts: Script | None) -> AsyncIterator[tuple[Outbox, list[Peer]]]:
    """Run the exchangers of example.org, best one first; None: its address does not answer."""
    async with AsyncExitStack() as stack:
        peers: list[Peer] = []
        for number, script in enumerate(scripts, 1):
            if script is not None:
                port = peers[0].port if peers else 0
                peers.append(await stack.enter_async_context(running_peer(script, host=f"127.0.0.{number}", port=port)))
        dns = usual_dns()
        addresses = [f"127.0.0.{n}" if script is not None else NOBODY for n, script in enumerate(scripts, 1)]
        set_exchangers(dns, "example.org", *addresses)
        port = peers[0].port if peers else 1
        yield await stack.enter_async_context(running_outbox(prepared, directory, dns=dns, port=port)), peers


@pytest.mark.parametrize(
    "first",
    [
        None,
        Script(banner="554 5.7.1 go away"),
        Script(banner="421 4.3.2 busy"),
        Script(banner="close"),
        Script(ehlo="554 5.7.1 no", helo="554 5.7.1 no"),
        Script(mail="550 5.7.1 not you"),
        Script(keywords=["SIZE 10"]),
    ],
    ids=["gone", "banner 5xx", "banner 421", "banner close", "ehlo 5xx", "mail 5xx", "size"],
)
async def test_a_host_that_does_not_take_it_is_followed_by_the_next(
    prepared: Prepared, tmp_path: Path, first: Script | None
) -> None:
    async with hosts(prepared, tmp_path, first, Script()) as (outbox, peers):
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        assert len(peers[-1].taken) == 1
        [attempt] = await outbox.attempts(delivery_id)
        assert attempt["host"] == f"mx2.example.org[127.0.0.2]:{peers[-1].port}"
        assert "mx.example.org[" in attempt["conversation"]


@pytest.mark.parametrize(
    "first",
    [
        Script(mail="451 4.7.1 greylisted"),
        Script(rcpt="450 4.2.0 greylisted"),
        Script(rcpt="550 5.1.1 no such user"),
        Script(dot="554 5.7.1 spam"),
        Script(dot="451 4.3.0 disk full"),
    ],
    ids=["mail 4xx", "rcpt 4xx", "rcpt 5xx", "dot 5xx", "dot 4xx"],
)
async def test_an_answer_about_the_mail_is_not_asked_for_twice(prepared: Prepared, tmp_path: Path, first: Script) -> None:
    async with hosts(prepared, tmp_path, first, Script()) as (outbox, peers):
        await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert peers[1].sessions == []


@pytest.mark.parametrize(
    ("scripts", "state"),
    [
        ([None, None], "QUEUED"),
        ([Script(banner="554 5.7.1 no"), Script(banner="554 5.7.1 no")], "BOUNCED"),
        ([Script(mail="550 5.7.1 no"), Script(mail="550 5.7.1 no")], "BOUNCED"),
        ([Script(mail="550 5.7.1 no"), Script(banner="554 5.7.1 no")], "BOUNCED"),
        ([Script(banner="554 5.7.1 no"), None], "QUEUED"),
        ([None, Script(banner="554 5.7.1 no")], "QUEUED"),
        ([Script(mail="550 5.7.1 no"), None], "QUEUED"),
        ([None, Script(mail="550 5.7.1 no")], "QUEUED"),
        ([None, Script(mail="550 5.7.1 no"), Script(banner="554 5.7.1 no")], "QUEUED"),
    ],
    ids=["gone, gone", "no, no", "m, m", "m, no", "no, gone", "gone, no", "m, gone", "gone, m", "gone, m, no"],
)
async def test_a_mail_bounces_only_when_every_host_refused_it(
    prepared: Prepared, tmp_path: Path, scripts: list[Script | None], state: str
) -> None:
    async with hosts(prepared, tmp_path, *scripts) as (outbox, _):
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert (await outbox.delivery(delivery_id))["state"] == state
        await outbox.check_ledger()


async def test_a_refusal_at_mail_on_an_open_connection_is_followed_by_the_next_host(
    prepared: Prepared, tmp_path: Path
) -> None:
    first = Script(mail=["250 2.1.0 ok", "550 5.7.1 not you"])
    async with hosts(prepared, tmp_path, first, Script()) as (outbox, peers):
        for _ in range(2):
            [delivery_id] = await outbox.submit("ann@example.org")
            await outbox.deliver()
            assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        assert [len(peer.taken) for peer in peers] == [1, 1]


async def test_a_refusal_at_mail_by_the_only_host_keeps_the_connection(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail=["550 5.7.1 not you", "250 2.1.0 ok", "550 5.7.1 not you", "250 2.1.0 ok"])
    states = []
    for _ in range(4):
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        states.append((await outbox.delivery(delivery_id))["state"])
    assert states == ["BOUNCED", "DELIVERED"] * 2
    assert len(peer.sessions) == 1


@pytest.mark.parametrize(
    ("domain", "reply", "state"),
    [
        ("gone.example", "550 5.1.2 the domain gone.example does not exist", ("BOUNCED", "BOUNCED")),
        ("null.example", "556 5.1.10 null.example accepts no mail (null MX)", ("BOUNCED", "BOUNCED")),
        (
            "inside.example",
            "554 5.4.6 inside.example points to an address that mail may not go to",
            ("BOUNCED", "FAILED"),
        ),
        (
            "loop.example",
            "554 5.4.6 the best mail exchanger of loop.example is this server itself",
            ("BOUNCED", "FAILED"),
        ),
        ("servfail.example", "451 4.4.3 MX look-up of servfail.example failed", ("QUEUED", "PENDING")),
        ("refused.example", "451 4.4.3 MX look-up of refused.example failed", ("QUEUED", "PENDING")),
    ],
)
async def test_what_the_dns_says_decides_without_a_connection(
    outbox: Outbox, peer: Peer, domain: str, reply: str, state: tuple[str, str]
) -> None:
    outbox.dns.set("null.example", "MX", "0 .")
    outbox.dns.set("inside.example", "MX", "10 mx.inside.example.")
    outbox.dns.set("mx.inside.example", "A", "10.0.0.1")
    outbox.dns.set("loop.example", "MX", "10 relay.test.", "20 mx.example.org.")
    for name in ("servfail.example", "refused.example"):
        outbox.dns.set(name, "A", "127.0.0.1")
    outbox.dns.fail("servfail.example", "MX", "SERVFAIL")
    outbox.dns.fail("refused.example", "MX", "REFUSED")
    [delivery_id] = await outbox.submit(f"ann@{domain}")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == state
    [attempt] = await outbox.attempts(delivery_id)
    assert attempt["reply"].startswith(reply)
    assert (attempt["host"], attempt["tls"]) == (None, None)
    assert peer.sessions == []


async def test_a_domain_without_exchangers_is_delivered_to_its_address(outbox: Outbox, peer: Peer) -> None:
    outbox.dns.set("bare.example", "A", "127.0.0.1")
    [delivery_id] = await outbox.submit("ann@bare.example")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert peer.taken[0].recipients == ("ann@bare.example",)


async def test_an_international_domain_is_found_and_written_by_its_a_labels(outbox: Outbox, peer: Peer) -> None:
    set_exchangers(outbox.dns, "xn--bcher-kva.example", "127.0.0.1")
    [delivery_id] = await outbox.submit("ann@Bücher.example")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert peer.taken[0].recipients == ("ann@xn--bcher-kva.example",)


@pytest.mark.parametrize(
    ("fault", "attempts"), [("truncated", 1), ("late", 1), ("SERVFAIL", 2), ("REFUSED", 2), ("silent", 2)]
)
async def test_a_dns_server_in_trouble_costs_no_mail(
    prepared: Prepared, tmp_path: Path, peer: Peer, fault: Fault, attempts: int
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port) as outbox:
        [resolver] = outbox.relay.settings.delivery.resolvers
        relay = replace(outbox.relay, resolver=Resolver([str(resolver)], query_seconds=0.3, total_seconds=1))
        outbox.deliverer = await outbox.stack.enter_async_context(Deliverer(relay))
        outbox.dns.set("example.org", "A", "127.0.0.99")  # what must not be fallen back to
        outbox.dns.fail("example.org", "MX", fault)
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        set_exchangers(outbox.dns, "example.org", "127.0.0.1")
        outbox.clock.advance(minutes=2)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        tried = await outbox.attempts(delivery_id)
        assert len(tried) == attempts
        assert not any("127.0.0.99" in attempt["conversation"] for attempt in tried)
        await outbox.deliverer.finish(0)


async def test_aliases_lead_to_the_exchanger_and_the_recipient_keeps_its_domain(outbox: Outbox, peer: Peer) -> None:
    outbox.dns.set("alias.example", "CNAME", "example.org.")
    set_exchangers(outbox.dns, "cname.example", "127.0.0.1")
    outbox.dns.remove("mx.cname.example", "A")
    outbox.dns.set("mx.cname.example", "CNAME", "mx.example.org.")
    for domain in ("alias.example", "cname.example"):
        [delivery_id] = await outbox.submit(f"ann@{domain}")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert [received.recipients for received in peer.taken] == [("ann@alias.example",), ("ann@cname.example",)]


async def test_aliases_that_lead_round_in_a_circle_wait(outbox: Outbox, peer: Peer) -> None:
    outbox.dns.set("a.example", "CNAME", "b.example.")
    outbox.dns.set("b.example", "CNAME", "a.example.")
    [delivery_id] = await outbox.submit("ann@a.example")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("QUEUED", "PENDING")
    assert peer.sessions == []


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]"])
async def test_an_address_in_brackets_is_delivered_to_without_the_dns(
    prepared: Prepared, tmp_path: Path, literal: str
) -> None:
    async with (
        running_peer(host="::1" if "::1" in literal else "127.0.0.1") as peer,
        running_outbox(prepared, tmp_path, port=peer.port, allow_networks=["127.0.0.1", "::1"]) as outbox,
    ):
        [delivery_id] = await outbox.submit(f"ann@{literal}")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        assert [recipient.lower() for recipient in peer.taken[0].recipients] == [f"ann@{literal}".lower()]
        assert outbox.dns.questions == []


async def test_both_addresses_of_a_host_are_asked_before_the_next_host(prepared: Prepared, tmp_path: Path) -> None:
    no = Script(banner="554 5.7.1 go away")
    async with hosts(prepared, tmp_path, no, no, Script()) as (outbox, peers):
        outbox.dns.set("example.org", "MX", "10 mx.example.org.", "20 mx3.example.org.")
        outbox.dns.set("mx.example.org", "A", "127.0.0.1", "127.0.0.2")
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        assert [len(peer.sessions) for peer in peers] == [1, 1, 1]
        [attempt] = await outbox.attempts(delivery_id)
        asked = re.findall(r"connecting to (mx\d?)\.", attempt["conversation"])
        assert asked == ["mx", "mx", "mx3"]


async def test_at_most_five_hosts_with_two_addresses_each_are_tried(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port) as outbox:
        outbox.dns.set("example.org", "MX", *(f"{n} mx{n}.example.org." for n in range(10, 17)))
        for number in range(10, 17):
            outbox.dns.set(f"mx{number}.example.org", "A", *(f"127.0.{number}.{n}" for n in range(1, 4)))
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        [attempt] = await outbox.attempts(delivery_id)
        asked = re.findall(r"connecting to mx(\d+)\.", attempt["conversation"])
        assert asked == [str(number) for number in range(10, 15) for _ in range(2)]


@pytest.mark.slow
async def test_the_other_family_is_tried_within_seconds_when_one_stays_silent(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    settings: dict[str, Any] = {"connect_seconds": 1000, "allow_networks": ["127.0.0.0/8", "::1"]}
    async with running_outbox(prepared, tmp_path, port=peer.port, **settings) as outbox:
        outbox.dns.set("mx.example.org", "AAAA", "::1")
        with silent_listener("::1", peer.port):
            [delivery_id] = await outbox.submit("ann@example.org")
            await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        [attempt] = await outbox.attempts(delivery_id)
        assert f"connecting to mx.example.org[::1]:{peer.port}" in attempt["conversation"]
        assert attempt["host"] == f"mx.example.org[127.0.0.1]:{peer.port}"
