"""Who is connected to a door, and is there room for one more? Connections by address, by network and all together."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from plunk_relay.smtp.handler import DoorLimits, Network
from plunk_relay.smtp.replies import SmtpReply

_MINUTE = 60.0
_BUSY = SmtpReply(421, "4.3.2", "Too many connections; try again later")
_TOO_MANY = SmtpReply(421, "4.7.0", "Too many connections from your address")
_TOO_MANY_NETWORK = SmtpReply(421, "4.7.0", "Too many connections from your network")
_TOO_OFTEN = SmtpReply(421, "4.7.0", "Too many new connections from your address; try again in a minute")


class Crowd:
    """Counts connections. Trusted networks have no limits of their own; this machine only that of an address."""

    def __init__(self, limits: DoorLimits, trusted: Sequence[Network], monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._trusted = trusted
        self._monotonic = monotonic
        self._all = 0
        self._by_address: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._new: Counter[str] = Counter()
        """New connections of this minute by address."""
        self._minute_began = monotonic()

    def enter(self, address: str) -> SmtpReply | None:
        """Count a connection; return the refusal when there is no room for it. It is counted all the same: `leave`."""
        network = network_of(address)
        self._all += 1
        self._by_address[address] += 1
        self._by_network[network] += 1
        limits = self._limits
        if self._all > limits.max_connections:
            return _BUSY
        if _is_within(address, self._trusted):
            return None
        if self._by_address[address] > limits.max_connections_per_ip:
            return _TOO_MANY
        if _is_loopback(address):
            return None
        if self._by_network[network] > limits.max_connections_per_network:
            return _TOO_MANY_NETWORK
        return _TOO_OFTEN if self._count_new(address) > limits.max_new_per_minute else None

    def leave(self, address: str) -> None:
        """Take a connection off again."""
        self._all -= 1
        _decrease(self._by_address, address)
        _decrease(self._by_network, network_of(address))

    def _count_new(self, address: str) -> int:
        now = self._monotonic()
        if now - self._minute_began >= _MINUTE:
            self._minute_began = now
            self._new.clear()
        self._new[address] += 1
        return self._new[address]


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return the network that an address is counted with: /24, of IPv6 /48; what is no address is its own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # a socket of this machine


def _is_within(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
