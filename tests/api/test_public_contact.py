"""What may a page of somebody else's making do with a contact's own link? See the subscription and change it."""

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import campaigns, emails, events
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from tests.kit.api import refusal, sent
from tests.kit.relay import Tenant
from tests.kit.store import change, insert, rows

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


async def _make(http: httpx2.AsyncClient, owner: Tenant, **data: object) -> str:
    body = {"email": "ann@example.net", "data": data}
    return str((await http.post("/contacts", headers=owner.headers, json=body)).json()["id"])


async def test_a_contact_sees_itself_and_nothing_more(http: httpx2.AsyncClient, owner: Tenant) -> None:
    contact = await _make(http, owner, secret="x")
    shown = await http.get(f"/contacts/public/{contact}")
    assert shown.json() == {"id": contact, "email": "ann@example.net", "subscribed": True, "language": "en"}


@pytest.mark.parametrize(("locale", "language"), [("pt-BR", "pt-BR"), (None, "en")])
async def test_the_language_is_the_contacts_own_else_the_projects(
    http: httpx2.AsyncClient, owner: Tenant, locale: str | None, language: str
) -> None:
    contact = await _make(http, owner, locale=locale)
    assert (await http.get(f"/contacts/public/{contact}")).json()["language"] == language


async def test_only_a_flip_is_an_event(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    contact = await _make(http, owner)
    for path, flag in (("unsubscribe", False), ("unsubscribe", False), ("subscribe", True), ("subscribe", True)):
        done = await http.post(f"/contacts/public/{contact}/{path}")
        assert done.json() == {"id": contact, "email": "ann@example.net", "subscribed": flag}
    assert [row["name"] for row in await rows(relay, events)] == ["contact.unsubscribed", "contact.subscribed"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/subscribe"), ("POST", "/unsubscribe")])
async def test_a_contact_that_is_not_there_is_not_found(http: httpx2.AsyncClient, method: str, path: str) -> None:
    for contact in (UNKNOWN_ID, "nonsense"):
        assert refusal(await http.request(method, f"/contacts/public/{contact}{path}")) == (404, "CONTACT_NOT_FOUND")


@pytest.mark.parametrize(
    ("harm", "counted"), [({}, 1), ({"bounced_at": "now"}, 0), ({"complained_at": "now"}, 0), ({"campaign_id": None}, 0)]
)
@pytest.mark.parametrize("path", ["/contacts/public/{}/unsubscribe", "/unsubscribe/{}"])
async def test_an_opt_out_counts_for_its_campaign_once(
    http: httpx2.AsyncClient,
    relay: Relay,
    clock: ManualClock,
    acme: Tenant,
    path: str,
    harm: dict[str, str | None],
    counted: int,
) -> None:
    [mail] = await sent(http, acme, {"subscribed": True})
    campaign, now = new_id(), clock.now()
    blank = {column.name: 0 for column in campaigns.c if not column.nullable}
    words = dict.fromkeys(("subject", "body", "from_address", "name"), "x") | {"type": "MARKETING", "status": "SENT"}
    times = {"id": campaign, "project_id": acme.id, "created_at": now, "updated_at": now}
    await insert(relay, campaigns, **(blank | words | {"audience_type": "ALL", "archived": False} | times))
    values = {"campaign_id": campaign} | {name: now if value else None for name, value in harm.items()}
    await change(relay, emails, mail["email"], **values)
    for _ in range(2):
        assert (await http.post(f"{path.format(mail['contact']['id'])}?e={mail['email']}")).status_code == 200
    assert [row["unsubscribed_count"] for row in await rows(relay, campaigns)] == [counted]
