"""Who is the client behind a proxy? The one in the PROXY protocol header; limits and the guard look at it."""

import asyncio
import ipaddress
import ssl
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.clock import ManualClock
from plunk_relay.smtp.proxy import BadProxyHeader, read_client_address
from tests.kit.certificates import make_certificate
from tests.kit.smtp import Stage, Wire, running_site, sasl_plain, wire_to

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXIES = ["127.0.0.0/8"]


def version1(source: str) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    own = "2001:db8::2" if ":" in source else "192.0.2.2"
    return f"PROXY {family} {source} {own} 4000 587\r\n".encode()


def version2(source: str, *, extension: bytes = b"") -> bytes:
    client = ipaddress.ip_address(source)
    own = ipaddress.ip_address("2001:db8::2" if client.version == 6 else "192.0.2.2")
    body = client.packed + own.packed + struct.pack("!HH", 4000, 587) + extension
    return SIGNATURE + bytes([0x21, 0x21 if client.version == 6 else 0x11]) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (version1("192.0.2.1"), "192.0.2.1"),
        (version1("2001:db8::1"), "2001:db8::1"),
        (version1("2001:0db8:0000:0000:0000:0000:0000:0001"), "2001:db8::1"),
        (version1("::ffff:192.0.2.1"), "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ""),
        (version2("192.0.2.1"), "192.0.2.1"),
        (version2("2001:db8::1"), "2001:db8::1"),
        (version2("::ffff:192.0.2.1"), "192.0.2.1"),
        (version2("192.0.2.1", extension=b"\x04\x00\x02ab"), "192.0.2.1"),
        (SIGNATURE + b"\x20\x00\x00\x00", ""),
        (SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12), ""),
        (SIGNATURE + b"\x21\x00\x00\x05other", ""),
    ],
)
async def test_a_header_names_the_client_and_nothing_behind_it_is_read(header: bytes, address: str) -> None:
    assert await _read(header + b"EHLO client.test\r\n") == (address, b"EHLO client.test\r\n")


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO client.test\r\nNOOP\r\n",
        b"PROXY\r\nEHLO client.test\r\n",
        b"PROXY TCP4\r\n and more\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4000\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 587 \r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 4000 587\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 4000 587\r\n",
        b"PROXY TCP4 192.0.2.1 mail.test 4000 587\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4000 587\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 4000 587\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 70000 587\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 587\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 4000 587\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
    ],
)
async def test_anything_else_is_no_header(header: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        await _read(header)


@settings(deadline=None)
@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]), st.binary(max_size=120))
def test_garbage_is_refused_and_nothing_worse(start: bytes, rest: bytes) -> None:
    try:
        address, _ = asyncio.run(_read(start + rest))
    except BadProxyHeader:
        return
    assert not address or ipaddress.ip_address(address)


async def test_connections_are_counted_by_the_client(stage: Stage, tmp_path: Path) -> None:
    opening = running_site(stage, tmp_path, trusted_proxies=PROXIES, max_connections_per_ip=1)
    async with opening as site, wire_to(site.port) as first, wire_to(site.port) as same, wire_to(site.port) as other:
        assert await _arrive(first, version1("192.0.2.1")) == "220"
        assert await _arrive(same, version2("192.0.2.1")) == "421"
        assert await _arrive(other, version1("192.0.2.9")) == "220"


async def test_guesses_are_counted_by_the_client(stage: Stage, tmp_path: Path, clock: ManualClock) -> None:
    async with running_site(stage, tmp_path, clock=clock, trusted_proxies=PROXIES) as site:
        for source, password, code in (
            *[("192.0.2.1", "sk_wrong", "535")] * 10,
            ("192.0.2.1", site.acme.secret, "454"),
            ("198.51.100.1", site.acme.secret, "235"),
        ):
            async with wire_to(site.port) as wire:
                assert await _arrive(wire, version1(source)) == "220"
                await wire.ask("EHLO client.test")
                assert (await wire.ask(f"AUTH PLAIN {sasl_plain('plunk', password)}"))[:3] == code


