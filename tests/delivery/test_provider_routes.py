"""Which way does mail go whose route depends on whose exchangers the recipient's domain has?"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.routes import RouteTable
from plunk_relay.errors import UsageError
from plunk_relay.sections import DeliveryRoute, DeliverySettings
from tests.kit.outbox import Prepared, other_message, running_outbox, set_exchangers, set_provider
from tests.kit.peer import Peer, running_peer
from tests.kit.relay import make_settings

DELIVERED, SENT = ("DELIVERED", "DELIVERED"), ("DELIVERED", "SENT")


@pytest.fixture
async def smart() -> AsyncIterator[Peer]:
    """Run a smarthost."""
    async with running_peer(host="127.0.0.3") as running:
        yield running


def _by_smarthost(smart: Peer, **whose: str) -> dict[str, Any]:
    return {**whose, "route": "smarthost", "smarthost_url": f"smtp://127.0.0.3:{smart.port}"}


async def test_every_domain_of_the_provider_takes_its_route_and_others_the_default(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="google")]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        set_provider(outbox.dns, "two.example", "smtp.google.com")
        ids = await outbox.submit("ann@one.example", "bob@two.example", "cid@example.org")
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [SENT, SENT, DELIVERED]
        assert [message.recipients for message in peer.taken] == [("cid@example.org",)]


async def test_a_provider_can_be_named_by_a_domain_of_its_exchangers(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="GoogleMail.com"), _by_smarthost(smart, provider="hoster.example")]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        set_provider(outbox.dns, "two.example", "mx3.hoster.example")
        ids = await outbox.submit("ann@one.example", "bob@two.example")
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [SENT, SENT]


async def test_a_route_by_domain_goes_before_one_by_provider_and_asks_no_dns(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="google"), {"domain": "one.example", "route": "capture"}]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        [delivery_id] = await outbox.submit("ann@one.example")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == DELIVERED
        assert (smart.sessions, peer.sessions, outbox.dns.questions) == ([], [], [])


async def test_a_provider_can_go_directly_where_the_default_is_a_smarthost(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://127.0.0.3:{smart.port}"}
    routes = [{"provider": "google", "route": "mx"}]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes, **settings) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        ids = await outbox.submit("ann@one.example", "cid@example.org")
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED, SENT]


async def test_a_known_domain_is_looked_up_once(prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer) -> None:
    routes = [_by_smarthost(smart, provider="google")]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        for number in range(10):
            await outbox.submit("ann@one.example", message=other_message(number))
        await outbox.deliver()
        await outbox.submit("bob@one.example")
        await outbox.deliver()
        assert outbox.dns.questions == [("one.example", "MX")]


async def test_mail_whose_provider_the_dns_does_not_tell_waits_instead_of_taking_another_route(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="google")]
    settings: dict[str, Any] = {"route": "capture"}
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes, **settings) as outbox:
        outbox.dns.fail("one.example", "MX", "SERVFAIL")
        [delivery_id] = await outbox.submit("ann@one.example")
        await outbox.deliver()
        row = await outbox.delivery(delivery_id)
        assert (row["state"], row["attempts"]) == ("QUEUED", 1)
        assert row["last_reply"].startswith("451 4.4.3 MX look-up of one.example failed")
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        outbox.clock.advance(minutes=2)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == SENT


async def test_recipients_of_one_message_part_by_provider_and_share_a_transaction_within(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="google")]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_provider(outbox.dns, "one.example", "aspmx.l.google.com")
        await outbox.submit("ann@one.example", "bob@one.example", "cid@example.org", "dan@example.org")
        await outbox.deliver()
        assert [sorted(message.recipients) for message in smart.taken] == [["ann@one.example", "bob@one.example"]]
        assert [sorted(message.recipients) for message in peer.taken] == [["cid@example.org", "dan@example.org"]]


@pytest.mark.parametrize("whose", [{}, {"domain": "one.example", "provider": "google"}, {"domain": "", "provider": ""}])
def test_a_route_is_for_exactly_one_domain_or_provider(tmp_path: Path, whose: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"delivery.routes.0.*set exactly one of them"):
        make_settings(tmp_path, delivery={"routes": [{**whose, "route": "mx"}]})


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gogle", "did you mean google?"), ("nobody", "write a domain of its exchangers, such as example.net")],
)
def test_a_provider_nobody_knows_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        RouteTable(DeliverySettings(routes=(DeliveryRoute(provider=name, route="mx"),)))
    assert refused.value.message == f"setting `delivery.routes`: the provider {name} is not known; {hint}"


async def test_an_exchanger_that_is_shared_by_unlisted_domains_is_one_provider(
    prepared: Prepared, tmp_path: Path, peer: Peer, smart: Peer
) -> None:
    routes = [_by_smarthost(smart, provider="hoster.example")]
    async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
        set_exchangers(outbox.dns, "hoster.example", "127.0.0.1")
        [own] = await outbox.submit("ann@hoster.example")
        await outbox.deliver()
        assert await outbox.state(own) == SENT
