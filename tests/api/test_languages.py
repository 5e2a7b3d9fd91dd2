"""In which language does marketing mail end? The reader's, else the project's, else English."""

import email
from email.message import EmailMessage
from email.policy import default as modern

import httpx2
import pytest

from plunk_relay.db.tables import captured, contacts, projects
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.relay import Relay
from tests.kit.api import sent
from tests.kit.relay import Tenant
from tests.kit.store import add_template, change, rows


@pytest.mark.parametrize(
    ("locale", "language", "word"),
    [
        (None, "en", ">Unsubscribe<"),
        (None, "de", ">Abmelden<"),
        ("fr", "de", ">Se désabonner<"),
        ("de-AT", "fr", ">Abmelden<"),
        ("nl_BE", "fr", ">Afmelden<"),
        ("ja", "de", ">Unsubscribe<"),
        (None, "ja", ">Unsubscribe<"),
    ],
)
async def test_footer_speaks_the_contacts_language_else_the_projects_else_english(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, locale: str | None, language: str, word: str
) -> None:
    await change(relay, projects, acme.id, language=language)
    html = await _deliver_marketing(relay, http, acme, {"locale": locale} if locale else {})
    assert word in html


async def test_footer_follows_a_locale_stored_earlier(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme, {"data": {"locale": "es"}})
    assert ">Cancelar la suscripción<" in await _deliver_marketing(relay, http, acme, {})


async def test_footer_leads_to_the_contacts_own_page_in_this_mail(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    html = await _deliver_marketing(relay, http, acme, {})
    [contact] = await rows(relay, contacts)
    assert f'href="http://relay.test/unsubscribe/{contact["id"]}?e=' in html


async def _deliver_marketing(relay: Relay, http: httpx2.AsyncClient, tenant: Tenant, data: dict[str, str]) -> str:
    """Send with a marketing template and return the HTML as it would leave."""
    relay.memory.forget("projects")
    template = await add_template(relay, tenant.id, type="MARKETING")
    [done] = await sent(http, tenant, {"template": template, "subscribed": True, "data": data})
    async with Deliverer(relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()
    messages = [email.message_from_bytes(row["message"], policy=modern) for row in await rows(relay, captured)]
    [message] = [one for one in messages if done["email"] in one["Message-ID"]]
    assert isinstance(message, EmailMessage)
    part = message.get_body(preferencelist=("html",))
    assert part is not None
    html: str = part.get_content()
    return html