@pytest.mark.parametrize("header", [version1("192.0.2.1"), version2("192.0.2.1")])
async def test_a_header_may_come_in_pieces(stage: Stage, tmp_path: Path, header: bytes) -> None:
    async with running_site(stage, tmp_path, trusted_proxies=PROXIES) as site, wire_to(site.port) as wire:
        for octet in header:
            await wire.send(bytes([octet]))
            await asyncio.sleep(0)
        assert await wire.reply() is not None


@pytest.mark.parametrize("start", [b"", b"PROXY TCP4 192", SIGNATURE[:5], b"EHLO client.test\r\n", bytes(300)])
async def test_a_proxy_without_a_header_is_cut_off(stage: Stage, tmp_path: Path, start: bytes) -> None:
    async with running_site(stage, tmp_path, trusted_proxies=PROXIES) as site:
        async with wire_to(site.port) as wire:
            await wire.send(start)
            wire.writer.write_eof()
            assert await wire.line() is None
        async with wire_to(site.port) as wire:
            assert await _arrive(wire, version1("192.0.2.1")) == "220", "others are not disturbed"


async def test_who_is_no_proxy_needs_no_header(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, trusted_proxies=["127.0.0.9/32"]) as site:
        async with wire_to(site.port) as wire:
            assert (await wire.reply() or "").startswith("220 ")
        async with wire_to(site.port, source="127.0.0.9") as wire:
            assert await _arrive(wire, version1("192.0.2.1")) == "220"


async def test_on_port_465_the_header_comes_before_tls_even_in_one_packet_with_it(stage: Stage, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    trusted = [{"network": "192.0.2.1/32", "project": "acme"}]
    opening = running_site(stage, tmp_path, certificate=files, trusted_proxies=PROXIES, trusted=trusted)
    async with opening as site, wire_to(site.door("submissions").port) as wire:
        tls = _TlsByHand(wire, ssl.create_default_context(cafile=str(files.certificate)))
        await tls.shake_hands(first=version1("192.0.2.1"))
        assert (await tls.hear()).startswith(b"220 ")
        tls.say(b"EHLO client.test\r\n")
        assert (await tls.hear()).endswith(b"AUTH PLAIN LOGIN\r\n")
        tls.say(b"MAIL FROM:<app@acme.test>\r\n")
        assert (await tls.hear()).startswith(b"250 2.1.0 "), "trusted as the client that the proxy named"


async def test_a_stop_ends_what_has_no_header_yet(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, trusted_proxies=PROXIES) as site:
        port = site.port
        async with wire_to(port) as late, wire_to(port) as wire:
            await late.send(b"PROXY ")
            assert await _arrive(wire, version1("192.0.2.1")) == "220"
            await site.door("submission").stop(1)
            assert (await wire.reply() or "").startswith("421 4.3.2 ")
            assert await late.line() is None


class _TlsByHand:
    """TLS over a wire, so that the test decides what shares a packet."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake_hands(self, *, first: bytes) -> None:
        """Shake hands; `first` goes in front of the client's first words."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._wire.send(first + self._outgoing.read())
                first = b""
                self._incoming.write(await self._wire.reader.read(65536))
                continue
            return

    def say(self, data: bytes) -> None:
        """Send with the next read."""
        self._tls.write(data)

    async def hear(self) -> bytes:
        """Return what the server says next."""
        while True:
            await self._wire.send(self._outgoing.read())
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(await self._wire.reader.read(65536))


async def _arrive(wire: Wire, header: bytes) -> str:
    """Send a header and return the code of the greeting."""
    await wire.send(header)
    return (await wire.reply() or "")[:3]


async def _read(data: bytes) -> tuple[str, bytes]:
    """Return the client's address and what was not read."""
    rest = bytearray(data)

    async def read_exactly(count: int) -> bytes:
        if len(rest) < count:
            raise BadProxyHeader("the connection ended")
        taken = bytes(rest[:count])
        del rest[:count]
        return taken

    address = await read_client_address(read_exactly)
    return address, bytes(rest)
