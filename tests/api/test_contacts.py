"""What happens to a contact's subscription beside the API's own requests? People choose, bounces end it."""

from datetime import timedelta

import httpx2
import pytest

from plunk_relay.contacts.actions import ContactChange, set_subscription, upsert_contact
from plunk_relay.contacts.queries import find_contact
from plunk_relay.db.tables import contacts, events
from plunk_relay.delivery.outcomes import Finished, record
from plunk_relay.delivery.retry import RetrySchedule
from plunk_relay.emails.queue import Claim, claim_due
from plunk_relay.mail.outcome import Bounced, Reply
from plunk_relay.relay import Relay
from tests.kit.api import sent
from tests.kit.relay import Tenant
from tests.kit.store import rows


async def test_bounce_unsubscribes_and_the_event_says_why(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme, {"subscribed": True})
    await _bounce(relay)
    assert [row["subscribed"] for row in await rows(relay, contacts)] == [False]
    [bounce, flip] = await rows(relay, events)
    assert (bounce["name"], flip["name"], flip["data"]) == ("email.bounce", "contact.unsubscribed", {"reason": "bounce"})
    assert flip["email_id"] == bounce["email_id"]


async def test_bounce_of_an_unsubscribed_contact_changes_nothing(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await sent(http, acme)
    before = await rows(relay, contacts)
    await _bounce(relay)
    assert await rows(relay, contacts) == before


@pytest.mark.parametrize("subscribed", [True, False])
async def test_only_a_flip_is_written_and_recorded(relay: Relay, acme: Tenant, subscribed: bool) -> None:
    now = relay.clock.now()
    change = ContactChange("ann@example.net", subscribed=subscribed)
    contact, is_new = await relay.db.write(upsert_contact, acme.id, change, now=now)
    assert is_new
    later = now + timedelta(minutes=1)
    same = await relay.db.write(set_subscription, contact, subscribed=subscribed, email_id=None, now=later)
    assert (same, await rows(relay, events)) == (contact, [])
    flipped = await relay.db.write(set_subscription, contact, subscribed=not subscribed, email_id=None, now=later)
    assert (flipped.subscribed, flipped.updated_at) == (not subscribed, later)
    assert await relay.db.read(find_contact, acme.id, contact.id) == flipped
    assert len(await rows(relay, events)) == 1


async def test_ending_a_subscription_keeps_the_custom_fields(relay: Relay, acme: Tenant) -> None:
    now = relay.clock.now()
    change = ContactChange("ann@example.net", data={"plan": "pro"}, subscribed=True)
    contact, _ = await relay.db.write(upsert_contact, acme.id, change, now=now)
    await relay.db.write(set_subscription, contact, subscribed=False, email_id=None, now=now)
    [row] = await rows(relay, contacts)
    assert (row["subscribed"], row["data"]) == (False, {"plan": "pro"})


async def test_change_without_effect_writes_nothing(relay: Relay, acme: Tenant) -> None:
    now = relay.clock.now()
    change = ContactChange("ann@example.net", data={"plan": "pro"}, subscribed=True)
    contact, _ = await relay.db.write(upsert_contact, acme.id, change, now=now)
    again, is_new = await relay.db.write(upsert_contact, acme.id, change, now=now + timedelta(minutes=1))
    assert (again, is_new) == (contact, False)
    assert [row["updated_at"] for row in await rows(relay, contacts)] == [now]


async def test_contact_is_found_only_inside_its_project(relay: Relay, acme: Tenant, rival: Tenant) -> None:
    now = relay.clock.now()
    contact, _ = await relay.db.write(upsert_contact, acme.id, ContactChange("ann@example.net"), now=now)
    assert await relay.db.read(find_contact, rival.id, contact.id) is None


async def _bounce(relay: Relay) -> None:
    """Let the one queued mail be refused for its recipient."""
    now = relay.clock.now()
    claim = Claim("test", now, now + timedelta(minutes=1), limit=1)
    [claimed] = await relay.db.write(claim_due, claim)
    refusal = Bounced(Reply(550, "5.1.1", "No such user"))
    finished = Finished(claimed, refusal, confirmed=True, started_at=now, milliseconds=1)
    await relay.db.write(record, [finished], RetrySchedule((1.0,)), now=now)
