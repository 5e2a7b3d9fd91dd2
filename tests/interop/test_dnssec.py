"""Does DANE work with a resolver that really validates, and does nothing forged get past it?"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.mail.dns import DnsTemporary, Resolver
from tests.kit.authority import Authority, Issued, tlsa
from tests.kit.outbox import Outbox, prepare_tenants, running_outbox
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.secure import WITH_TLS
from tests.kit.unbound import Unbound, Zone, plain_zone, signed_zone, with_stranger_s_key

pytestmark = pytest.mark.slow
MakeZone = Callable[[Path, list[str]], Zone]


@pytest.fixture
def shown(tmp_path: Path) -> Issued:
    """Return a certificate that nobody vouches for but the DNS."""
    return Authority(tmp_path).issue("localhost")


def records(port: int, certificate: bytes) -> list[str]:
    return ["@ IN MX 10 mx", "mx IN A 127.0.0.1", f"_{port}._tcp.mx IN TLSA {tlsa(certificate)}"]


def good(directory: Path, lines: list[str]) -> Zone:
    return signed_zone(directory, "example.org", *lines)


def unsigned(directory: Path, lines: list[str]) -> Zone:
    return plain_zone(directory, "example.org", *lines)


def bogus(directory: Path, lines: list[str]) -> Zone:
    return with_stranger_s_key(directory, good(directory, lines))


def forged_record(directory: Path, lines: list[str]) -> Zone:
    """Sign, and then put another fingerprint into the TLSA record."""
    zone = good(directory, lines)
    text = zone.file.read_text()
    fingerprint = lines[2].rsplit(" ", 1)[1]
    assert fingerprint in text
    zone.file.write_text(text.replace(fingerprint, "ab" * 32))
    return zone


@asynccontextmanager
async def delivering(directory: Path, shown: Issued, make: MakeZone, named: bytes | None = None) -> AsyncIterator[Any]:
    """Run a resolver, an exchanger and an outbox."""
    data, zones = directory / "data", directory / "zones"
    data.mkdir()
    zones.mkdir()
    prepared = await prepare_tenants(data)
    async with running_peer(Script(keywords=WITH_TLS), certificate=shown.files) as peer:
        zone = make(zones, records(peer.port, named or shown.chain[0]))
        with Unbound(zones, [zone]) as resolver:
            settings: dict[str, Any] = {"port": peer.port, "resolvers": [resolver.server]}
            async with running_outbox(prepared, data, copy=False, **settings) as outbox:
                yield outbox, peer


async def attempt(outbox: Outbox, peer: Peer) -> tuple[str, str | None, str, int]:
    """Send a mail; return its state, the attempt's TLS and reply, and how many connections were made."""
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    [made] = await outbox.attempts(delivery_id)
    return (await outbox.delivery(delivery_id))["state"], made["tls"], made["reply"], len(peer.sessions)


async def test_a_signed_record_is_believed(tmp_path: Path, shown: Issued) -> None:
    async with delivering(tmp_path, shown, good) as (outbox, peer):
        state, tls, _, _ = await attempt(outbox, peer)
        assert (state, tls) == ("DELIVERED", "TLSv1.3 verified (DANE)")


async def test_a_signed_record_of_another_certificate_holds_the_mail_back(tmp_path: Path, shown: Issued) -> None:
    other = Authority(tmp_path, "other").issue("localhost")
    async with delivering(tmp_path, shown, good, other.chain[0]) as (outbox, peer):
        state, _, reply, _ = await attempt(outbox, peer)
        assert (state, reply) == ("QUEUED", "451 4.7.5 DANE: no TLSA record matches the certificate")
        assert peer.received == []


async def test_an_unsigned_record_is_nothing(tmp_path: Path, shown: Issued) -> None:
    other = Authority(tmp_path, "other").issue("localhost")
    async with delivering(tmp_path, shown, unsigned, other.chain[0]) as (outbox, peer):
        state, tls, _, _ = await attempt(outbox, peer)
        assert (state, tls) == ("DELIVERED", "TLSv1.3 unverified")


async def test_a_forged_record_does_not_downgrade(tmp_path: Path, shown: Issued) -> None:
    async with delivering(tmp_path, shown, forged_record) as (outbox, peer):
        state, _, reply, sessions = await attempt(outbox, peer)
        assert (state, sessions) == ("QUEUED", 0)
        assert reply.startswith(f"451 4.7.5 DANE: TLSA look-up of _{peer.port}._tcp.mx.example.org failed")


async def test_mail_to_a_forged_zone_waits(tmp_path: Path, shown: Issued) -> None:
    async with delivering(tmp_path, shown, bogus) as (outbox, peer):
        state, _, reply, sessions = await attempt(outbox, peer)
        assert (state, sessions) == ("QUEUED", 0)
        assert reply.startswith("451 4.4.3 MX look-up of example.org failed")


async def test_what_is_absent_from_a_signed_zone_is_absent_for_sure(tmp_path: Path) -> None:
    zones = [
        signed_zone(tmp_path, "example.org", "mx IN A 127.0.0.1"),
        plain_zone(tmp_path, "example.net", "mx IN A 127.0.0.1"),
    ]
    with Unbound(tmp_path, zones) as unbound:
        resolver = Resolver([unbound.server], trust_ad="auto")
        assert await resolver.is_secure("example.org", "MX")
        assert not await resolver.is_secure("example.net", "MX")
        assert await resolver.mx("example.org") == []


async def test_what_cannot_be_validated_is_no_answer(tmp_path: Path) -> None:
    zone = with_stranger_s_key(tmp_path, signed_zone(tmp_path, "example.org", "@ IN MX 10 mx"))
    with Unbound(tmp_path, [zone]) as unbound, pytest.raises(DnsTemporary):
        await Resolver([unbound.server]).mx("example.org")
