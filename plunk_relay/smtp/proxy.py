"""Who is behind the proxy? The PROXY protocol, versions 1 and 2: a header before everything else names the client.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. The header comes before TLS, so it is read from the bare socket.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

from plunk_relay.log import get_logger
from plunk_relay.smtp.handler import Network

log = get_logger("smtp")
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LONGEST_LINE = 107
_HEADER_SECONDS = 10.0
_TROUBLE_SECONDS = 1.0
_HANDSHAKE_SECONDS = 30.0
_FAMILIES = {0x11: 4, 0x21: 16}
"""Bytes of an address, by address family and transport: TCP over IPv4 and over IPv6."""
_UNSPECIFIED = 0x00
ReadExactly = Callable[[int], Awaitable[bytes]]
MakeSession = Callable[[str], asyncio.BaseProtocol]


class BadProxyHeader(Exception):
    """A proxy did not begin with a header that we understand."""


async def read_client_address(read_exactly: ReadExactly) -> str:
    """Read the header, not a byte more; return the client's address, empty when the proxy speaks for itself.

    Raises BadProxyHeader.
    """
    start = await read_exactly(len(_SIGNATURE))
    if start == _SIGNATURE:
        command, family, high, low = await read_exactly(4)
        return _parse_binary(command, family, await read_exactly(high << 8 | low))
    if not start.startswith(b"PROXY "):
        raise BadProxyHeader("no header")
    while not start.endswith(b"\r\n"):
        if len(start) >= _LONGEST_LINE:
            raise BadProxyHeader("the header is too long")
        start += await read_exactly(1)
    return _parse_line(start.decode("ascii", "replace"))


def _parse_line(line: str) -> str:
    words = line.removesuffix("\r\n").split(" ")
    if words[1] == "UNKNOWN":
        return ""
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadProxyHeader("not `PROXY TCP4|TCP6 source destination port port`")
    _, family, source, destination, *ports = words
    parse = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        parse(destination)
        client = parse(source)
    except ValueError as error:
        raise BadProxyHeader(str(error)) from error
    if not all(port.isascii() and port.isdigit() and int(port) <= 65535 for port in ports):
        raise BadProxyHeader("not a port")
    return _plain(client)


def _parse_binary(command: int, family: int, addresses: bytes) -> str:
    if command == 0x20:  # LOCAL: the proxy's own health check
        return ""
    if command != 0x21:
        raise BadProxyHeader("neither LOCAL nor PROXY of version 2")
    if family == _UNSPECIFIED:
        return ""
    size = _FAMILIES.get(family, 0)
    if not size or len(addresses) < 2 * size + 4:
        raise BadProxyHeader("not TCP over IPv4 or IPv6")
    return _plain(ipaddress.ip_address(addresses[:size]))


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class ProxiedServer:
    """Listens where some clients come by way of a proxy; used as asyncio's own server is."""

    def __init__(
        self, make_session: MakeSession, listener: socket.socket, proxies: Sequence[Network], tls: ssl.SSLContext | None
    ) -> None:
        self.sockets = (listener,)
        self._make_session = make_session
        self._listener = listener
        self._proxies = proxies
        self._tls = tls
        listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._accept_all(), name="proxied smtp door")
        self._task.add_done_callback(lambda _done: listener.close())

    def close(self) -> None:
        """Stop listening; connections whose header has not come yet are closed."""
        self._task.cancel()

    async def _accept_all(self) -> None:
        async with asyncio.TaskGroup() as beginnings:
            while True:
                try:
                    connection, peer = await self._loop.sock_accept(self._listener)
                except OSError as error:
                    log.error("cannot take a connection", error=str(error))
                    await asyncio.sleep(_TROUBLE_SECONDS)
                    continue
                beginnings.create_task(self._begin(connection, str(peer[0])), name="proxy header")

    async def _begin(self, connection: socket.socket, peer: str) -> None:
        """Read the header when one is due, and hand the connection over."""
        try:
            address = await self._read_header(connection, peer) if self._is_proxy(peer) else ""
            await self._loop.connect_accepted_socket(
                lambda: self._make_session(address),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
            )
        except (BadProxyHeader, TimeoutError) as error:
            log.warning("no valid header from the proxy", proxy=peer, error=str(error) or "none came in time")
            connection.close()
        except OSError:
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _is_proxy(self, peer: str) -> bool:
        address = ipaddress.ip_address(peer)
        return any(address in network for network in self._proxies)

    async def _read_header(self, connection: socket.socket, peer: str) -> str:
        async def read_exactly(count: int) -> bytes:
            data = b""
            while len(data) < count:
                chunk = await self._loop.sock_recv(connection, count - len(data))
                if not chunk:
                    raise BadProxyHeader("the connection ended")
                data += chunk
            return data

        async with asyncio.timeout(_HEADER_SECONDS):
            return await read_client_address(read_exactly) or peer
