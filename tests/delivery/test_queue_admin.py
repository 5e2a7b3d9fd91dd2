"""What may an operator do to queued mail, and what does he see of it?"""

from typing import Any

import pytest

from plunk_relay.commands import (
    audit,
    queue_cancel,
    queue_hold,
    queue_list,
    queue_release,
    queue_retry,
    queue_show,
    queue_stats,
)
from plunk_relay.errors import NotFound
from plunk_relay.janitor import run_once as clean_up
from tests.kit.outbox import Outbox
from tests.kit.peer import KEYWORDS, Peer, Script

GREYLISTING = Script(rcpt="450 4.2.0 greylisted")
DELIVERED = ("DELIVERED", "DELIVERED")
CANCELLED = ("CANCELLED", "FAILED")


async def test_retry_makes_a_deferred_mail_due_now(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt=["450 4.2.0 greylisted", "250 2.1.5 ok"])
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    assert await queue_retry(outbox.relay, deliveries=[delivery_id]) == {"changed": 1}
    assert outbox.relay.wakes.deliveries.is_set()
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


async def test_held_mail_is_not_sent_until_it_is_released(outbox: Outbox, peer: Peer) -> None:
    [delivery_id] = await outbox.submit()
    assert await queue_hold(outbox.relay, deliveries=[delivery_id]) == {"changed": 1}
    outbox.clock.advance(days=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == ("HELD", "PENDING")
    assert (await outbox.check_ledger())["held"] == 1
    assert peer.sessions == []
    assert await queue_release(outbox.relay, deliveries=[delivery_id]) == {"changed": 1}
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED


@pytest.mark.parametrize("first", ["queued", "held", "deferred"])
async def test_cancelled_mail_is_never_sent(outbox: Outbox, peer: Peer, first: str) -> None:
    peer.script = GREYLISTING
    [delivery_id] = await outbox.submit()
    if first == "held":
        await queue_hold(outbox.relay, deliveries=[delivery_id])
    if first == "deferred":
        await outbox.deliver()
    sessions = len(peer.sessions)
    assert await queue_cancel(outbox.relay, deliveries=[delivery_id]) == {"changed": 1}
    outbox.clock.advance(days=1)
    await outbox.deliver()
    assert await outbox.state(delivery_id) == CANCELLED
    assert (await outbox.email(delivery_id))["error"] == "Cancelled by the operator"
    assert (await outbox.delivery(delivery_id))["finished_at"] is not None
    assert len(peer.sessions) == sessions
    assert (await outbox.check_ledger())["cancelled"] == 1


@pytest.mark.parametrize("command", [queue_retry, queue_hold, queue_cancel, queue_release])
async def test_mail_in_a_worker_s_hands_is_left_alone(outbox: Outbox, peer: Peer, command: Any) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    [delivery_id] = await outbox.submit()
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    assert await command(outbox.relay, deliveries=[delivery_id]) == {"changed": 0}
    peer.let_go()
    await outbox.deliver()
    assert await outbox.state(delivery_id) == DELIVERED
    assert len(peer.received) == 1


@pytest.mark.parametrize("command", [queue_retry, queue_hold, queue_cancel, queue_release])
async def test_what_is_final_stays_final(outbox: Outbox, command: Any) -> None:
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    assert await command(outbox.relay, deliveries=[delivery_id]) == {"changed": 0}
    assert await outbox.state(delivery_id) == DELIVERED
    await outbox.check_ledger()


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ({"project": "acme"}, ["old", "ann", "bob"]),
        ({"project": "rival"}, ["cid"]),
        ({"domain": "Example.org"}, ["old", "ann", "cid"]),
        ({"domain": "example.net", "project": "acme"}, ["bob"]),
        ({"domain": "example.net", "project": "rival"}, []),
        ({"older_than_minutes": 5}, ["old"]),
        ({"status": "queued"}, ["old", "ann", "bob", "cid"]),
        ({"status": "delivered"}, []),
        ({}, ["old", "ann", "bob", "cid"]),
    ],
)
async def test_commands_take_the_mail_that_fits_the_filters(
    outbox: Outbox, filters: dict[str, Any], chosen: list[str]
) -> None:
    await outbox.submit("old@example.org")
    outbox.clock.advance(minutes=10)
    await outbox.submit("ann@example.org", "bob@example.net")
    await outbox.submit("cid@example.org", tenant=outbox.rival)
    listed = await queue_list(outbox.relay, **filters)
    assert [entry["recipient"][:3] for entry in reversed(listed)] == chosen
    assert await queue_hold(outbox.relay, **filters) == {"changed": len(chosen)}
    held = await queue_list(outbox.relay, status="held")
    assert [entry["recipient"][:3] for entry in reversed(held)] == chosen


