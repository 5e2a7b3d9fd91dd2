"""Which signatures of received mail count? Those that dkimpy makes, and none that says less than it seems."""

import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from plunk_relay.mail.dkim import DkimKey, generate_ed25519_pem, generate_rsa_pem, load_key, public_record, sign
from plunk_relay.mail.dkim_check import MOST_SIGNATURES, SignatureResult, check_signatures
from plunk_relay.mail.dns import Resolver
from tests.kit.dns import DnsTable, running_dns

MESSAGE = (
    b"From: Ann <ann@example.org>\r\nSubject:  Hi  \r\n\tthere\r\nTo: bob@acme.test\r\n\r\n"
    b"A \t line \r\n\r\nlast\r\n\r\n\r\n"
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "s1._domainkey.example.org"


@pytest.fixture(scope="module")
def rsa() -> DkimKey:
    return load_key("s1", "rsa-sha256", generate_rsa_pem())


@pytest.fixture
def zone(rsa: DkimKey) -> DnsTable:
    table = DnsTable()
    table.set(NAME, "TXT", public_record(rsa))
    return table


@pytest.fixture
async def resolver(zone: DnsTable) -> AsyncIterator[Resolver]:
    async with running_dns(zone) as server:
        yield Resolver([server], query_seconds=0.3, total_seconds=0.5)


async def _results(message: bytes, resolver: Resolver, *, now: datetime = NOW) -> list[str]:
    return [one.result for one in await check_signatures(message, resolver, now=now)]


@pytest.mark.parametrize("body", [b"", b"\r\n", b"one line\r\n", b"A \t line \r\n\r\n\r\n", b"no end"])
@pytest.mark.parametrize("forms", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"])
async def test_what_dkimpy_signs_passes(rsa: DkimKey, resolver: Resolver, forms: str, body: bytes) -> None:
    message = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
    assert await _results(_sign_with_dkimpy(message, rsa, forms) + message, resolver) == ["pass"]


async def test_what_we_sign_passes_with_both_algorithms(rsa: DkimKey, zone: DnsTable, resolver: Resolver) -> None:
    edwards = load_key("e1", "ed25519-sha256", generate_ed25519_pem())
    zone.set("e1._domainkey.example.org", "TXT", public_record(edwards))
    signed = sign(MESSAGE, domain="example.org", keys=[rsa, edwards], timestamp=1) + MESSAGE
    assert await check_signatures(signed, resolver, now=NOW) == [
        SignatureResult("example.org", "s1", "pass"),
        SignatureResult("example.org", "e1", "pass"),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"last", b"lost"),
        (b"Subject:  Hi", b"Subject:  Ho"),
        (b"Ann <ann@", b"Ann <eve@"),
        (b"From: Ann", b"From: eve@example.org\r\nFrom: Ann"),
    ],
    ids=["the body", "the subject", "the author", "an author more"],
)
async def test_what_was_changed_on_the_way_fails(rsa: DkimKey, resolver: Resolver, before: bytes, after: bytes) -> None:
    signed = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1) + MESSAGE
    assert await _results(signed.replace(before, after), resolver) == ["fail"]


async def test_a_message_without_a_signature_has_no_result(resolver: Resolver) -> None:
    assert await _results(MESSAGE, resolver) == []


async def test_the_key_of_another_is_a_failure(rsa: DkimKey, zone: DnsTable, resolver: Resolver) -> None:
    zone.set(NAME, "TXT", public_record(load_key("s1", "rsa-sha256", generate_rsa_pem())))
    assert await _results(sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1) + MESSAGE, resolver) == ["fail"]


async def test_a_key_that_cannot_be_looked_up_is_a_temporary_error(rsa: DkimKey, zone: DnsTable, resolver: Resolver) -> None:
    zone.fail(NAME, "TXT", "SERVFAIL")
    signed = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1) + MESSAGE
    assert await _results(signed, resolver) == ["temperror"]


