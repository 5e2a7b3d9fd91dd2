"""Does a peer's certificate match what its DNS zone says? TLSA records as SMTP uses them (RFC 6698, 7671, 7672)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from plunk_relay.mail.certificates import Untrusted, check_chain, public_key_of
from plunk_relay.mail.dns import DnsError, DnsTemporary, NameNotFound, Resolver

_TRUST_ANCHOR, _END_ENTITY = 2, 3
_DIGESTS = {1: "sha256", 2: "sha512"}


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One record: which certificate (usage), what of it (selector), how compared (matching), and the data."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"

    @property
    def usable(self) -> bool:
        """Whether mail can be protected by it: usages 0 and 1 cannot (RFC 7672 3.1.3), nor what nobody defined."""
        known = self.usage in (_TRUST_ANCHOR, _END_ENTITY) and self.selector in (0, 1)
        length = hashlib.new(_DIGESTS[self.matching]).digest_size if self.matching in _DIGESTS else None
        return known and (length == len(self.data) if length else self.matching == 0 and bool(self.data))


@dataclass(frozen=True, slots=True)
class Dane:
    """The records of one exchanger, with at least one; none of them usable: encrypt, and verify nothing (RFC 7672 2.2)."""

    base: str
    """The TLSA base domain: the name that TLS asks the peer for (RFC 7672 8.1)."""
    records: tuple[Tlsa, ...]
    names: tuple[str, ...]
    """Names that a certificate under a trust anchor may be for (RFC 7672 3.2.2)."""

    @property
    def usable(self) -> tuple[Tlsa, ...]:
        """The records that can be checked."""
        return tuple(record for record in self.records if record.usable)


async def find_dane(resolver: Resolver, *, domain: str, host: str, port: int) -> Dane | None:
    """Return the TLSA records that count for an exchanger of a domain; raises DnsTemporary when they must be known.

    Everything on the way has to be secure: the MX records, the addresses, the TLSA records (RFC 7672 2.1, 2.2). None:
    DANE does not apply. In a signed zone a TLSA look-up that fails may be an attack: the host must not be used now.
    """
    if not resolver.trusts_ad or not await resolver.is_secure(domain, "MX"):
        return None
    for base in await _base_domains(resolver, host):
        try:
            answer = await resolver.ask(f"_{port}._tcp.{base}", "TLSA")
        except NameNotFound:
            continue
        if answer.secure and answer.values:
            records = tuple(read_tlsa(value) for value in answer.values)
            return Dane(base, records, tuple(dict.fromkeys((base, host, domain))))
    return None


async def _base_domains(resolver: Resolver, host: str) -> list[str]:
    """Return the names to look for records under: where an alias leads to, then the name itself (RFC 7672 2.2.2)."""
    answers = []
    for kind in ("A", "AAAA"):
        try:
            answers.append(await resolver.ask(host, kind))
        except DnsTemporary:
            continue  # the other family may be all that is used; its own answer tells
        except DnsError:
            return []
    found = [answer for answer in answers if answer.values]
    if not found:
        return []
    canonical = found[0].canonical
    if all(answer.secure for answer in found):
        return list(dict.fromkeys((canonical, host)))
    return [host] if canonical != host and await resolver.is_secure(host, "CNAME") else []


def read_tlsa(text: str) -> Tlsa:
    """Read a record in presentation form."""
    usage, selector, matching, data = text.split(" ", 3)
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data.replace(" ", "")))


def check_dane(dane: Dane, chain: Sequence[bytes]) -> None:
    """Raise Untrusted unless a usable record matches the chain that the peer showed."""
    if not chain:
        raise Untrusted("validation-failure", "the peer showed no certificate")
    try:
        if any(_matches(record, chain[0]) for record in dane.usable if record.usage == _END_ENTITY):
            return  # neither names nor dates count then (RFC 7672 3.1.1)
        anchors = _anchors(dane, chain)
    except ValueError as error:
        raise Untrusted("validation-failure", f"the certificate cannot be read: {error}") from error
    if not anchors:
        raise Untrusted("validation-failure", "no TLSA record matches the certificate")
    check_chain(chain, anchors, dane.names)


def _anchors(dane: Dane, chain: Sequence[bytes]) -> list[bytes]:
    """Return the certificates that the records make trust anchors: of the chain, or given whole (RFC 7672 3.1.2)."""
    records = [record for record in dane.usable if record.usage == _TRUST_ANCHOR]
    shown = [one for one in chain[1:] if any(_matches(record, one) for record in records)]
    return shown + [record.data for record in records if (record.selector, record.matching) == (0, 0)]


def _matches(record: Tlsa, certificate: bytes) -> bool:
    part = certificate if record.selector == 0 else public_key_of(certificate)
    return record.data == (part if record.matching == 0 else hashlib.new(_DIGESTS[record.matching], part).digest())
