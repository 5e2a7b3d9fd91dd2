"""What does the DNS say? TXT, MX, TLSA and address look-ups with dnspython, remembered for their TTL."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from plunk_relay.mail.address import to_ascii_domain

_CACHE_ENTRIES = 10_000
_LONGEST_TTL_SECONDS = 3600
_ABSENCE_SECONDS = 60.0
_UDP_BYTES = 1232  # what passes everywhere without fragments
Kept = tuple[float, "Answer | DnsError"]
TrustAd = Literal["auto"] | bool


class DnsError(Exception):
    """A look-up did not give an answer; the text names the query."""


class NameNotFound(DnsError):
    """The name does not exist (NXDOMAIN)."""


class DnsTemporary(DnsError):
    """No server could answer: SERVFAIL, REFUSED, time over. It says nothing about the name."""


@dataclass(frozen=True, slots=True)
class MxRecord:
    """A mail exchanger; lower preference is tried first, the host is lower case without a final dot."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of a name and type in presentation form; none is an answer too."""

    values: list[str]
    secure: bool
    """The server has validated it with DNSSEC (AD), and is trusted to say so."""
    canonical: str
    """The name at the end of the aliases."""


class Resolver:
    """Asks the given servers (`IP`, `IP:PORT`, `[IPv6]:PORT`), or the system's when none is given.

    `trust_ad` says whether the servers' AD bit is believed: `auto` when all of them are on this machine, as nobody can
    change their answers on the way (RFC 6698 A.3).
    """

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        query_seconds: float = 3.0,
        total_seconds: float = 8.0,
        trust_ad: TrustAd = False,
    ) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [_nameserver(server) for server in servers]
        self._resolver.timeout = query_seconds
        self._resolver.lifetime = total_seconds
        self._resolver.cache = None
        self.trusts_ad = self._are_local() if trust_ad == "auto" else trust_ad
        if self.trusts_ad:
            self._resolver.use_edns(0, dns.flags.DO, _UDP_BYTES)
            self._resolver.flags = dns.flags.RD | dns.flags.AD  # RFC 6840 5.7
        self._cache: dict[tuple[str, str], Kept] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Kept]] = {}

    async def txt(self, name: str) -> list[str]:
        """Return the TXT records, the strings of each joined; empty when there are none."""
        return (await self.ask(name, "TXT")).values

    async def mx(self, name: str) -> list[MxRecord]:
        """Return the mail exchangers in no order; empty when there are none. A null MX has the host `""` (RFC 7505)."""
        answers = [line.split(" ", 1) for line in (await self.ask(name, "MX")).values]
        return [MxRecord(int(preference), host.rstrip(".").lower()) for preference, host in answers]

    async def addresses(self, name: str) -> list[str]:
        """Return IPv4 and IPv6 addresses; one family failing does not lose the other."""
        results = await asyncio.gather(self.ask(name, "A"), self.ask(name, "AAAA"), return_exceptions=True)
        found = [address for result in results if isinstance(result, Answer) for address in result.values]
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors and not found:
            raise next((e for e in errors if isinstance(e, DnsTemporary)), errors[0])
        return found

    def forget(self, name: str) -> None:
        """Drop what is remembered of a name, so that the next look-up sees the present."""
        lowered = to_ascii_domain(name)
        for key in [key for key in self._cache if key[0] == lowered]:
            del self._cache[key]

    async def is_secure(self, name: str, kind: str) -> bool:
        """Tell whether what the DNS says of a name and type, records or that there are none, is validated."""
        try:
            return (await self.ask(name, kind)).secure
        except NameNotFound:
            return False

    async def ask(self, name: str, kind: str) -> Answer:
        """Return the records of any type; raises NameNotFound, DnsTemporary."""
        key, now = (to_ascii_domain(name), kind), asyncio.get_running_loop().time()
        kept = self._cache.get(key)
        if kept is None or kept[0] <= now:
            kept = await self._ask_once(key, now)
        value = kept[1]
        if isinstance(value, NameNotFound):
            raise NameNotFound(str(value))
        if isinstance(value, DnsError):
            raise DnsTemporary(str(value))
        return value

    async def _ask_once(self, key: tuple[str, str], now: float) -> Kept:
        """Look up, or wait for the same look-up of somebody else: a burst of mail to one domain is one question."""
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._look_up(*key, now), name=f"look-up of {key[0]}")
            asking.add_done_callback(lambda _done: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _look_up(self, name: str, kind: str, now: float) -> Kept:
        """Ask and remember; a failure is returned, not raised, and not remembered."""
        try:
            answer = await self._resolver.resolve(dns.name.from_text(name), kind, search=False)
        except dns.resolver.NoAnswer as absence:
            response = absence.response()  # type: ignore[no-untyped-call]  # it has no annotation
            nothing = Answer([], self._is_authentic(response), name)
            return self._keep((name, kind), now + _ABSENCE_SECONDS, nothing)
        except dns.resolver.NXDOMAIN:
            return self._keep((name, kind), now + _ABSENCE_SECONDS, NameNotFound(f"{name} does not exist"))
        except (dns.exception.DNSException, OSError) as error:
            return now, DnsTemporary(f"{kind} look-up of {name} failed: {_reason(error)}")
        values = [_value(record, kind) for record in answer]
        canonical = to_ascii_domain(answer.canonical_name.to_text(omit_final_dot=True))
        found = Answer(values, self._is_authentic(answer.response), canonical)
        ttl = min(answer.chaining_result.minimum_ttl, _LONGEST_TTL_SECONDS)  # an alias on the way may live shorter
        return self._keep((name, kind), now + ttl, found)

    def _is_authentic(self, response: dns.message.Message) -> bool:
        return self.trusts_ad and bool(response.flags & dns.flags.AD)

    def _are_local(self) -> bool:
        servers = [str(getattr(server, "address", server)) for server in self._resolver.nameservers]
        return bool(servers) and all(_is_loopback(server) for server in servers)

    def _keep(self, key: tuple[str, str], until: float, value: Answer | DnsError) -> Kept:
        if len(self._cache) >= _CACHE_ENTRIES:
            self._cache.clear()
        self._cache[key] = (until, value)
        return until, value


def _value(record: object, kind: str) -> str:
    if kind == "TXT":
        return b"".join(record.strings).decode("utf-8", "replace")  # type: ignore[attr-defined]  # an rdata of TXT
    return str(record)


def _reason(error: Exception) -> str:
    return "no server answered in time" if isinstance(error, dns.exception.Timeout) else str(error)[:200]


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:  # a URL: DNS over HTTPS
        return False


def _nameserver(server: str) -> dns.nameserver.Do53Nameserver:
    address, port = server, "53"
    if server.startswith("["):
        address, _, port = server[1:].partition("]:")
    elif server.count(":") == 1:
        address, _, port = server.partition(":")
    return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(address)), int(port or 53))
