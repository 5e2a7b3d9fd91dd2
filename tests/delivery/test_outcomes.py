"""What becomes of a mail when the peer says this or that?"""

from typing import Any

import pytest

from plunk_relay.contacts.queries import find_contacts_by_email
from plunk_relay.domains.actions import delete_domain
from plunk_relay.domains.queries import list_domains
from plunk_relay.projects.actions import disable_project
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer, Script

NOT_NOW = ("QUEUED", "PENDING")
REFUSED = ("BOUNCED", "FAILED")
BAD_ADDRESS = ("BOUNCED", "BOUNCED")


async def test_a_mail_that_the_exchanger_takes_is_delivered(outbox: Outbox, peer: Peer) -> None:
    [queued] = await outbox.send("ann@example.org")
    await outbox.deliver()
    assert await outbox.state(queued.delivery_id) == ("DELIVERED", "DELIVERED")
    [received] = peer.taken
    assert (received.sender, received.recipients) == ("app@acme.test", ("ann@example.org",))
    assert received.message.startswith(b"DKIM-Signature: ")
    assert received.message.endswith(b"\r\n")
    assert await outbox.check_ledger() == _ledger(accepted=1, delivered=1)


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (Script(banner="421 4.3.2 too busy"), NOT_NOW),
        (Script(banner="450 4.3.2 come back"), NOT_NOW),
        (Script(banner="554 5.7.1 go away"), REFUSED),
        (Script(banner="close"), NOT_NOW),
        (Script(banner="reset"), NOT_NOW),
        (Script(banner="SSH-2.0-OpenSSH_9.2"), NOT_NOW),
        (Script(banner="flood"), NOT_NOW),
        (Script(banner="220 mx.test\n220 and another reply"), NOT_NOW),
        (Script(ehlo="554 5.7.1 no", helo="554 5.7.1 no"), REFUSED),
        (Script(ehlo="554 5.7.1 no + close"), REFUSED),
        (Script(ehlo="451 4.7.1 later"), NOT_NOW),
        (Script(ehlo="close"), NOT_NOW),
        (Script(ehlo="250 mx.test + close"), NOT_NOW),
        (Script(ehlo="250 mx.test + 421 4.3.2 going down"), NOT_NOW),
        (Script(ehlo="250 mx.test + 250 again"), NOT_NOW),
        (Script(mail="451 4.7.1 greylisted"), NOT_NOW),
        (Script(mail="550 5.7.1 your domain is not welcome"), REFUSED),
        (Script(mail="550 5.1.8 your domain does not exist"), REFUSED),
        (Script(mail="421 4.7.0 too many mails"), NOT_NOW),
        (Script(mail="close"), NOT_NOW),
        (Script(rcpt="450 4.2.0 greylisted"), NOT_NOW),
        (Script(rcpt="450 4.1.1 unverified address"), NOT_NOW),
        (Script(rcpt="550 5.1.1 no such user"), BAD_ADDRESS),
        (Script(rcpt="550-5.1.1 no such user\n550 5.1.1 really"), BAD_ADDRESS),
        (Script(rcpt="550 5.7.1 blocked"), REFUSED),
        (Script(rcpt="550 no such user"), BAD_ADDRESS),
        (Script(rcpt="550 no"), REFUSED),
        (Script(rcpt="551 5.1.6 moved"), BAD_ADDRESS),
        (Script(rcpt="452 4.2.2 mailbox full"), NOT_NOW),
        (Script(rcpt="552 5.2.2 mailbox full"), REFUSED),
        (Script(rcpt="421 4.3.2 going down"), NOT_NOW),
        (Script(rcpt="close"), NOT_NOW),
        (Script(rcpt="reset"), NOT_NOW),
        (Script(rcpt="flood"), NOT_NOW),
        (Script(rcpt="what did you say?"), NOT_NOW),
        (Script(rcpt="250-5.1.1 mixed\n550 5.1.1 codes"), NOT_NOW),
        (Script(rcpt="354 go ahead"), NOT_NOW),
        (Script(rcpt="650 5.1.1 no such class"), NOT_NOW),
        (Script(data="451 4.3.0 not now"), NOT_NOW),
        (Script(data="554 5.7.1 spam"), REFUSED),
        (Script(data="250 2.0.0 thanks"), NOT_NOW),
        (Script(data="close"), NOT_NOW),
        (Script(dot="451 4.3.0 disk full"), NOT_NOW),
        (Script(dot="421 4.3.2 going down"), NOT_NOW),
        (Script(dot="554 5.7.1 spam"), REFUSED),
        (Script(dot="550 5.1.1 no such user"), BAD_ADDRESS),
        (Script(dot="354 more"), NOT_NOW),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else _describe(value),
)
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
async def test_every_reply_has_its_end(
    outbox: Outbox, peer: Peer, script: Script, state: tuple[str, str], pipelining: bool
) -> None:
    peer.script = script if pipelining else _without_pipelining(script)
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == state
    delivery, [attempt] = await outbox.delivery(delivery_id), await outbox.attempts(delivery_id)
    assert delivery["lease_owner"] is delivery["dot_sent_at"] is None
    assert (delivery["attempts"], delivery["unknown_outcomes"]) == (1, 0)
    assert (delivery["finished_at"] is None) == (state == NOT_NOW)
    assert attempt["outcome"] == ("DEFERRED" if state == NOT_NOW else "BOUNCED")
    assert attempt["reply"] == delivery["last_reply"]
    assert peer.taken == []
    await outbox.check_ledger()


