"""Is received mail from whom it says? SPF, DKIM and DMARC, asked of a DNS server of the test over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from plunk_relay.mail.address import Mailbox
from plunk_relay.mail.dkim import DkimKey, generate_ed25519_pem, load_key, public_record, sign
from plunk_relay.mail.dns import Resolver
from plunk_relay.mail.verdicts import Verdicts, judge_sender
from tests.kit.dns import DnsTable, Fault, running_dns

MESSAGE = b"From: Ann <ann@example.org>\r\nSubject: Hi\r\n\r\nHello\r\n"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
THEIRS, STRANGER = "192.0.2.1", "198.51.100.7"


@dataclass(frozen=True, slots=True)
class World:
    """The DNS, and a resolver that asks it."""

    dns: DnsTable
    resolver: Resolver

    async def judge(
        self,
        message: bytes = MESSAGE,
        *,
        address: str = THEIRS,
        sender: str = "ann@example.org",
        authors: Sequence[str] = ("ann@example.org",),
        from_fields: int = 1,
        seconds: float = 5,
    ) -> Verdicts:
        return await judge_sender(
            message,
            self.resolver,
            client_address=address,
            helo="mx.example.org",
            sender=sender,
            authors=[Mailbox(author) for author in authors],
            from_fields=from_fields,
            now=NOW,
            seconds=seconds,
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    table = DnsTable()
    table.set("example.org", "TXT", "some other text", f"v=spf1 ip4:{THEIRS} -all")
    table.set("_dmarc.example.org", "TXT", "v=DMARC1; p=reject; sp=quarantine")
    async with running_dns(table) as server:
        yield World(table, Resolver([server], query_seconds=0.3, total_seconds=0.5))


@pytest.fixture(scope="module")
def key() -> DkimKey:
    return load_key("s1", "ed25519-sha256", generate_ed25519_pem())


def _signed(key: DkimKey, world: World, domain: str) -> bytes:
    world.dns.set(f"s1._domainkey.{domain}", "TXT", public_record(key))
    return sign(MESSAGE, domain=domain, keys=[key], timestamp=1) + MESSAGE


# --- SPF


async def test_mail_from_a_listed_address_passes_spf(world: World) -> None:
    verdicts = await world.judge()
    assert (verdicts.spf, verdicts.spf_word, verdicts.spf_domain) == ("pass", "PASS", "example.org")


SPF_RECORDS = [
    ("v=spf1 -all", "fail", "FAIL"),
    ("v=spf1 ~all", "softfail", "FAIL"),
    ("v=spf1 ?all", "neutral", "GRAY"),
    ("v=spf1 a -all", "pass", "PASS"),
    ("v=spf1 a:mx.example.org/24 -all", "pass", "PASS"),
    ("v=spf1 mx -all", "pass", "PASS"),
    ("v=spf1 include:_spf.example.org -all", "pass", "PASS"),
    ("v=spf1 redirect=_spf.example.org", "pass", "PASS"),
    ("v=spf1 exists:%{i}._list.example.org -all", "pass", "PASS"),
    ("v=spf1 ptr -all", "pass", "PASS"),
    ("v=spf1 nonsense:x -all", "permerror", "PROCESSING_FAILED"),
    ("v=spf1 include:example.org -all", "permerror", "PROCESSING_FAILED"),
    ("v=spf1 a:no1.example.org a:no2.example.org a:no3.example.org -all", "permerror", "PROCESSING_FAILED"),
    ("no policy at all", "none", "GRAY"),
]


@pytest.mark.parametrize(("record", "result", "word"), SPF_RECORDS)
async def test_spf_is_evaluated_with_our_own_resolver(world: World, record: str, result: str, word: str) -> None:
    world.dns.set("example.org", "TXT", record)
    world.dns.set("example.org", "A", THEIRS)
    world.dns.set("example.org", "MX", "10 mx.example.org.")
    world.dns.set("mx.example.org", "A", THEIRS)
    world.dns.set("_spf.example.org", "TXT", f"v=spf1 ip4:{THEIRS} -all")
    world.dns.set(f"{THEIRS}._list.example.org", "A", "127.0.0.2")
    world.dns.set("1.2.0.192.in-addr.arpa", "PTR", "mx.example.org.")
    verdicts = await world.judge()
    assert (verdicts.spf, verdicts.spf_word) == (result, word)
    assert ("example.org", "TXT") in world.dns.questions


async def test_two_spf_records_are_an_error(world: World) -> None:
    world.dns.set("example.org", "TXT", "v=spf1 -all", "v=spf1 +all")
    assert (await world.judge()).spf == "permerror"


async def test_an_ipv6_client_is_judged_as_well(world: World) -> None:
    world.dns.set("example.org", "TXT", "v=spf1 ip6:2001:db8::/32 -all")
    assert (await world.judge(address="2001:db8::1")).spf == "pass"


async def test_the_greeting_is_judged_for_the_null_sender(world: World) -> None:
    world.dns.set("mx.example.org", "TXT", f"v=spf1 ip4:{THEIRS} -all")
    verdicts = await world.judge(sender="")
    assert (verdicts.spf, verdicts.spf_domain) == ("pass", "mx.example.org")


# --- DKIM


async def test_a_good_signature_passes_dkim(world: World, key: DkimKey) -> None:
    verdicts = await world.judge(_signed(key, world, "example.org"))
    assert (verdicts.dkim_result, verdicts.dkim_word) == ("pass", "PASS")


async def test_unsigned_mail_is_gray(world: World) -> None:
    assert (await world.judge()).dkim_word == "GRAY"


async def test_a_broken_signature_fails_dkim(world: World, key: DkimKey) -> None:
    assert (await world.judge(_signed(key, world, "example.org") + b"more\r\n")).dkim_word == "FAIL"


async def test_one_good_signature_among_others_is_enough(world: World, key: DkimKey) -> None:
    other = sign(b"another message\r\n\r\n", domain="example.org", keys=[key], timestamp=1)
    assert (await world.judge(other + _signed(key, world, "example.org"))).dkim_word == "PASS"


# --- DMARC


async def test_spf_of_the_authors_domain_passes_dmarc(world: World) -> None:
    verdicts = await world.judge()
    assert (verdicts.dmarc, verdicts.dmarc_word, verdicts.policy) == ("pass", "PASS", "reject")


async def test_a_signature_of_the_authors_domain_passes_dmarc(world: World, key: DkimKey) -> None:
    verdicts = await world.judge(_signed(key, world, "example.org"), address=STRANGER)
    assert (verdicts.spf, verdicts.dmarc) == ("fail", "pass")


async def test_forged_mail_fails_dmarc(world: World) -> None:
    verdicts = await world.judge(address=STRANGER)
    assert (verdicts.dmarc, verdicts.dmarc_word) == ("fail", "FAIL")


async def test_a_strangers_own_spf_and_signature_do_not_vouch_for_the_author(world: World, key: DkimKey) -> None:
    world.dns.set("stranger.test", "TXT", f"v=spf1 ip4:{STRANGER} -all")
    verdicts = await world.judge(_signed(key, world, "stranger.test"), address=STRANGER, sender="x@stranger.test")
    assert (verdicts.spf, verdicts.dkim_result, verdicts.dmarc) == ("pass", "pass", "fail")


async def test_a_subdomain_is_aligned_unless_the_policy_is_strict(world: World, key: DkimKey) -> None:
    message = _signed(key, world, "mail.example.org")
    assert (await world.judge(message, address=STRANGER)).dmarc == "pass"
    world.dns.set("_dmarc.example.org", "TXT", "v=DMARC1; p=reject; adkim=s")
    world.resolver.forget("_dmarc.example.org")
    assert (await world.judge(message, address=STRANGER)).dmarc == "fail"


async def test_the_policy_of_the_registered_domain_counts_for_its_subdomains(world: World) -> None:
    verdicts = await world.judge(address=STRANGER, authors=["ann@shop.example.org"])
    assert (verdicts.dmarc, verdicts.policy, verdicts.author_domain) == ("fail", "quarantine", "shop.example.org")


async def test_a_public_suffix_does_not_align_strangers(world: World) -> None:
    world.dns.set("_dmarc.one.co.uk", "TXT", "v=DMARC1; p=reject")
    world.dns.set("two.co.uk", "TXT", f"v=spf1 ip4:{STRANGER} -all")
    verdicts = await world.judge(address=STRANGER, sender="x@two.co.uk", authors=["ann@one.co.uk"])
    assert (verdicts.spf, verdicts.dmarc) == ("pass", "fail")


async def test_without_a_policy_dmarc_is_gray(world: World) -> None:
    world.dns.remove("_dmarc.example.org", "TXT")
    verdicts = await world.judge()
    assert (verdicts.dmarc, verdicts.dmarc_word) == ("none", "GRAY")


@pytest.mark.parametrize(("authors", "fields"), [((), 0), (("a@example.org", "b@other.org"), 1), (("a@example.org",), 2)])
async def test_without_exactly_one_author_dmarc_says_nothing(world: World, authors: tuple[str, ...], fields: int) -> None:
    assert (await world.judge(authors=authors, from_fields=fields)).dmarc_word == "PROCESSING_FAILED"


# --- trouble


@pytest.mark.parametrize("fault", ["SERVFAIL", "silent"])
async def test_trouble_with_the_dns_is_said_and_refuses_nothing(world: World, key: DkimKey, fault: Fault) -> None:
    message = _signed(key, world, "example.org")
    for name in ("example.org", "_dmarc.example.org", "s1._domainkey.example.org"):
        world.dns.fail(name, "TXT", fault)
    verdicts = await world.judge(message)
    assert (verdicts.spf_word, verdicts.dkim_word, verdicts.dmarc_word) == ("PROCESSING_FAILED",) * 3


async def test_no_verdict_is_a_failure_while_the_dns_is_in_trouble(world: World) -> None:
    world.dns.fail("example.org", "TXT", "SERVFAIL")
    verdicts = await world.judge(address=STRANGER)
    assert (verdicts.spf, verdicts.dmarc) == ("temperror", "temperror")


async def test_all_look_ups_together_end_in_time(world: World) -> None:
    world.dns.set("example.org", "TXT", "v=spf1 " + " ".join(f"include:{n}.example.org" for n in range(9)) + " -all")
    for number in range(9):
        world.dns.fail(f"{number}.example.org", "TXT", "silent")
    async with asyncio.timeout(10):
        assert (await world.judge(seconds=0.2)).spf_word == "PROCESSING_FAILED"


# --- RFC 8601


async def test_the_results_are_written_as_a_field_of_the_standard(world: World, key: DkimKey) -> None:
    verdicts = await world.judge(_signed(key, world, "example.org"))
    assert verdicts.header("relay.test") == (
        "relay.test; spf=pass smtp.mailfrom=example.org; dkim=pass header.d=example.org header.s=s1; "
        "dmarc=pass (p=reject) header.from=example.org"
    )


async def test_what_strangers_write_cannot_add_results(world: World) -> None:
    verdicts = await world.judge(sender='x@"; dmarc=pass header.from=bank.test', authors=["y@evil;dmarc=pass"])
    header = verdicts.header("relay.test")
    assert header.count("dmarc=") == 1
    assert header.count(";") == 3
