"""What does a spam report do? It counts only for who has the return address of the mail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.queries import find_contacts_by_email
from plunk_relay.db.tables import emails, suppressions
from tests.kit.inbound import bring, delivery_report, feedback_report, publish_return_path, return_address, running_inbound
from tests.kit.outbox import Outbox, Prepared, running_outbox
from tests.kit.peer import Peer, Script
from tests.kit.process import free_port
from tests.kit.store import change, rows

ABUSE = "abuse@acme.test"


@pytest.fixture
async def outbox(prepared: Prepared, tmp_path: Path, clock: ManualClock, peer: Peer) -> AsyncIterator[Outbox]:
    """Open an outbox with an inbound door; mail for the operator goes to boss@example.org."""
    smtp = {"inbound_port": free_port(), "postmaster": "boss@example.org"}
    async with running_outbox(prepared, tmp_path / "data", clock=clock, port=peer.port, smtp=smtp) as opened:
        await publish_return_path(opened.relay, opened.acme)
        yield opened


@pytest.mark.parametrize("kind", ["bounce", "complaint"])
async def test_a_complaint_marks_the_mail_and_unsubscribes_the_contact(outbox: Outbox, kind: str) -> None:
    delivery_id, email_id = await _sent(outbox)
    address = return_address(outbox.relay, delivery_id, kind="bounce" if kind == "bounce" else "complaint")
    assert (await _bring(outbox, address, feedback_report()))[0] == 250
    await _check_complained(outbox, delivery_id)
    complaint, gone = (await outbox.events())[2:]
    assert (complaint["name"], complaint["email_id"]) == ("email.complaint", email_id)
    assert complaint["data"]["complainedAt"] == "2026-03-01T12:00:00.000Z"
    assert complaint["data"]["subject"] == "Hello"
    assert (gone["name"], gone["data"]) == ("contact.unsubscribed", {"reason": "complaint"})
    [entry] = await rows(outbox.relay, suppressions)
    assert (entry["address"], entry["reason"]) == ("bob@example.org", "COMPLAINT")
    await outbox.check_ledger()


async def test_the_same_complaint_twice_has_one_effect(outbox: Outbox) -> None:
    delivery_id, _ = await _sent(outbox)
    for _ in range(2):
        await _bring(outbox, return_address(outbox.relay, delivery_id, kind="complaint"), feedback_report())
    assert [event["name"] for event in await outbox.events()].count("email.complaint") == 1


@pytest.mark.parametrize("where", ["return_path", "mail_from"])
async def test_a_report_to_abuse_counts_when_it_has_our_return_address(outbox: Outbox, where: str) -> None:
    delivery_id, _ = await _sent(outbox)
    named = {where: return_address(outbox.relay, delivery_id).upper()}
    assert (await _bring(outbox, ABUSE, feedback_report(**named), sender="feedback@provider.example"))[0] == 250
    await _check_complained(outbox, delivery_id)
    assert len(await rows(outbox.relay, emails)) == 1, "nobody need read it"


@pytest.mark.parametrize("sender", ["app@acme.test", "b-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@bounce.acme.test"])
async def test_a_report_to_abuse_without_our_return_address_is_passed_on_and_has_no_effect(
    outbox: Outbox, peer: Peer, sender: str
) -> None:
    delivery_id, _ = await _sent(outbox)
    report = feedback_report(return_path=sender, mail_from=sender)
    assert (await _bring(outbox, ABUSE, report, sender="feedback@provider.example"))[0] == 250
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert await _subscribed(outbox)
    await outbox.deliver()
    assert peer.taken[-1].recipients == ("boss@example.org",)


@pytest.mark.parametrize("kind", ["not-spam", "virus", "auth-failure", "other"])
async def test_other_reports_are_no_complaint(outbox: Outbox, kind: str) -> None:
    delivery_id, _ = await _sent(outbox)
    await _bring(outbox, return_address(outbox.relay, delivery_id, kind="complaint"), feedback_report(kind=kind))
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert await _subscribed(outbox)


async def test_who_opts_out_is_unsubscribed_without_a_complaint(outbox: Outbox) -> None:
    delivery_id, _ = await _sent(outbox)
    await _bring(outbox, return_address(outbox.relay, delivery_id, kind="complaint"), feedback_report(kind="opt-out"))
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
    assert not await _subscribed(outbox)
    assert (await outbox.events())[-1]["data"] is None, "the contact asked for it"
    assert await rows(outbox.relay, suppressions) == []


async def test_a_bounce_is_not_taken_at_the_address_for_complaints(outbox: Outbox) -> None:
    delivery_id, _ = await _sent(outbox)
    address = return_address(outbox.relay, delivery_id, kind="complaint")
    assert (await _bring(outbox, address, delivery_report("bob@example.org")))[0] == 250
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


async def test_a_complaint_stands_above_a_bounce_and_a_bounce_above_a_click(outbox: Outbox) -> None:
    delivery_id, email_id = await _sent(outbox)
    await change(outbox.relay, emails, email_id, status="CLICKED")
    bounces = return_address(outbox.relay, delivery_id)
    await _bring(outbox, bounces, delivery_report("bob@example.org"))
    assert (await outbox.email(delivery_id))["status"] == "BOUNCED"
    await _bring(outbox, bounces, feedback_report())
    await _bring(outbox, bounces, delivery_report("bob@example.org", diagnostic="smtp; 550 5.1.1 still no such user"))
    email = await outbox.email(delivery_id)
    assert email["status"] == "COMPLAINED"
    assert email["bounced_at"] is not None
    assert email["complained_at"] is not None
    await outbox.check_ledger()


async def test_of_several_recipients_only_the_one_that_complains_is_unsubscribed(outbox: Outbox, peer: Peer) -> None:
    ann, bob = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    await _bring(outbox, peer.taken[0].sender, feedback_report("bob@example.org"))
    assert (await outbox.email(ann))["status"] == "DELIVERED"
    assert (await outbox.email(bob))["status"] == "COMPLAINED"


async def test_of_several_recipients_none_is_unsubscribed_when_the_report_names_none(outbox: Outbox, peer: Peer) -> None:
    both = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert (await _bring(outbox, peer.taken[0].sender, feedback_report(None)))[0] == 250
    assert [(await outbox.email(one))["status"] for one in both] == ["DELIVERED", "DELIVERED"]


async def test_who_complains_has_got_the_mail_so_that_it_is_not_sent_again(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="close")
    delivery_id, _ = await _sent(outbox)
    assert await outbox.state(delivery_id) == ("QUEUED", "PENDING")
    await _bring(outbox, return_address(outbox.relay, delivery_id), feedback_report())
    assert await outbox.state(delivery_id) == ("DELIVERED", "COMPLAINED")
    await outbox.check_ledger()


async def _sent(outbox: Outbox) -> tuple[str, str]:
    [queued] = await outbox.send("bob@example.org", subscribed=True)
    await outbox.deliver()
    return queued.delivery_id, queued.email_id


async def _bring(outbox: Outbox, recipient: str, report: bytes, *, sender: str = "") -> tuple[int, str]:
    async with running_inbound(outbox.relay) as door:
        return await bring(door, recipient, report, sender=sender)


async def _check_complained(outbox: Outbox, delivery_id: str) -> None:
    assert await outbox.state(delivery_id) == ("DELIVERED", "COMPLAINED")
    assert (await outbox.email(delivery_id))["complained_at"] == outbox.clock.now()
    assert not await _subscribed(outbox)


async def _subscribed(outbox: Outbox) -> bool:
    found = await outbox.relay.db.read(find_contacts_by_email, outbox.acme.id, ["bob@example.org"])
    return found["bob@example.org"].subscribed
