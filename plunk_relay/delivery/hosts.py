"""Which peers does a lane talk to? The smarthost's addresses, or the exchangers of the domain."""

import asyncio
import ipaddress
import socket
import zlib

from plunk_relay.delivery.own_addresses import OwnAddresses
from plunk_relay.delivery.routes import RoutePlan, Smarthost
from plunk_relay.delivery.tls.policy import Asked, Demand, TlsPolicies
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.dns import DnsTemporary, NameNotFound
from plunk_relay.mail.hosts import Found, Host, Later, Refused, find_hosts
from plunk_relay.mail.outcome import Bounced, Deferred, Reply
from plunk_relay.mail.session import ConnectionFailed, Peer, Timeouts, TlsMode
from plunk_relay.mail.tls import TlsPolicy
from plunk_relay.mail.transport import Connection
from plunk_relay.relay import Relay


class PeerFinder:
    """Turns a route and a domain into peers, in the order to try them, and begins sessions with them."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._settings = relay.settings.delivery
        self._results = relay.tls_results
        self._policies = TlsPolicies(relay.resolver, relay.sts_policies, relay.tls_results, port=self._settings.port)
        self._authorities = str(self._settings.ca_file) if self._settings.ca_file else None
        self._own_addresses = OwnAddresses(relay.settings)

    async def find(
        self, plan: RoutePlan, domain: str, *, prefer: str | None = None, tls_wish: str | None = None
    ) -> list[Peer] | Deferred | Bounced:
        """Return at least one peer, or what it means for the mail that there is none; the preferred address is first.

        `tls_wish` is the message's: REQUIRED, OPTIONAL or None.
        """
        if plan.smarthost is not None:
            return await self._find_smarthost(plan, plan.smarthost, domain, prefer=prefer, tls_wish=tls_wish)
        looking = find_hosts(
            self._relay.resolver,
            domain,
            allow_networks=self._settings.allow_networks,
            own_names=(self._relay.hostname.lower().rstrip("."),),
            own_addresses=self._own_addresses,
            prefer=prefer,
        )
        found, sts = await asyncio.gather(looking, self._policies.find_sts(domain, tls_wish))
        match found:
            case Found(hosts):
                demands = await self._policies.apply(Asked(domain, tls_wish, plan.tls, sts), hosts)
                return demands if isinstance(demands, Deferred) else [self._peer(domain, *one) for one in demands]
            case Later(reply):
                return Deferred(reply)
            case Refused(reply):
                return Bounced(reply)

    async def connect(
        self, peer: Peer, conversation: Conversation, timeouts: Timeouts, sock: socket.socket | None = None
    ) -> Connection:
        """Begin a session with a peer and count how its TLS went; raises ConnectionFailed."""
        try:
            connection = await Connection.open(
                peer, conversation, local_hostname=self._relay.hostname, timeouts=timeouts, sock=sock
            )
        except ConnectionFailed as failure:
            if failure.tls_trouble is not None:
                self._results.note_failure(peer, failure.tls_trouble)
            raise
        self._results.note_session(peer, connection.tls)
        return connection

    def _peer(self, domain: str, host: Host, demand: Demand) -> Peer:
        return Peer(
            host=host.name,
            address=host.address,
            port=self._settings.port,
            tls=demand.tls,
            verify=demand.verify,
            source_address=self._source(domain, host.address),
            authorities=self._authorities,
            policy=demand.policy,
        )

    async def _find_smarthost(
        self, plan: RoutePlan, smarthost: Smarthost, domain: str, *, prefer: str | None, tls_wish: str | None
    ) -> list[Peer] | Deferred:
        """Return the smarthost's addresses; its URL says what TLS it needs, the route or the message may ask for more."""
        required = tls_wish == "REQUIRED"
        names = [f"route: {plan.tls}" if plan.tls != "may" else "", "REQUIRETLS" if required else ""]
        policy = TlsPolicy(name=", ".join(name for name in names if name), bounces=required)
        mode: TlsMode = "required" if policy.name and smarthost.tls != "implicit" else smarthost.tls
        checked = plan.tls == "verified" or required
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
                tls=mode,
                username=smarthost.username,
                password=smarthost.password,
                verify=checked or (smarthost.tls in ("required", "implicit") and not _is_loopback(address)),
                source_address=self._source(domain, address),
                authorities=self._authorities,
                policy=policy,
            )
            for address in sorted(addresses, key=lambda address: address != prefer)
        ]

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            return ["127.0.0.1"] if host == "localhost" else await self._relay.resolver.addresses(host)

    def _source(self, domain: str, address: str) -> str | None:
        """Choose a source address of the peer's family, always the same for both; None: the system chooses.

        Greylisting looks at who came before: a retry from another address begins anew.
        """
        sources = [source for source in self._settings.source_addresses if (":" in source) == (":" in address)]
        return sources[zlib.crc32(f"{domain} {address}".encode()) % len(sources)] if sources else None


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
