"""How much does a new source address send to one provider on its first days?"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import warmup_counts
from plunk_relay.emails.actions import PRIORITY_CAMPAIGN
from plunk_relay.errors import UsageError
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers, set_provider
from tests.kit.peer import Peer, Script
from tests.kit.relay import make_settings
from tests.kit.store import rows

DELIVERED = ("DELIVERED", "DELIVERED")
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
ONE_ADDRESS: dict[str, Any] = {"source_addresses": ["127.0.0.1"]}


async def test_what_is_over_the_day_s_limit_waits_uncounted_for_tomorrow(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[3, 5], **ONE_ADDRESS) as outbox:
        ids = await _submit(outbox, 10)
        await outbox.deliver()
        assert len(peer.taken) == 3
        waiting = [row for row in [await outbox.delivery(one) for one in ids] if row["state"] == "QUEUED"]
        assert [row["attempts"] for row in waiting] == [0] * 7
        assert all(MIDNIGHT <= row["due_at"] < MIDNIGHT + timedelta(hours=1) for row in waiting)
        assert len({row["due_at"] for row in waiting}) > 1  # spread
        assert waiting[0]["last_reply"] == "warm-up: example.org has had what delivery.warmup_per_day allows for today"


async def test_each_day_has_its_limit_and_after_the_last_there_is_none(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[2, 4], **ONE_ADDRESS) as outbox:
        await _submit(outbox, 20)
        sent = []
        for _ in range(3):
            await outbox.deliver()
            sent.append(len(peer.taken))
            outbox.clock.advance(hours=26)
        assert sent == [2, 6, 20]


async def test_day_one_is_the_day_of_the_first_use(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[2, 4], **ONE_ADDRESS) as outbox:
        await outbox.deliver()
        outbox.clock.advance(days=30)
        await _submit(outbox, 10)
        await outbox.deliver()
        assert len(peer.taken) == 2


async def test_another_source_address_with_room_takes_over(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    sources: dict[str, Any] = {"source_addresses": ["127.0.0.11", "127.0.0.12"]}
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[3], **sources) as outbox:
        await _submit(outbox, 10)
        await outbox.deliver()
        by_source = {session.peername: 0 for session in peer.sessions}
        for session in peer.sessions:
            by_source[session.peername] += len(session.received)
        assert by_source == {"127.0.0.11": 3, "127.0.0.12": 3}


async def test_each_provider_is_counted_by_itself(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[2], **ONE_ADDRESS) as outbox:
        set_exchangers(outbox.dns, "other.example", "127.0.0.1")
        for name in ("one", "two"):
            set_provider(outbox.dns, f"{name}.example", "aspmx.l.google.com")
        for domain in ("example.org", "other.example", "one.example", "two.example"):
            await _submit(outbox, 2, domain)
        await outbox.deliver()
        assert len(peer.taken) == 6  # one.example and two.example share what Google gets


async def test_recipients_of_one_transaction_count_each(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[5], **ONE_ADDRESS) as outbox:
        await outbox.submit(*(f"user{number}@example.org" for number in range(4)))
        await outbox.deliver()
        await _submit(outbox, 4)
        await outbox.deliver()
        assert sum(len(message.recipients) for message in peer.taken) == 5


async def test_a_fifth_of_the_limit_is_kept_for_transactional_mail(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[10], **ONE_ADDRESS) as outbox:
        campaign = await _submit(outbox, 20, priority=PRIORITY_CAMPAIGN)
        await outbox.deliver()
        assert len(peer.taken) == 8
        urgent = await _submit(outbox, 3)
        await outbox.deliver()
        assert sum([(await outbox.state(one)) == DELIVERED for one in urgent]) == 2
        waiting = [row["due_at"] for row in [await outbox.delivery(one) for one in campaign] if row["state"] == "QUEUED"]
        assert MIDNIGHT <= min(waiting) < max(waiting) < MIDNIGHT + timedelta(hours=20)
        assert max(waiting) > MIDNIGHT + timedelta(hours=1)  # over the day, behind the transactional mail


async def test_a_restart_does_not_forget_the_counts_nor_the_first_day(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[3, 3, 3], **ONE_ADDRESS) as outbox:
        await _submit(outbox, 2)
        await outbox.deliver()
        await outbox.deliverer.finish(0)
        await outbox.new_deliverer()
        await _submit(outbox, 4)
        await outbox.deliver()
        assert len(peer.taken) == 3
        outbox.clock.advance(days=3)
        await outbox.deliverer.finish(0)
        await outbox.new_deliverer()
        await _submit(outbox, 10)
        await outbox.deliver()
        assert len(peer.taken) == 16  # the fourth day: three that waited, and ten


async def test_counts_of_earlier_days_are_not_kept(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[3, 3, 3], **ONE_ADDRESS) as outbox:
        for _ in range(3):
            await _submit(outbox, 1)
            await outbox.deliver()
            outbox.clock.advance(days=1)
        await outbox.deliverer.finish(0)
        assert [(row["provider"], row["day"], row["sent"]) for row in await rows(outbox.relay, warmup_counts)] == [
            ("", "2026-03-01", 0),
            ("example.org", "2026-03-03", 1),
        ]


async def test_a_message_that_is_refused_has_been_seen_by_the_provider_all_the_same(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(rcpt="550 5.1.1 no such user")
    async with running_outbox(prepared, tmp_path, port=peer.port, warmup_per_day=[3], **ONE_ADDRESS) as outbox:
        await _submit(outbox, 5)
        await outbox.deliver()
        assert sum(command.startswith("RCPT") for command in peer.commands) == 3


async def test_it_is_off_unless_it_is_set(outbox: Outbox, peer: Peer) -> None:
    await _submit(outbox, 30)
    await outbox.deliver()
    assert len(peer.taken) == 30
    assert await rows(outbox.relay, warmup_counts) == []


def test_a_limit_is_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"delivery.warmup_per_day.*greater than or equal to 1"):
        make_settings(tmp_path, delivery={"warmup_per_day": [50, 0]})


async def _submit(outbox: Outbox, count: int, domain: str = "example.org", **more: Any) -> list[str]:
    return [
        one for number in range(count) for one in await outbox.submit(f"ann@{domain}", message=other_message(number), **more)
    ]
