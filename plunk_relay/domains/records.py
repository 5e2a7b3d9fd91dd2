"""Which DNS records does a domain need, and are they there? The list to paste, each with its status.

DKIM decides whether a domain is verified; SPF, the return path and DMARC are advice. A look-up that fails says nothing
about the record: it is a TemporaryFailure, and the domain keeps its flag.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plunk_relay.mail.dns import DnsTemporary, NameNotFound, Resolver

RETURN_PATH_LABEL = "bounce"
_WORDS = {"found": "Success", "missing": "Pending", "wrong": "Failed", "unknown": "TemporaryFailure"}


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to publish. `status` is NotStarted, Pending (absent), Failed (other value), Success or TemporaryFailure."""

    type: str
    name: str
    value: str
    required: bool
    purpose: str
    status: str = "NotStarted"
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The public side of a DKIM key; a replaced one signs until its successor's record is found."""

    selector: str
    algorithm: str
    public_record: str
    replaced: bool = False


def list_records(
    domain: str,
    keys: Sequence[SigningKey],
    *,
    relay_host: str,
    statuses: Mapping[str, Any] | None = None,
    receiving: bool = False,
) -> list[DnsRecord]:
    """Return the records for a domain in the order to paste them, with their last known statuses.

    The MX record of the domain itself belongs to them only when it is to receive mail here.
    """
    bounce = f"{RETURN_PATH_LABEL}.{domain}"
    spf = f"v=spf1 a:{relay_host} ~all"
    records = [
        DnsRecord(
            "TXT",
            f"{key.selector}._domainkey.{domain}",
            key.public_record,
            key.algorithm == "rsa-sha256" and not key.replaced,
            _purpose(key),
        )
        for key in keys
    ]
    records += [
        DnsRecord("TXT", domain, spf, False, "spf"),
        DnsRecord("MX", bounce, relay_host, False, "return-path", priority=10),
        DnsRecord("TXT", bounce, spf, False, "return-path-spf"),
        DnsRecord("TXT", f"_dmarc.{domain}", "v=DMARC1; p=none;", False, "dmarc"),
    ]
    records += [DnsRecord("MX", domain, relay_host, False, "inbound", priority=10)] if receiving else []
    known = statuses or {}
    return [
        DnsRecord(r.type, r.name, r.value, r.required, r.purpose, known.get(r.purpose, r.status), r.priority)
        for r in records
    ]


def _purpose(key: SigningKey) -> str:
    name = "dkim-rsa" if key.algorithm == "rsa-sha256" else "dkim-ed25519"
    return f"{name}-old" if key.replaced else name


async def check_records(resolver: Resolver, records: Sequence[DnsRecord]) -> dict[str, str]:
    """Look every record up now; return its status by purpose."""
    for record in records:
        resolver.forget(record.name)
    verdicts = await asyncio.gather(*(_check(resolver, record) for record in records))
    return {record.purpose: _WORDS[verdict] for record, verdict in zip(records, verdicts, strict=True)}


async def _check(resolver: Resolver, record: DnsRecord) -> str:
    try:
        if record.type == "MX":
            hosts = [mx.host for mx in await resolver.mx(record.name)]
            return _verdict(hosts, lambda host: host == record.value.lower())
        found = await resolver.txt(record.name)
    except NameNotFound:
        return "missing"
    except DnsTemporary:
        return "unknown"
    return _check_txt(record, found)


def _check_txt(record: DnsRecord, found: Sequence[str]) -> str:
    if record.purpose.startswith("dkim"):
        wanted = _tags(record.value)
        return _verdict(found, lambda text: _tags(text).get("p") == wanted["p"])
    if record.purpose == "dmarc":
        policies = [text for text in found if text.lower().startswith("v=dmarc1")]
        return "found" if len(policies) == 1 else ("wrong" if policies else "missing")
    policies = [text for text in found if text.lower().startswith("v=spf1")]
    mechanism = record.value.split()[1]
    return _verdict(policies, lambda text: mechanism in text.lower().split())


def _verdict(found: Sequence[str], fits: Any) -> str:
    if any(fits(value) for value in found):
        return "found"
    return "wrong" if found else "missing"


def _tags(record: str) -> dict[str, str]:
    """Read a DKIM key record (RFC 6376 3.6.1): tags, blanks in values dropped."""
    pairs = (part.partition("=") for part in record.split(";"))
    return {name.strip(): "".join(value.split()) for name, _, value in pairs if name.strip()}


def judge(statuses: Mapping[str, str], *, was_verified: bool) -> tuple[bool, str]:
    """Return (verified, status): RSA DKIM decides, of the new key or the one it replaces.

    A look-up that failed changes nothing.
    """
    found = [statuses[purpose] for purpose in ("dkim-rsa", "dkim-rsa-old") if purpose in statuses]
    if "Success" in found:
        return True, "Success"
    if "TemporaryFailure" in found:
        return was_verified, "TemporaryFailure"
    return False, found[0]