RecordChange = Callable[[str], str]
BAD_RECORDS: dict[str, RecordChange] = {
    "revoked": lambda _record: "v=DKIM1; k=rsa; p=",
    "for another algorithm": lambda record: record.replace("k=rsa", "k=ed25519"),
    "not for mail": lambda record: f"{record}; s=tlsrpt",
    "for sha1 alone": lambda record: f"{record}; h=sha1",
    "of another version": lambda record: record.replace("DKIM1", "DKIM2"),
    "no base64": lambda _record: "v=DKIM1; p=!!!",
    "no key": lambda _record: f"v=DKIM1; p={base64.b64encode(b'x' * 300).decode()}",
    "no record": lambda _record: "something else",
    "a tag twice": lambda record: f"{record}; k=rsa",
    "too short": lambda _record: _record_of_bits(1000),
    "too long": lambda _record: _record_of_bits(8000),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
async def test_a_key_record_that_does_not_allow_it_is_a_permanent_error(
    rsa: DkimKey, zone: DnsTable, resolver: Resolver, case: str
) -> None:
    zone.set(NAME, "TXT", BAD_RECORDS[case](public_record(rsa)))
    signed = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1) + MESSAGE
    assert await _results(signed, resolver) == ["permerror"]


async def test_a_name_without_a_key_is_a_permanent_error(rsa: DkimKey, zone: DnsTable, resolver: Resolver) -> None:
    zone.remove(NAME, "TXT")
    signed = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1) + MESSAGE
    assert await _results(signed, resolver) == ["permerror"]


@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        (b"a=rsa-sha256", b"a=rsa-sha1", "permerror"),
        (b"v=1;", b"v=2;", "permerror"),
        (b"from:", b"x-from:", "permerror"),
        (b"c=relaxed/relaxed", b"c=loose/relaxed", "permerror"),
        (b"t=1;", b"t=1; i=@example.com;", "permerror"),
        (b"t=1;", b"t=1; t=2;", "permerror"),
        (b"d=example.org;", b"", "permerror"),
        (b"t=1;", b"t=1; l=10;", "policy"),
        (b"t=1;", b"t=1; x=1772366399;", "fail"),
    ],
)
async def test_a_signature_that_says_less_than_it_seems_does_not_count(
    rsa: DkimKey, resolver: Resolver, before: bytes, after: bytes, result: str
) -> None:
    signature = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1).replace(before, after)
    assert await _results(signature + MESSAGE, resolver) == [result]


async def test_a_partly_signed_body_does_not_pass(rsa: DkimKey, resolver: Resolver) -> None:
    signature = _sign_with_dkimpy(MESSAGE, rsa, "simple/simple", length=True)
    assert b"l=" in signature
    assert await _results(signature + MESSAGE + b"and more\r\n", resolver) == ["policy"]


async def test_only_the_topmost_signatures_are_looked_at(rsa: DkimKey, zone: DnsTable, resolver: Resolver) -> None:
    signature = sign(MESSAGE, domain="example.org", keys=[rsa], timestamp=1)
    assert await _results(signature * 50 + MESSAGE, resolver) == ["pass"] * MOST_SIGNATURES
    assert zone.questions == [(NAME, "TXT")]


async def test_a_megabyte_of_blanks_is_read_in_one_go(rsa: DkimKey, resolver: Resolver) -> None:
    message = MESSAGE + b" \t" * 2**19 + b"x\r\n"
    assert await _results(sign(message, domain="example.org", keys=[rsa], timestamp=1) + message, resolver) == ["pass"]


@pytest.mark.parametrize(
    "junk", [b"", b"\r\n", b"DKIM-Signature", b"DKIM-Signature: \xff\r\n\r\n", b"DKIM-Signature: ;;=\r\n\r\n"]
)
async def test_junk_passes_nothing(resolver: Resolver, junk: bytes) -> None:
    assert "pass" not in await _results(junk, resolver)


def _record_of_bits(bits: int) -> str:
    key = RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"


def _sign_with_dkimpy(message: bytes, key: DkimKey, forms: str, *, length: bool = False) -> bytes:
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    head, _, body = forms.encode().partition(b"/")
    signature: bytes = dkim.sign(message, b"s1", b"example.org", pem, canonicalize=(head, body), length=length)
    return signature
