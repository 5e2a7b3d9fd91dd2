"""Is received mail from whom it says? SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489), told as RFC 8601 tells them.

All look-ups go through our resolver and end after a few seconds together. What the DNS cannot tell now is a temperror,
never a reason to refuse mail.
"""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

import spf

from plunk_relay.mail.address import Mailbox, domain_of, to_ascii_domain
from plunk_relay.mail.dkim_check import SignatureResult, check_signatures
from plunk_relay.mail.dns import DnsTemporary, NameNotFound, Resolver
from plunk_relay.mail.registered_domain import registered_domain

Word = Literal["PASS", "FAIL", "GRAY", "PROCESSING_FAILED"]
T = TypeVar("T")
TOTAL_SECONDS = 5.0
_LONGEST_RECORD = 4096
_MOST_RECORDS = 50
_TOKEN = re.compile(r"[^A-Za-z0-9._-]+")
_WORDS: dict[str, Word] = {
    "pass": "PASS",
    "fail": "FAIL",
    "softfail": "FAIL",
    "policy": "FAIL",
    "none": "GRAY",
    "neutral": "GRAY",
    "permerror": "PROCESSING_FAILED",
    "temperror": "PROCESSING_FAILED",
}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Results in the words of RFC 8601; `*_word` gives them in the contract's."""

    spf: str = "temperror"
    spf_domain: str = ""
    """Of the envelope sender, or of HELO for a null sender."""
    dkim: Sequence[SignatureResult] = field(default_factory=tuple)
    dkim_result: str = "temperror"
    """Of all signatures together: pass when one does."""
    dmarc: str = "temperror"
    policy: str = ""
    """What the author's domain asks for: none, quarantine, reject; empty without a record."""
    author_domain: str = ""

    @property
    def spf_word(self) -> Word:
        """SPF in the contract's words."""
        return _WORDS.get(self.spf, "PROCESSING_FAILED")

    @property
    def dkim_word(self) -> Word:
        """DKIM in the contract's words."""
        return "FAIL" if self.dkim_result == "permerror" else _WORDS.get(self.dkim_result, "PROCESSING_FAILED")

    @property
    def dmarc_word(self) -> Word:
        """DMARC in the contract's words."""
        return _WORDS.get(self.dmarc, "PROCESSING_FAILED")

    def header(self, authserv_id: str) -> str:
        """Return the value of an Authentication-Results field (RFC 8601 2.2)."""
        results = [f"spf={self.spf} smtp.mailfrom={_token(self.spf_domain)}" if self.spf_domain else f"spf={self.spf}"]
        results += [f"dkim={one.result} header.d={_token(one.domain)} header.s={_token(one.selector)}" for one in self.dkim]
        results += [] if self.dkim else [f"dkim={self.dkim_result}"]
        policy = f" (p={_token(self.policy)})" if self.policy else ""
        author = f" header.from={_token(self.author_domain)}" if self.author_domain else ""
        return "; ".join([authserv_id, *results, f"dmarc={self.dmarc}{policy}{author}"])


def _token(value: str) -> str:
    return _TOKEN.sub("_", value)[:255] or "_"


