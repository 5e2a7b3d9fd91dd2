"""Which certificates do TLSA records let pass?"""

import pytest

from plunk_relay.mail.certificates import Untrusted
from plunk_relay.mail.dane import Dane, check_dane, find_dane, read_tlsa
from plunk_relay.mail.dns import DnsTemporary, Resolver
from tests.kit.authority import Authority, tlsa
from tests.kit.dns import DnsTable, running_dns

PARTS = [(selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]
TLSA_NAME = "_25._tcp.mx.example.org"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


def records(*texts: str, names: tuple[str, ...] = ("mx.example.org", "example.org")) -> Dane:
    return Dane("mx.example.org", tuple(read_tlsa(text) for text in texts), names)


@pytest.mark.parametrize(("selector", "matching"), PARTS)
def test_an_end_entity_record_matches_that_certificate_and_no_other(
    authority: Authority, selector: int, matching: int
) -> None:
    issued, other = authority.issue("mx.example.org"), authority.issue("mx.example.org")
    dane = records(tlsa(issued.chain[0], 3, selector, matching))
    check_dane(dane, issued.chain)
    with pytest.raises(Untrusted, match="no TLSA record matches"):
        check_dane(dane, other.chain)


def test_an_end_entity_record_asks_for_neither_name_nor_date(authority: Authority) -> None:
    issued = authority.issue("another.example", days=-2)
    check_dane(records(tlsa(issued.chain[0])), issued.chain)


def test_one_record_of_several_is_enough_while_a_key_is_changed(authority: Authority) -> None:
    old, new = authority.issue("mx.example.org"), authority.issue("mx.example.org")
    dane = records(tlsa(old.chain[0]), tlsa(new.chain[0]))
    check_dane(dane, old.chain)
    check_dane(dane, new.chain)


@pytest.mark.parametrize(("selector", "matching"), PARTS)
def test_a_trust_anchor_record_matches_what_that_authority_issued(
    authority: Authority, stranger: Authority, selector: int, matching: int
) -> None:
    dane = records(tlsa(authority.certificate, 2, selector, matching))
    check_dane(dane, authority.issue("mx.example.org", with_root=True).chain)
    check_dane(dane, authority.issue("mx.example.org", with_root=True, intermediate=True).chain)
    with pytest.raises(Untrusted):
        check_dane(dane, stranger.issue("mx.example.org", with_root=True).chain)


def test_an_intermediate_can_be_the_trust_anchor(authority: Authority) -> None:
    issued = authority.issue("mx.example.org", intermediate=True)
    check_dane(records(tlsa(issued.chain[1], 2)), issued.chain)


def test_an_authority_that_is_shown_but_did_not_issue_the_certificate_does_not_help(
    authority: Authority, stranger: Authority
) -> None:
    forged = [*stranger.issue("mx.example.org").chain, authority.certificate]
    with pytest.raises(Untrusted):
        check_dane(records(tlsa(authority.certificate, 2)), forged)


def test_a_trust_anchor_that_is_given_whole_need_not_be_shown(authority: Authority) -> None:
    check_dane(records(tlsa(authority.certificate, 2, 0, 0)), authority.issue("mx.example.org").chain)


@pytest.mark.parametrize("name", ["mx.example.org", "example.org", "*.example.org"])
def test_under_a_trust_anchor_the_certificate_is_for_the_exchanger_or_the_domain(authority: Authority, name: str) -> None:
    check_dane(records(tlsa(authority.certificate, 2)), authority.issue(name, with_root=True).chain)


@pytest.mark.parametrize(
    ("name", "days", "result"),
    [("mx.example.net", 1, "certificate-host-mismatch"), ("mx.example.org", -2, "certificate-expired")],
)
def test_under_a_trust_anchor_another_name_or_an_old_certificate_is_refused(
    authority: Authority, name: str, days: float, result: str
) -> None:
    with pytest.raises(Untrusted) as refused:
        check_dane(records(tlsa(authority.certificate, 2)), authority.issue(name, days=days, with_root=True).chain)
    assert refused.value.result == result


def test_a_peer_that_shows_no_certificate_is_refused(authority: Authority) -> None:
    with pytest.raises(Untrusted):
        check_dane(records(tlsa(authority.certificate, 2)), [])


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("3 1 1 " + "ab" * 32, True),
        ("2 0 2 " + "ab" * 64, True),
        ("3 0 0 30 82", True),
        ("0 1 1 " + "ab" * 32, False),
        ("1 1 1 " + "ab" * 32, False),
        ("4 1 1 " + "ab" * 32, False),
        ("3 2 1 " + "ab" * 32, False),
        ("3 1 3 " + "ab" * 32, False),
    ],
)
def test_records_for_the_web_s_authorities_and_unknown_ones_are_not_usable(text: str, usable: bool) -> None:
    assert read_tlsa(text).usable is usable


