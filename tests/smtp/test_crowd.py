"""How many may come at once, and how often? By address, by network and all together; load tools are let alone."""

import ipaddress
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.smtp.crowd import Crowd, network_of
from plunk_relay.smtp.handler import DoorLimits
from tests.kit.smtp import Site, Stage, Wire, greeted, running_site, wire_to

_PROXY: dict[str, Any] = {"trusted_proxies": ["127.0.0.1/32"]}
"""Clients come through a proxy, so that they can have addresses of the whole world."""


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def crowd(watch: Watch | None = None, *, trusted: str = "10.0.0.0/8", **limits: int) -> Crowd:
    return Crowd(DoorLimits(**limits), [ipaddress.ip_network(trusted)], watch or Watch())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("local", "local"),
    ],
)
def test_an_address_is_counted_with_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_address_that_has_enough_connections_gets_no_more_until_one_ends() -> None:
    people = crowd(max_connections_per_ip=2)
    assert _codes(people, ["192.0.2.1"] * 3 + ["192.0.2.2"]) == [0, 0, 421, 0]
    people.leave("192.0.2.1")
    people.leave("192.0.2.1")
    assert _codes(people, ["192.0.2.1", "192.0.2.1"]) == [0, 421]


def test_a_network_that_has_enough_connections_gets_no_more_whatever_its_address() -> None:
    people = crowd(max_connections_per_network=3)
    assert _codes(people, [f"192.0.2.{n}" for n in range(4)] + ["192.0.3.1"]) == [0, 0, 0, 421, 0]
    assert _codes(people, [f"2001:db8:1:{n}::1" for n in range(4)] + ["2001:db8:2::1"]) == [0, 0, 0, 421, 0]
    people.leave("192.0.2.0")
    people.leave("192.0.2.3")
    assert _codes(people, ["192.0.2.9"]) == [0]


def test_a_door_has_room_for_so_many_whoever_they_are() -> None:
    people = crowd(max_connections=2)
    assert _codes(people, ["192.0.2.1", "198.51.100.1", "203.0.113.1", "10.0.0.1", "127.0.0.1"]) == [0, 0, 421, 421, 421]


def test_an_address_that_connects_too_often_waits_for_the_next_minute() -> None:
    watch = Watch()
    people = crowd(watch, max_new_per_minute=2)
    for _ in range(2):
        assert _visit(people, "192.0.2.1") == 0
    watch.seconds = 59.9
    assert _visit(people, "192.0.2.1") == 421
    assert _visit(people, "192.0.2.2") == 0
    watch.seconds = 60
    assert _visit(people, "192.0.2.1") == 0


def test_a_trusted_network_has_no_limits_of_its_own() -> None:
    people = crowd(max_connections_per_ip=1, max_connections_per_network=1, max_new_per_minute=1)
    assert _codes(people, ["10.1.2.3"] * 5) == [0] * 5


def test_this_machine_may_connect_as_often_as_it_likes() -> None:
    people = crowd(max_connections_per_ip=50, max_connections_per_network=1, max_new_per_minute=1)
    assert _codes(people, ["127.0.0.1"] * 5 + ["::1"] * 5 + ["local"] * 5) == [0] * 15


def test_who_is_gone_leaves_no_trace() -> None:
    people = crowd(max_connections=1, max_connections_per_ip=1, max_connections_per_network=1)
    for n in range(1000):
        assert _visit(people, f"198.51.{n % 250}.{n % 7}") == 0


async def test_a_network_is_refused_at_the_door(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, max_connections_per_network=2, **_PROXY) as site, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(wire_to(site.port)) for _ in range(4)]
        sources = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"]
        assert [await _arrive(wire, source) for wire, source in zip(wires, sources, strict=True)] == [
            "220 relay.test ESMTP Plunk Relay",
            "220 relay.test ESMTP Plunk Relay",
            "421 4.7.0 Too many connections from your network",
            "220 relay.test ESMTP Plunk Relay",
        ]
        assert await wires[2].line() is None


async def test_too_many_new_connections_a_minute_are_refused_at_the_door(stage: Stage, tmp_path: Path) -> None:
    opening = running_site(stage, tmp_path, max_new_connections_per_minute=3, **_PROXY)
    async with opening as site:
        assert [await _knock(site, "192.0.2.1") for _ in range(4)] == ["220", "220", "220", "421"]
        assert await _knock(site, "192.0.2.2") == "220"


async def test_a_full_door_refuses_everybody_and_opens_again(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, max_connections=1) as site:
        async with greeted(site.port), wire_to(site.port, source="127.0.0.2") as second:
            assert await second.reply() == "421 4.3.2 Too many connections; try again later"
            assert await second.line() is None
        await _until_let_in(site)


async def test_a_trusted_client_may_open_many_connections(stage: Stage, tmp_path: Path) -> None:
    trusted = [{"network": "127.0.0.1/32", "project": "acme"}]
    opening = running_site(stage, tmp_path, max_connections_per_ip=1, trusted=trusted)
    async with opening as site, greeted(site.port), greeted(site.port), greeted(site.port):
        pass


def _codes(people: Crowd, addresses: Iterable[str]) -> list[int]:
    """Let them enter; return the code of each refusal, 0 for none."""
    refusals = [people.enter(address) for address in addresses]
    return [refusal.code if refusal else 0 for refusal in refusals]


def _visit(people: Crowd, address: str) -> int:
    [code] = _codes(people, [address])
    people.leave(address)
    return code


async def _arrive(wire: Wire, source: str) -> str | None:
    await wire.send(f"PROXY TCP4 {source} 192.0.2.250 4000 587\r\n".encode())
    return await wire.reply()


async def _knock(site: Site, source: str) -> str:
    async with wire_to(site.port) as wire:
        return (await _arrive(wire, source) or "")[:3]


async def _until_let_in(site: Site) -> None:
    while True:
        async with wire_to(site.port) as wire:
            if (await wire.reply() or "").startswith("220 "):
                return