async def judge_sender(
    message: bytes,
    resolver: Resolver,
    *,
    client_address: str | None,
    helo: str,
    sender: str,
    authors: Sequence[Mailbox],
    from_fields: int,
    now: datetime,
    seconds: float = TOTAL_SECONDS,
) -> Verdicts:
    """Evaluate a received message; never raises for what the message or the DNS says.

    Without a client there is no SPF to check: the message came from this machine.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    spf_domain = to_ascii_domain(domain_of(sender) if sender else helo)
    author_domain = _author_domain(authors, from_fields)
    spf_result, signatures, record = await asyncio.gather(
        _until(deadline, _check_spf(resolver, client_address, helo, sender, deadline), "temperror"),
        _until(deadline, check_signatures(message, resolver, now=now), None),
        _until(deadline, _find_policy(resolver, author_domain), None),
    )
    dkim_result = _combine(signatures)
    found = signatures or ()
    dmarc = _judge_dmarc(author_domain, record, spf_result, spf_domain, found, dkim_result)
    policy = record.policy if record is not None else ""
    return Verdicts(spf_result, spf_domain, tuple(found), dkim_result, dmarc, policy, author_domain)


async def _until(deadline: float, work: Coroutine[Any, Any, T], otherwise: T) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except (TimeoutError, DnsTemporary):
        return otherwise


def _combine(signatures: Sequence[SignatureResult] | None) -> str:
    if signatures is None:
        return "temperror"
    results = [one.result for one in signatures]
    return next((word for word in ("pass", "temperror", "fail", "policy", "permerror") if word in results), "none")


# --- SPF


async def _check_spf(resolver: Resolver, address: str | None, helo: str, sender: str, deadline: float) -> str:
    """Evaluate SPF of the envelope sender, or of HELO for `<>` (RFC 7208 2.4)."""
    if address is None:
        return "none"
    loop = asyncio.get_running_loop()
    local, _, domain = sender.rpartition("@")
    identity = f"{local}@{to_ascii_domain(domain)}" if sender else ""
    query = _Query(address, identity, helo, resolver=resolver, loop=loop, deadline=deadline)
    return await asyncio.to_thread(query.result)


class _Query(spf.query):  # type: ignore[misc]  # pyspf has no types
    """pyspf's evaluation with our resolver; runs in a thread, and asks on the loop."""

    def __init__(
        self,
        address: str,
        sender: str,
        helo: str,
        *,
        resolver: Resolver,
        loop: asyncio.AbstractEventLoop,
        deadline: float,
    ) -> None:
        self._resolver, self._loop, self._deadline = resolver, loop, deadline
        super().__init__(address, sender, helo)

    def result(self) -> str:
        """Return the result of RFC 7208 2.6."""
        try:
            return str(self.check()[0])
        except Exception:  # noqa: BLE001  whatever pyspf stumbles over in a stranger's record
            return "permerror"

    def dns(self, name: object, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """Answer in pyspf's form, and count look-ups without an answer (RFC 7208 4.6.4); aliases are followed for us."""
        del cnames
        wanted = str(name).rstrip(".").lower()
        if not wanted or not all(0 < len(label) < 64 for label in wanted.split(".")):
            return []
        answers = self._ask(wanted, qtype)
        if not answers and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} look-ups without an answer")
        return answers

    def _ask(self, name: str, kind: str) -> list[Any]:
        asking = asyncio.run_coroutine_threadsafe(self._look_up(name, kind), self._loop)
        try:
            return asking.result()
        except NameNotFound:
            return []
        except (DnsTemporary, TimeoutError) as error:
            raise spf.TempError(str(error) or "no answer in time") from None

    async def _look_up(self, name: str, kind: str) -> list[Any]:
        async with asyncio.timeout_at(self._deadline):
            if kind == "MX":
                return [(mx.preference, mx.host) for mx in (await self._resolver.mx(name))[:_MOST_RECORDS]]
            values = (await self._resolver.ask(name, kind)).values[:_MOST_RECORDS]
        if kind == "TXT":
            return [(value.encode(),) for value in values if len(value) <= _LONGEST_RECORD]
        return [value.rstrip(".") for value in values]


# --- DMARC


@dataclass(frozen=True, slots=True)
class _Policy:
    """A DMARC record as it applies to the author's domain; `found` is False when there is none."""

    found: bool
    policy: str = ""
    strict_dkim: bool = False
    strict_spf: bool = False


def _author_domain(authors: Sequence[Mailbox], from_fields: int) -> str:
    """Return the domain of the one author; empty when there is none, or several domains (RFC 7489 6.6.1)."""
    domains = {to_ascii_domain(domain_of(author.address)) for author in authors}
    return domains.pop() if from_fields == 1 and len(domains) == 1 else ""


async def _find_policy(resolver: Resolver, domain: str) -> _Policy:
    """Find the record of the domain, else that of the organisational domain (RFC 7489 6.6.3)."""
    if not domain:
        return _Policy(found=False)
    organization = registered_domain(domain)
    for name in dict.fromkeys((domain, organization)):
        record = await _find_record(resolver, name)
        if record is not None:
            asked = record.get("p", "none")
            policy = asked if name == domain else record.get("sp", asked)
            return _Policy(True, policy.lower(), record.get("adkim") == "s", record.get("aspf") == "s")
    return _Policy(found=False)


async def _find_record(resolver: Resolver, name: str) -> dict[str, str] | None:
    try:
        texts = await resolver.txt(f"_dmarc.{name}")
    except NameNotFound:
        return None
    records = [_read_record(text[:_LONGEST_RECORD]) for text in texts if text.replace(" ", "").startswith("v=DMARC1")]
    return records[0] if len(records) == 1 else None  # several are none (RFC 7489 6.6.3)


def _read_record(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _judge_dmarc(
    author_domain: str,
    record: _Policy | None,
    spf_result: str,
    spf_domain: str,
    signatures: Sequence[SignatureResult],
    dkim_result: str,
) -> str:
    """Pass when SPF or a signature passes for the author's own domain (RFC 7489 3.1)."""
    if not author_domain:
        return "permerror"
    if record is None:
        return "temperror"
    if not record.found:
        return "none"
    passed = [one.domain for one in signatures if one.result == "pass"]
    if any(_aligned(domain, author_domain, strict=record.strict_dkim) for domain in passed):
        return "pass"
    if spf_result == "pass" and _aligned(spf_domain, author_domain, strict=record.strict_spf):
        return "pass"
    unsure = "temperror" in (spf_result, dkim_result) or any(one.result == "temperror" for one in signatures)
    return "temperror" if unsure else "fail"


def _aligned(domain: str, author_domain: str, *, strict: bool) -> bool:
    same = domain == author_domain
    return same if strict else same or registered_domain(domain) == registered_domain(author_domain)
