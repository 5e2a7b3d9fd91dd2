"""What can a contact do with the links in a mail? Leave with one click, look, and change their mind; others nothing."""

import re
from urllib.parse import urljoin

import httpx2
import pytest

from plunk_relay.db.tables import contacts, events, projects
from plunk_relay.ids import new_id
from plunk_relay.public.words import find_words
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import refusal, sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant
from tests.kit.store import change, rows

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
MODULE = pytest.mark.asyncio(loop_scope="module")
PAGES = ["unsubscribe", "subscribe", "manage"]


async def test_one_click_unsubscribes_and_records_whose_link_it_was(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    contact, mail = await _subscribe(http, acme)
    response = await http.post(f"/unsubscribe/{contact}?e={mail}", data={"List-Unsubscribe": "One-Click"})
    assert (response.status_code, response.text) == (200, "Unsubscribed")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    [event] = await rows(relay, events)
    assert (event["name"], event["contact_id"], event["email_id"]) == ("contact.unsubscribed", contact, mail)
    assert (event["project_id"], event["data"]) == (acme.id, None)
    assert await _subscribed(relay) == [False]


async def test_repeated_one_click_is_one_event(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    contact, mail = await _subscribe(http, acme)
    for _ in range(3):
        response = await http.post(f"/unsubscribe/{contact}?e={mail}")
        assert (response.status_code, response.text) == (200, "Unsubscribed")
    assert len(await rows(relay, events)) == 1


@pytest.mark.parametrize("contact", [UNKNOWN_ID, "nonsense", "%00", "a%2Fb"])
async def test_one_click_for_nobody_answers_alike(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, contact: str
) -> None:
    await _subscribe(http, acme)
    response = await http.post(f"/unsubscribe/{contact.replace('%2F', '-')}?e={UNKNOWN_ID}")
    assert (response.status_code, response.text) == (200, "Unsubscribed")
    assert await _subscribed(relay) == [True]
    assert await rows(relay, events) == []


@MODULE
@pytest.mark.parametrize("body", [b"", b"List-Unsubscribe=One-Click", b"{", b"\xff" * 5000])
async def test_body_of_one_click_does_not_matter(shared: Shared, body: bytes) -> None:
    contact, _ = await _subscribe(shared.http, shared.acme)
    assert (await shared.http.post(f"/unsubscribe/{contact}", content=body)).status_code == 200
    assert [row["subscribed"] for row in await rows(shared.relay, contacts, id=contact)] == [False]


@MODULE
@pytest.mark.parametrize("whose", ["another contact", "another project", "nobody", "nonsense", "empty"])
async def test_mail_that_did_not_go_to_the_contact_is_not_recorded(shared: Shared, whose: str) -> None:
    contact, _ = await _subscribe(shared.http, shared.acme)
    [other] = await sent(shared.http, shared.acme, {"to": "bob@example.net"})
    [foreign] = await sent(shared.http, shared.rival)
    mails = {"another contact": other["email"], "another project": foreign["email"], "nobody": UNKNOWN_ID, "empty": ""}
    params = {"e": mails.get(whose, whose)}
    assert (await shared.http.post(f"/unsubscribe/{contact}", params=params)).status_code == 200
    [event] = await rows(shared.relay, events, contact_id=contact)
    assert (event["contact_id"], event["email_id"]) == (contact, None)


async def test_other_contacts_and_projects_stay_subscribed(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    contact, _ = await _subscribe(http, acme)
    await sent(http, acme, {"to": "bob@example.net", "subscribed": True})
    await _subscribe(http, rival)
    await http.post(f"/unsubscribe/{contact}")
    assert sorted(await _subscribed(relay)) == [False, True, True]


@MODULE
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("subscribed", [True, False])
async def test_opening_a_page_changes_nothing(shared: Shared, page: str, subscribed: bool) -> None:
    contact, mail = await _subscribe(shared.http, shared.acme, subscribed=subscribed)
    before = await rows(shared.relay, contacts, id=contact)
    for method in ("GET", "HEAD", "GET"):
        response = await shared.http.request(method, f"/{page}/{contact}?e={mail}&want=unsubscribe")
        assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert await rows(shared.relay, contacts, id=contact) == before
    assert await rows(shared.relay, events, contact_id=contact) == []


@MODULE
@pytest.mark.parametrize(
    ("page", "subscribed", "text", "button"),
    [
        ("unsubscribe", True, "Do you want to unsubscribe?", "Unsubscribe"),
        ("unsubscribe", False, "You are unsubscribed.", "Subscribe"),
        ("subscribe", True, "You are subscribed.", "Unsubscribe"),
        ("subscribe", False, "Do you want to subscribe?", "Subscribe"),
        ("manage", True, "You are subscribed.", "Unsubscribe"),
        ("manage", False, "You are unsubscribed.", "Subscribe"),
    ],
)
async def test_page_shows_the_state_and_the_button_for_the_other(
    shared: Shared, page: str, subscribed: bool, text: str, button: str
) -> None:
    contact, _ = await _subscribe(shared.http, shared.acme, subscribed=subscribed)
    html = (await shared.http.get(f"/{page}/{contact}")).text
    assert "<h1>Mail from acme</h1>" in html
    assert f"<p>{text}</p>" in html
    assert f'<button type="submit">{button}</button>' in html


@pytest.mark.parametrize("page", PAGES)
async def test_button_works_and_leads_to_the_new_state_and_back(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, page: str
) -> None:
    contact, mail = await _subscribe(http, acme)
    url = f"{http.base_url}/{page}/{contact}?e={mail}"
    for subscribed, text in ((False, "You are unsubscribed."), (True, "You are subscribed.")):
        done = await http.post(_form_action(url, (await http.get(url)).text))
        assert done.status_code == 303
        url = urljoin(str(done.request.url), done.headers["location"])
        assert text in (await http.get(url)).text
        assert await _subscribed(relay) == [subscribed]
    assert [(event["name"], event["email_id"]) for event in await rows(relay, events)] == [
        ("contact.unsubscribed", mail),
        ("contact.subscribed", mail),
    ]


async def test_same_choice_twice_is_one_event(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    contact, _ = await _subscribe(http, acme)
    for _ in range(2):
        assert (await http.post(f"/manage/{contact}?want=unsubscribe")).status_code == 303
    assert len(await rows(relay, events)) == 1


@MODULE
@pytest.mark.parametrize("query", ["", "?want=", "?want=everything"])
async def test_choice_must_be_said(shared: Shared, query: str) -> None:
    contact, _ = await _subscribe(shared.http, shared.acme)
    assert refusal(await shared.http.post(f"/manage/{contact}{query}")) == (422, "VALIDATION_ERROR")
    assert [row["subscribed"] for row in await rows(shared.relay, contacts, id=contact)] == [True]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_contact_gets_a_neutral_page(http: httpx2.AsyncClient, acme: Tenant, method: str) -> None:
    await _subscribe(http, acme)
    pages = PAGES if method == "GET" else ["manage"]
    for page in pages:
        response = await http.request(method, f"/{page}/{UNKNOWN_ID}?want=subscribe")
        assert response.status_code == 200
        assert "This link is not valid any more." in response.text
        assert not [word for word in ("acme", "ann@", "<form", UNKNOWN_ID) if word in response.text]


async def test_page_shows_no_address(http: httpx2.AsyncClient, acme: Tenant) -> None:
    contact, _ = await _subscribe(http, acme)
    for page in PAGES:
        assert "ann@" not in (await http.get(f"/{page}/{contact}")).text


async def test_page_runs_nothing_and_loads_nothing(http: httpx2.AsyncClient, acme: Tenant) -> None:
    contact, _ = await _subscribe(http, acme)
    for page in PAGES:
        response = await http.get(f"/{page}/{contact}")
        policy = response.headers["content-security-policy"]
        assert set(policy.split("; ")) >= {"default-src 'none'", "form-action 'self'", "base-uri 'none'"}
        assert not re.findall(r"<script|<link|<img|url\(|https?://", response.text)
        assert '<meta name="robots" content="noindex">' in response.text


async def test_name_and_attribution_cannot_inject_markup(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await change(relay, projects, acme.id, name='<b onclick="x">{project}&')
    relay.memory.forget("projects")
    contact, _ = await _subscribe(http, acme)
    html = (await http.get(f"/manage/{contact}", params={"e": '"><script>alert(1)</script>'})).text
    assert "&lt;b onclick=&#34;x&#34;&gt;{project}&amp;" in html
    assert "alert" not in html
    assert html.count("<b") == html.count("<body") + html.count("<button")


@MODULE
@pytest.mark.parametrize(
    ("locale", "language", "shown"),
    [
        (None, "en", "en"),
        (None, "de", "de"),
        (None, "pt-BR", "pt"),
        ("fr", "de", "fr"),
        ("de-AT", "fr", "de"),
        ("nl_BE", "fr", "nl"),
        ("IT", "en", "it"),
        ("ja", "de", "en"),
        (None, "ja", "en"),
    ],
)
async def test_page_speaks_the_contacts_language_else_the_projects_else_english(
    shared: Shared, locale: str | None, language: str, shown: str
) -> None:
    await change(shared.relay, projects, shared.rival.id, language=language)
    shared.relay.memory.forget("projects")
    contact, _ = await _subscribe(shared.http, shared.rival, locale=locale)
    html = (await shared.http.get(f"/unsubscribe/{contact}")).text.replace("&#39;", "'")
    words = find_words(shown)
    assert f'<html lang="{shown}">' in html
    assert words.heading.format(project="rival") in html
    assert words.ask_unsubscribe in html
    assert words.unsubscribe in html


async def test_links_work_below_another_base_url(relay: Relay, acme: Tenant) -> None:
    async with running_http(relay) as http:
        contact, _ = await _subscribe(http, acme)
        html = (await http.get(f"/unsubscribe/{contact}")).text
    action = _form_action(f"https://example.com/relay/unsubscribe/{contact}", html)
    assert action == f"https://example.com/relay/manage/{contact}?want=unsubscribe"


async def _subscribe(
    http: httpx2.AsyncClient, tenant: Tenant, *, subscribed: bool = True, locale: str | None = None
) -> tuple[str, str]:
    """Send to a new contact; return the ids of contact and mail."""
    data = {"locale": locale} if locale else {}
    fields = {"to": f"ann@{new_id()}.test", "subscribed": subscribed, "data": data}
    [done] = await sent(http, tenant, fields)
    return done["contact"]["id"], done["email"]


async def _subscribed(relay: Relay) -> list[bool]:
    return [row["subscribed"] for row in await rows(relay, contacts)]


def _form_action(url: str, html: str) -> str:
    found = re.search(r'<form method="post" action="([^"]+)">', html)
    assert found is not None
    action: str = urljoin(url, found[1].replace("&amp;", "&"))
    return action
