"""Which contacts does sending leave behind? The merge rules of custom fields, and the subscription."""

from typing import Any

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts, events
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import sent
from tests.kit.relay import Tenant
from tests.kit.store import rows

MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def address() -> str:
    """Return an address that nobody has written to."""
    return f"ann-{new_id()}@example.net"


@MODULE
@pytest.mark.parametrize(("wish", "subscribed"), [({}, False), ({"subscribed": False}, False), ({"subscribed": True}, True)])
async def test_new_contact_is_subscribed_only_by_the_request_and_makes_no_event(
    shared: Shared, address: str, wish: dict[str, bool], subscribed: bool
) -> None:
    await _send(shared, address, wish)
    contact = await _contact(shared, address)
    assert (contact["project_id"], contact["subscribed"], contact["data"]) == (shared.acme.id, subscribed, None)
    assert await rows(shared.relay, events, contact_id=contact["id"]) == []


@MODULE
@pytest.mark.parametrize("subscribed", [True, False])
async def test_subscription_stays_when_the_request_does_not_speak_of_it(
    shared: Shared, address: str, subscribed: bool
) -> None:
    await _send(shared, address, {"subscribed": subscribed})
    await _send(shared, address, {"data": {"plan": "pro"}})
    assert (await _contact(shared, address))["subscribed"] is subscribed


@MODULE
@pytest.mark.parametrize(("flips_to", "name"), [(True, "contact.subscribed"), (False, "contact.unsubscribed")])
async def test_flip_of_a_known_contact_is_one_event(shared: Shared, address: str, flips_to: bool, name: str) -> None:
    for subscribed in (not flips_to, flips_to, flips_to):
        await _send(shared, address, {"subscribed": subscribed})
    contact = await _contact(shared, address)
    [event] = await rows(shared.relay, events, contact_id=contact["id"])
    assert contact["subscribed"] is flips_to
    assert (event["name"], event["project_id"]) == (name, shared.acme.id)


@MODULE
async def test_address_in_any_case_is_one_contact(shared: Shared, address: str) -> None:
    first, second = [await _send(shared, spelling) for spelling in (address.upper(), address)]
    assert first == second == {"id": (await _contact(shared, address))["id"], "email": address}


@MODULE
async def test_same_address_in_two_projects_is_two_contacts(shared: Shared, address: str) -> None:
    await _send(shared, address, {"data": {"plan": "pro"}, "subscribed": True})
    await sent(shared.http, shared.rival, {"to": address})
    stored = {
        row["project_id"]: (row["data"], row["subscribed"]) for row in await rows(shared.relay, contacts, email=address)
    }
    assert stored == {shared.acme.id: ({"plan": "pro"}, True), shared.rival.id: (None, False)}


@MODULE
@pytest.mark.parametrize(
    ("name", "fields", "stored"),
    [
        (None, {"data": {"plan": "pro"}}, {"plan": "pro"}),
        (None, {"data": {"id": "x", "email": "eve@evil.test", "subscribed": True, "plan": "pro"}}, {"plan": "pro"}),
        (None, {"data": {"code": {"value": "1234", "persistent": False}}}, None),
        (None, {"data": None}, None),
        (None, {"data": {}}, None),
        ("Ann", {}, {"name": "Ann"}),
        ("Ann", {"data": {"name": "Eve", "a": 1}}, {"name": "Ann", "a": 1}),
    ],
)
async def test_data_is_stored_with_a_new_contact(
    shared: Shared, address: str, name: str | None, fields: dict[str, Any], stored: dict[str, Any] | None
) -> None:
    await _send(shared, {"email": address, "name": name} if name else address, fields)
    assert (await _contact(shared, address))["data"] == stored


@MODULE
async def test_recipients_of_one_request_each_keep_their_own_name(shared: Shared, address: str) -> None:
    to = [{"email": f"a.{address}", "name": "Ann"}, {"email": f"b.{address}", "name": "Bob"}]
    await _send(shared, to, {"data": {"plan": "pro"}})
    assert (await _contact(shared, f"a.{address}"))["data"] == {"plan": "pro", "name": "Ann"}
    assert (await _contact(shared, f"b.{address}"))["data"] == {"plan": "pro", "name": "Bob"}


async def test_data_is_merged_into_a_known_contact(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock
) -> None:
    await sent(http, acme, {"data": {"plan": "pro", "city": "Rome", "old": 1}})
    clock.advance(minutes=1)
    await sent(http, acme, {"data": {"plan": "free", "city": "", "old": None}})
    [contact] = await rows(relay, contacts)
    assert contact["data"] == {"plan": "free", "city": "Rome"}
    assert contact["updated_at"] == clock.now()


async def _send(shared: Shared, to: object, fields: dict[str, Any] | None = None) -> dict[str, str]:
    """Send as acme; return the first recipient's contact as the answer shows it."""
    done = await sent(shared.http, shared.acme, {"to": to, **(fields or {})})
    contact: dict[str, str] = done[0]["contact"]
    return contact


async def _contact(shared: Shared, address: str) -> dict[str, Any]:
    [contact] = await rows(shared.relay, contacts, project_id=shared.acme.id, email=address)
    return contact
