"""How many connections and transactions does a queue of mail take?"""

from functools import partial
from pathlib import Path

import pytest

from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer

ONE_BY_ONE = tuple(word for word in KEYWORDS if word != "PIPELINING")
DELIVERED = ("DELIVERED", "DELIVERED")


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_one_connection_carries_many_messages(
    prepared: Prepared, tmp_path: Path, peer: Peer, keywords: tuple[str, ...]
) -> None:
    peer.script = Script(keywords=keywords)
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        ids = await _submit_many(outbox, 20)
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 20
        assert len(peer.taken) == 20
        assert len(peer.sessions) == 1


async def test_an_idle_connection_is_kept_for_the_next_message(outbox: Outbox, peer: Peer) -> None:
    for _ in range(3):
        await outbox.submit()
        await outbox.deliver()
    assert len(peer.taken) == 3
    assert len(peer.sessions) == 1


async def test_an_idle_connection_is_closed_politely_when_nothing_comes(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, connection_idle_seconds=0.05) as outbox:
        await outbox.submit()
        await outbox.deliver()
        await peer.until(lambda peer: peer.commands[-1] == "QUIT")
        await outbox.submit()
        await outbox.deliver()
        assert len(peer.sessions) == 2


async def test_a_connection_is_closed_after_so_many_messages(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1, messages_per_connection=3) as outbox:
        await _submit_many(outbox, 8)
        await outbox.deliver()
        assert [len(session.received) for session in peer.sessions] == [3, 3, 2]


async def test_a_peer_that_hangs_at_quit_does_not_hold_the_slot(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    peer.script = Script(quit="hang")
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=1, connection_idle_seconds=0.05) as outbox:
        await outbox.submit()
        await outbox.deliver()
        await peer.until(lambda peer: peer.commands[-1] == "QUIT")
        set_exchangers(outbox.dns, "other.example", "127.0.0.1")
        [delivery_id] = await outbox.submit("bob@other.example")
        await outbox.claim()
        await peer.until(lambda peer: len(peer.taken) == 2)
        await outbox.deliver()
        assert await outbox.state(delivery_id) == DELIVERED


@pytest.mark.parametrize("ending", ["421 4.7.0 enough for now", "close", "reset", "gibberish", "250 2.0.0 once more"])
async def test_a_connection_that_ends_after_a_message_costs_no_attempt(
    prepared: Prepared, tmp_path: Path, peer: Peer, ending: str
) -> None:
    peer.script = Script(dot=f"250 2.0.0 taken + {ending}")
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        ids = await _submit_many(outbox, 4)
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 4
        assert [(await outbox.delivery(one))["attempts"] for one in ids] == [1] * 4
        assert len(peer.taken) == len(peer.sessions) == 4


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_421_to_the_next_message_is_followed_by_a_new_connection_at_once(
    prepared: Prepared, tmp_path: Path, peer: Peer, keywords: tuple[str, ...]
) -> None:
    ok = "250 2.1.0 ok"
    peer.script = Script(keywords=keywords, mail=[ok, "421 4.7.0 one is enough", ok, "421 4.7.0 one is enough", ok])
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        ids = await _submit_many(outbox, 3)
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 3
        assert [(await outbox.delivery(one))["attempts"] for one in ids] == [1] * 3
        assert len(peer.sessions) == 3


async def test_421_on_a_new_connection_counts(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(mail="421 4.7.0 not you")
    [delivery_id] = await outbox.submit()
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["attempts"], row["last_reply"]) == ("QUEUED", 1, "421 4.7.0 not you")
    assert len(peer.sessions) == 1