@pytest.fixture
def zone() -> DnsTable:
    table = DnsTable()
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "A", "192.0.2.1")
    table.set(TLSA_NAME, "TLSA", "3 1 1 " + "ab" * 32)
    table.sign("example.org")
    return table


async def look_up(table: DnsTable, *, trust_ad: bool = True) -> Dane | None:
    async with running_dns(table) as server:
        resolver = Resolver([server], query_seconds=0.3, total_seconds=0.3, trust_ad=trust_ad)
        return await find_dane(resolver, domain="example.org", host="mx.example.org", port=25)


async def test_records_of_a_signed_zone_count(zone: DnsTable) -> None:
    found = await look_up(zone)
    assert found == Dane("mx.example.org", (read_tlsa("3 1 1 " + "ab" * 32),), ("mx.example.org", "example.org"))


async def test_a_resolver_that_is_not_trusted_is_not_even_asked(zone: DnsTable) -> None:
    assert await look_up(zone, trust_ad=False) is None
    assert zone.questions == []


async def test_without_a_signed_mx_nothing_is_asked_about_the_host(zone: DnsTable) -> None:
    table = DnsTable()
    table.set("example.org", "MX", "10 mx.example.net.")
    table.sign("example.net")
    assert await look_up(table) is None
    assert table.questions == [("example.org", "MX")]


async def test_a_host_in_an_unsigned_zone_is_not_asked_for_records() -> None:
    table = DnsTable()
    table.set("example.org", "MX", "10 mx.example.org.")
    table.set("mx.example.org", "CNAME", "mx.unsigned.example.")
    table.set("mx.unsigned.example", "A", "192.0.2.1")
    table.fail("_25._tcp.mx.unsigned.example", "TLSA", "SERVFAIL")
    table.sign("example.org")
    assert await look_up(table) is None  # the alias is signed, where it leads is not, and it has no records itself
    assert ("_25._tcp.mx.unsigned.example", "TLSA") not in table.questions


async def test_records_under_the_end_of_an_alias_win_over_those_of_the_alias(zone: DnsTable) -> None:
    zone.set("mx.example.org", "CNAME", "real.example.org.")
    zone.set("real.example.org", "A", "192.0.2.1")
    assert (await look_up(zone) or Dane("", (), ())).base == "mx.example.org"
    zone.set("_25._tcp.real.example.org", "TLSA", "3 1 1 " + "cd" * 32)
    found = await look_up(zone)
    assert found is not None
    assert (found.base, found.names) == ("real.example.org", ("real.example.org", "mx.example.org", "example.org"))


async def test_unsigned_records_do_not_count(zone: DnsTable) -> None:
    zone.set(TLSA_NAME, "CNAME", "tlsa.unsigned.example.")
    zone.set("tlsa.unsigned.example", "TLSA", "3 1 1 " + "ab" * 32)
    assert await look_up(zone) is None


async def test_that_there_are_no_records_is_an_answer(zone: DnsTable) -> None:
    zone.remove(TLSA_NAME, "TLSA")
    assert await look_up(zone) is None


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "silent"])
async def test_records_of_a_signed_host_that_cannot_be_had_are_not_taken_for_none(zone: DnsTable, fault: str) -> None:
    zone.fail(TLSA_NAME, "TLSA", fault)  # type: ignore[arg-type]  # one of the words
    with pytest.raises(DnsTemporary, match="TLSA look-up"):
        await look_up(zone)


@pytest.mark.parametrize(
    ("servers", "trusts"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1:5353", "[::1]:53"], True),
        (["127.0.0.1", "192.0.2.53"], False),
        (["192.0.2.53"], False),
    ],
)
def test_validation_is_believed_by_itself_only_from_this_machine(servers: list[str], trusts: bool) -> None:
    assert Resolver(servers, trust_ad="auto").trusts_ad is trusts
    assert Resolver(servers, trust_ad=True).trusts_ad
    assert not Resolver(servers, trust_ad=False).trusts_ad
