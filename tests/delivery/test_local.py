"""What becomes of mail to a domain that receives in this same relay? It arrives, as if another server had brought it."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts, contents, deliveries, domains, emails, projects
from plunk_relay.domains.actions import delete_domain, set_receiving
from plunk_relay.domains.queries import Domain, find_domain_named
from plunk_relay.projects.actions import disable_project
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.relay import Relay
from plunk_relay.smtp.submission import submission_doors
from tests.kit.inbound import delivery_report, publish_return_path, return_address
from tests.kit.outbox import MESSAGE, Outbox, Prepared, running_outbox, set_exchangers, usual_dns
from tests.kit.peer import Peer, Script
from tests.kit.process import free_port
from tests.kit.smtp import PATIENCE_SECONDS, open_door
from tests.kit.store import change, rows

DELIVERED = ("DELIVERED", "DELIVERED")
STORED = "250 2.0.0 stored here"
NOTHING_NEW = "250 2.0.0 taken here; there was nothing new to store"
BOSS = "boss@example.com"


@asynccontextmanager
async def receiving(
    prepared: Prepared, directory: Path, peer: Peer, *, smtp: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Outbox]:
    """Open an outbox where rival.test receives, whose exchanger, if anybody asked the DNS, is the peer."""
    dns = usual_dns()
    set_exchangers(dns, "rival.test", "127.0.0.1")
    set_exchangers(dns, "bounce.acme.test", "127.0.0.1")
    doors = {"inbound_port": free_port(), "submission_port": free_port(), "postmaster": BOSS, **(smtp or {})}
    async with running_outbox(prepared, directory, port=peer.port, dns=dns, smtp=doors, **settings) as outbox:
        await switch(outbox.relay, "rival.test", receiving=True)
        yield outbox


@pytest.fixture
async def outbox(prepared: Prepared, tmp_path: Path, peer: Peer) -> AsyncIterator[Outbox]:
    async with receiving(prepared, tmp_path / "data", peer) as opened:
        yield opened


# --- it arrives


async def test_mail_to_a_domain_that_receives_here_becomes_a_mail_of_its_project(outbox: Outbox, peer: Peer) -> None:
    [queued] = await outbox.send("Help@Rival.test", subject="Question", body="<p>How much?</p>")
    await outbox.deliver()
    assert await outbox.state(queued.delivery_id) == DELIVERED
    [mail] = await arrived(outbox)
    assert (mail["project_id"], mail["status"], mail["from_address"]) == (outbox.rival.id, "RECEIVED", "help@rival.test")
    assert (mail["subject"], mail["delivered_at"]) == ("Question", outbox.clock.now())
    [content] = await rows(outbox.relay, contents, id=mail["content_id"])
    assert b"How much?" in content["data"]
    assert peer.sessions == []
    ledger = await outbox.check_ledger()
    assert (ledger["accepted"], ledger["delivered"]) == (1, 1)


async def test_both_sides_see_what_belongs_to_them(outbox: Outbox) -> None:
    await outbox.send("help@rival.test")
    await outbox.deliver()
    events = await outbox.events()
    assert sorted((event["project_id"], event["name"]) for event in events) == sorted(
        [
            (outbox.acme.id, "email.sent"),
            (outbox.acme.id, "email.delivery"),
            (outbox.rival.id, "email.received"),
        ]
    )
    [sender] = await rows(outbox.relay, contacts, project_id=outbox.rival.id)
    assert (sender["email"], sender["subscribed"]) == ("app@acme.test", True)


async def test_the_attempt_says_where_the_mail_went(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit("help@rival.test")
    await outbox.deliver()
    [attempt] = await outbox.attempts(delivery_id)
    assert (attempt["host"], attempt["outcome"], attempt["reply"]) == ("relay.test", "DELIVERED", STORED)


async def test_what_is_submitted_by_smtp_arrives_whole(outbox: Outbox) -> None:
    letter = MESSAGE.replace(b"Hi\r\n", b"0123456789" * 7 + b"\r\n" + (b"x" * 70 + b"\r\n") * 5000)
    await _submit(outbox, "help@rival.test", letter)
    await outbox.deliver()
    [mail] = await arrived(outbox)
    [content] = await rows(outbox.relay, contents, id=mail["content_id"])
    assert content["data"].count(b"x" * 70) == 5000


async def test_each_recipient_of_a_message_has_a_mail(outbox: Outbox) -> None:
    await switch(outbox.relay, "acme.test", receiving=True)
    ids = await outbox.submit("help@rival.test", "info@rival.test", "me@acme.test")
    await outbox.deliver()
    assert [await outbox.state(one) for one in ids] == [DELIVERED] * 3
    found = {(mail["project_id"], mail["from_address"]) for mail in await arrived(outbox)}
    assert found == {
        (outbox.rival.id, "help@rival.test"),
        (outbox.rival.id, "info@rival.test"),
        (outbox.acme.id, "me@acme.test"),
    }


async def test_recipients_elsewhere_get_the_message_as_ever(outbox: Outbox, peer: Peer) -> None:
    ids = await outbox.submit("help@rival.test", "ann@example.org")
    await outbox.deliver()
    assert [await outbox.state(one) for one in ids] == [DELIVERED] * 2
    assert [mail.recipients for mail in peer.taken] == [("ann@example.org",)]


# --- a hop like any other


async def test_a_received_field_is_written_and_no_machine_is_to_answer(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit("help@rival.test")
    await outbox.deliver()
    [mail] = await arrived(outbox)
    assert mail["headers"]["Received"] == (
        f"by relay.test (Plunk Relay)\tid {delivery_id}\tfor <help@rival.test>;\tSun, 01 Mar 2026 12:00:00 +0000"
    )
    [event] = await _received_events(outbox)
    assert event["autoSubmitted"] is True


async def test_a_received_field_for_several_tells_none_of_the_others(outbox: Outbox) -> None:
    await outbox.submit("help@rival.test", "info@rival.test")
    await outbox.deliver()
    assert all("for <" not in mail["headers"]["Received"] for mail in await arrived(outbox))


@pytest.mark.parametrize("recipient", ["help@rival.test", "postmaster@rival.test"])
@pytest.mark.parametrize(("hops", "state"), [(49, DELIVERED), (50, ("BOUNCED", "FAILED"))])
async def test_a_mail_loop_ends(outbox: Outbox, recipient: str, hops: int, state: tuple[str, str]) -> None:
    [delivery_id] = await outbox.submit(recipient, message=b"Received: x\r\n" * hops + MESSAGE)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == state
    if hops == 50:
        assert (await outbox.delivery(delivery_id))["last_reply"] == "554 5.4.6 More than 50 hops: a mail loop"


async def test_spf_is_not_asked_of_mail_that_never_left(outbox: Outbox) -> None:
    outbox.dns.set("acme.test", "TXT", "v=spf1 -all")
    await outbox.submit("help@rival.test")
    await outbox.deliver()
    [event] = await _received_events(outbox)
    assert event["spfVerdict"] == "GRAY"


# --- once, and only what may


async def test_a_mail_that_was_stored_before_a_crash_is_not_stored_again(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit("help@rival.test", never_twice=True)
    await outbox.deliver()
    await change(outbox.relay, deliveries, delivery_id, state="QUEUED", finished_at=None)
    await outbox.deliver()
    assert (await outbox.delivery(delivery_id))["last_reply"] == NOTHING_NEW
    assert len(await arrived(outbox)) == 1


async def test_beyond_the_monthly_cap_it_is_taken_and_dropped_as_at_the_door(outbox: Outbox) -> None:
    await change(outbox.relay, projects, outbox.rival.id, billing_limit_inbound=0)
    [delivery_id] = await outbox.submit("help@rival.test")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    assert (await outbox.delivery(delivery_id))["last_reply"] == NOTHING_NEW
    assert await arrived(outbox) == []


async def test_a_disabled_project_stores_nothing(outbox: Outbox) -> None:
    await disable_project(outbox.relay, outbox.rival.id)
    await outbox.submit("help@rival.test")
    await outbox.deliver()
    assert await arrived(outbox) == []


async def test_what_cannot_be_stored_now_is_tried_again(outbox: Outbox, clock: ManualClock) -> None:
    await outbox.relay.db.write(_forbid_receiving)
    [delivery_id] = await outbox.submit("help@rival.test")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("QUEUED", "PENDING")
    assert await arrived(outbox) == []
    await outbox.relay.db.write(_allow_receiving)
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    assert len(await arrived(outbox)) == 1


async def test_without_room_on_the_disk_it_waits(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    limits = {"minimum_free_megabytes": 10**9}
    async with receiving(prepared, tmp_path / "data", peer, limits=limits) as outbox:
        here, there = await outbox.submit("help@rival.test", "ann@example.org")
        await outbox.deliver()
        assert await outbox.state(here) == ("QUEUED", "PENDING")
        assert (await outbox.delivery(here))["last_reply"].startswith("452 4.3.1 Cannot store mail now: only ")
        assert await outbox.state(there) == DELIVERED


# --- which domains


async def test_a_switch_counts_from_the_next_mail_on(outbox: Outbox, peer: Peer) -> None:
    await switch(outbox.relay, "rival.test", receiving=False)
    await outbox.submit("a@rival.test")
    await outbox.deliver()
    await switch(outbox.relay, "rival.test", receiving=True)
    await outbox.submit("b@rival.test")
    await outbox.deliver()
    assert [mail.recipients for mail in peer.taken] == [("a@rival.test",)]
    assert [mail["from_address"] for mail in await arrived(outbox)] == ["b@rival.test"]


async def test_a_domain_that_is_gone_receives_nothing_here(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit("a@rival.test")
    await outbox.deliver()
    await delete_domain(outbox.relay, outbox.rival.id, (await _domain(outbox.relay, "rival.test")).id)
    await outbox.submit("b@rival.test")
    await outbox.deliver()
    assert [mail.recipients for mail in peer.taken] == [("b@rival.test",)]


async def test_a_domain_that_is_not_verified_receives_nothing_here(outbox: Outbox, peer: Peer) -> None:
    await change(outbox.relay, domains, (await _domain(outbox.relay, "rival.test")).id, verified=False)
    await outbox.submit("a@rival.test")
    await outbox.deliver()
    assert len(peer.taken) == 1


async def test_what_was_switched_off_meanwhile_is_refused_as_at_the_door(outbox: Outbox) -> None:
    await outbox.submit("a@rival.test")
    await outbox.deliver()
    await change(outbox.relay, domains, (await _domain(outbox.relay, "rival.test")).id, receiving=False)  # not told to us
    [delivery_id] = await outbox.submit("b@rival.test")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("BOUNCED", "FAILED")
    assert (await outbox.delivery(delivery_id))["last_reply"] == "550 5.7.1 We do not relay: the address is not served here"


async def test_while_the_inbound_door_is_off_nothing_is_received(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with receiving(prepared, tmp_path / "data", peer, smtp={"inbound_port": 0}) as outbox:
        await outbox.submit("a@rival.test")
        await outbox.deliver()
        assert await arrived(outbox) == []
        assert len(peer.taken) == 1


async def test_a_route_for_the_domain_wins(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    route = {"domain": "rival.test", "route": "mx"}
    async with receiving(prepared, tmp_path / "data", peer, routes=[route]) as outbox:
        await outbox.submit("a@rival.test")
        await outbox.deliver()
        assert await arrived(outbox) == []
        assert len(peer.taken) == 1


@pytest.mark.parametrize(
    "settings",
    [{"route": "smarthost"}, {"routes": [{"provider": "rival.test", "route": "smarthost"}]}],
    ids=["by default", "by provider"],
)
async def test_no_smarthost_is_needed_for_what_stays_here(
    prepared: Prepared, tmp_path: Path, peer: Peer, settings: dict[str, Any]
) -> None:
    smarthost = f"smtp://127.0.0.1:{peer.port}?starttls=off"
    async with receiving(prepared, tmp_path / "data", peer, smarthost_url=smarthost, **settings) as outbox:
        await outbox.submit("a@rival.test")
        await outbox.deliver()
        assert len(await arrived(outbox)) == 1
        assert peer.sessions == []


async def test_capture_keeps_everything(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with receiving(prepared, tmp_path / "data", peer, route="capture") as outbox:
        [delivery_id] = await outbox.submit("a@rival.test")
        await outbox.deliver()
        assert (await outbox.delivery(delivery_id))["last_reply"] == "250 2.0.0 captured: kept here, not sent"
        assert await arrived(outbox) == []


# --- addresses of the relay itself


@pytest.mark.parametrize("role", ["postmaster", "Abuse"])
async def test_the_operator_gets_what_is_for_the_postmaster(outbox: Outbox, role: str) -> None:
    [delivery_id] = await outbox.submit(f"{role}@rival.test")
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    assert (await outbox.delivery(delivery_id))["last_reply"] == "250 2.0.0 taken here"
    [forward] = await rows(outbox.relay, deliveries, project_id=RELAY_PROJECT_ID)
    assert (forward["recipient"], forward["sender"]) == (BOSS, "")
    assert await arrived(outbox) == []


async def test_mail_for_the_postmaster_does_not_run_in_a_circle(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with receiving(prepared, tmp_path / "data", peer, smtp={"postmaster": "abuse@rival.test"}) as outbox:
        await outbox.submit("postmaster@rival.test")
        await outbox.deliver()
        [forward] = await rows(outbox.relay, deliveries, project_id=RELAY_PROJECT_ID)
        assert forward["state"] == "BOUNCED"
        assert forward["last_reply"] == "554 5.4.6 This message has been here before: a mail loop"


async def test_each_recipient_has_an_end_of_its_own(outbox: Outbox) -> None:
    ids = await outbox.submit("help@rival.test", "postmaster@rival.test", "a%b@rival.test")
    await outbox.deliver()
    assert [await outbox.state(one) for one in ids] == [DELIVERED, DELIVERED, ("BOUNCED", "FAILED")]
    assert [mail["from_address"] for mail in await arrived(outbox)] == ["help@rival.test"]


async def test_a_bounce_to_an_address_of_ours_has_its_effect(outbox: Outbox) -> None:
    await publish_return_path(outbox.relay, outbox.acme)
    [queued] = await outbox.send("bob@example.org")
    await outbox.deliver()
    bounce_address = return_address(outbox.relay, queued.delivery_id)
    [report] = await outbox.submit(bounce_address, message=delivery_report("bob@example.org"), tenant=outbox.rival)
    await outbox.deliver()
    assert await outbox.state(report) == DELIVERED
    assert await outbox.state(queued.delivery_id) == ("DELIVERED", "BOUNCED")
    await outbox.check_ledger()


async def test_a_forged_bounce_address_is_refused(outbox: Outbox) -> None:
    await publish_return_path(outbox.relay, outbox.acme)
    [delivery_id] = await outbox.submit("b-guessed@bounce.acme.test", message=delivery_report("bob@example.org"))
    await outbox.deliver()
    assert (await outbox.delivery(delivery_id))["last_reply"] == "550 5.1.1 No such address"


async def test_without_its_mx_record_a_bounce_host_is_not_ours(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit("b-guessed@bounce.acme.test")
    await outbox.deliver()
    assert len(peer.taken) == 1


async def test_a_notice_to_a_sender_that_receives_here_is_taken_here(outbox: Outbox, peer: Peer) -> None:
    """It comes from the null sender, which makes no mail (contract section 9), here as at the door."""
    await switch(outbox.relay, "acme.test", receiving=True)
    peer.script = Script(rcpt="550 5.1.1 no such user")
    await _submit(outbox, "bob@example.org", MESSAGE)
    await outbox.deliver()
    [notice] = await rows(outbox.relay, deliveries, project_id=RELAY_PROJECT_ID)
    assert (notice["recipient"], notice["state"], notice["last_reply"]) == ("app@acme.test", "DELIVERED", NOTHING_NEW)
    assert await arrived(outbox) == []
    assert peer.taken == []


async def arrived(outbox: Outbox) -> list[dict[str, Any]]:
    """Return the mails that were received."""
    return await rows(outbox.relay, emails, source_type="INBOUND")


async def switch(relay: Relay, domain: str, *, receiving: bool) -> None:
    """Switch receiving on or off."""
    await set_receiving(relay, await _domain(relay, domain), receiving=receiving)


async def _domain(relay: Relay, name: str) -> Domain:
    found = await relay.db.read(find_domain_named, name)
    assert found is not None
    return found


async def _received_events(outbox: Outbox) -> list[dict[str, Any]]:
    return [event["data"] for event in await outbox.events() if event["name"] == "email.received"]


async def _submit(outbox: Outbox, recipient: str, message: bytes) -> None:
    """Hand a message in at the submission door."""
    [door] = await submission_doors(outbox.relay)

    def talk() -> None:
        with smtplib.SMTP("127.0.0.1", door.port, local_hostname="client.test", timeout=PATIENCE_SECONDS) as client:
            client.login("plunk", outbox.acme.secret)
            client.sendmail("app@acme.test", [recipient], message)

    async with open_door(door):
        await asyncio.to_thread(talk)


def _forbid_receiving(tx: sa.Connection) -> None:
    tx.exec_driver_sql(
        "CREATE TRIGGER none BEFORE INSERT ON events WHEN NEW.name = 'email.received' "
        "BEGIN SELECT RAISE(ABORT, 'no events'); END"
    )


def _allow_receiving(tx: sa.Connection) -> None:
    tx.exec_driver_sql("DROP TRIGGER none")
