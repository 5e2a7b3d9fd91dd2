"""What becomes of mail whose contact is deleted? What waits is gone; of what is on its way, nothing is recorded."""

from plunk_relay.contacts.actions import delete_contacts
from plunk_relay.db.tables import contacts, deliveries, events
from tests.kit.outbox import Outbox
from tests.kit.peer import Peer
from tests.kit.store import rows


async def test_a_contact_may_be_deleted_while_its_mail_is_on_its_way(outbox: Outbox, peer: Peer) -> None:
    await outbox.send("ann@example.org", "bob@example.org")
    ann, _ = await rows(outbox.relay, contacts)
    await outbox.deliverer.run_once()
    await outbox.relay.db.write(delete_contacts, outbox.acme.id, [ann["id"]])
    await outbox.deliverer.settle()
    assert [row["recipient"] for row in await rows(outbox.relay, deliveries)] == ["bob@example.org"]
    assert {row["contact_id"] for row in await rows(outbox.relay, events)} <= {(await rows(outbox.relay, contacts))[0]["id"]}
    ledger = await outbox.check_ledger()
    assert (ledger["accepted"], ledger["delivered"]) == (1, 1)


async def test_mail_that_waits_for_a_deleted_contact_is_gone(outbox: Outbox, peer: Peer) -> None:
    await outbox.send("ann@example.org")
    [ann] = await rows(outbox.relay, contacts)
    await outbox.relay.db.write(delete_contacts, outbox.acme.id, [ann["id"]])
    await outbox.deliver()
    assert (peer.taken, await rows(outbox.relay, deliveries), await rows(outbox.relay, events)) == ([], [], [])
    assert (await outbox.check_ledger())["accepted"] == 0
