"""How does a message leave that was stored in parts? As every other: signed, whole, and byte for byte."""

import asyncio
from dataclasses import replace
from email import message_from_bytes

import sqlalchemy as sa

from plunk_relay.contents.queries import load_content
from plunk_relay.db.tables import content_parts, contents, emails
from plunk_relay.domains.actions import find_identity
from plunk_relay.mail.dkim import public_record, verify
from plunk_relay.spool import PIECE_BYTES, Held
from plunk_relay.suppressions.actions import RuleChange, add_rule
from tests.kit.http import running_http
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer, Script
from tests.kit.store import rows

HEAD = b"From: app@acme.test\r\nSubject: Hello\r\nMessage-ID: <1@acme.test>\r\n"
LARGE = HEAD + b"\r\n" + b"a line  with blanks \r\n.\r\n\r\n" * 40_000 + b"\r\n\r\n"


async def test_a_large_content_is_stored_in_parts_and_read_whole(outbox: Outbox) -> None:
    await outbox.submit(message=Held(LARGE))
    [content] = await rows(outbox.relay, contents)
    parts = await rows(outbox.relay, content_parts)
    assert content["size"] == len(LARGE)
    assert content["data"] + b"".join(part["data"] for part in parts) == LARGE
    assert {len(part["data"]) for part in parts[:-1]} == {len(content["data"])} == {PIECE_BYTES}
    assert await outbox.relay.db.read(load_content, content["id"]) == LARGE


async def test_what_belongs_to_a_content_goes_with_it(outbox: Outbox) -> None:
    await outbox.submit(message=Held(LARGE))

    def remove(tx: sa.Connection) -> None:
        tx.execute(sa.text("UPDATE emails SET content_id = NULL"))
        tx.execute(sa.delete(contents))

    await outbox.relay.db.write(remove)
    assert await rows(outbox.relay, content_parts) == []


async def test_a_unit_that_is_run_again_stores_a_large_content_once(outbox: Outbox) -> None:
    """A neighbour in the group that fails after it wrote makes every unit of the group run twice."""

    def fail(tx: sa.Connection) -> None:
        tx.execute(sa.text("UPDATE projects SET name = name"))
        raise ZeroDivisionError

    failure, _ = await asyncio.gather(
        outbox.relay.db.write(fail), outbox.submit(message=Held(LARGE)), return_exceptions=True
    )
    assert isinstance(failure, ZeroDivisionError)
    [content] = await rows(outbox.relay, contents)
    assert await outbox.relay.db.read(load_content, content["id"]) == LARGE


async def test_a_large_message_arrives_byte_for_byte_with_valid_signatures(outbox: Outbox, peer: Peer) -> None:
    [queue_id] = await outbox.submit(message=Held(LARGE))
    await outbox.deliver()
    assert await outbox.state(queue_id) == ("DELIVERED", "DELIVERED")
    [arrived] = peer.taken
    assert arrived.message.endswith(b"\r\n" + LARGE)
    assert await _verdicts(outbox, arrived.message) == [True, True]


async def test_every_attempt_of_a_large_message_sends_the_same_bytes(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot=["451 4.3.0 later", "250 2.0.0 taken"])
    await outbox.submit(message=Held(LARGE))
    await outbox.deliver()
    outbox.clock.advance(minutes=30)
    await outbox.deliver()
    first, second = peer.received
    assert first.message == second.message


async def test_a_large_message_is_converted_for_a_peer_that_takes_no_8_bit_octets(outbox: Outbox, peer: Peer) -> None:
    text = "gr\u00fc\u00dfe\r\n" * 60_000
    peer.script = replace(peer.script, keywords=[word for word in peer.script.keywords if word != "8BITMIME"])
    head = HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    await outbox.submit(message=Held(head + b"\r\n" + text.encode()))
    await outbox.deliver()
    [arrived] = peer.taken
    assert arrived.message.isascii()
    assert message_from_bytes(arrived.message).get_payload(decode=True) == text.encode()
    assert await _verdicts(outbox, arrived.message) == [True, True]


async def test_a_large_message_that_a_rule_held_is_shown_whole(outbox: Outbox) -> None:
    await add_rule(outbox.relay, outbox.acme.id, RuleChange("Sink", "DOMAIN", "example.org", enabled=True))
    await outbox.submit(message=Held(LARGE))
    await outbox.deliver()
    [mail] = await rows(outbox.relay, emails)
    async with running_http(outbox.relay) as http:
        shown = await http.get(f"/suppressions/emails/{mail['id']}", headers=outbox.acme.headers)
    assert shown.json()["message"].encode() == LARGE


async def _verdicts(outbox: Outbox, message: bytes) -> list[bool]:
    """Verify the signatures with the keys of acme's domain."""
    identity = await find_identity(outbox.relay, outbox.acme.id, "acme.test")
    assert identity is not None
    records = {f"{key.selector}._domainkey.acme.test.".encode(): public_record(key).encode() for key in identity.keys}
    return verify(message, find_txt=records.get)
