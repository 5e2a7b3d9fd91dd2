"""Whose mail goes first when there is more than can go at once?"""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.lanes import Lane, form_groups
from plunk_relay.delivery.routes import RoutePlan
from plunk_relay.emails.actions import PRIORITY_CAMPAIGN, PRIORITY_TRANSACTIONAL, PRIORITY_WORKFLOW
from plunk_relay.emails.queue import Claim, Claimed, claim_due
from tests.kit.outbox import Outbox, Prepared, other_message, running_outbox, set_exchangers
from tests.kit.peer import Peer, Script, running_peer
from tests.kit.relay import make_tenant

PRIORITIES = (PRIORITY_TRANSACTIONAL, PRIORITY_WORKFLOW, PRIORITY_CAMPAIGN)
DELIVERED = ("DELIVERED", "DELIVERED")


async def test_a_queue_of_ten_thousand_of_one_project_does_not_delay_another_s_one(outbox: Outbox) -> None:
    await outbox.submit(*_many(10_000))
    outbox.clock.advance(minutes=1)
    [one] = await outbox.submit("ann@example.org", tenant=outbox.rival)
    assert one in [claimed.id for claimed in await _claim(outbox, limit=100)]


async def test_projects_share_a_claim_equally_and_who_has_less_leaves_the_rest_to_the_others(outbox: Outbox) -> None:
    third = await make_tenant(outbox.relay, "third", domain="third.test")
    await outbox.submit(*_many(100))
    await outbox.submit(*_many(100), tenant=outbox.rival)
    await outbox.submit(*_many(5), tenant=third)
    shares = Counter(claimed.project_id for claimed in await _claim(outbox, limit=65))
    assert shares == {outbox.acme.id: 30, outbox.rival.id: 30, third.id: 5}


async def test_projects_take_turns_when_there_is_room_for_one_at_a_time(outbox: Outbox) -> None:
    tenants = [outbox.acme, outbox.rival, await make_tenant(outbox.relay, "third", domain="third.test")]
    for tenant in tenants:
        await outbox.submit(*_many(3), tenant=tenant)
    turns, last = [], ""
    for _ in range(6):
        [claimed] = await _claim(outbox, limit=1, after_project=last)
        last = claimed.project_id
        turns.append(last)
    assert turns[:3] == turns[3:]
    assert set(turns) == {tenant.id for tenant in tenants}


async def test_transactional_mail_goes_before_workflow_mail_and_that_before_campaigns(outbox: Outbox) -> None:
    for priority in reversed(PRIORITIES):
        await outbox.submit(*_many(4), priority=priority)
        await outbox.submit(*_many(4), priority=priority, tenant=outbox.rival)
    order = [claimed.priority for _ in range(6) for claimed in await _claim(outbox, limit=4)]
    assert order == [priority for priority in PRIORITIES for _ in range(8)]


async def test_within_a_project_the_longest_due_goes_first(outbox: Outbox) -> None:
    ids = []
    for number in range(5):
        ids += await outbox.submit(message=other_message(number))
        outbox.clock.advance(seconds=1)
    assert [claimed.id for _ in range(5) for claimed in await _claim(outbox, limit=1)] == ids


