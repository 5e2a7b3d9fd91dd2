"""What becomes of mail to a domain that receives? A mail of the project and an event, once, and nobody else's business."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.db.tables import contacts, contents, deliveries, domains, emails, events, projects
from plunk_relay.domains.actions import set_receiving, trust_domain
from plunk_relay.domains.queries import find_domain_named
from plunk_relay.emails.ledger.queries import find_imbalances, is_balanced, read_ledger
from plunk_relay.inbound.actions import receive
from plunk_relay.mail.dkim import generate_ed25519_pem, load_key, public_record, sign
from plunk_relay.projects.actions import disable_project
from plunk_relay.relay import Relay
from plunk_relay.smtp.listener import Door
from tests.kit.dns import DnsTable, running_dns
from tests.kit.inbound import bring, running_inbound
from tests.kit.process import free_port
from tests.kit.relay import Tenant, running_relay
from tests.kit.smtp import Stage
from tests.kit.store import change, rows

ANN = "ann@example.org"
MAIL = (
    b"From: Ann <ann@example.org>\r\nTo: help@acme.test\r\nSubject: Question\r\nMessage-ID: <1@example.org>\r\n\r\n"
    b"How much?\r\n"
)
FIELDS = {
    *("messageId", "from", "fromHeader", "to", "subject", "timestamp", "recipients", "hasContent", "body"),
    *("spfVerdict", "dkimVerdict", "dmarcVerdict", "processingTimeMillis"),
}


@dataclass(frozen=True, slots=True)
class PostOffice:
    """A relay with an open inbound door; acme.test receives, rival.test does not."""

    relay: Relay
    clock: ManualClock
    dns: DnsTable
    door: Door
    acme: Tenant
    rival: Tenant

    async def bring(self, *recipients: str, message: bytes = MAIL, sender: str = ANN) -> int:
        """Hand a message in; return the code of the reply to it, or of the first refusal."""
        code, _ = await bring(self.door, recipients or ("help@acme.test",), message, sender=sender)
        return code

    async def switch(self, domain: str, *, receiving: bool) -> None:
        found = await self.relay.db.read(find_domain_named, domain)
        assert found is not None
        await set_receiving(self.relay, found, receiving=receiving)

    async def mails(self) -> list[dict[str, Any]]:
        return await rows(self.relay, emails)

    async def mail(self) -> dict[str, Any]:
        [row] = await self.mails()
        return row

    async def event(self) -> dict[str, Any]:
        [row] = await rows(self.relay, events)
        return row

    async def content(self, content_id: str) -> bytes:
        [row] = await rows(self.relay, contents, id=content_id)
        data: bytes = row["data"]
        return data


@pytest.fixture
async def office(stage: Stage, tmp_path: Path, clock: ManualClock) -> AsyncIterator[PostOffice]:
    dns = DnsTable()
    dns.set("example.org", "TXT", "v=spf1 ip4:127.0.0.1 -all")
    dns.set("_dmarc.example.org", "TXT", "v=DMARC1; p=reject")
    shutil.copytree(stage.directory, tmp_path, dirs_exist_ok=True)
    smtp = {"inbound_port": free_port()}
    async with (
        running_dns(dns) as server,
        running_relay(tmp_path, clock=clock, smtp=smtp, delivery={"resolvers": [server]}) as relay,
        running_inbound(relay) as door,
    ):
        opened = PostOffice(relay, clock, dns, door, stage.acme, stage.rival)
        await opened.switch("acme.test", receiving=True)
        yield opened


# --- the mail


async def test_mail_to_a_receiving_domain_becomes_a_mail_of_its_project(office: PostOffice) -> None:
    assert await office.bring() == 250
    mail = await office.mail()
    assert (mail["project_id"], mail["source_type"], mail["status"]) == (office.acme.id, "INBOUND", "RECEIVED")
    assert (mail["from_address"], mail["recipient"]) == ("help@acme.test", "help@acme.test")
    assert (mail["subject"], mail["message_id"]) == ("Question", "1@example.org")
    assert (mail["delivered_at"], mail["sent_at"]) == (office.clock.now(), None)
    assert await office.content(mail["content_id"]) == b"<p>How much?</p>"


async def test_the_address_is_kept_in_lower_case(office: PostOffice) -> None:
    assert await office.bring("Help@ACME.test") == 250
    assert (await office.mail())["from_address"] == "help@acme.test"


async def test_mail_without_subject_and_body_is_kept(office: PostOffice) -> None:
    await office.bring(message=b"From: ann@example.org\r\n\r\n")
    mail = await office.mail()
    assert (mail["subject"], mail["content_id"]) == ("(No subject)", None)
    assert (await office.event())["data"]["hasContent"] is False


async def test_html_is_made_safe_before_it_is_stored(office: PostOffice) -> None:
    head = MAIL.partition(b"\r\n\r\n")[0]
    await office.bring(message=head + b"\r\nContent-Type: text/html\r\n\r\n<p onclick='x()'>Hi</p><script>x()</script>\r\n")
    mail = await office.mail()
    assert await office.content(mail["content_id"]) == b"<p>Hi</p>"
    assert (await office.event())["data"]["body"] == "<p>Hi</p>"


async def test_attachments_are_kept_as_those_of_sent_mail_are(office: PostOffice) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"], message["Subject"] = ANN, "File"
    message.set_content("see")
    message.add_attachment(b"\x00\x01", maintype="image", subtype="png", filename="a.png")
    await office.bring(message=message.as_bytes())
    mail = await office.mail()
    assert json.loads(await office.content(mail["attachments_id"])) == [
        {
            "filename": "a.png",
            "content": "AAE=",
            "contentType": "image/png",
            "disposition": "attachment",
            "contentId": None,
        }
    ]


async def test_the_headers_are_kept_with_our_verdict_on_top(office: PostOffice) -> None:
    theirs = b"Authentication-Results: mx.example.org; spf=fail\r\nX-Odd: yes\r\n"
    await office.bring(message=theirs + MAIL)
    headers = (await office.mail())["headers"]
    own, other = headers["Authentication-Results"].split("\n")
    assert own == "relay.test; spf=pass smtp.mailfrom=example.org; dkim=none; dmarc=pass (p=reject) header.from=example.org"
    assert (other, headers["X-Odd"]) == ("mx.example.org; spf=fail", "yes")


async def test_a_forged_verdict_of_ours_is_removed(office: PostOffice) -> None:
    office.dns.set("example.org", "TXT", "v=spf1 -all")
    await office.bring(message=b"Authentication-Results: relay.test; dmarc=pass\r\n" + MAIL)
    results = (await office.mail())["headers"]["Authentication-Results"]
    assert "dmarc=pass" not in results
    assert "dmarc=fail" in results


async def test_each_recipient_has_a_mail(office: PostOffice) -> None:
    assert await office.bring("help@acme.test", "info@acme.test", "HELP@acme.test") == 250
    assert [mail["from_address"] for mail in await office.mails()] == ["help@acme.test", "info@acme.test"]
    assert {event["data"]["to"] for event in await rows(office.relay, events)} == {"help@acme.test", "info@acme.test"}


async def test_each_project_sees_its_own_recipients_alone(office: PostOffice) -> None:
    await office.switch("rival.test", receiving=True)
    assert await office.bring("help@acme.test", "boss@rival.test") == 250
    mails = {mail["project_id"]: mail["from_address"] for mail in await office.mails()}
    assert mails == {office.acme.id: "help@acme.test", office.rival.id: "boss@rival.test"}
    seen = {event["project_id"]: event["data"]["recipients"] for event in await rows(office.relay, events)}
    assert seen == {office.acme.id: ["help@acme.test"], office.rival.id: ["boss@rival.test"]}


async def test_received_mail_is_no_part_of_the_ledger_and_not_delivered(office: PostOffice) -> None:
    await office.bring()
    ledger = await office.relay.db.read(read_ledger)
    assert (ledger["accepted"], is_balanced(ledger)) == (0, True)
    assert await office.relay.db.read(find_imbalances) == []
    assert await rows(office.relay, deliveries) == []


# --- the event and the contact


async def test_the_event_has_the_fields_of_the_contract(office: PostOffice) -> None:
    await office.bring()
    event, mail = await office.event(), await office.mail()
    assert (event["name"], event["email_id"], event["contact_id"]) == ("email.received", mail["id"], mail["contact_id"])
    data = event["data"]
    assert set(data) == FIELDS
    assert {name: data[name] for name in FIELDS - {"processingTimeMillis"}} == {
        "messageId": "1@example.org",
        "from": ANN,
        "fromHeader": "Ann <ann@example.org>",
        "to": "help@acme.test",
        "subject": "Question",
        "timestamp": "2026-03-01T12:00:00.000Z",
        "recipients": ["help@acme.test"],
        "hasContent": True,
        "body": "<p>How much?</p>",
        "spfVerdict": "PASS",
        "dkimVerdict": "GRAY",
        "dmarcVerdict": "PASS",
    }
    assert isinstance(data["processingTimeMillis"], int)


async def test_signed_mail_is_verified(office: PostOffice) -> None:
    key = load_key("s1", "ed25519-sha256", generate_ed25519_pem())
    office.dns.set("s1._domainkey.example.org", "TXT", public_record(key))
    office.dns.set("example.org", "TXT", "v=spf1 -all")
    await office.bring(message=sign(MAIL, domain="example.org", keys=[key], timestamp=1) + MAIL)
    data = (await office.event())["data"]
    assert (data["spfVerdict"], data["dkimVerdict"], data["dmarcVerdict"]) == ("FAIL", "PASS", "PASS")


async def test_trouble_with_the_dns_refuses_no_mail(office: PostOffice) -> None:
    for name in ("example.org", "_dmarc.example.org"):
        office.dns.fail(name, "TXT", "SERVFAIL")
    assert await office.bring() == 250
    data = (await office.event())["data"]
    assert (data["spfVerdict"], data["dmarcVerdict"]) == ("PROCESSING_FAILED", "PROCESSING_FAILED")


async def test_a_new_sender_becomes_a_subscribed_contact(office: PostOffice) -> None:
    await office.bring(sender="Ann@Example.org")
    [contact] = await rows(office.relay, contacts)
    assert (contact["email"], contact["subscribed"], contact["project_id"]) == (ANN, True, office.acme.id)
    assert (await office.mail())["contact_id"] == contact["id"]


@pytest.mark.parametrize("subscribed", [True, False])
async def test_a_known_sender_keeps_their_subscription(office: PostOffice, subscribed: bool) -> None:
    known = ContactChange(ANN, subscribed=subscribed)
    await office.relay.db.write(upsert_contact, office.acme.id, known, now=office.clock.now())
    await office.bring()
    [contact] = await rows(office.relay, contacts)
    assert contact["subscribed"] is subscribed
    assert (await office.event())["name"] == "email.received"


@pytest.mark.parametrize("field", [b"Auto-Submitted: auto-replied", b"Precedence: bulk"])
async def test_the_event_says_when_a_program_wrote(office: PostOffice, field: bytes) -> None:
    await office.bring(message=field + b"\r\n" + MAIL)
    assert (await office.event())["data"]["autoSubmitted"] is True


async def test_mail_that_this_relay_sent_is_stored_and_not_to_be_answered(office: PostOffice) -> None:
    await office.bring(message=b"Received: by relay.test (Plunk Relay)\r\n\twith ESMTPA id 1; now\r\n" + MAIL)
    assert (await office.event())["data"]["autoSubmitted"] is True


# --- once, and only what may


async def test_the_same_message_again_is_taken_and_stored_once(office: PostOffice) -> None:
    assert [await office.bring(), await office.bring()] == [250, 250]
    assert len(await office.mails()) == len(await rows(office.relay, events)) == 1


async def test_the_same_message_to_one_recipient_more_is_stored_for_that_one(office: PostOffice) -> None:
    await office.bring("help@acme.test")
    await office.bring("help@acme.test", "info@acme.test")
    assert [mail["from_address"] for mail in await office.mails()] == ["help@acme.test", "info@acme.test"]


@pytest.mark.parametrize(
    ("sender", "message"),
    [("eve@example.org", MAIL), (ANN, MAIL.replace(b"<1@", b"<2@"))],
    ids=["another sender", "another Message-ID"],
)
async def test_another_message_is_not_taken_for_the_same(office: PostOffice, sender: str, message: bytes) -> None:
    await office.bring()
    await office.bring(sender=sender, message=message)
    assert len(await office.mails()) == 2


async def test_messages_without_an_id_are_told_apart_by_their_bytes(office: PostOffice) -> None:
    bare = MAIL.replace(b"Message-ID: <1@example.org>\r\n", b"")
    for message in (bare, bare, bare.replace(b"much", b"many")):
        await office.bring(message=message)
    assert len(await office.mails()) == 2


async def test_after_a_day_it_is_another_message(office: PostOffice) -> None:
    await office.bring()
    office.clock.advance(days=1, seconds=1)
    await office.bring()
    assert len(await office.mails()) == 2


async def test_two_at_the_same_time_are_stored_once(office: PostOffice) -> None:
    await asyncio.gather(*(office.bring() for _ in range(5)))
    assert len(await office.mails()) == 1


async def test_mail_from_the_null_sender_becomes_no_contact(office: PostOffice) -> None:
    assert await office.bring(sender="") == 250
    assert await office.mails() == await rows(office.relay, contacts) == await rows(office.relay, events) == []


async def test_a_domain_that_does_not_receive_takes_nothing(office: PostOffice) -> None:
    assert await office.bring("boss@rival.test") == 550
    await office.switch("acme.test", receiving=False)
    assert await office.bring() == 550
    assert await office.mails() == []


async def test_a_domain_that_is_not_verified_takes_nothing(office: PostOffice) -> None:
    [row] = await rows(office.relay, domains, domain="acme.test")
    await change(office.relay, domains, row["id"], verified=False)
    assert await office.bring() == 550
    found = await office.relay.db.read(find_domain_named, "acme.test")
    assert found is not None
    await trust_domain(office.relay, found)
    assert await office.bring() == 250


async def test_a_disabled_project_stores_nothing(office: PostOffice) -> None:
    await disable_project(office.relay, office.acme.id)
    await office.bring()
    assert await office.mails() == []


async def test_mail_beyond_the_monthly_cap_is_dropped_without_a_word(office: PostOffice) -> None:
    await change(office.relay, projects, office.acme.id, billing_limit_inbound=1)
    assert await office.bring() == 250
    assert await office.bring(message=MAIL.replace(b"<1@", b"<2@")) == 250
    assert [mail["message_id"] for mail in await office.mails()] == ["1@example.org"]
    office.clock.advance(days=31)
    assert await office.bring(message=MAIL.replace(b"<1@", b"<3@")) == 250
    assert len(await office.mails()) == 2


async def test_a_mail_loop_is_refused(office: PostOffice) -> None:
    assert await office.bring(message=b"Received: x\r\n" * 51 + MAIL) == 554
    assert await office.bring(message=b"Received: x\r\n" * 50 + MAIL) == 250


async def test_all_of_a_message_is_stored_or_nothing(office: PostOffice) -> None:
    await office.relay.db.write(_forbid_events)
    assert await office.bring("help@acme.test", "info@acme.test") in (451, 452)
    assert await office.mails() == await rows(office.relay, contacts) == await rows(office.relay, contents) == []


async def test_the_sender_is_told_nothing_by_us(office: PostOffice) -> None:
    """An answer to mail of strangers would be mail to people who never wrote (backscatter)."""
    await office.bring()
    office.clock.advance(hours=5)
    assert await rows(office.relay, deliveries) == []


async def test_recipients_of_other_domains_are_passed_over(office: PostOffice) -> None:
    """What the door let in and was switched off meanwhile is not stored."""
    await receive(
        office.relay,
        client_address="127.0.0.1",
        helo="mx.example.org",
        sender=ANN,
        recipients=["help@acme.test", "boss@rival.test", "x@nowhere.test"],
        message=MAIL,
    )
    assert [mail["from_address"] for mail in await office.mails()] == ["help@acme.test"]


def _forbid_events(tx: sa.Connection) -> None:
    tx.exec_driver_sql("CREATE TRIGGER none BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no events'); END")