async def test_recipients_of_one_transaction_have_outcomes_of_their_own(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt={"bob@example.org": "550 5.1.1 no such user", "cid@example.org": "450 4.2.0 greylisted"})
    ann, bob, cid = await outbox.submit("ann@example.org", "bob@example.org", "cid@example.org")
    await outbox.deliver()
    assert await outbox.state(ann) == ("DELIVERED", "DELIVERED")
    assert await outbox.state(bob) == BAD_ADDRESS
    assert await outbox.state(cid) == NOT_NOW
    assert [received.recipients for received in peer.taken] == [("ann@example.org",)]
    assert await outbox.check_ledger() == _ledger(accepted=3, delivered=1, bounced=1, queued=1)


async def test_a_delivery_is_two_events_with_the_documented_data(outbox: Outbox) -> None:
    [queued] = await outbox.send("ann@example.org", from_={"email": "app@acme.test", "name": "App"})
    await outbox.deliver()
    sent, delivery = await outbox.events()
    assert [sent["name"], delivery["name"]] == ["email.sent", "email.delivery"]
    base = await _base(outbox, queued.delivery_id)
    assert sent["data"] == base | {"fromName": "App", "sentAt": "2026-03-01T12:00:00.000Z"}
    assert delivery["data"] == base | {"fromName": "App", "deliveredAt": "2026-03-01T12:00:00.000Z"}
    for event in (sent, delivery):
        assert (event["email_id"], event["contact_id"]) == (queued.email_id, queued.contact_id)
        assert event["project_id"] == outbox.acme.id
        assert event["processed_at"] == event["created_at"], "no workflow will ever take it"
    email = await outbox.email(queued.delivery_id)
    assert email["sent_at"] == email["delivered_at"] == outbox.clock.now()
    assert email["bounced_at"] is email["error"] is None


async def test_a_bad_address_is_a_bounce_and_unsubscribes_the_contact(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="550 5.1.1 no such user")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    [bounce, flip] = await outbox.events()
    assert (flip["name"], flip["data"]) == ("contact.unsubscribed", {"reason": "bounce"})
    extra = {"bounceType": "Permanent", "bouncedAt": "2026-03-01T12:00:00.000Z"}
    assert (bounce["name"], bounce["data"]) == ("email.bounce", await _base(outbox, delivery_id) | extra)
    email = await outbox.email(delivery_id)
    assert email["bounced_at"] == outbox.clock.now()
    assert email["error"] == "550 5.1.1 no such user - There is no such mailbox."
    assert email["sent_at"] is email["delivered_at"] is None
    assert await _is_subscribed(outbox, "ann@example.org") is False


