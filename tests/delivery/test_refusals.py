"""What does an application see of a refusal? From `POST /v1/send` to the mail, the events, the contact and the list."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.commands import queue_show
from plunk_relay.contacts.queries import find_contacts_by_email
from plunk_relay.db.tables import deliveries, emails
from plunk_relay.delivery.outcomes import Finished, Postponed, record
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.emails.queue import Claim, claim_due
from tests.kit.api import sent
from tests.kit.http import running_http
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer, Script
from tests.kit.store import rows

ADDRESS = "ann@example.org"
BOUNCE = ["email.bounce", "contact.unsubscribed"]


@pytest.fixture
async def api(outbox: Outbox) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the API of the relay whose outbox it is."""
    async with running_http(outbox.relay) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a mail from outside."""

    status: str
    error: str | None
    events: list[str]
    subscribed: bool
    suppressed: bool


async def _send_and_deliver(outbox: Outbox, api: httpx2.AsyncClient, peer: Peer, reply: str) -> Seen:
    peer.script = Script(rcpt=reply)
    [answer] = await sent(api, outbox.acme, {"to": ADDRESS, "subscribed": True})
    subscription = {event["id"] for event in await outbox.events()}
    await outbox.deliver()
    [email] = await rows(outbox.relay, emails, id=answer["email"])
    contact = (await outbox.relay.db.read(find_contacts_by_email, outbox.acme.id, [ADDRESS]))[ADDRESS]
    entry = await api.get(f"/suppressions/addresses/{ADDRESS}", headers=outbox.acme.headers)
    names = [event["name"] for event in await outbox.events() if event["id"] not in subscription]
    return Seen(email["status"], email["error"], names, contact.subscribed, entry.status_code == 200)


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 no such user",
        "550 user unknown",
        "550 5.2.1 The email account that you tried to reach is disabled",
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
        "554 delivery error: dd This user doesn't have a yahoo.com account",
        "550 5.1.2 nothing here",
        "550 sorry, no mailbox here by that name. (#5.1.1)",
    ],
)
async def test_a_bad_address_bounces_unsubscribes_and_is_suppressed(
    outbox: Outbox, peer: Peer, api: httpx2.AsyncClient, reply: str
) -> None:
    seen = await _send_and_deliver(outbox, api, peer, reply)
    assert (seen.status, seen.events, seen.subscribed, seen.suppressed) == ("BOUNCED", BOUNCE, False, True)
    assert seen.error is not None
    assert seen.error.startswith(f"{reply} - ")


@pytest.mark.parametrize(
    "reply",
    [
        "552 5.2.2 mailbox full",
        "550 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org",
        "550 5.7.1 part of their network is on our block list (S3150)",
        "554 5.7.1 Spam message rejected",
        "550 5.7.26 This mail has been blocked because the sender is unauthenticated",
        "554 5.7.1 <ann@example.org>: Relay access denied",
        "550 5.1.8 your domain does not exist",
        "550 5.1.0 <app@acme.test>: Sender address rejected: User unknown in virtual mailbox table",
        "552 5.3.4 message too large",
        "550 5.4.6 mail loop",
        "550 no",
        "571 zzz",
    ],
)
async def test_another_refusal_fails_the_mail_and_leaves_the_contact_alone(
    outbox: Outbox, peer: Peer, api: httpx2.AsyncClient, reply: str
) -> None:
    seen = await _send_and_deliver(outbox, api, peer, reply)
    assert (seen.status, seen.events, seen.subscribed, seen.suppressed) == ("FAILED", [], True, False)
    assert seen.error is not None
    assert seen.error.startswith(f"{reply} - ")


async def test_a_temporary_refusal_of_the_address_has_no_effect(outbox: Outbox, peer: Peer, api: httpx2.AsyncClient) -> None:
    seen = await _send_and_deliver(outbox, api, peer, "450 4.1.1 user unknown")
    assert (seen.status, seen.error, seen.events, seen.subscribed) == ("PENDING", None, [], True)
    assert not seen.suppressed


@pytest.mark.parametrize(
    "script",
    [
        Script(banner="550 5.1.1 user unknown"),
        Script(ehlo="550 5.2.1 mailbox disabled", helo="550 5.2.1 mailbox disabled"),
        Script(mail="550 5.1.1 user unknown"),
        Script(mail="550 5.1.1 user unknown", keywords=()),
    ],
    ids=["banner", "EHLO", "MAIL", "MAIL, one by one"],
)
async def test_what_is_said_before_the_recipient_is_named_is_not_about_the_address(
    outbox: Outbox, peer: Peer, script: Script
) -> None:
    peer.script = script
    [delivery_id] = await outbox.submit(ADDRESS)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
    assert await outbox.events() == []
    [attempt] = (await queue_show(outbox.relay, delivery=delivery_id))["attempts"]
    assert (attempt["class"], attempt["rule"]) == ("policy", "not-about-recipient")
    assert attempt["action"].startswith("It is not tried again; the contact stays subscribed.")


@pytest.mark.parametrize(("count", "status"), [(1, "BOUNCED"), (2, "FAILED")])
async def test_a_refusal_of_the_message_is_about_the_address_only_when_it_had_one_recipient(
    outbox: Outbox, peer: Peer, count: int, status: str
) -> None:
    peer.script = Script(dot="550 5.1.1 user unknown")
    ids = await outbox.submit(*(f"user{number}@example.org" for number in range(count)))
    await outbox.deliver()
    assert [await outbox.state(delivery_id) for delivery_id in ids] == [("BOUNCED", status)] * count


@pytest.mark.parametrize(("domain", "records"), [("gone.test", None), ("nomail.test", "0 .")])
async def test_a_domain_that_takes_no_mail_is_a_bad_address(
    outbox: Outbox, api: httpx2.AsyncClient, domain: str, records: str | None
) -> None:
    if records is not None:
        outbox.dns.set(domain, "MX", records)
    [answer] = await sent(api, outbox.acme, {"to": f"ann@{domain}"})
    await outbox.deliver()
    [email] = await rows(outbox.relay, emails, id=answer["email"])
    assert email["status"] == "BOUNCED"
    entry = (await api.get(f"/suppressions/addresses/ann@{domain}", headers=outbox.acme.headers)).json()
    assert (entry["reason"], entry["emailId"]) == ("BOUNCE", answer["email"])
    assert email["error"].startswith(f"{entry['detail']} - The ")


async def test_the_next_mail_to_a_bad_address_is_not_tried(outbox: Outbox, peer: Peer, api: httpx2.AsyncClient) -> None:
    await _send_and_deliver(outbox, api, peer, "550 5.1.1 no such user")
    [answer] = await sent(api, outbox.acme, {"to": ADDRESS})
    await outbox.deliver()
    [delivery] = await rows(outbox.relay, deliveries, email_id=answer["email"])
    assert (delivery["state"], delivery["attempts"]) == ("SUPPRESSED", 0)
    assert len(peer.sessions) == 1


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("550 5.1.1 no such user", ("recipient", "unknown-recipient", "There is no such mailbox.")),
        ("450 4.2.0 greylisted", ("temporary", "greylisted", "The server puts unknown senders off and takes the")),
        ("550 zzz", ("policy", "unknown-refusal", "The server refused the message for a reason of its own.")),
        ("450 zzz", ("temporary", "unknown-delay", "The server cannot take the message at the moment.")),
        ("close", ("infrastructure", "unreachable", "No server of the recipient's domain could be reached.")),
    ],
)
async def test_an_attempt_is_shown_with_class_rule_meaning_and_action(
    outbox: Outbox, peer: Peer, reply: str, shown: tuple[str, str, str]
) -> None:
    peer.script = Script(rcpt=reply)
    [delivery_id] = await outbox.submit(ADDRESS)
    await outbox.deliver()
    [attempt] = (await queue_show(outbox.relay, delivery=delivery_id))["attempts"]
    assert (attempt["class"], attempt["rule"]) == shown[:2]
    assert attempt["meaning"].startswith(shown[2])
    assert attempt["action"].startswith("It is tried again" if reply[0] != "5" else "It is not tried again")


async def test_a_delivered_attempt_has_no_class(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit(ADDRESS)
    await outbox.deliver()
    [attempt] = (await queue_show(outbox.relay, delivery=delivery_id))["attempts"]
    assert attempt["class"] is attempt["rule"] is attempt["meaning"] is attempt["action"] is None


async def test_an_attempt_without_a_reply_to_the_dot_is_the_networks_fault(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="close")
    [delivery_id] = await outbox.submit(ADDRESS)
    await outbox.deliver()
    [attempt] = await outbox.attempts(delivery_id)
    assert (attempt["outcome"], attempt["reply_class"], attempt["rule"]) == ("UNKNOWN", "infrastructure", None)


@pytest.mark.parametrize(("pause_minutes", "due_minutes"), [(30, 30), (600, 300)])
async def test_a_postponed_mail_waits_without_an_attempt_and_not_beyond_its_time(
    outbox: Outbox, clock: ManualClock, pause_minutes: int, due_minutes: int
) -> None:
    now = clock.now()
    [delivery_id] = await outbox.submit(ADDRESS, lifetime=timedelta(minutes=300))
    [claimed] = await outbox.relay.db.write(claim_due, Claim("worker", now, now + timedelta(minutes=30), 10))
    postponed = Postponed(now + timedelta(minutes=pause_minutes), "example.org is paused")
    finished = Finished(claimed, postponed, confirmed=False, started_at=now, milliseconds=0)
    [verdict] = await outbox.relay.db.write(record, [finished], RetrySchedule([1.0]), now=now)
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["attempts"], row["lease_owner"]) == ("QUEUED", 0, None)
    assert (row["due_at"], row["last_reply"]) == (now + timedelta(minutes=due_minutes), "example.org is paused")
    assert (await outbox.email(delivery_id))["status"] == "PENDING"
    assert await outbox.attempts(delivery_id) == []
    assert verdict.word == "postponed"
