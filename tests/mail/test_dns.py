"""What do we believe of the DNS, what is remembered, and for how long?"""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from plunk_relay.mail.dns import DnsTemporary, MxRecord, NameNotFound, Resolver
from tests.kit.dns import DnsTable, Fault, running_dns


@pytest.fixture
def table() -> DnsTable:
    return DnsTable()


@pytest.fixture
async def resolver(table: DnsTable) -> AsyncIterator[Resolver]:
    async with running_dns(table) as server:
        yield Resolver([server], query_seconds=0.3, total_seconds=0.3)


async def test_exchangers_are_lower_case_without_the_final_dot(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 MX.Example.ORG.", "20 mx2.example.org.")
    found = await resolver.mx("example.org")
    assert sorted(found, key=lambda record: record.preference) == [
        MxRecord(10, "mx.example.org"),
        MxRecord(20, "mx2.example.org"),
    ]


async def test_a_null_mx_is_an_empty_host(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "0 .")
    assert await resolver.mx("example.org") == [MxRecord(0, "")]


async def test_strings_of_one_txt_record_are_joined(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "TXT", "v=DKIM1; p=" + "A" * 400, "other")
    assert sorted(await resolver.txt("example.org")) == ["other", "v=DKIM1; p=" + "A" * 400]


async def test_a_name_without_such_records_is_an_empty_list(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "A", "192.0.2.1")
    assert await resolver.mx("example.org") == []
    assert await resolver.txt("example.org") == []


async def test_a_name_that_does_not_exist_is_told_apart(resolver: Resolver) -> None:
    with pytest.raises(NameNotFound, match=r"gone\.example"):
        await resolver.mx("gone.example")
    with pytest.raises(NameNotFound):
        await resolver.addresses("gone.example")


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "silent"])
async def test_a_server_that_cannot_tell_is_a_temporary_failure(table: DnsTable, resolver: Resolver, fault: Fault) -> None:
    table.fail("example.org", "MX", fault)
    with pytest.raises(DnsTemporary, match=r"MX look-up of example\.org failed"):
        await resolver.mx("example.org")


async def test_a_server_that_is_not_there_is_a_temporary_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody reads
        resolver = Resolver([f"127.0.0.1:{taken.getsockname()[1]}"], query_seconds=0.1, total_seconds=0.1)
        with pytest.raises(DnsTemporary, match="no server answered in time"):
            await resolver.mx("example.org")


async def test_the_next_server_is_asked_when_one_fails(table: DnsTable) -> None:
    broken = DnsTable()
    broken.fail("example.org", "MX", "SERVFAIL")
    table.set("example.org", "MX", "10 mx.example.org.")
    async with running_dns(broken) as first, running_dns(table) as second:
        assert await Resolver([first, second]).mx("example.org") == [MxRecord(10, "mx.example.org")]


async def test_a_truncated_answer_is_fetched_over_tcp(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    table.fail("example.org", "MX", "truncated")
    assert await resolver.mx("example.org") == [MxRecord(10, "mx.example.org")]


async def test_both_families_of_addresses_are_found(table: DnsTable, resolver: Resolver) -> None:
    table.set("mx.example.org", "A", "192.0.2.1", "192.0.2.2")
    table.set("mx.example.org", "AAAA", "2001:db8::1")
    assert sorted(await resolver.addresses("mx.example.org")) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]


async def test_one_family_that_fails_does_not_lose_the_other(table: DnsTable, resolver: Resolver) -> None:
    table.set("mx.example.org", "A", "192.0.2.1")
    table.fail("mx.example.org", "AAAA", "SERVFAIL")
    assert await resolver.addresses("mx.example.org") == ["192.0.2.1"]


async def test_a_failure_counts_more_than_an_absence(table: DnsTable, resolver: Resolver) -> None:
    table.fail("mx.example.org", "A", "SERVFAIL")
    with pytest.raises(DnsTemporary):
        await resolver.addresses("mx.example.org")


async def test_aliases_are_followed(table: DnsTable, resolver: Resolver) -> None:
    for number in range(5):
        table.set(f"a{number}.example.org", "CNAME", f"a{number + 1}.example.org.")
    table.set("a5.example.org", "A", "192.0.2.1")
    assert await resolver.addresses("a0.example.org") == ["192.0.2.1"]


