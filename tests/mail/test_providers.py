"""Whose exchangers are these? The table, the registered domain, and what the DNS says."""

import pytest

from plunk_relay.mail.dns import DnsTemporary, Resolver
from plunk_relay.mail.providers import (
    NO_PROVIDER,
    BadProviders,
    Limits,
    ProviderFinder,
    ProviderTable,
    built_in,
    provider_of,
)
from tests.kit.dns import DnsTable, running_dns

TABLE = """
[unlisted]
connections = 7
slowed_messages_per_minute = 60
[[provider]]
name = "big"
mx = ["big.example", "mail.other.example"]
connections = 3
messages_per_connection = 10
messages_per_minute = 30
[[provider]]
name = "bigger"
mx = ["eu.big.example"]
connections = 4
messages_per_connection = 20
"""


@pytest.mark.parametrize(
    ("exchanger", "provider"),
    [
        ("aspmx.l.google.com", "google"),
        ("ALT1.ASPMX.L.GOOGLE.COM.", "google"),
        ("smtp.google.com", "google"),
        ("outlook-com.olc.protection.outlook.com", "microsoft"),
        ("acme-com.mail.protection.outlook.com", "microsoft365"),
        ("acme-com.k-v1.mx.microsoft", "microsoft365"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "icloud"),
        ("mx00.emig.gmx.net", "gmx"),
        ("mx-ha02.web.de", "gmx"),
        ("mx00.kundenserver.de", "gmx"),
        ("mx01.t-online.de", "t-online"),
        ("mail.protonmail.ch", "proton"),
        ("mx.zoho.eu", "zoho"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("mx0a-00012345.pphosted.com", "proofpoint"),
        ("mx1a1.comcast.net", "comcast"),
        ("mx1.mail.ovh.net", "ovh"),
    ],
)
def test_the_table_knows_the_exchangers_of_the_large_providers(exchanger: str, provider: str) -> None:
    assert provider_of(exchanger) == provider


@pytest.mark.parametrize(
    ("exchanger", "provider"),
    [
        ("mx1.mail.example.org", "example.org"),
        ("mx.example.co.uk", "example.co.uk"),
        ("notgoogle.com", "notgoogle.com"),
        ("google.com.example.net", "example.net"),
        ("localhost", "localhost"),
    ],
)
def test_other_exchangers_are_grouped_by_their_registered_domain(exchanger: str, provider: str) -> None:
    assert provider_of(exchanger) == provider


def test_the_longest_suffix_counts() -> None:
    table = ProviderTable.read(TABLE)
    assert [table.provider_of(f"mx1.{name}") for name in ("big.example", "eu.big.example", "mail.other.example")] == [
        "big",
        "bigger",
        "big",
    ]


def test_an_entry_has_its_numbers_and_others_those_of_unlisted() -> None:
    table = ProviderTable.read(TABLE)
    assert table.limits_of("big") == Limits(3, 10, 30, 60)
    assert table.limits_of("bigger") == Limits(4, 20, None, 60)
    assert table.limits_of("example.org") == Limits(7, None, None, 60)


def test_the_table_of_the_package_is_whole() -> None:
    table = built_in()
    assert len(table.names) > 40
    for name in table.names:
        limits = table.limits_of(name)
        assert 1 <= limits.connections <= 20
        assert limits.messages_per_connection is not None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("connections = 3", "connections = 0"), "provider big: connections is a whole number from 1 up"),
        (("connections = 3", "connektions = 3"), "provider big: unknown key connektions"),
        (('name = "bigger"', 'name = "big"'), "provider big: there are two of this name"),
        (('name = "bigger"', ""), "an entry has no name"),
        (('"eu.big.example"', '"big.example"'), "provider bigger: big.example is of big already"),
        (('"eu.big.example"', '".eu.big.example"'), "provider bigger: mx is a list of lower-case names"),
        (("[unlisted]", "[unlisted"), "not valid TOML"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_entry_and_key(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(BadProviders, match=complaint.replace("[", r"\[")):
        ProviderTable.read(TABLE.replace(*change))


async def test_a_domain_belongs_to_the_provider_of_its_best_exchanger() -> None:
    table = DnsTable()
    table.set("acme.example", "MX", "20 mx.backup.example.", "10 aspmx.l.google.com.")
    table.set("alone.example", "A", "127.0.0.1")
    table.set("null.example", "MX", "0 .")
    async with running_dns(table) as address:
        finder = ProviderFinder(Resolver([address]), built_in())
        asked = {
            name: await finder.find(name, 0.0) for name in ("acme.example", "alone.example", "null.example", "[127.0.0.1]")
        }
    assert asked == {
        "acme.example": "google",
        "alone.example": "alone.example",
        "null.example": NO_PROVIDER,
        "[127.0.0.1]": NO_PROVIDER,
    }


async def test_a_provider_is_remembered_for_some_minutes_and_trouble_of_the_dns_is_not() -> None:
    table = DnsTable()
    table.set("acme.example", "MX", "10 aspmx.l.google.com.")
    table.fail("down.example", "MX", "SERVFAIL")
    async with running_dns(table) as address:
        finder = ProviderFinder(Resolver([address]), built_in())
        assert finder.known("acme.example", 0.0) is None
        await finder.find("acme.example", 0.0)
        assert [finder.known("acme.example", now) for now in (0.0, 299.0, 301.0)] == ["google", "google", None]
        with pytest.raises(DnsTemporary):
            await finder.find("down.example", 0.0)
        assert finder.known("down.example", 0.0) is None