async def test_recipients_of_one_message_share_a_transaction(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit("ann@example.org", "bob@example.org", "cid@example.org")
    await outbox.deliver()
    [received] = peer.taken
    assert sorted(received.recipients) == ["ann@example.org", "bob@example.org", "cid@example.org"]


async def test_a_transaction_has_at_most_a_hundred_recipients(outbox: Outbox, peer: Peer) -> None:
    await outbox.submit(*(f"user{number}@example.org" for number in range(250)))
    await outbox.deliver()
    assert sorted(len(received.recipients) for received in peer.taken) == [50, 100, 100]


async def test_different_messages_do_not_share_a_transaction(outbox: Outbox, peer: Peer) -> None:
    await outbox.send("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert sorted(received.recipients for received in peer.taken) == [("ann@example.org",), ("bob@example.org",)]


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_recipients_beyond_the_peer_s_limit_go_in_the_next_transaction_at_once(
    outbox: Outbox, peer: Peer, keywords: tuple[str, ...]
) -> None:
    peer.script = Script(keywords=keywords, most_recipients=2)
    ids = await outbox.submit(*(f"user{number}@example.org" for number in range(5)))
    await outbox.deliver()
    assert [await outbox.state(one) for one in ids] == [DELIVERED] * 5
    assert [(await outbox.delivery(one))["attempts"] for one in ids] == [1] * 5
    assert sorted(len(received.recipients) for received in peer.taken) == [1, 2, 2]
    assert await outbox.check_ledger() | {"accepted": 5, "delivered": 5} == await outbox.check_ledger()


@pytest.mark.parametrize("reply", ["452 too many recipients", "552 5.5.3 too many recipients"])
async def test_the_limit_is_understood_in_its_older_words(outbox: Outbox, peer: Peer, reply: str) -> None:
    peer.script = Script(rcpt={"bob@example.org": [reply, "250 2.1.5 ok"]})
    ids = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert [await outbox.state(one) for one in ids] == [DELIVERED] * 2


@pytest.mark.parametrize("reply", ["452 4.2.2 mailbox full", "452 4.3.1 disk full", "552 too much", "450 4.5.3 later"])
async def test_another_refusal_waits_for_its_retry(outbox: Outbox, peer: Peer, reply: str) -> None:
    peer.script = Script(rcpt={"bob@example.org": reply})
    _, bob = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert (await outbox.delivery(bob))["attempts"] == 1
    assert len(peer.received) == 1


@pytest.mark.parametrize("rcpt", ["250 2.1.5 ok", "550 5.1.1 no such user"])
async def test_recipients_beyond_what_the_peer_announced_go_in_the_next_transaction(
    outbox: Outbox, peer: Peer, rcpt: str
) -> None:
    peer.script = Script(keywords=[*KEYWORDS, "LIMITS RCPTMAX=2"], most_recipients=2, rcpt=rcpt)
    ids = await outbox.submit(*(f"user{number}@example.org" for number in range(5)))
    await outbox.deliver()
    states = {(await outbox.state(one))[0] for one in ids}
    assert states == {"DELIVERED" if rcpt.startswith("250") else "BOUNCED"}
    assert [(await outbox.delivery(one))["attempts"] for one in ids] == [1] * 5
    assert sum(command.startswith("RCPT") for command in peer.commands) == 5
    await outbox.check_ledger()


async def test_a_connection_carries_no_more_transactions_than_the_peer_announced(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(keywords=[*KEYWORDS, "LIMITS MAILMAX=3"])
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        await _submit_many(outbox, 8)
        await outbox.deliver()
        assert [len(session.received) for session in peer.sessions] == [3, 3, 2]


async def test_a_connection_is_not_used_for_mail_to_another_domain(outbox: Outbox, peer: Peer) -> None:
    set_exchangers(outbox.dns, "other.example", "127.0.0.1")
    for recipient in ("ann@example.org", "bob@other.example", "cid@example.org"):
        await outbox.submit(recipient)
        await outbox.deliver()
    assert [[mail.recipients[0] for mail in session.received] for session in peer.sessions] == [
        ["ann@example.org", "cid@example.org"],
        ["bob@other.example"],
    ]


async def test_a_reply_that_is_waited_for_holds_up_nobody_else(outbox: Outbox, peer: Peer) -> None:
    set_exchangers(outbox.dns, "other.example", "127.0.0.1")
    peer.script = Script(dot=["wait + 250 2.0.0 taken", "250 2.0.0 taken"])
    [stuck] = await outbox.submit("ann@example.org")
    await outbox.claim()
    await peer.until(lambda peer: peer.received)
    others = [*await outbox.submit("bob@example.org"), *await outbox.submit("cid@other.example")]
    await outbox.claim()
    for one in others:
        await outbox.until(partial(_is_delivered, outbox, one))
    assert (await outbox.delivery(stuck))["state"] == "QUEUED"
    peer.let_go()
    await outbox.deliver()
    assert await outbox.state(stuck) == DELIVERED


@pytest.mark.parametrize(
    ("script", "allowed"),
    [
        (Script(), 6),
        (Script(rcpt="451 4.7.1 slow down"), 2),
        (Script(dot="452 4.3.1 disk full"), 2),
        (Script(mail="421 busy"), 2),
        (Script(rcpt="452 4.2.2 mailbox full"), 5),
        (Script(rcpt="550 5.1.1 no such user"), 5),
    ],
    ids=["taken", "4.7.1", "4.3.1", "421", "mailbox full", "bad address"],
)
async def test_a_destination_gains_a_connection_by_success_and_loses_half_when_the_peer_asks_for_less(
    outbox: Outbox, peer: Peer, script: Script, allowed: int
) -> None:
    peer.script = script
    await outbox.submit("first@example.org")
    await outbox.deliver()
    peer.script, before = Script(dot="wait + 250 2.0.0 taken"), len(peer.received)
    await _submit_many(outbox, 12)
    await outbox.claim()
    await peer.until(lambda peer: len(peer.received) - before == allowed)
    async with running_peer(host="127.0.0.2", port=peer.port):
        set_exchangers(outbox.dns, "other.example", "127.0.0.2")
        [other] = await outbox.submit("ann@other.example")
        await outbox.claim()
        await outbox.until(partial(_is_delivered, outbox, other))  # time for one more connection, if there were one
    assert len(peer.received) - before == allowed
    peer.let_go()
    await outbox.deliver()


async def test_a_peer_that_takes_no_recipient_at_all_is_not_asked_again_at_once(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="452 4.5.3 too many recipients")
    ids = await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.deliver()
    assert [(await outbox.delivery(one))["state"] for one in ids] == ["QUEUED"] * 2
    assert sum(command.startswith("MAIL") for command in peer.commands) == 1


async def test_a_destination_gets_as_many_connections_as_the_setting_allows(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=3) as outbox:
        await _submit_many(outbox, 12)
        await outbox.claim()
        await peer.until(lambda peer: len(peer.received) == 3)
        peer.let_go()
        await outbox.deliver()
        assert len(peer.taken) == 12
        assert len(peer.sessions) == 3


async def test_all_destinations_together_get_as_many_connections_as_the_setting_allows(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=2) as outbox:
        for number in range(6):
            set_exchangers(outbox.dns, f"d{number}.example", "127.0.0.1")
        ids = await outbox.submit(*(f"ann@d{number}.example" for number in range(6)))
        await outbox.claim()
        await peer.until(lambda peer: len(peer.received) == 2)
        assert sum(not session.over for session in peer.sessions) == 2
        peer.let_go()
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 6


async def test_an_idle_connection_makes_room_for_another_destination(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=1, connection_idle_seconds=1000) as outbox:
        set_exchangers(outbox.dns, "other.example", "127.0.0.1")
        for recipient in ("ann@example.org", "bob@other.example", "ann@example.org"):
            [delivery_id] = await outbox.submit(recipient)
            await outbox.deliver()
            assert await outbox.state(delivery_id) == DELIVERED


async def _is_delivered(outbox: Outbox, delivery_id: str) -> bool:
    return await outbox.state(delivery_id) == DELIVERED


async def _submit_many(outbox: Outbox, count: int) -> list[str]:
    return [one for number in range(count) for one in await outbox.submit(message=other_message(number))]
