"""Which hosts are asked to take a domain's mail, in which order, and which never?"""

import ipaddress
from collections.abc import AsyncIterator

import pytest

from plunk_relay.mail.dns import Resolver
from plunk_relay.mail.hosts import Found, Host, Later, Refused, find_hosts, is_allowed
from tests.kit.dns import DnsTable, Fault, running_dns

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
PUBLIC = "8.8.4.4"


@pytest.fixture
def table() -> DnsTable:
    return DnsTable()


@pytest.fixture
async def resolver(table: DnsTable) -> AsyncIterator[Resolver]:
    async with running_dns(table) as server:
        yield Resolver([server], query_seconds=0.3, total_seconds=0.3)


async def test_the_lowest_preference_is_first(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "30 c.example.org.", "10 a.example.org.", "20 b.example.org.")
    for number, name in enumerate("abc", 1):
        table.set(f"{name}.example.org", "A", f"8.8.4.{number}")
    assert await find_hosts(resolver, "example.org") == Found(
        (Host("a.example.org", "8.8.4.1"), Host("b.example.org", "8.8.4.2"), Host("c.example.org", "8.8.4.3"))
    )


async def test_equal_preferences_are_shuffled(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 a.example.org.", "10 b.example.org.", "5 first.example.org.")
    for name in ("a", "b", "first"):
        table.set(f"{name}.example.org", "A", PUBLIC)
    orders = {tuple(await _names(resolver, "example.org")) for _ in range(64)}
    assert orders == {
        ("first.example.org", "a.example.org", "b.example.org"),
        ("first.example.org", "b.example.org", "a.example.org"),
    }


async def test_a_domain_without_exchangers_takes_mail_at_its_own_address(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "A", PUBLIC)
    assert await find_hosts(resolver, "example.org") == Found((Host("example.org", PUBLIC),))


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "silent"])
async def test_a_failed_look_up_of_exchangers_never_falls_back_to_the_address(
    table: DnsTable, resolver: Resolver, fault: Fault
) -> None:
    table.set("example.org", "A", PUBLIC)
    table.fail("example.org", "MX", fault)
    found = await find_hosts(resolver, "example.org")
    assert isinstance(found, Later)
    assert (found.reply.code, found.reply.enhanced) == (451, "4.4.3")
    assert ("example.org", "A") not in table.questions


async def test_a_domain_that_does_not_exist_is_refused(resolver: Resolver) -> None:
    assert await _refusal(resolver, "gone.example") == (550, "5.1.2")


async def test_a_null_mx_is_refused_at_once(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "0 .")
    table.set("example.org", "A", PUBLIC)
    assert await _refusal(resolver, "example.org") == (556, "5.1.10")


async def test_a_null_mx_beside_a_real_one_is_passed_over(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "0 .", "10 mx.example.org.")
    table.set("mx.example.org", "A", PUBLIC)
    assert await _names(resolver, "example.org") == ["mx.example.org"]


