"""Which mail is not even tried? What the project's list of addresses or one of its rules holds."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.bounces.queries import find_sent, mark_bounced, mark_complained
from plunk_relay.clock import ManualClock
from plunk_relay.commands import queue_list, queue_release, queue_retry, suppressions_remove
from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.db.tables import campaigns, contacts, emails
from plunk_relay.emails.notices import queue_notice
from plunk_relay.ids import new_id
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.relay import Relay
from plunk_relay.suppressions.actions import RuleChange, add_addresses, add_rule
from plunk_relay.suppressions.queries import Kind, Reason, suppress
from tests.kit.outbox import Outbox, Prepared, running_outbox
from tests.kit.peer import Peer, Script
from tests.kit.store import add_template, change, insert

SUPPRESSED = ("SUPPRESSED", "SUPPRESSED")
DELIVERED = ("DELIVERED", "DELIVERED")
Sender = Callable[[Outbox], Awaitable[str]]


async def _list(relay: Relay, project_id: str, address: str, reason: Reason = "BOUNCE", detail: str | None = None) -> None:
    now = relay.clock.now()
    await relay.db.write(suppress, project_id, address, reason=reason, detail=detail, email_id=None, now=now)


async def _transactional(outbox: Outbox) -> str:
    [queued] = await outbox.send("ann@example.org")
    return queued.delivery_id


async def _submitted(outbox: Outbox) -> str:
    [delivery_id] = await outbox.submit("ann@example.org")
    return delivery_id


async def _marketing(outbox: Outbox) -> str:
    template = await add_template(outbox.relay, outbox.acme.id, type="MARKETING")
    [queued] = await outbox.send("ann@example.org", template=template, subscribed=True)
    return queued.delivery_id


async def _of_a_campaign(outbox: Outbox) -> str:
    """Queue a mail of a transactional campaign."""
    delivery_id, campaign, now = await _transactional(outbox), new_id(), outbox.relay.clock.now()
    counts = [column.name for column in campaigns.c if column.name.endswith("_count")]
    texts = {"name": "News", "subject": "s", "body": "b", "from_address": "app@acme.test", "audience_type": "ALL"}
    kinds = {"status": "SENDING", "type": "TRANSACTIONAL", "archived": False, "total_recipients": 1}
    times = {"created_at": now, "updated_at": now}
    values = dict.fromkeys(counts, 0) | texts | kinds | times
    await insert(outbox.relay, campaigns, id=campaign, project_id=outbox.acme.id, **values)
    email = (await outbox.email(delivery_id))["id"]
    await change(outbox.relay, emails, email, campaign_id=campaign)
    return delivery_id


SENDERS: dict[str, Sender] = {
    "transactional": _transactional,
    "submitted": _submitted,
    "marketing": _marketing,
    "campaign": _of_a_campaign,
}
EVERYTHING = set(SENDERS)


@pytest.mark.parametrize("kind", SENDERS)
@pytest.mark.parametrize(
    ("policy", "reason", "held"),
    [
        ("all", "BOUNCE", EVERYTHING),
        ("all", "MANUAL", EVERYTHING),
        ("all", "COMPLAINT", {"marketing", "campaign"}),
        ("marketing", "BOUNCE", {"marketing", "campaign"}),
        ("marketing", "MANUAL", {"marketing", "campaign"}),
        ("marketing", "COMPLAINT", {"marketing", "campaign"}),
        ("off", "BOUNCE", set()),
        ("off", "MANUAL", set()),
        ("off", "COMPLAINT", set()),
    ],
)
async def test_reason_and_setting_decide_what_the_list_holds(
    prepared: Prepared, tmp_path: Path, peer: Peer, policy: str, reason: Reason, held: set[str], kind: str
) -> None:
    async with running_outbox(prepared, tmp_path / "data", port=peer.port, suppress=policy) as outbox:
        await _list(outbox.relay, outbox.acme.id, "ann@example.org", reason)
        delivery_id = await SENDERS[kind](outbox)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == (SUPPRESSED if kind in held else DELIVERED)
        assert bool(peer.sessions) == (kind not in held)
        await outbox.check_ledger()


async def test_suppressed_mail_is_no_attempt_and_no_event_and_says_why(outbox: Outbox, peer: Peer) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org", detail="550 5.1.1 no such user")
    [queued] = await outbox.send("Ann@Example.org")
    await outbox.deliver()
    assert peer.sessions == []
    assert await outbox.events() == []
    assert await outbox.attempts(queued.delivery_id) == []
    delivery, email = await outbox.delivery(queued.delivery_id), await outbox.email(queued.delivery_id)
    assert (delivery["attempts"], delivery["lease_owner"], delivery["finished_at"]) == (0, None, outbox.clock.now())
    assert email["sent_at"] is email["bounced_at"] is None
    assert email["error"] == delivery["last_reply"]
    assert email["error"] == (
        "ann@example.org is on the suppression list (BOUNCE, 2026-03-01): 550 5.1.1 no such user; "
        f"remove it with `plunk-relay suppressions remove ann@example.org --project {outbox.acme.id}`"
    )
    ledger = await outbox.check_ledger()
    assert (ledger["accepted"], ledger["suppressed"]) == (1, 1)


async def test_the_command_that_the_error_names_lets_mail_through_again(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    before = await _transactional(outbox)
    await outbox.deliver()
    command = (await outbox.email(before))["error"].split("`")[1].split(" ")
    address, project = command[3], command[5]
    assert await suppressions_remove(outbox.relay, project=project, emails=[address]) == {"removed": 1}
    after = await _transactional(outbox)
    await outbox.deliver()
    assert [await outbox.state(before), await outbox.state(after)] == [SUPPRESSED, DELIVERED]


async def test_entry_holds_mail_of_its_own_project_alone(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.rival.id, "ann@example.org")
    [delivery_id] = await outbox.submit("ann@example.org")
    [theirs] = await outbox.submit("ann@example.org", tenant=outbox.rival)
    await outbox.deliver()
    assert [await outbox.state(delivery_id), await outbox.state(theirs)] == [DELIVERED, SUPPRESSED]


async def test_entry_holds_mail_to_its_address_whatever_its_contact_is_called_by_now(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    [held, sent] = await outbox.submit("Ann@Example.org", "bob@example.org")
    await change(outbox.relay, contacts, (await outbox.email(held))["contact_id"], email="cid@example.org")
    await change(outbox.relay, contacts, (await outbox.email(sent))["contact_id"], email="ann@example.org")
    await outbox.deliver()
    assert [await outbox.state(held), await outbox.state(sent)] == [SUPPRESSED, DELIVERED]


async def test_letters_beyond_ascii_are_compared_in_any_case(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "\u00e4nn@example.org")
    await _list(outbox.relay, outbox.acme.id, "\u00f6la@example.org", "COMPLAINT")
    ann, ola = await outbox.submit("\u00c4nn@example.org", "\u00d6la@example.org")
    await outbox.deliver()
    assert (await outbox.state(ann))[0] == "SUPPRESSED"
    assert (await outbox.state(ola))[0] != "SUPPRESSED"


async def test_other_recipients_of_the_message_get_it(outbox: Outbox, peer: Peer) -> None:
    await _list(outbox.relay, outbox.acme.id, "bob@example.org")
    ann, bob, cid = await outbox.submit("ann@example.org", "bob@example.org", "cid@example.org")
    await outbox.deliver()
    assert [await outbox.state(one) for one in (ann, bob, cid)] == [DELIVERED, SUPPRESSED, DELIVERED]
    assert [mail.recipients for mail in peer.taken] == [("ann@example.org", "cid@example.org")]
    await outbox.check_ledger()


async def test_mail_that_waits_for_its_next_attempt_is_held_by_a_new_entry(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="450 4.2.0 greylisted")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    await add_addresses(outbox.relay, outbox.acme.id, ["ann@example.org"])
    outbox.clock.advance(hours=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == SUPPRESSED
    assert len(peer.sessions) == 1
    assert (await outbox.delivery(delivery_id))["attempts"] == 1
    await outbox.check_ledger()


@pytest.mark.parametrize("mark", [mark_complained, partial(mark_bounced, error="550 5.1.1 no such user")])
async def test_report_on_an_earlier_attempt_without_a_reply_leaves_the_ledger_balanced(
    outbox: Outbox, peer: Peer, mark: Callable[..., None]
) -> None:
    peer.script = Script(dot="close")
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    await _list(outbox.relay, outbox.acme.id, "ann@example.org", "MANUAL")
    outbox.clock.advance(hours=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == SUPPRESSED
    sent = await outbox.relay.db.read(find_sent, delivery_id)
    await outbox.relay.db.write(mark, sent, now=outbox.clock.now())
    assert (await outbox.state(delivery_id))[0] == "SUPPRESSED"
    await outbox.check_ledger()


async def test_suppressed_is_final_and_listed_as_such(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    held, sent = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    for command in (queue_retry, queue_release):
        assert await command(outbox.relay, deliveries=[held]) == {"changed": 0}
    assert [entry["id"] for entry in await queue_list(outbox.relay, status="suppressed")] == [held]
    assert [entry["id"] for entry in await queue_list(outbox.relay, status="delivered")] == [sent]


async def test_contact_who_subscribes_again_does_not_lift_a_bounce(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    again = ContactChange("ann@example.org", subscribed=True)
    await outbox.relay.db.write(upsert_contact, outbox.acme.id, again, now=outbox.relay.clock.now())
    delivery_id = await _marketing(outbox)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == SUPPRESSED


async def test_what_the_relay_itself_writes_is_never_held(outbox: Outbox) -> None:
    await _list(outbox.relay, RELAY_PROJECT_ID, "ann@example.org")
    now, message = outbox.relay.clock.now(), b"From: mailer@acme.test\r\nTo: ann@example.org\r\n\r\nNotice\r\n"
    await outbox.relay.db.write(
        queue_notice,
        recipient="ann@example.org",
        sender_address="mailer@acme.test",
        subject="Notice",
        message=message,
        now=now,
        expires_at=now.replace(year=now.year + 1),
    )
    await outbox.deliver()
    [entry] = await queue_list(outbox.relay)
    assert entry["state"] == "DELIVERED"


async def _rule(outbox: Outbox, kind: Kind, pattern: str, name: str = "Sink") -> None:
    await add_rule(outbox.relay, outbox.acme.id, RuleChange(name, kind, pattern, enabled=True))


@pytest.mark.parametrize("kind", SENDERS)
async def test_rule_holds_mail_of_every_kind_whatever_the_setting(
    prepared: Prepared, tmp_path: Path, peer: Peer, kind: str
) -> None:
    async with running_outbox(prepared, tmp_path / "data", port=peer.port, suppress="off") as outbox:
        await _rule(outbox, "PREFIX", "ann")
        delivery_id = await SENDERS[kind](outbox)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == SUPPRESSED
        assert peer.sessions == []
        assert await outbox.events() == []
        await outbox.check_ledger()


async def test_rule_catches_mail_of_its_own_project_alone(outbox: Outbox) -> None:
    await _rule(outbox, "DOMAIN", "example.org")
    [theirs] = await outbox.submit("ann@example.org", tenant=outbox.rival)
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert [await outbox.state(theirs), await outbox.state(delivery_id)] == [DELIVERED, SUPPRESSED]


async def test_first_rule_by_creation_is_the_one_that_is_told(outbox: Outbox, clock: ManualClock) -> None:
    await _rule(outbox, "WILDCARD", "bob*", "none")
    for name in ("first", "second"):
        clock.advance(seconds=1)
        await _rule(outbox, "DOMAIN", "example.org", name)
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    assert await _held_by(outbox, delivery_id) == {"source": "RULE", "name": "first"}


async def test_the_list_is_asked_before_the_rules(outbox: Outbox) -> None:
    await _rule(outbox, "DOMAIN", "example.org")
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    ann, bob = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert (await _held_by(outbox, ann))["source"] == "LIST"
    assert (await _held_by(outbox, bob))["source"] == "RULE"


async def test_mail_whose_time_is_over_expires_though_its_recipient_is_listed(outbox: Outbox) -> None:
    await _list(outbox.relay, outbox.acme.id, "ann@example.org")
    [delivery_id] = await outbox.submit("ann@example.org")
    outbox.clock.advance(days=5)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("EXPIRED", "FAILED")


async def _held_by(outbox: Outbox, delivery_id: str) -> dict[str, Any]:
    snapshot = (await outbox.email(delivery_id))["suppression"]
    return {name: snapshot[name] for name in ("source", "name") if name in snapshot}