async def test_the_list_is_newest_first_and_limited(outbox: Outbox) -> None:
    ids = await outbox.submit(*(f"user{number}@example.org" for number in range(5)))
    assert [entry["id"] for entry in await queue_list(outbox.relay, limit=3)] == ids[:1:-1]


async def test_a_mail_is_shown_with_every_attempt_and_what_was_said(outbox: Outbox, peer: Peer) -> None:
    secret = b"From: app@acme.test\r\nSubject: Hello\r\n\r\nThe secret of the body\r\n"
    peer.script = Script(rcpt=["450 4.2.0 greylisted", "250 2.1.5 ok"])
    [delivery_id] = await outbox.submit(message=secret)
    await outbox.deliver()
    outbox.clock.advance(minutes=2)
    await outbox.deliver()
    shown = await queue_show(outbox.relay, delivery=delivery_id)
    assert shown == await queue_show(outbox.relay, delivery=shown["email"])
    assert (shown["state"], shown["status"], shown["attempts_made"]) == ("DELIVERED", "DELIVERED", 2)
    assert (shown["sender"], shown["recipient"], shown["subject"]) == ("app@acme.test", "ann@example.org", "Hello")
    assert (shown["last_reply"], shown["due"], shown["maybe_delivered"]) == ("250 2.0.0 taken", None, False)
    first, second = shown["attempts"]
    assert (first["number"], first["outcome"], first["reply"]) == (1, "DEFERRED", "450 4.2.0 greylisted")
    assert (second["number"], second["outcome"], second["reply"]) == (2, "DELIVERED", "250 2.0.0 taken")
    for attempt in (first, second):
        assert attempt["host"] == f"mx.example.org[127.0.0.1]:{peer.port}"
        assert attempt["tls"] == "none"
        assert attempt["milliseconds"] >= 0
        assert all(line.startswith("+") and line[1:].split(" ")[0].isdigit() for line in attempt["conversation"])
    assert "secret" not in str(shown)


async def test_a_conversation_reads_like_the_session(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(keywords=[word for word in KEYWORDS if word not in ("PIPELINING", "SIZE 10000000")])
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    [attempt] = (await queue_show(outbox.relay, delivery=delivery_id))["attempts"]
    lines = [line.partition(" ")[2] for line in attempt["conversation"]]
    assert lines == [
        f"*: connecting to mx.example.org[127.0.0.1]:{peer.port}",
        "S: 220 mx.test ESMTP",
        "C: EHLO relay.test",
        "S: 250 mx.test 8BITMIME SMTPUTF8 ENHANCEDSTATUSCODES",
        "C: MAIL FROM:<app@acme.test>",
        "S: 250 2.1.0 ok",
        "C: RCPT TO:<ann@example.org>",
        "S: 250 2.1.5 ok",
        "C: DATA",
        "S: 354 end with a dot",
        f"C: [{len(peer.taken[0].message)} octets]",
        "S: 250 2.0.0 taken",
    ]


async def test_conversations_are_kept_for_thirty_days(outbox: Outbox) -> None:
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    outbox.clock.advance(days=30)
    await clean_up(outbox.relay)
    assert len(await outbox.attempts(delivery_id)) == 1
    outbox.clock.advance(seconds=1)
    await clean_up(outbox.relay)
    assert await outbox.attempts(delivery_id) == []
    assert await outbox.state(delivery_id) == DELIVERED


async def test_an_unknown_id_is_told(outbox: Outbox) -> None:
    with pytest.raises(NotFound, match="no delivery or mail has the id nothing"):
        await queue_show(outbox.relay, delivery="nothing")


async def test_stats_count_states_and_name_the_busiest_domains(outbox: Outbox) -> None:
    await outbox.submit("ann@example.org")
    await outbox.deliver()
    await outbox.submit("bob@example.org", "cid@example.net", "dan@example.net")
    outbox.clock.advance(seconds=90)
    assert await queue_stats(outbox.relay) == {
        "states": {"delivered": 1, "queued": 3},
        "domains": {"example.net": 2, "example.org": 1},
        "oldest_queued_seconds": 90,
    }


async def test_the_audit_prints_the_ledger(outbox: Outbox) -> None:
    await outbox.submit("ann@example.org", "bob@gone.example")
    await outbox.deliver()
    held, _ = await outbox.submit("cid@example.org", "dan@example.org")
    await queue_hold(outbox.relay, deliveries=[held])
    assert await audit(outbox.relay) == {
        "accepted": 4,
        "delivered": 1,
        "bounced": 1,
        "expired": 0,
        "suppressed": 0,
        "cancelled": 0,
        "failed": 0,
        "held": 1,
        "queued": 1,
        "balanced": True,
    }
