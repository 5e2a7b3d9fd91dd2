"""Does a real authority give us a certificate, and do the doors show it? pebble looks at our HTTP door over test DNS."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from plunk_relay.acme.actions import acme_files
from plunk_relay.acme.files import Validity
from plunk_relay.acme.worker import Keeper
from plunk_relay.clock import Clock, ManualClock, SystemClock
from plunk_relay.relay import Relay
from plunk_relay.smtp.inbound import inbound_doors
from plunk_relay.smtp.submission import submission_doors
from tests.kit.authority import Authority
from tests.kit.dns import DnsTable, running_dns
from tests.kit.http import running_http
from tests.kit.pebble import Pebble, running_pebble
from tests.kit.policies import running_https
from tests.kit.process import ServerProcess, free_port
from tests.kit.relay import running_relay
from tests.kit.smtp import PATIENCE_SECONDS, greeted, open_door, wire_to

pytestmark = pytest.mark.slow
NAME = "relay.test"


@dataclass(frozen=True, slots=True)
class Place:
    """A relay whose doors are open."""

    relay: Relay
    ports: dict[str, int]

    async def keep(self) -> None:
        """Do what the worker does when it looks."""
        await Keeper(self.relay).run_once()

    @property
    def validity(self) -> Validity | None:
        """What the stored certificate says."""
        return acme_files(self.relay.settings).read_validity()

    async def offers_starttls(self, door: str) -> bool:
        """Ask a door what it offers."""
        async with greeted(self.ports[door]) as wire:
            await wire.say("EHLO client.test")
            lines = [await wire.line()]
            while lines[-1] is not None and lines[-1][3] == "-":
                lines.append(await wire.line())
        return any(line is not None and line[4:] == "STARTTLS" for line in lines)

    async def shown_after_starttls(self, door: str, trust: ssl.SSLContext, name: str = NAME) -> bytes | None:
        """Return the certificate of a door; the handshake fails unless it is good for the name."""
        async with greeted(self.ports[door]) as wire:
            assert (await wire.ask("EHLO client.test", "STARTTLS")).startswith("220 ")
            await wire.start_tls(trust, server_name=name)
            tls: ssl.SSLObject = wire.writer.get_extra_info("ssl_object")
            return tls.getpeercert(binary_form=True)

    async def shown_on_465(self, trust: ssl.SSLContext) -> bytes | None:
        """Return the certificate of the door with implicit TLS."""
        async with greeted(self.ports["submissions"], tls=trust, server_name=NAME) as wire:
            tls: ssl.SSLObject = wire.writer.get_extra_info("ssl_object")
            return tls.getpeercert(binary_form=True)


@asynccontextmanager
async def open_place(
    directory: Path, pebble: Pebble, *, http_port: int, names: tuple[str, ...] = (), clock: Clock | None = None
) -> AsyncIterator[Place]:
    """Open all doors of a relay that asks pebble."""
    smtp = {"submission_port": free_port(), "submissions_port": free_port(), "inbound_port": free_port()}
    acme = pebble.settings | {"names": names}
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay(directory, clock=clock or SystemClock(), smtp=smtp, acme=acme))
        await stack.enter_async_context(running_http(relay, port=http_port))
        ports = {}
        for door in [*await submission_doors(relay), *inbound_doors(relay)]:
            ports[door.name] = (await stack.enter_async_context(open_door(door))).port
        yield Place(relay, ports)


@asynccontextmanager
async def pebble_and_place(
    directory: Path,
    *,
    names: tuple[str, ...] = (),
    http_port: int | None = None,
    clock: Clock | None = None,
    **moods: int,
) -> AsyncIterator[tuple[Pebble, Place]]:
    """Open everything that one certificate needs; the HTTP door is where pebble looks unless `http_port` is another."""
    port, data = free_port(), directory / "data"
    place_port = port if http_port is None else http_port
    data.mkdir()
    async with running_dns(_dns(names or (NAME,))) as dns:
        with running_pebble(directory / "pebble", http_port=port, dns=dns, **moods) as pebble:
            async with open_place(data, pebble, http_port=place_port, names=names, clock=clock) as place:
                yield pebble, place


async def test_doors_offer_starttls_when_the_certificate_has_come_and_not_before(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path) as (pebble, place):
        for door in ("submission", "inbound"):
            assert not await place.offers_starttls(door)
        await place.keep()
        for door in ("submission", "inbound"):
            assert await place.offers_starttls(door)
            assert await place.shown_after_starttls(door, pebble.trust)


async def test_port_465_refuses_the_handshake_until_the_certificate_has_come(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path) as (pebble, place):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with wire_to(place.ports["submissions"], tls=pebble.trust, server_name=NAME):
                pass
        await place.keep()
        assert await place.shown_on_465(pebble.trust) == await place.shown_after_starttls("submission", pebble.trust)


async def test_one_certificate_is_for_every_name(tmp_path: Path) -> None:
    names = ("mx.relay.test", "Smtp.Relay.test")
    async with pebble_and_place(tmp_path, names=names) as (pebble, place):
        await place.keep()
        shown = {await place.shown_after_starttls("submission", pebble.trust, name=name) for name in names}
        assert len(shown) == 1
        await place.keep()
        assert pebble.issued == 1, "what is written in capitals is the same name"


@pytest.mark.parametrize("reuse", [0, 100])
async def test_certificate_is_renewed_when_two_thirds_of_its_life_are_over(tmp_path: Path, reuse: int) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with pebble_and_place(tmp_path, clock=clock, reuse=reuse) as (pebble, place):
        await place.keep()
        first, validity = await place.shown_after_starttls("submission", pebble.trust), place.validity
        assert validity is not None
        life = validity.ends - validity.begins
        clock.advance(seconds=(life * 0.6).total_seconds())
        await place.keep()
        assert pebble.issued == 1
        clock.advance(seconds=(life * 0.1).total_seconds())
        await place.keep()
        second = await place.shown_after_starttls("submission", pebble.trust)
        assert pebble.issued == 2
        assert second not in (None, first)
        assert await place.shown_on_465(pebble.trust) == second


async def test_a_restart_uses_what_is_stored_and_asks_nobody(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path) as (pebble, place):
        await place.keep()
        shown = await place.shown_after_starttls("submission", pebble.trust)
    async with open_place(tmp_path / "data", pebble, http_port=free_port()) as place:  # pebble is gone
        with capture_logs() as lines:
            await place.keep()
        assert lines == []
        assert await place.shown_after_starttls("submission", pebble.trust) == shown


async def test_nothing_is_left_at_the_http_door(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path) as (_, place):
        await place.keep()
        assert place.validity is not None
        assert place.relay.acme_answers == {}


async def test_a_name_that_leads_elsewhere_is_one_line_with_the_authority_s_reason(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path, http_port=0) as (_, place):  # nobody listens where pebble looks
        with capture_logs() as lines:
            await place.keep()
        [line] = lines
        assert (line["log_level"], line["event"]) == ("warning", "no certificate")
        assert NAME in line["reason"]
        assert "connection refused" in line["reason"]
        assert "\n" not in line["reason"]
        assert place.relay.acme_answers == {}
        assert not await place.offers_starttls("submission")


async def test_account_and_certificate_are_for_the_owner_alone(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path) as (_, place):
        await place.keep()
        kept = acme_files(place.relay.settings).certificate.parent
        assert sorted(os.listdir(kept)) == ["account.key", "certificate.pem"]
        assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in (kept, kept.parent)} == {0o700}


async def test_the_server_gets_its_certificate_by_itself(tmp_path: Path) -> None:
    async with running_dns(_dns((NAME,))) as dns:
        port = free_port()
        with running_pebble(tmp_path / "pebble", http_port=port, dns=dns) as pebble:
            settings = {"auth_without_tls": False, "hostname": NAME}
            with ServerProcess(tmp_path, acme=pebble.settings, http={"port": port}, smtp=settings) as server:
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(server.wait_for_line, "certificate", names=[NAME])
                async with greeted(server.smtp_port) as wire:
                    assert (await wire.ask("EHLO client.test", "STARTTLS")).startswith("220 ")
                    await wire.start_tls(pebble.trust, server_name=NAME)
                assert await asyncio.to_thread(server.terminate) == 0


async def test_a_wait_for_the_authority_ends_when_the_server_stops(tmp_path: Path) -> None:
    async with pebble_and_place(tmp_path, idle_seconds=100_000) as (_, place):
        with capture_logs() as lines:
            async with asyncio.timeout(3 * PATIENCE_SECONDS):
                keeping = asyncio.create_task(place.keep())
                while not place.relay.acme_answers:  # noqa: ASYNC110  the thread has no event for it
                    await asyncio.sleep(0.02)
                place.relay.stopping.set()
                await keeping
        assert lines == []


async def test_a_silent_authority_holds_up_no_door_and_the_server_can_be_stopped(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with running_https(authority.issue("127.0.0.1").files) as https:
        https.silent = True
        url = f"https://127.0.0.1:{https.port}/dir"
        acme = {"email": "op@example.com", "directory_url": url, "ca_file": str(authority.ca_file)}
        with ServerProcess(tmp_path, acme=acme) as server:
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not https.asked:  # noqa: ASYNC110  the server has no event for it
                    await asyncio.sleep(0.02)
            async with greeted(server.smtp_port) as wire:
                assert (await wire.ask("NOOP")).startswith("250 ")
            assert await asyncio.to_thread(server.terminate) == 0


def _dns(names: tuple[str, ...]) -> DnsTable:
    table = DnsTable()
    for name in names:
        table.set(name, "A", "127.0.0.1")
    return table
