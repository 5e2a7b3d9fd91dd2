"""What leaves for a peer that takes no 8-bit octets, or no international headers? Never the raw octets."""

import email
import email.policy
from pathlib import Path

import pytest

from plunk_relay.domains.actions import find_identity
from plunk_relay.mail.dkim import public_record, verify
from tests.delivery.test_exchangers import hosts
from tests.kit.outbox import MESSAGE, Outbox, Prepared
from tests.kit.peer import KEYWORDS, Peer, Script

HEAD = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\nMIME-Version: 1.0\r\n"
TEXT = HEAD + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n".encode()
SIGNED = HEAD + "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\né\r\n--s--\r\n".encode()
UTF8_SUBJECT = MESSAGE.replace(b"Hello", "Grüße".encode())
UTF8_SENDER = MESSAGE.replace(b"app@", "jörg@".encode())
DELIVERED = ("DELIVERED", "DELIVERED")


def without(*missing: str) -> Script:
    return Script(keywords=[word for word in KEYWORDS if word not in missing])


async def test_a_message_is_converted_and_signed_anew_for_a_peer_without_8bitmime(outbox: Outbox, peer: Peer) -> None:
    peer.script = without("8BITMIME")
    [delivery_id] = await outbox.submit("ann@example.org", message=TEXT)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    [received] = peer.taken
    assert received.message.isascii()
    parsed = email.message_from_bytes(received.message, policy=email.policy.default)
    assert (parsed["content-transfer-encoding"], parsed.get_payload(decode=True)) == (
        "quoted-printable",
        "Grüße\r\n".encode(),
    )
    assert parsed.get_all("message-id") == ["<1@acme.test>"]
    assert await _verdicts(outbox, received.message) == [True, True]
    [mail] = [command for command in peer.commands if command.startswith("MAIL")]
    assert "BODY=" not in mail
    [attempt] = await outbox.attempts(delivery_id)
    assert "converted" in attempt["conversation"]


async def test_a_peer_with_8bitmime_gets_the_octets_as_they_are(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit("ann@example.org", message=TEXT)
    await outbox.deliver()
    [received] = peer.taken
    assert received.message.endswith(TEXT)
    assert await _verdicts(outbox, received.message) == [True, True]
    assert any(" BODY=8BITMIME" in command for command in peer.commands)


async def test_headers_are_converted_for_a_peer_without_smtputf8(outbox: Outbox, peer: Peer) -> None:
    peer.script = without("SMTPUTF8")
    [delivery_id] = await outbox.submit("ann@example.org", message=UTF8_SUBJECT)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    [received] = peer.taken
    assert received.message.isascii()
    assert email.message_from_bytes(received.message, policy=email.policy.default)["subject"] == "Grüße"
    assert await _verdicts(outbox, received.message) == [True, True]


@pytest.mark.parametrize(
    ("missing", "message", "reply"),
    [
        ("8BITMIME", SIGNED, "554 5.6.3 mx.example.org does not support 8-bit messages"),
        ("8BITMIME", UTF8_SENDER, "554 5.6.3 mx.example.org does not support 8-bit messages"),
        ("SMTPUTF8", UTF8_SENDER, "554 5.6.9 mx.example.org does not support internationalised headers"),
    ],
)
async def test_what_cannot_be_converted_bounces_and_never_leaves_raw(
    outbox: Outbox, peer: Peer, missing: str, message: bytes, reply: str
) -> None:
    peer.script = without(missing)
    [delivery_id] = await outbox.submit("ann@example.org", message=message)
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["last_reply"]) == ("BOUNCED", reply)
    assert "MAIL" not in peer.sessions[0].verbs()


async def test_another_host_that_takes_it_gets_it_as_it_is(prepared: Prepared, tmp_path: Path) -> None:
    async with hosts(prepared, tmp_path, without("8BITMIME"), Script()) as (outbox, peers):
        [delivery_id] = await outbox.submit("ann@example.org", message=SIGNED)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == DELIVERED
        assert peers[1].taken[0].message.endswith(SIGNED)


async def test_only_the_recipient_that_needs_smtputf8_bounces(outbox: Outbox, peer: Peer) -> None:
    peer.script = without("SMTPUTF8")
    ann, jorg = await outbox.submit("ann@example.org", "jörg@example.org")
    await outbox.deliver()
    assert await outbox.state(ann) == DELIVERED
    row = await outbox.delivery(jorg)
    assert (row["state"], row["last_reply"][:9]) == ("BOUNCED", "553 5.6.7")


async def test_conversion_needs_no_new_connection(outbox: Outbox, peer: Peer) -> None:
    peer.script = without("8BITMIME")
    for message in (TEXT, MESSAGE, TEXT):
        await outbox.submit("ann@example.org", message=message)
        await outbox.deliver()
    assert (len(peer.taken), len(peer.sessions)) == (3, 1)
    assert all(received.message.isascii() for received in peer.taken)


async def test_a_retry_of_a_converted_mail_has_the_same_bytes(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(keywords=without("8BITMIME").keywords, dot=["451 4.3.0 later", "250 2.0.0 taken"])
    await outbox.submit("ann@example.org", message=TEXT)
    await outbox.deliver()
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    first, second = peer.received
    assert first.message == second.message


async def _verdicts(outbox: Outbox, message: bytes) -> list[bool]:
    """Check every signature with the keys of the sender's domain."""
    identity = await find_identity(outbox.relay, outbox.acme.id, outbox.acme.domain)
    assert identity is not None
    records = {f"{key.selector}._domainkey.{identity.domain}.": public_record(key) for key in identity.keys}
    return verify(message, find_txt=lambda name: records[name.decode()].encode())
