"""Which addresses lead back to this very process? Those at which one of its doors listens on the port mail is sent to."""

import ipaddress
import socket

from plunk_relay.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class OwnAddresses:
    """A container of addresses in text form.

    An address that the operator lists by itself in `delivery.allow_networks` is not in it; a network does not lift the rule.
    """

    def __init__(self, settings: Settings) -> None:
        smtp, http, port = settings.smtp, settings.http, settings.delivery.port
        doors = [(smtp.host, smtp.submission_port), (smtp.host, smtp.submissions_port), (smtp.host, smtp.inbound_port)]
        hosts = [_read(host) for host, door in (*doors, (http.host, http.port)) if door == port]
        self._hosts = {host for host in hosts if host is not None}
        self._listed = {net.network_address for net in settings.delivery.allow_networks if net.num_addresses == 1}

    def __contains__(self, text: object) -> bool:
        address = _read(str(text)) if self._hosts else None
        if address is None or address in self._listed:
            return False
        if address in self._hosts:
            return True
        everywhere = any(host.is_unspecified and host.version == address.version for host in self._hosts)
        return everywhere and _is_of_this_machine(address)


def _read(text: str) -> Address | None:
    """Return the address, an IPv4-mapped one as IPv4; None: it is a name."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if text == "localhost" else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_of_this_machine(address: Address) -> bool:
    """Ask the kernel where it would send from: to one of its own addresses, from that address. Nothing is sent."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:  # no way there
            return False
        return bool(probe.getsockname()[0] == str(address))