async def test_what_is_not_due_is_not_claimed(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(rcpt="450 4.2.0 greylisted")
    await outbox.submit()
    await outbox.deliver()
    assert await _claim(outbox, limit=10) == []
    outbox.clock.advance(minutes=2)
    assert len(await _claim(outbox, limit=10)) == 1
    assert await _claim(outbox, limit=10) == []


async def test_busy_domains_and_busy_turns_are_passed_over(outbox: Outbox) -> None:
    await outbox.submit("ann@busy.example")
    await outbox.submit("ann@example.org", priority=PRIORITY_CAMPAIGN)
    [mine] = await outbox.submit("ann@example.org")
    [theirs] = await outbox.submit("ann@example.org", tenant=outbox.rival, priority=PRIORITY_CAMPAIGN)
    busy: dict[str, Any] = {"busy": ["busy.example"], "busy_turns": [(PRIORITY_CAMPAIGN, outbox.acme.id)]}
    assert [claimed.id for claimed in await _claim(outbox, limit=10, **busy)] == [mine, theirs]


async def test_a_project_whose_mail_is_stuck_does_not_hold_up_another(outbox: Outbox, peer: Peer) -> None:
    async with running_peer(Script(banner="hang"), host="127.0.0.2", port=peer.port) as stuck:
        set_exchangers(outbox.dns, "stuck.example", "127.0.0.2")
        await outbox.submit(*_many(3000, "stuck.example"))
        await outbox.claim()
        await stuck.until(lambda peer: peer.sessions)
        [delivery_id] = await outbox.submit("ann@example.org", tenant=outbox.rival)
        await outbox.claim()
        await peer.until(lambda peer: peer.taken)
        await outbox.until(_is_delivered(outbox, delivery_id))


async def test_a_domain_that_is_stuck_does_not_hold_up_the_project_s_other_mail(outbox: Outbox, peer: Peer) -> None:
    async with running_peer(Script(banner="hang"), host="127.0.0.2", port=peer.port) as stuck:
        set_exchangers(outbox.dns, "stuck.example", "127.0.0.2")
        for _ in range(500):  # more than a claim takes
            await outbox.submit("ann@stuck.example")
        outbox.clock.advance(seconds=1)
        [delivery_id] = await outbox.submit("ann@example.org")
        for _ in range(3):
            await outbox.claim()
        await stuck.until(lambda peer: peer.sessions)
        await peer.until(lambda peer: peer.taken)
        await outbox.until(_is_delivered(outbox, delivery_id))


async def test_a_campaign_under_way_does_not_hold_up_the_project_s_transactional_mail(outbox: Outbox, peer: Peer) -> None:
    peer.script = Script(dot="wait + 250 2.0.0 taken")
    for number in range(20):
        set_exchangers(outbox.dns, f"d{number}.example", "127.0.0.1")
        await outbox.submit(*_many(60, f"d{number}.example"), priority=PRIORITY_CAMPAIGN)
    await outbox.claim()
    set_exchangers(outbox.dns, "other.example", "127.0.0.1")
    [delivery_id] = await outbox.submit("ann@other.example")
    await outbox.claim()
    assert (await outbox.delivery(delivery_id))["lease_owner"] == outbox.deliverer.owner
    peer.let_go()
    await outbox.deliver()
    assert sum(len(received.recipients) for received in peer.taken) == 1201


async def test_a_dead_destination_is_given_up_for_all_its_mail_at_once(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(banner="421 4.3.2 no")
    async with running_outbox(prepared, tmp_path, port=peer.port, per_destination=1) as outbox:
        ids = [one for number in range(30) for one in await outbox.submit(message=other_message(number))]
        await outbox.deliver()
        assert [(await outbox.delivery(one))["attempts"] for one in ids] == [1] * 30
        assert [(await outbox.delivery(one))["dot_sent_at"] for one in ids] == [None] * 30
        assert len(peer.sessions) == 1


async def test_more_destinations_than_connections_all_get_their_turn(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, concurrency=3) as outbox:
        recipients = []
        for number in range(12):
            set_exchangers(outbox.dns, f"d{number}.example", "127.0.0.1")
            recipients += [f"ann@d{number}.example", f"bob@d{number}.example"]
        ids = [queued.delivery_id for queued in await outbox.send(*recipients)]
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 24


async def test_a_lane_takes_urgent_mail_first_and_keeps_the_order_within_a_class(outbox: Outbox) -> None:
    lane = Lane(RoutePlan("mx"), "example.org", most_couriers=10)
    for priority in (10, 5, 10, 1, 5, 1):
        await outbox.submit(priority=priority)
    claimed = sorted(await _claim(outbox, limit=10), key=lambda one: one.id)
    for one in claimed:
        lane.put([one])
    taken = [group[0] for group in lane.take_all()]
    assert [one.priority for one in taken] == [1, 1, 5, 5, 10, 10]
    assert taken == sorted(claimed, key=lambda one: (one.priority, one.id))


def test_a_lane_gains_a_connection_with_every_success_and_is_halved_by_a_failure() -> None:
    lane = Lane(RoutePlan("mx"), "example.org", most_couriers=8)
    allowed = [lane.allowed]
    for _ in range(5):
        lane.speed_up()
        allowed.append(lane.allowed)
    for _ in range(5):
        lane.slow_down()
        allowed.append(lane.allowed)
    assert allowed == [5, 6, 7, 8, 8, 8, 4, 2, 1, 1, 1]


def test_after_a_failure_it_takes_ten_successes_to_gain_a_connection() -> None:
    lane = Lane(RoutePlan("mx"), "example.org", most_couriers=8)
    lane.slow_down()
    allowed = []
    for _ in range(20):
        lane.speed_up()
        allowed.append(lane.allowed)
    assert allowed == [2] * 9 + [3] * 10 + [4]


async def test_a_lane_that_was_never_answered_gets_two_connections(outbox: Outbox) -> None:
    lane = Lane(RoutePlan("mx"), "example.org", most_couriers=8, proven=False)
    for number in range(10):
        await outbox.submit(message=other_message(number))
    for one in await _claim(outbox, limit=10):
        lane.put([one])
    lane.couriers = 1
    assert lane.wants_courier
    lane.couriers = 2
    assert not lane.wants_courier
    lane.proven = True
    assert lane.wants_courier


async def test_only_recipients_of_one_submitted_message_form_a_group(outbox: Outbox) -> None:
    await outbox.submit("ann@example.org", "bob@example.org")
    await outbox.submit("cid@example.org")
    await outbox.send("dan@example.org", "eve@example.org")
    groups = form_groups(await _claim(outbox, limit=10))
    assert sorted(sorted(one.recipient[:3] for one in group) for group in groups) == [
        ["ann", "bob"],
        ["cid"],
        ["dan"],
        ["eve"],
    ]


@pytest.mark.parametrize("setting", ["per_destination", "concurrency"])
async def test_one_connection_is_enough_for_everything(prepared: Prepared, tmp_path: Path, peer: Peer, setting: str) -> None:
    settings: dict[str, Any] = {setting: 1}
    async with running_outbox(prepared, tmp_path, port=peer.port, **settings) as outbox:
        ids = [one for number in range(5) for one in await outbox.submit(message=other_message(number))]
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [DELIVERED] * 5


def _many(count: int, domain: str = "example.org") -> list[str]:
    return [f"user{number}@{domain}" for number in range(count)]


async def _claim(outbox: Outbox, *, limit: int, **more: Any) -> list[Claimed]:
    now = outbox.clock.now()
    claim = Claim("tester", now, now + timedelta(minutes=30), limit, **more)
    return await outbox.relay.db.write(claim_due, claim)


def _is_delivered(outbox: Outbox, delivery_id: str) -> Any:
    async def fits() -> bool:
        return await outbox.state(delivery_id) == DELIVERED

    return fits
