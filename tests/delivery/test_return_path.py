"""From which address does a mail leave? From one of its own when bounces can come back to us, else from the sender's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import deliveries, domains
from plunk_relay.domains.actions import find_identity, verify_domain
from plunk_relay.domains.queries import find_domain_named
from tests.kit.inbound import publish_return_path, return_address
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox
from tests.kit.peer import Peer
from tests.kit.process import free_port
from tests.kit.store import change, rows


@asynccontextmanager
async def _outbox(prepared: Prepared, directory: Path, peer: Peer, **delivery: Any) -> AsyncIterator[Outbox]:
    smtp = {"inbound_port": free_port()}
    async with running_outbox(prepared, directory / "data", port=peer.port, smtp=smtp, **delivery) as opened:
        yield opened


async def test_every_mail_has_a_return_address_of_its_own(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with _outbox(prepared, tmp_path, peer) as outbox:
        await publish_return_path(outbox.relay, outbox.acme)
        [first] = await outbox.submit(message=other_message(1))
        [second] = await outbox.submit(message=other_message(2))
        await outbox.deliver()
        expected = {return_address(outbox.relay, first), return_address(outbox.relay, second)}
        assert {received.sender for received in peer.taken} == expected
        assert (await outbox.delivery(first))["sender"] == "app@acme.test", "what was submitted stays on record"


async def test_the_bounce_host_is_aligned_with_the_author_and_the_signature(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with _outbox(prepared, tmp_path, peer) as outbox:
        await publish_return_path(outbox.relay, outbox.acme)
        await outbox.submit()
        await outbox.deliver()
        [received] = peer.taken
        assert received.sender.endswith("@bounce.acme.test")
        assert b"d=acme.test;" in received.message
        assert b"From: app@acme.test\r\n" in received.message


async def test_the_smarthost_is_given_the_return_address_too(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    smarthost = {"route": "smarthost", "smarthost_url": f"smtp://127.0.0.1:{peer.port}?starttls=off"}
    async with _outbox(prepared, tmp_path, peer, **smarthost) as outbox:
        await publish_return_path(outbox.relay, outbox.acme)
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        assert peer.taken[0].sender == return_address(outbox.relay, delivery_id)


@pytest.mark.parametrize("status", [None, "Pending", "Failed", "TemporaryFailure"])
async def test_without_the_mx_record_the_sender_is_kept(
    prepared: Prepared, tmp_path: Path, peer: Peer, status: str | None
) -> None:
    async with _outbox(prepared, tmp_path, peer) as outbox:
        [row] = await rows(outbox.relay, domains, domain="acme.test")
        await change(outbox.relay, domains, row["id"], records=status and {"return-path": status, "dkim-rsa": "Success"})
        outbox.relay.memory.forget("identities")
        await outbox.submit()
        await outbox.deliver()
        assert peer.taken[0].sender == "app@acme.test"


async def test_the_setting_switches_it_off(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with _outbox(prepared, tmp_path, peer, verp=False) as outbox:
        await publish_return_path(outbox.relay, outbox.acme)
        await outbox.submit()
        await outbox.deliver()
        assert peer.taken[0].sender == "app@acme.test"


async def test_without_an_inbound_door_nothing_could_come_back(outbox: Outbox, peer: Peer) -> None:
    await publish_return_path(outbox.relay, outbox.acme)
    await outbox.submit()
    await outbox.deliver()
    assert peer.taken[0].sender == "app@acme.test"


async def test_what_leaves_with_the_null_sender_keeps_it(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with _outbox(prepared, tmp_path, peer) as outbox:
        await publish_return_path(outbox.relay, outbox.acme)
        [delivery_id] = await outbox.submit()
        await change(outbox.relay, deliveries, delivery_id, sender="")
        await outbox.deliver()
        assert peer.taken[0].sender == "", "nothing may come back for a bounce (RFC 5321 4.5.5)"


async def test_the_record_is_looked_up_with_the_others_of_the_domain(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with _outbox(prepared, tmp_path, peer) as outbox:
        for found, record in ((False, "10 elsewhere.test."), (True, "10 relay.test.")):
            outbox.dns.set("bounce.acme.test", "MX", record)
            domain = await outbox.relay.db.read(find_domain_named, "acme.test")
            assert domain is not None
            await verify_domain(outbox.relay, domain)
            identity = await find_identity(outbox.relay, outbox.acme.id, "acme.test")
            assert identity is not None
            assert identity.return_path is found