@pytest.mark.parametrize(
    "reply", ["550 5.7.1 blocked", "550 5.1.8 bad sender", "550 5.1.7 bad sender", "554 5.2.2 full", "550 no"]
)
async def test_a_refusal_that_is_not_about_the_address_unsubscribes_nobody(outbox: Outbox, peer: Peer, reply: str) -> None:
    peer.script = Script(rcpt=reply)
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    email = await outbox.email(delivery_id)
    assert (email["status"], email["bounced_at"]) == ("FAILED", None)
    assert email["error"].startswith(f"{reply} - ")
    assert await outbox.events() == []
    assert await _is_subscribed(outbox, "ann@example.org") is True


async def test_a_deferral_is_no_event_and_no_error(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="450 4.2.0 greylisted")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert (await outbox.email(delivery_id))["error"] is None
    assert await outbox.events() == []


async def test_mail_of_a_disabled_project_fails_without_an_attempt(outbox: Outbox, peer: Peer) -> None:
    [delivery_id] = await outbox.submit("ann@example.org")
    await disable_project(outbox.relay, outbox.acme.id)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("FAILED", "FAILED")
    assert (await outbox.email(delivery_id))["error"] == "Project is disabled"
    assert await outbox.attempts(delivery_id) == []
    assert peer.sessions == []


async def test_mail_from_a_domain_that_was_removed_fails(outbox: Outbox, peer: Peer) -> None:
    [delivery_id] = await outbox.submit("ann@example.org")
    [domain] = await outbox.relay.db.read(list_domains, outbox.acme.id)
    await delete_domain(outbox.relay, outbox.acme.id, domain.id)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("FAILED", "FAILED")
    assert "acme.test" in (await outbox.email(delivery_id))["error"]
    assert peer.sessions == []


async def test_bytes_that_are_no_utf8_are_stored_as_something_printable(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(banner="220 caf\xe9 \x07\x1b[31m", ehlo="250 caf\xe9", rcpt="450 4.2.0 caf\xe9 \x1b[2J\x00 later")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == NOT_NOW
    [attempt] = await outbox.attempts(delivery_id)
    assert attempt["reply"].startswith("450 4.2.0 caf")
    assert attempt["conversation"].replace("\n", "").isprintable()


def _describe(value: object) -> str:
    """Name the step that is not as usual, with its answer."""
    assert isinstance(value, Script)
    [(step, answer), *_] = [
        (name, getattr(value, name)) for name in Script.__slots__ if getattr(value, name) != getattr(Script(), name)
    ]
    return f"{step} {answer}"


def _without_pipelining(script: Script) -> Script:
    values: dict[str, Any] = {name: getattr(script, name) for name in Script.__slots__}
    return Script(**values | {"keywords": ("8BITMIME",)})


async def _base(outbox: Outbox, delivery_id: str) -> dict[str, Any]:
    email = await outbox.email(delivery_id)
    return {
        "subject": "Hello",
        "from": "app@acme.test",
        "fromName": None,
        "messageId": email["message_id"],
        "emailId": email["id"],
        "templateId": None,
        "campaignId": None,
        "sourceType": "TRANSACTIONAL",
    }


async def _is_subscribed(outbox: Outbox, address: str) -> bool:
    found = await outbox.relay.db.read(find_contacts_by_email, outbox.acme.id, [address])
    return found[address].subscribed


def _ledger(**counts: int) -> dict[str, int]:
    states = ("accepted", "delivered", "bounced", "expired", "suppressed", "cancelled", "failed", "held", "queued")
    return {state: counts.get(state, 0) for state in states}
