"""Which hosts take mail for a domain? MX order, fallback to addresses, null MX, loops, forbidden networks (RFC 5321 5)."""

import asyncio
import ipaddress
import random
from collections.abc import Container, Sequence
from dataclasses import dataclass

from plunk_relay.mail.dns import DnsError, DnsTemporary, MxRecord, NameNotFound, Resolver
from plunk_relay.mail.outcome import Reply

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_HOSTS = 5
_MOST_LOOKED_THROUGH = 20
Answer = tuple[MxRecord, list[str]]
"""An exchanger and its addresses; none when they could not be found."""


@dataclass(frozen=True, slots=True)
class Host:
    """One address of a mail exchanger."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Found:
    """Hosts in the order to try them; at least one."""

    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The domain takes no mail: bounce."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Later:
    """The DNS could not tell: try again."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class _Rules:
    """What narrows the choice of hosts down; see `find_hosts`."""

    allow_networks: Sequence[Network]
    own_names: Container[str]
    own_addresses: Container[str]
    prefer: str | None


async def find_hosts(
    resolver: Resolver,
    domain: str,
    *,
    allow_networks: Sequence[Network] = (),
    own_names: Container[str] = (),
    own_addresses: Container[str] = (),
    prefer: str | None = None,
) -> Found | Refused | Later:
    """Apply the rules of RFC 5321 5.1, RFC 7505 and our own: never an address fallback after a failed MX look-up.

    `own_addresses` are those at which this process itself takes mail; `prefer` is the address to begin with, if it is
    still one of the domain's: greylisting remembers who was there before.
    """
    rules = _Rules(allow_networks, own_names, own_addresses, prefer)
    if domain.startswith("["):
        return _literal(domain, rules)
    try:
        records = await resolver.mx(domain)
        exchangers = [record for record in records if record.host]
        if records and not exchangers:
            return Refused(Reply(556, "5.1.10", f"{domain} accepts no mail (null MX)"))
        ordered = _order(exchangers or [MxRecord(0, domain)], own_names)
    except NameNotFound:
        return Refused(Reply(550, "5.1.2", f"the domain {domain} does not exist"))
    except DnsTemporary as error:
        return Later(Reply(451, "4.4.3", str(error)))
    if not ordered:
        return _refuse_own(domain)
    return await _resolve_all(resolver, domain, ordered[: _MOST_HOSTS if prefer is None else _MOST_LOOKED_THROUGH], rules)


def _order(records: Sequence[MxRecord], own_names: Container[str]) -> list[MxRecord]:
    """Sort by preference, ties shuffled; this host and all that are not better are left out: mail must not loop."""
    shuffled = random.sample(list(records), len(records))  # spreads load, guards nothing
    own = min((record.preference for record in records if record.host in own_names), default=None)
    ordered: dict[str, MxRecord] = {}
    for record in sorted(shuffled, key=lambda record: record.preference):
        if own is None or record.preference < own:
            ordered.setdefault(record.host, record)
    return list(ordered.values())


async def _resolve_all(
    resolver: Resolver, domain: str, records: Sequence[MxRecord], rules: _Rules
) -> Found | Refused | Later:
    results = await asyncio.gather(*(resolver.addresses(record.host) for record in records), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, DnsError):
            raise result
    answers = [(record, r if isinstance(r, list) else []) for record, r in zip(records, results, strict=True)]
    better = _better_than_own(answers, rules.own_addresses)
    if not better:
        return _refuse_own(domain)
    hosts = _choose(better, rules)
    if hosts:
        return Found(tuple(hosts))
    trouble = next((result for result in results[: len(better)] if isinstance(result, DnsTemporary)), None)
    if trouble is not None:
        return Later(Reply(451, "4.4.3", str(trouble)))
    if any(addresses for _, addresses in better):
        return Refused(Reply(554, "5.4.6", f"{domain} points to an address that mail may not go to"))
    return Refused(Reply(550, "5.1.2", f"no mail exchanger of {domain} has an address"))


def _better_than_own(answers: Sequence[Answer], own_addresses: Container[str]) -> Sequence[Answer]:
    """Leave out who leads to this very process, and all that are not better: under whatever name, it is this host."""
    own = [record.preference for record, addresses in answers if any(a in own_addresses for a in addresses)]
    return [answer for answer in answers if not own or answer[0].preference < min(own)]


def _choose(answers: Sequence[Answer], rules: _Rules) -> list[Host]:
    """Take two addresses of each of five hosts, the preferred address and its host first."""
    hosts: list[Host] = []
    names = 0
    for record, addresses in sorted(answers, key=lambda answer: rules.prefer not in answer[1]):
        allowed = [address for address in addresses if is_allowed(address, rules.allow_networks)]
        if allowed and names < _MOST_HOSTS:
            names += 1
            hosts += [Host(record.host, address) for address in _one_of_each_family(allowed, rules.prefer)]
    return hosts


def _refuse_own(domain: str) -> Refused:
    return Refused(Reply(554, "5.4.6", f"the best mail exchanger of {domain} is this server itself"))


def _one_of_each_family(addresses: Sequence[str], prefer: str | None) -> list[str]:
    """Take two, IPv6 first; the preferred one is always among them, before the other."""
    shuffled = random.sample(list(addresses), len(addresses))
    shuffled.sort(key=lambda address: address != prefer)
    v6 = [address for address in shuffled if ":" in address][:1]
    v4 = [address for address in shuffled if ":" not in address][: 2 - len(v6)]
    return sorted(v6 + v4, key=lambda address: address != prefer)


def _literal(domain: str, rules: _Rules) -> Found | Refused:
    """Read an address in brackets (RFC 5321 4.1.3): there is nothing to look up."""
    text = domain.strip("[]").removeprefix("ipv6:").removeprefix("IPv6:")
    try:
        address = str(ipaddress.ip_address(text))
    except ValueError:
        return Refused(Reply(550, "5.1.2", f"{domain} is not an address literal"))
    if address in rules.own_addresses:
        return Refused(Reply(554, "5.4.6", f"{domain} is this server itself"))
    if not is_allowed(address, rules.allow_networks):
        return Refused(Reply(554, "5.4.6", f"{domain} is an address that mail may not go to"))
    return Found((Host(domain, address),))


def is_allowed(address: str, allow_networks: Sequence[Network]) -> bool:
    """Tell whether mail may go there: public addresses, and what the operator lists."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if any(parsed in network for network in allow_networks):
        return True
    return parsed.is_global and not parsed.is_multicast
