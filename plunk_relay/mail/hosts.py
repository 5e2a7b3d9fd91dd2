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


async def find_hosts(
    resolver: Resolver, domain: str, *, allow_networks: Sequence[Network] = (), own_names: Container[str] = ()
) -> Found | Refused | Later:
    """Apply the rules of RFC 5321 5.1, RFC 7505 and our own: never an address fallback after a failed MX look-up."""
    if domain.startswith("["):
        return _literal(domain, allow_networks)
    try:
        records = await resolver.mx(domain)
        exchangers = [record for record in records if record.host]
        if records and not exchangers:
            return Refused(Reply(556, "5.1.10", f"{domain} accepts no mail (null MX)"))
        names = _order(exchangers or [MxRecord(0, domain)], own_names)
    except NameNotFound:
        return Refused(Reply(550, "5.1.2", f"the domain {domain} does not exist"))
    except DnsTemporary as error:
        return Later(Reply(451, "4.4.3", str(error)))
    if not names:
        return Refused(Reply(554, "5.4.6", f"the best mail exchanger of {domain} is this server itself"))
    return await _resolve_all(resolver, domain, names[:_MOST_HOSTS], allow_networks)


def _order(records: Sequence[MxRecord], own_names: Container[str]) -> list[str]:
    """Sort by preference, ties shuffled; this host and all that are worse are left out: mail must not loop."""
    shuffled = random.sample(list(records), len(records))  # spreads load, guards nothing
    ordered = sorted(shuffled, key=lambda record: record.preference)
    own = min((record.preference for record in ordered if record.host in own_names), default=None)
    return list(dict.fromkeys(record.host for record in ordered if own is None or record.preference < own))


async def _resolve_all(
    resolver: Resolver, domain: str, names: Sequence[str], allow_networks: Sequence[Network]
) -> Found | Refused | Later:
    results = await asyncio.gather(*(resolver.addresses(name) for name in names), return_exceptions=True)
    hosts: list[Host] = []
    forbidden = False
    for name, result in zip(names, results, strict=True):
        if isinstance(result, DnsError):
            continue
        if isinstance(result, BaseException):
            raise result
        allowed = [address for address in result if is_allowed(address, allow_networks)]
        forbidden = forbidden or len(allowed) < len(result)
        hosts += [Host(name, address) for address in _one_of_each_family(allowed)]
    if hosts:
        return Found(tuple(hosts))
    trouble = next((r for r in results if isinstance(r, DnsTemporary)), None)
    if trouble is not None:
        return Later(Reply(451, "4.4.3", str(trouble)))
    if forbidden:
        return Refused(Reply(554, "5.4.6", f"{domain} points to an address that mail may not go to"))
    return Refused(Reply(550, "5.1.2", f"no mail exchanger of {domain} has an address"))


def _one_of_each_family(addresses: Sequence[str]) -> list[str]:
    shuffled = random.sample(list(addresses), len(addresses))
    v6 = [address for address in shuffled if ":" in address][:1]
    v4 = [address for address in shuffled if ":" not in address][: 2 - len(v6)]
    return v6 + v4


def _literal(domain: str, allow_networks: Sequence[Network]) -> Found | Refused:
    text = domain.strip("[]").removeprefix("ipv6:").removeprefix("IPv6:")
    try:
        address = str(ipaddress.ip_address(text))
    except ValueError:
        return Refused(Reply(550, "5.1.2", f"{domain} is not an address literal"))
    if not is_allowed(address, allow_networks):
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
