"""Which peers does a lane talk to? The smarthost's addresses, or the exchangers of the domain."""

import ipaddress
import itertools

from plunk_relay.delivery.routes import RoutePlan, Smarthost
from plunk_relay.mail.dns import DnsTemporary, NameNotFound
from plunk_relay.mail.hosts import Found, Later, Refused, find_hosts
from plunk_relay.mail.outcome import Bounced, Deferred, Reply
from plunk_relay.mail.session import Peer
from plunk_relay.relay import Relay


class PeerFinder:
    """Turns a route and a domain into peers, in the order to try them."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._settings = relay.settings.delivery
        sources = self._settings.source_addresses
        self._sources_v6 = itertools.cycle([source for source in sources if ":" in source] or [None])
        self._sources_v4 = itertools.cycle([source for source in sources if ":" not in source] or [None])

    async def find(self, plan: RoutePlan, domain: str) -> list[Peer] | Deferred | Bounced:
        """Return at least one peer, or what it means for the mail that there is none."""
        if plan.smarthost is not None:
            return await self._find_smarthost(plan.smarthost)
        found = await find_hosts(
            self._relay.resolver,
            domain,
            allow_networks=self._settings.allow_networks,
            own_names=(self._relay.hostname.lower().rstrip("."),),
        )
        match found:
            case Found(hosts):
                return [Peer(h.name, h.address, self._settings.port, source_address=self._source(h.address)) for h in hosts]
            case Later(reply):
                return Deferred(reply)
            case Refused(reply):
                return Bounced(reply)

    async def _find_smarthost(self, smarthost: Smarthost) -> list[Peer] | Deferred:
        try:
            addresses = await self._addresses(smarthost.host)
        except (NameNotFound, DnsTemporary) as error:
            return Deferred(Reply(451, "4.4.3", f"smarthost: {error}"))
        if not addresses:
            return Deferred(Reply(451, "4.4.3", f"the smarthost {smarthost.host} has no address"))
        return [
            Peer(
                host=smarthost.host,
                address=address,
                port=smarthost.port,
                tls=smarthost.tls,
                username=smarthost.username,
                password=smarthost.password,
                verify=smarthost.tls in ("required", "implicit") and not _is_loopback(address),
                source_address=self._source(address),
            )
            for address in addresses
        ]

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            return ["127.0.0.1"] if host == "localhost" else await self._relay.resolver.addresses(host)

    def _source(self, address: str) -> str | None:
        """Take the next source address of the peer's family; None: the system chooses."""
        return next(self._sources_v6 if ":" in address else self._sources_v4)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