async def test_exchangers_without_an_address_are_passed_over(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 gone.example.org.", "20 mx.example.org.")
    table.set("mx.example.org", "A", PUBLIC)
    assert await _names(resolver, "example.org") == ["mx.example.org"]


async def test_no_exchanger_with_an_address_is_refused(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 gone.example.org.")
    table.set("example.org", "A", PUBLIC)
    assert await _refusal(resolver, "example.org") == (550, "5.1.2")


async def test_exchangers_whose_addresses_cannot_be_looked_up_wait(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 gone.example.org.", "20 mx.example.org.")
    table.fail("mx.example.org", "A", "SERVFAIL")
    assert isinstance(await find_hosts(resolver, "example.org"), Later)


async def test_our_own_host_and_all_worse_ones_are_left_out(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 a.example.org.", "20 Relay.test.", "20 b.example.org.", "30 c.example.org.")
    for name in ("a", "b", "c"):
        table.set(f"{name}.example.org", "A", PUBLIC)
    found = await find_hosts(resolver, "example.org", own_names=("relay.test",))
    assert found == Found((Host("a.example.org", PUBLIC),))


@pytest.mark.parametrize("records", [["10 relay.test."], ["10 relay.test.", "20 b.example.org."], []])
async def test_mail_does_not_loop_through_ourselves(table: DnsTable, resolver: Resolver, records: list[str]) -> None:
    domain = "example.org" if records else "relay.test"
    table.set(domain, "MX", *records)
    table.set(domain, "A", PUBLIC)
    table.set("b.example.org", "A", PUBLIC)
    found = await find_hosts(resolver, domain, own_names=("relay.test",))
    assert isinstance(found, Refused)
    assert (found.reply.code, found.reply.enhanced) == (554, "5.4.6")


@pytest.mark.parametrize(
    ("own", "left"), [("8.8.4.1", []), ("8.8.4.2", ["a"]), ("8.8.4.3", ["a"]), ("2a00::4", ["a", "b", "c"])]
)
async def test_a_host_that_leads_to_this_process_is_our_own_whatever_its_name(
    table: DnsTable, resolver: Resolver, own: str, left: list[str]
) -> None:
    table.set("example.org", "MX", "10 a.example.org.", "20 b.example.org.", "20 c.example.org.", "30 d.example.org.")
    for number, name in enumerate("abcd", 1):
        table.set(f"{name}.example.org", "A", f"8.8.4.{number}")
        table.set(f"{name}.example.org", "AAAA", f"2a00::{number}")
    found = await find_hosts(resolver, "example.org", own_addresses={own})
    if left:
        assert isinstance(found, Found)
        assert {host.name for host in found.hosts} == {f"{name}.example.org" for name in left}
    else:
        assert isinstance(found, Refused)
        assert (found.reply.code, found.reply.enhanced) == (554, "5.4.6")


async def test_a_better_host_that_cannot_be_looked_up_is_waited_for_before_our_own_is_refused(
    table: DnsTable, resolver: Resolver
) -> None:
    table.set("example.org", "MX", "10 a.example.org.", "20 b.example.org.")
    table.fail("a.example.org", "A", "SERVFAIL")
    table.set("b.example.org", "A", PUBLIC)
    assert isinstance(await find_hosts(resolver, "example.org", own_addresses={PUBLIC}), Later)


@pytest.mark.parametrize("prefer", ["8.8.3.2", "2a00::3:2"])
async def test_the_preferred_address_is_first_and_its_host_s_other_one_second(
    table: DnsTable, resolver: Resolver, prefer: str
) -> None:
    table.set("example.org", "MX", *(f"{n} mx{n}.example.org." for n in range(1, 5)))
    for number in range(1, 5):
        table.set(f"mx{number}.example.org", "A", f"8.8.{number}.1", f"8.8.{number}.2")
        table.set(f"mx{number}.example.org", "AAAA", f"2a00::{number}:1", f"2a00::{number}:2")
    for _ in range(10):
        found = await find_hosts(resolver, "example.org", prefer=prefer)
        assert isinstance(found, Found)
        assert found.hosts[0] == Host("mx3.example.org", prefer)
        names = [host.name for host in found.hosts]
        assert names == [f"mx{n}.example.org" for n in (3, 3, 1, 1, 2, 2, 4, 4)]
        assert {":" in host.address for host in found.hosts[:2]} == {True, False}


async def test_the_preferred_address_is_found_among_many_equal_hosts(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", *(f"10 mx{n}.example.org." for n in range(12)))
    for number in range(12):
        table.set(f"mx{number}.example.org", "A", f"8.8.4.{number}")
    for _ in range(10):
        found = await find_hosts(resolver, "example.org", prefer="8.8.4.7")
        assert isinstance(found, Found)
        assert (found.hosts[0].address, len(found.hosts)) == ("8.8.4.7", 5)


@pytest.mark.parametrize("prefer", ["8.8.9.9", "10.0.0.1"])
async def test_a_preferred_address_that_is_not_or_must_not_be_used_changes_nothing(
    table: DnsTable, resolver: Resolver, prefer: str
) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "A", PUBLIC, "10.0.0.1")
    found = await find_hosts(resolver, "example.org", prefer=prefer)
    assert found == Found((Host("mx.example.org", PUBLIC),))


async def test_at_most_five_hosts_with_two_addresses_each(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", *(f"{n} mx{n}.example.org." for n in range(10, 20)))
    for number in range(10, 20):
        table.set(f"mx{number}.example.org", "A", *(f"8.8.{number}.{n}" for n in range(1, 6)))
        table.set(f"mx{number}.example.org", "AAAA", *(f"2a00:{number}::{n}" for n in range(1, 6)))
    found = await find_hosts(resolver, "example.org")
    assert isinstance(found, Found)
    assert [host.name for host in found.hosts] == [f"mx{n}.example.org" for n in range(10, 15) for _ in range(2)]
    families = [":" in host.address for host in found.hosts]
    assert families == [True, False] * 5


async def test_two_addresses_of_the_only_family_are_tried(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "A", "8.8.4.1", "8.8.4.2", "8.8.4.3")
    found = await find_hosts(resolver, "example.org")
    assert isinstance(found, Found)
    assert len({host.address for host in found.hosts}) == len(found.hosts) == 2


async def test_an_exchanger_named_twice_is_tried_once(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.", "20 mx.example.org.")
    table.set("mx.example.org", "A", PUBLIC)
    assert await _names(resolver, "example.org") == ["mx.example.org"]


async def test_a_private_address_is_refused(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "A", "10.0.0.1")
    assert await _refusal(resolver, "example.org") == (554, "5.4.6")


async def test_a_private_address_beside_a_public_one_is_passed_over(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "A", "10.0.0.1", PUBLIC)
    assert await find_hosts(resolver, "example.org") == Found((Host("mx.example.org", PUBLIC),))


async def test_a_listed_network_is_allowed(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "A", "127.0.0.1")
    found = await find_hosts(resolver, "example.org", allow_networks=[LOOPBACK])
    assert found == Found((Host("example.org", "127.0.0.1"),))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2001:db8::1",
    ],
)
def test_mail_goes_to_no_address_inside(address: str) -> None:
    assert not is_allowed(address, [])


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4001:801::200e", "::ffff:8.8.8.8"])
def test_mail_goes_to_public_addresses(address: str) -> None:
    assert is_allowed(address, [])


def test_a_listed_network_is_allowed_in_its_mapped_form() -> None:
    assert is_allowed("::ffff:127.0.0.1", [LOOPBACK])


@pytest.mark.parametrize(
    ("literal", "address"), [("[8.8.4.4]", "8.8.4.4"), ("[ipv6:2a00::1]", "2a00::1"), ("[IPv6:2a00::1]", "2a00::1")]
)
async def test_an_address_literal_is_the_host(table: DnsTable, resolver: Resolver, literal: str, address: str) -> None:
    assert await find_hosts(resolver, literal) == Found((Host(literal, address),))
    assert table.questions == []


async def test_an_address_literal_that_leads_to_this_process_is_refused(resolver: Resolver) -> None:
    found = await find_hosts(resolver, "[8.8.4.4]", own_addresses={PUBLIC})
    assert isinstance(found, Refused)
    assert (found.reply.code, found.reply.enhanced) == (554, "5.4.6")


@pytest.mark.parametrize(
    ("literal", "refusal"), [("[127.0.0.1]", (554, "5.4.6")), ("[nonsense]", (550, "5.1.2")), ("[", (550, "5.1.2"))]
)
async def test_a_bad_address_literal_is_refused(resolver: Resolver, literal: str, refusal: tuple[int, str]) -> None:
    assert await _refusal(resolver, literal) == refusal


async def _names(resolver: Resolver, domain: str) -> list[str]:
    found = await find_hosts(resolver, domain)
    assert isinstance(found, Found)
    return [host.name for host in found.hosts]


async def _refusal(resolver: Resolver, domain: str) -> tuple[int, str | None]:
    found = await find_hosts(resolver, domain)
    assert isinstance(found, Refused)
    return found.reply.code, found.reply.enhanced
