"""Does the audit find every mail that is lost, doubled or told in two ways?"""

import pytest
import sqlalchemy as sa

from plunk_relay.commands import audit
from plunk_relay.db.tables import deliveries, emails
from plunk_relay.emails.ledger.queries import Imbalance, find_imbalances, is_balanced, read_ledger
from plunk_relay.emails.metrics import read_queue_gauges
from tests.kit.outbox import Outbox
from tests.kit.store import change

ACCEPTED = {"SENT", "DELIVERED", "OPENED", "CLICKED", "BOUNCED", "COMPLAINED"}
REPORTED = {"BOUNCED", "COMPLAINED"}  # an attempt without a reply may have delivered it
FITTING = {
    "DELIVERED": ACCEPTED,
    "BOUNCED": {"FAILED", *REPORTED},
    "EXPIRED": {"FAILED", *REPORTED},
    "SUPPRESSED": {"SUPPRESSED", *REPORTED},
    "CANCELLED": {"FAILED", *REPORTED},
    "FAILED": {"FAILED", *REPORTED},
    "HELD": {"PENDING", "SENDING"},
    "QUEUED": {"PENDING", "SENDING", "OPENED", "CLICKED"},
}
STATUSES = {"PENDING", "SENDING", "FAILED", "SUPPRESSED", *ACCEPTED}


@pytest.fixture
async def delivery_id(outbox: Outbox) -> str:
    """Queue one sound mail beside the one that the test breaks, and return the latter."""
    [delivery_id, _] = await outbox.submit("ann@example.org", "sound@example.org")
    return delivery_id


@pytest.mark.parametrize("state", FITTING)
async def test_mail_and_delivery_must_tell_the_same_story(outbox: Outbox, delivery_id: str, state: str) -> None:
    email_id = (await outbox.email(delivery_id))["id"]
    await change(outbox.relay, deliveries, delivery_id, state=state)
    for status in sorted(STATUSES):
        await change(outbox.relay, emails, email_id, status=status)
        broken = [] if status in FITTING[state] else [Imbalance(email_id, delivery_id, status, state)]
        assert await outbox.relay.db.read(find_imbalances) == broken


async def test_a_mail_without_a_delivery_is_found(outbox: Outbox, delivery_id: str) -> None:
    email_id = (await outbox.email(delivery_id))["id"]
    await _execute(outbox, sa.delete(deliveries).where(deliveries.c.id == delivery_id))
    assert await outbox.relay.db.read(find_imbalances) == [Imbalance(email_id, None, "PENDING", None)]
    shown = await audit(outbox.relay)
    assert (shown["accepted"], shown["queued"], shown["balanced"]) == (2, 1, False)
    assert shown["broken"] == [{"email": email_id, "delivery": None, "status": "PENDING", "state": None}]


async def test_a_state_that_does_not_exist_is_found(outbox: Outbox, delivery_id: str) -> None:
    await change(outbox.relay, deliveries, delivery_id, state="LOST")
    assert [row.state for row in await outbox.relay.db.read(find_imbalances)] == ["LOST"]
    assert not is_balanced(await outbox.relay.db.read(read_ledger))


async def test_received_mail_is_not_in_the_ledger(outbox: Outbox, delivery_id: str) -> None:
    email_id = (await outbox.email(delivery_id))["id"]
    await _execute(outbox, sa.delete(deliveries).where(deliveries.c.id == delivery_id))
    await change(outbox.relay, emails, email_id, source_type="INBOUND", status="RECEIVED")
    assert await outbox.relay.db.read(find_imbalances) == []
    assert (await outbox.check_ledger())["accepted"] == 1


async def test_a_mail_has_one_delivery_at_most(outbox: Outbox, delivery_id: str) -> None:
    row = await outbox.delivery(delivery_id)
    with pytest.raises(sa.exc.IntegrityError):
        await _execute(outbox, sa.insert(deliveries).values(row | {"id": "another"}))


async def test_many_broken_rows_are_cut_to_a_readable_number(outbox: Outbox) -> None:
    await outbox.submit(*(f"user{number}@example.org" for number in range(120)))
    await _execute(outbox, sa.update(deliveries).values(state="FAILED"))
    assert len(await outbox.relay.db.read(find_imbalances)) == 100


async def test_the_metric_is_the_ledger(outbox: Outbox, delivery_id: str) -> None:
    await outbox.deliver()
    gauges = await read_queue_gauges(outbox.relay)
    ledger = await outbox.check_ledger()
    assert gauges == {("plunk_relay_ledger_mails", state): float(count) for state, count in ledger.items()}
    assert (ledger["accepted"], ledger["delivered"]) == (2, 2)
    assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")


async def _execute(outbox: Outbox, statement: sa.sql.dml.UpdateBase) -> None:
    def run(tx: sa.Connection) -> None:
        tx.execute(statement)

    await outbox.relay.db.write(run)
