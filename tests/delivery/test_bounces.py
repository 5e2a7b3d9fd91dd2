"""What does a bounce do that comes after the mail was accepted? From the peer's 250 to the event and the contact."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.queries import find_contacts_by_email
from plunk_relay.db.tables import suppressions
from tests.kit.inbound import bring, delivery_report, publish_return_path, return_address, running_inbound
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox
from tests.kit.peer import Peer, Script
from tests.kit.process import free_port
from tests.kit.store import rows
from tests.mail.test_dsn import sample

NOON = "2026-03-01T12:00:00.000Z"


@pytest.fixture
async def outbox(prepared: Prepared, tmp_path: Path, clock: ManualClock, peer: Peer) -> AsyncIterator[Outbox]:
    """Open an outbox whose bounces come back to an inbound door of its own."""
    smtp = {"inbound_port": free_port()}
    async with running_outbox(prepared, tmp_path / "data", clock=clock, port=peer.port, smtp=smtp) as opened:
        await publish_return_path(opened.relay, opened.acme)
        yield opened


async def test_a_bounce_after_acceptance_marks_the_mail_and_unsubscribes_the_contact(outbox: Outbox, peer: Peer) -> None:
    [queued] = await outbox.send("bob@example.org", subscribed=True)
    await outbox.deliver()
    [received] = peer.taken
    assert received.sender == return_address(outbox.relay, queued.delivery_id)
    assert await _bring(outbox, received.sender, delivery_report("bob@example.org")) == (250, "2.0.0 Thank you")
    assert await outbox.state(queued.delivery_id) == ("DELIVERED", "BOUNCED")
    email = await outbox.email(queued.delivery_id)
    assert (email["error"], email["bounced_at"]) == ("550 5.1.1 no such user", outbox.clock.now())
    assert email["delivered_at"] is not None
    bounce, gone = (await outbox.events())[2:]
    assert (bounce["name"], bounce["contact_id"], bounce["email_id"]) == (
        "email.bounce",
        queued.contact_id,
        queued.email_id,
    )
    assert bounce["data"] == {
        "subject": "Hello",
        "from": "app@acme.test",
        "fromName": None,
        "messageId": email["message_id"],
        "emailId": queued.email_id,
        "templateId": None,
        "campaignId": None,
        "sourceType": "TRANSACTIONAL",
        "bounceType": "Permanent",
        "bouncedAt": NOON,
    }
    assert (gone["name"], gone["data"]) == ("contact.unsubscribed", {"reason": "bounce"})
    assert not await _subscribed(outbox, "bob@example.org")
    [entry] = await rows(outbox.relay, suppressions)
    assert (entry["address"], entry["reason"], entry["email_id"]) == ("bob@example.org", "BOUNCE", queued.email_id)
    await outbox.check_ledger()


async def test_the_text_of_the_bounce_goes_with_the_delivery(outbox: Outbox) -> None:
    delivery_id = await _sent(outbox)
    await _bounce(outbox, delivery_id, delivery_report("bob@example.org"))
    _, attempt = await outbox.attempts(delivery_id)
    assert (attempt["outcome"], attempt["host"], attempt["reply"]) == ("BOUNCED", "mx.example.org", "550 5.1.1 no such user")
    assert attempt["reply_class"] == "recipient"
    assert attempt["conversation"].split("\n") == [
        "Final-Recipient: rfc822; bob@example.org",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
    ]


async def test_the_same_bounce_twice_has_one_effect(outbox: Outbox) -> None:
    delivery_id = await _sent(outbox)
    for _ in range(2):
        assert (await _bounce(outbox, delivery_id, delivery_report("bob@example.org")))[0] == 250
    assert len(await _bounces(outbox)) == 1
    assert len(await outbox.attempts(delivery_id)) == 2


@pytest.mark.parametrize(
    ("status", "diagnostic"),
    [
        ("5.7.1", "smtp; 550 5.7.1 Message rejected as spam"),
        ("5.7.1", "smtp; 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
        ("5.2.2", "smtp; 552 5.2.2 Mailbox full"),
        ("5.3.4", "smtp; 552 5.3.4 Message size exceeds fixed limit"),
        ("4.4.7", "smtp; 421 4.4.7 Delivery time expired"),
        ("4.4.1", "x-postfix; connect to mx.example.org: Connection timed out"),
    ],
)
async def test_a_failure_that_is_not_about_the_address_is_transient_and_changes_nothing(
    outbox: Outbox, status: str, diagnostic: str
) -> None:
    delivery_id = await _sent(outbox)
    await _bounce(outbox, delivery_id, delivery_report("bob@example.org", status=status, diagnostic=diagnostic))
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    [bounce] = await _bounces(outbox)
    assert (bounce["bounceType"], bounce["transientBounce"]) == ("Transient", True)
    assert "bouncedAt" not in bounce
    assert (await outbox.email(delivery_id))["bounced_at"] is None
    assert await _subscribed(outbox, "bob@example.org")
    assert await rows(outbox.relay, suppressions) == []


@pytest.mark.parametrize(
    "report",
    [
        delivery_report("bob@example.org", status="5.0.0", diagnostic="smtp; 550 no"),
        sample("malformed"),
    ],
    ids=["no reason given", "cannot be read"],
)
async def test_a_failure_without_a_reason_is_undetermined_and_unsubscribes_nobody(outbox: Outbox, report: bytes) -> None:
    delivery_id = await _sent(outbox)
    await _bounce(outbox, delivery_id, report)
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    [bounce] = await _bounces(outbox)
    assert (bounce["bounceType"], bounce["bouncedAt"]) == ("Undetermined", NOON)
    assert await _subscribed(outbox, "bob@example.org")
    assert await rows(outbox.relay, suppressions) == []


@pytest.mark.parametrize(
    ("reporter", "remote", "status"),
    [
        ("mx.example.org", "mx00.emig.gmx.net", "BOUNCED"),
        ("mout.gmx.net", None, "BOUNCED"),
        ("mout.gmx.net", "mx.example.com", "DELIVERED"),
        ("mx.example.org", None, "DELIVERED"),
        ("mx.example.org", "[192.0.2.1]", "DELIVERED"),
    ],
)
async def test_the_words_of_a_provider_mean_what_they_mean_there(
    outbox: Outbox, reporter: str, remote: str | None, status: str
) -> None:
    delivery_id = await _sent(outbox)
    said = "smtp; 550 Requested action not taken: mailbox unavailable"
    report = delivery_report("bob@example.org", status="5.0.0", diagnostic=said, reporter=reporter, remote=remote)
    await _bounce(outbox, delivery_id, report)
    assert (await outbox.email(delivery_id))["status"] == status
    assert await _subscribed(outbox, "bob@example.org") is (status == "DELIVERED")


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
async def test_a_report_that_nothing_failed_is_no_bounce(outbox: Outbox, action: str) -> None:
    delivery_id = await _sent(outbox)
    assert (await _bounce(outbox, delivery_id, delivery_report("bob@example.org", action=action)))[0] == 250
    assert await _bounces(outbox) == []
    assert len(await outbox.attempts(delivery_id)) == 1


@pytest.mark.parametrize("name", ["out-of-office", "out-of-office-old", "reply", "forwarded-report"])
async def test_an_answer_to_the_bounce_address_is_dropped(outbox: Outbox, name: str) -> None:
    delivery_id = await _sent(outbox)
    assert (await _bounce(outbox, delivery_id, sample(name), sender="bob@example.org"))[0] == 250
    assert await _bounces(outbox) == []
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


@pytest.mark.parametrize("name", ["postfix", "exchange", "gmail", "sendmail", "opensmtpd", "exim-plain", "qmail"])
async def test_the_bounces_of_the_usual_servers_unsubscribe(outbox: Outbox, name: str) -> None:
    delivery_id = await _sent(outbox)
    await _bounce(outbox, delivery_id, sample(name))
    assert await outbox.state(delivery_id) == ("DELIVERED", "BOUNCED")
    assert not await _subscribed(outbox, "bob@example.org")


async def test_a_forwarder_may_name_another_address_than_ours(outbox: Outbox) -> None:
    delivery_id = await _sent(outbox)
    await _bounce(outbox, delivery_id, delivery_report("robert@elsewhere.example"))
    assert await outbox.state(delivery_id) == ("DELIVERED", "BOUNCED")


async def test_recipients_that_shared_a_transaction_are_told_apart_by_their_addresses(outbox: Outbox, peer: Peer) -> None:
    ann, bob, cid = await outbox.submit("ann@example.org", "Bob@example.org", "cid@example.org")
    await outbox.deliver()
    [received] = peer.taken
    assert len(received.recipients) == 3
    assert received.sender == return_address(outbox.relay, ann)
    await _bring(outbox, received.sender, delivery_report("bob@EXAMPLE.org", "cid@example.org"))
    assert await outbox.state(ann) == ("DELIVERED", "DELIVERED")
    assert await outbox.state(bob) == ("DELIVERED", "BOUNCED")
    assert await outbox.state(cid) == ("DELIVERED", "BOUNCED")
    await outbox.check_ledger()


async def test_a_shared_transaction_with_an_unknown_address_unsubscribes_nobody(outbox: Outbox, peer: Peer) -> None:
    ann, bob = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    await _bring(outbox, peer.taken[0].sender, delivery_report("robert@elsewhere.example"))
    assert [(await outbox.state(one))[1] for one in (ann, bob)] == ["DELIVERED", "DELIVERED"]
    [bounce] = await _bounces(outbox)
    assert bounce["bounceType"] == "Undetermined"


async def test_a_bounce_touches_no_other_message_to_the_same_recipient(outbox: Outbox) -> None:
    [first] = await outbox.submit("bob@example.org", message=other_message(1))
    [second] = await outbox.submit("bob@example.org", message=other_message(2))
    await outbox.deliver()
    await _bounce(outbox, second, delivery_report("bob@example.org"))
    assert await outbox.state(first) == ("DELIVERED", "DELIVERED")
    assert await outbox.state(second) == ("DELIVERED", "BOUNCED")


async def test_a_bounce_of_a_mail_that_is_maybe_delivered_ends_its_retries(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="close")
    [queued] = await outbox.send("bob@example.org", subscribed=True)
    await outbox.deliver()
    assert await outbox.state(queued.delivery_id) == ("QUEUED", "PENDING")
    await _bounce(outbox, queued.delivery_id, delivery_report("bob@example.org"))
    assert await outbox.state(queued.delivery_id) == ("BOUNCED", "BOUNCED")
    outbox.clock.advance(seconds=3600)
    await outbox.deliver()
    assert len(peer.received) == 1
    await outbox.check_ledger()


async def test_what_is_left_of_a_bounce_address_is_refused_when_its_mail_is_gone(outbox: Outbox) -> None:
    never = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert await _bounce(outbox, never, delivery_report("bob@example.org")) == (550, "5.1.1 No such address")


async def test_a_return_address_counts_only_at_the_domain_of_its_mail(outbox: Outbox) -> None:
    delivery_id = await _sent(outbox)
    elsewhere = return_address(outbox.relay, delivery_id, domain="rival.test")
    assert await _bring(outbox, elsewhere, delivery_report("bob@example.org")) == (550, "5.1.1 No such address")
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


async def _sent(outbox: Outbox) -> str:
    [queued] = await outbox.send("bob@example.org", subscribed=True)
    await outbox.deliver()
    return queued.delivery_id


async def _bounce(outbox: Outbox, delivery_id: str, report: bytes, *, sender: str = "") -> tuple[int, str]:
    return await _bring(outbox, return_address(outbox.relay, delivery_id), report, sender=sender)


async def _bring(outbox: Outbox, recipient: str, report: bytes, *, sender: str = "") -> tuple[int, str]:
    async with running_inbound(outbox.relay) as door:
        return await bring(door, recipient, report, sender=sender)


async def _bounces(outbox: Outbox) -> list[dict[str, Any]]:
    return [event["data"] for event in await outbox.events() if event["name"] == "email.bounce"]


async def _subscribed(outbox: Outbox, address: str) -> bool:
    found = await outbox.relay.db.read(find_contacts_by_email, outbox.acme.id, [address])
    return found[address].subscribed