async def test_aliases_that_lead_round_in_a_circle_are_a_temporary_failure(table: DnsTable, resolver: Resolver) -> None:
    table.set("a.example.org", "CNAME", "b.example.org.")
    table.set("b.example.org", "CNAME", "a.example.org.")
    with pytest.raises(DnsTemporary):
        await resolver.mx("a.example.org")


async def test_an_answer_is_remembered(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    for _ in range(3):
        assert await resolver.mx("Example.ORG") == [MxRecord(10, "mx.example.org")]
    assert table.questions == [("example.org", "MX")]


async def test_an_absence_is_remembered(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "A", "192.0.2.1")
    for _ in range(3):
        with pytest.raises(NameNotFound):
            await resolver.mx("gone.example")
        assert await resolver.mx("example.org") == []
    assert sorted(table.questions) == [("example.org", "MX"), ("gone.example", "MX")]


async def test_a_failure_is_not_remembered(table: DnsTable, resolver: Resolver) -> None:
    table.fail("example.org", "MX", "SERVFAIL")
    with pytest.raises(DnsTemporary):
        await resolver.mx("example.org")
    table.set("example.org", "MX", "10 mx.example.org.")
    assert await resolver.mx("example.org") == [MxRecord(10, "mx.example.org")]


async def test_an_answer_with_ttl_0_is_asked_for_again(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.", ttl=0)
    await resolver.mx("example.org")
    table.set("example.org", "MX", "10 new.example.org.", ttl=0)
    assert await resolver.mx("example.org") == [MxRecord(10, "new.example.org")]


async def test_an_answer_lives_no_longer_than_the_alias_it_came_through(table: DnsTable, resolver: Resolver) -> None:
    table.set("www.example.org", "CNAME", "a.example.org.", ttl=0)
    table.set("a.example.org", "A", "192.0.2.1")
    table.set("b.example.org", "A", "192.0.2.2")
    assert await resolver.addresses("www.example.org") == ["192.0.2.1"]
    table.set("www.example.org", "CNAME", "b.example.org.", ttl=0)
    assert await resolver.addresses("www.example.org") == ["192.0.2.2"]


async def test_what_is_forgotten_is_asked_for_again(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "TXT", "old")
    assert await resolver.txt("example.org") == ["old"]
    table.set("example.org", "TXT", "new")
    resolver.forget("EXAMPLE.org")
    assert await resolver.txt("example.org") == ["new"]


async def test_equal_questions_at_once_are_asked_once(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.", ttl=0)
    answers = await asyncio.gather(*(resolver.mx("example.org") for _ in range(50)))
    assert answers == [[MxRecord(10, "mx.example.org")]] * 50
    assert table.questions == [("example.org", "MX")]


async def test_equal_questions_at_once_share_a_failure(table: DnsTable, resolver: Resolver) -> None:
    table.fail("example.org", "MX", "REFUSED")
    answers = await asyncio.gather(*(resolver.mx("example.org") for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DnsTemporary] * 10


async def test_who_waits_for_an_answer_is_not_hurt_by_one_who_gives_up(table: DnsTable, resolver: Resolver) -> None:
    table.set("example.org", "MX", "10 mx.example.org.")
    impatient = asyncio.create_task(resolver.mx("example.org"))
    patient = asyncio.create_task(resolver.mx("example.org"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == [MxRecord(10, "mx.example.org")]


async def test_international_names_are_asked_for_as_a_labels(table: DnsTable, resolver: Resolver) -> None:
    table.set("xn--bcher-kva.example", "MX", "10 mx.example.org.")
    assert await resolver.mx("Bücher.example") == [MxRecord(10, "mx.example.org")]


@pytest.mark.parametrize("server", ["127.0.0.1:5353", "127.0.0.1", "::1", "[::1]:5353"])
def test_servers_are_written_with_or_without_a_port(server: str) -> None:
    Resolver([server])


@pytest.mark.parametrize("server", ["localhost", "127.0.0.1:dns", ""])
def test_a_server_that_is_no_address_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Resolver([server])
