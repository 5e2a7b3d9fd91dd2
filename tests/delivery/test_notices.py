"""Who hears that mail did not arrive? Senders by SMTP, once, in a message of its own that people and programs can read."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import deliveries, domains, emails
from plunk_relay.domains.queries import list_keys
from plunk_relay.emails.status_notices.actions import LateFailure, Postmaster, queue_late_notice
from plunk_relay.mail.dkim import verify
from plunk_relay.mail.dsn import read_delivery_report
from plunk_relay.mail.outcome import Reply
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.smtp.submission import submission_doors
from plunk_relay.suppressions.queries import suppress
from tests.kit.inbound import bring, delivery_report, return_address, running_inbound
from tests.kit.outbox import Outbox, Prepared, running_outbox, set_exchangers, usual_dns
from tests.kit.peer import Peer, Received, Script
from tests.kit.process import free_port
from tests.kit.smtp import PATIENCE_SECONDS, open_door
from tests.kit.store import change, rows

MAIL = b"From: App <app@acme.test>\r\nTo: bob@example.org\r\nSubject: Your order\r\nMessage-ID: <7@acme.test>\r\n\r\nHi\r\n"
BOB_IS_UNKNOWN = Script(rcpt={"bob@example.org": "550 5.1.1 no such user here"})
NOT_NOW = Script(rcpt={"bob@example.org": "451 4.7.1 greylisted"})


@dataclass(frozen=True, slots=True)
class Desk:
    """A relay with an open submission door; the mail of acme.test and example.org goes to the peer."""

    outbox: Outbox
    peer: Peer
    port: int

    async def submit(self, *recipients: str, message: bytes = MAIL, options: tuple[str, ...] = ()) -> list[str]:
        """Submit as acme; return the queue ids, in the order of the recipients."""

        def talk() -> None:
            with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=PATIENCE_SECONDS) as client:
                client.login("plunk", self.outbox.acme.secret)
                client.sendmail("app@acme.test", list(recipients) or ["bob@example.org"], message, mail_options=options)

        await asyncio.to_thread(talk)
        stored = await rows(self.outbox.relay, deliveries, project_id=self.outbox.acme.id)
        return [row["id"] for row in stored]

    async def deliver_after(self, **span: float) -> None:
        """Let time pass, then let all that is due be tried."""
        self.outbox.clock.advance(**span)
        await self.outbox.deliver()

    def notices(self) -> list[Received]:
        """Return what came to the sender."""
        return [one for one in self.peer.taken if one.recipients == ("app@acme.test",)]

    def notice(self) -> EmailMessage:
        """Return the only one, as the standard library reads it."""
        [received] = self.notices()
        return message_from_bytes(received.message, policy=default)


@asynccontextmanager
async def open_desk(
    prepared: Prepared, directory: Path, clock: ManualClock, peer: Peer, **delivery: Any
) -> AsyncIterator[Desk]:
    dns = usual_dns()
    set_exchangers(dns, "acme.test", "127.0.0.1")
    smtp = {"submission_port": free_port(), "inbound_port": free_port()}
    async with running_outbox(prepared, directory, port=peer.port, clock=clock, dns=dns, smtp=smtp, **delivery) as outbox:
        [door] = await submission_doors(outbox.relay)
        async with open_door(door):
            yield Desk(outbox, peer, door.port)


@pytest.fixture
async def desk(prepared: Prepared, tmp_path: Path, clock: ManualClock, peer: Peer) -> AsyncIterator[Desk]:
    async with open_desk(prepared, tmp_path / "data", clock, peer) as opened:
        yield opened


async def test_the_sender_is_told_of_a_refusal_from_the_null_sender(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit()
    await desk.outbox.deliver()
    [received] = desk.notices()
    assert received.sender == ""
    notice = desk.notice()
    assert notice["From"] == "Mail Delivery System <MAILER-DAEMON@acme.test>"
    assert (notice["To"], notice["Subject"]) == ("app@acme.test", "Undelivered mail: Your order")
    assert (notice["Auto-Submitted"], notice["References"]) == ("auto-replied", "<7@acme.test>")
    assert notice["Message-ID"].endswith("@acme.test>")


async def test_a_person_reads_what_happened_why_and_what_to_do(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    [queue_id] = await desk.submit()
    await desk.outbox.deliver()
    text = _parts(desk.notice())[0].get_content()
    lines = " ".join(text.split())
    assert "<bob@example.org>" in lines
    assert "What happened: mx.example.org refused it for good." in lines
    assert "The server said: 550 5.1.1 no such user here" in lines
    assert "What it means: " in lines
    assert "What to do: " in lines
    assert queue_id in lines


async def test_a_program_reads_the_fields_of_the_standard(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit()
    await desk.outbox.deliver()
    notice = desk.notice()
    assert (notice.get_content_type(), notice.get_param("report-type")) == ("multipart/report", "delivery-status")
    [message, recipient] = cast("list[EmailMessage]", _parts(notice)[1].get_payload())
    assert message["Reporting-MTA"] == "dns; relay.test"
    assert {name: recipient[name] for name in ("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code")} == {
        "Final-Recipient": "rfc822; bob@example.org",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.org",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user here",
    }
    original = _parts(notice)[2]
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Message-ID: <7@acme.test>" in original.get_payload()
    assert "Hi" not in original.get_payload()


async def test_our_own_reader_of_bounces_understands_it(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit()
    await desk.outbox.deliver()
    [received] = desk.notices()
    report = read_delivery_report(received.message)
    assert report is not None
    assert report.source == "standard"
    [recipient] = report.recipients
    assert (recipient.addresses, recipient.failed) == (("bob@example.org",), True)
    assert (recipient.reply.code, recipient.reply.enhanced) == (550, "5.1.1")


async def test_it_is_signed_by_the_senders_domain(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit()
    await desk.outbox.deliver()
    [received] = desk.notices()
    relay = desk.outbox.relay
    [domain] = await rows(relay, domains, domain="acme.test")
    keys = {key.selector: key.public_record for key in await relay.db.read(list_keys, domain["id"])}
    assert verify(received.message, find_txt=lambda name: keys[name.decode().partition(".")[0]].encode()) == [True, True]


async def test_it_goes_unsigned_when_the_domain_is_not_verified_any_more(desk: Desk) -> None:
    await desk.submit()
    [domain] = await rows(desk.outbox.relay, domains, domain="acme.test")
    await change(desk.outbox.relay, domains, domain["id"], verified=False)
    desk.outbox.relay.memory.forget("identities")
    await desk.outbox.deliver()
    notice = desk.notice()
    assert notice["DKIM-Signature"] is None
    assert "domain acme.test is not verified" in " ".join(_parts(notice)[0].get_content().split())


async def test_recipients_that_fail_together_share_a_notice(desk: Desk) -> None:
    desk.peer.script = Script(rcpt={name: f"550 5.1.1 no {name[0]}" for name in ("bob@example.org", "cid@example.org")})
    await desk.submit("bob@example.org", "ann@example.org", "cid@example.org")
    await desk.outbox.deliver()
    [_, bob, cid] = cast("list[EmailMessage]", _parts(desk.notice())[1].get_payload())
    assert [bob["Final-Recipient"], cid["Final-Recipient"]] == ["rfc822; bob@example.org", "rfc822; cid@example.org"]
    assert "ann@example.org" not in desk.notices()[0].message.decode().partition("rfc822-headers")[0]


async def test_two_messages_have_two_notices(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit()
    await desk.submit(message=MAIL.replace(b"<7@", b"<8@"))
    await desk.outbox.deliver()
    assert len(desk.notices()) == 2


@pytest.mark.parametrize("switch", ["off", "no", "False"])
async def test_a_header_switches_notices_off(desk: Desk, switch: str) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit(message=b"X-Plunk-Notify: %b\r\n" % switch.encode() + MAIL)
    await desk.outbox.deliver()
    assert desk.notices() == []


async def test_mail_sent_by_the_api_has_no_notice(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.outbox.send("bob@example.org")
    await desk.outbox.deliver()
    assert desk.peer.taken == []


async def test_mail_of_a_template_has_no_notice(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    [row] = await _submit_template(desk)
    await desk.outbox.deliver()
    assert row["notify"] is False
    assert desk.notices() == []


async def test_what_was_delivered_has_no_notice(desk: Desk) -> None:
    await desk.submit()
    await desk.outbox.deliver()
    assert desk.notices() == []


async def test_nobody_is_told_that_a_notice_did_not_arrive(desk: Desk) -> None:
    desk.peer.script = Script(rcpt="550 5.1.1 nobody is here")
    await desk.submit()
    await desk.outbox.deliver()
    [notice] = await rows(desk.outbox.relay, deliveries, project_id=RELAY_PROJECT_ID)
    assert (notice["state"], notice["sender"], notice["notify"]) == ("BOUNCED", "", False)
    await desk.outbox.check_ledger()


async def test_a_late_mail_is_told_of_once_after_four_hours(desk: Desk) -> None:
    desk.peer.script = NOT_NOW
    await desk.submit()
    await desk.outbox.deliver()
    await desk.deliver_after(hours=3, minutes=59)
    assert desk.notices() == []
    await desk.deliver_after(hours=3)
    notice = desk.notice()
    assert notice["Subject"] == "Delayed mail, still being tried: Your order"
    [_, recipient] = cast("list[EmailMessage]", _parts(notice)[1].get_payload())
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.7.1")
    assert recipient["Will-Retry-Until"] == "Thu, 05 Mar 2026 12:00:00 +0000"
    assert "you need not send it again" in " ".join(_parts(notice)[0].get_content().split())
    await desk.deliver_after(hours=5)
    assert len(desk.notices()) == 1


async def test_a_delay_is_not_read_as_a_bounce(desk: Desk) -> None:
    desk.peer.script = NOT_NOW
    await desk.submit()
    await desk.outbox.deliver()
    await desk.deliver_after(hours=5)
    [received] = desk.notices()
    report = read_delivery_report(received.message)
    assert report is not None
    assert [one.failed for one in report.recipients] == [False]


async def test_a_mail_that_expires_is_told_of_with_the_last_words_of_the_server(desk: Desk) -> None:
    desk.peer.script = NOT_NOW
    await desk.submit()
    await desk.outbox.deliver()
    await desk.deliver_after(hours=97)
    [_, recipient] = cast("list[EmailMessage]", _parts(desk.notice())[1].get_payload())
    assert (recipient["Action"], recipient["Status"]) == ("failed", "4.4.7")
    assert recipient["Diagnostic-Code"] == "smtp; 451 4.7.1 greylisted"
    assert recipient["Remote-MTA"] == "dns; mx.example.org"


async def test_delay_notices_can_be_switched_off(prepared: Prepared, tmp_path: Path, clock: ManualClock, peer: Peer) -> None:
    async with open_desk(prepared, tmp_path / "data", clock, peer, delay_notice_hours=0) as desk:
        peer.script = NOT_NOW
        await desk.submit()
        await desk.outbox.deliver()
        await desk.deliver_after(hours=6)
        assert desk.notices() == []


async def test_a_mail_that_may_have_arrived_is_not_called_lost(desk: Desk) -> None:
    desk.peer.script = Script(dot=["close", "250 2.0.0 taken"])
    await desk.submit(message=b"X-Plunk-Never-Twice: on\r\n" + MAIL)
    await desk.outbox.deliver()
    text = " ".join(_parts(desk.notice())[0].get_content().split())
    assert "What it means: It may have arrived." in text
    assert "Ask the recipient before you send it again." in text


async def test_the_sender_is_told_of_a_suppressed_recipient(desk: Desk) -> None:
    relay, project_id = desk.outbox.relay, desk.outbox.acme.id
    await relay.db.write(_suppress_bob, project_id, now=relay.clock.now())
    await desk.submit()
    await desk.outbox.deliver()
    text = " ".join(_parts(desk.notice())[0].get_content().split())
    assert "It was not sent: the address is on the suppression list." in text


async def test_a_dead_domain_is_told_of_without_a_server(desk: Desk) -> None:
    await desk.submit("bob@nowhere.test")
    await desk.outbox.deliver()
    [_, recipient] = cast("list[EmailMessage]", _parts(desk.notice())[1].get_payload())
    assert (recipient["Remote-MTA"], recipient["Status"]) == (None, "5.1.2")
    assert recipient["Diagnostic-Code"].startswith("x-plunk-relay; 5")


async def test_an_address_with_other_letters_is_told_in_utf8(desk: Desk) -> None:
    desk.peer.script = Script(rcpt={"bücher@example.org": "550 5.1.1 no such user"}, keywords=("8BITMIME", "SMTPUTF8"))
    message = MAIL.replace(b"bob@", "bücher@".encode())
    await _submit_utf8(desk, "bücher@example.org", message)
    await desk.outbox.deliver()
    [received] = desk.notices()
    assert "Final-Recipient: utf-8; bücher@example.org".encode() in received.message
    kinds = [part.get_content_type() for part in _parts(desk.notice())]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    report = read_delivery_report(received.message)
    assert report is not None
    assert "bücher@example.org" in report.recipients[0].addresses


async def test_a_bounce_that_comes_by_mail_later_is_told_of_as_well(desk: Desk) -> None:
    [queue_id] = await desk.submit()
    await desk.outbox.deliver()
    relay = desk.outbox.relay
    failure = LateFailure(queue_id, Reply(550, "5.1.1", "no such user"))
    postmaster, now = Postmaster.of(relay), relay.clock.now()
    await relay.db.write(queue_late_notice, postmaster, [failure], remote_host="inner.example.org", now=now)
    await desk.outbox.deliver()
    notice = desk.notice()
    assert "inner.example.org took the message first and reported this later." in " ".join(
        _parts(notice)[0].get_content().split()
    )
    assert "Subject: Your order" in _parts(notice)[2].get_payload()


async def test_the_sender_is_told_of_a_bounce_that_the_inbound_door_took(desk: Desk) -> None:
    queue_ids = await desk.submit("bob@example.org", "ann@example.org")
    await desk.outbox.deliver()
    relay = desk.outbox.relay
    report = delivery_report("bob@example.org", "ann@example.org")
    async with running_inbound(relay) as door:
        for _ in range(2):
            assert (await bring(door, return_address(relay, queue_ids[0]), report))[0] == 250
    await desk.outbox.deliver()
    [_, *recipients] = cast("list[EmailMessage]", _parts(desk.notice())[1].get_payload())
    assert [one["Final-Recipient"] for one in recipients] == ["rfc822; bob@example.org", "rfc822; ann@example.org"]


async def test_nobody_is_told_later_who_did_not_want_to_be(desk: Desk) -> None:
    await desk.outbox.send("bob@example.org")
    [row] = await rows(desk.outbox.relay, deliveries, project_id=desk.outbox.acme.id)
    postmaster, now = Postmaster.of(desk.outbox.relay), desk.outbox.relay.clock.now()
    failure = LateFailure(row["id"], Reply(550, "5.1.1", "no such user"))
    work = desk.outbox.relay.db.write(queue_late_notice, postmaster, [failure], remote_host=None, now=now)
    assert await work is None


async def test_notices_belong_to_the_relay_and_to_the_ledger(desk: Desk) -> None:
    desk.peer.script = BOB_IS_UNKNOWN
    await desk.submit("bob@example.org", "ann@example.org")
    await desk.outbox.deliver()
    [mail] = await rows(desk.outbox.relay, emails, project_id=RELAY_PROJECT_ID)
    assert (mail["from_address"], mail["recipient"], mail["status"]) == (
        "MAILER-DAEMON@acme.test",
        "app@acme.test",
        "DELIVERED",
    )
    ledger = await desk.outbox.check_ledger()
    assert (ledger["accepted"], ledger["bounced"], ledger["delivered"]) == (3, 1, 2)


def _parts(notice: EmailMessage) -> list[EmailMessage]:
    return cast("list[EmailMessage]", notice.get_payload())


def _suppress_bob(tx: Any, project_id: str, *, now: Any) -> None:
    suppress(tx, project_id, "bob@example.org", reason="MANUAL", detail=None, email_id=None, now=now)


async def _submit_template(desk: Desk) -> list[dict[str, Any]]:
    from tests.kit.store import add_template

    template_id = await add_template(desk.outbox.relay, desk.outbox.acme.id)
    await desk.submit(message=b"X-Plunk-Template: %b\r\n" % template_id.encode() + MAIL)
    return await rows(desk.outbox.relay, deliveries, project_id=desk.outbox.acme.id)


async def _submit_utf8(desk: Desk, recipient: str, message: bytes) -> None:
    await desk.submit(recipient, message=message, options=("SMTPUTF8", "BODY=8BITMIME"))
