"""What may anybody open? One-click unsubscribe (RFC 8058) and the pages to unsubscribe, subscribe and manage."""

from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from plunk_relay.errors import ContactNotFound
from plunk_relay.ids import is_id
from plunk_relay.public import actions
from plunk_relay.public.actions import Visit
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, ApiModel, Endpoint, endpoint

if TYPE_CHECKING:
    import jinja2

_TAG = "Public pages"
_PAGE = ("text/html",)
_POLICY = (
    "content-security-policy",
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
)


class Attribution(ApiModel):
    """Which mail the link was in."""

    e: str | None = Field(None, description="Id of the mail; it counts only when that mail went to this contact")


class PublicContact(ApiModel):
    """What a contact may see of itself."""

    id: str
    email: str
    subscribed: bool


class VisitingContact(PublicContact):
    """What a contact may see of itself, and in which language."""

    language: str


class Choice(Attribution):
    """What the button says."""

    want: Literal["subscribe", "unsubscribe"] = Field(description="What the contact chose")


@endpoint("GET", "/contacts/public/{contact_id}", tag=_TAG, auth=Auth.NONE, errors=(ContactNotFound,))
async def show_public_contact(relay: Relay, contact_id: str) -> VisitingContact:
    """Return what the pages show of a contact; its unguessable id is the key."""
    visit = await actions.find_visit(relay, contact_id)
    if visit is None:
        raise ContactNotFound.of("Contact", contact_id)
    contact = visit.contact
    return VisitingContact(id=contact.id, email=contact.email, subscribed=contact.subscribed, language=visit.language)


@endpoint("POST", "/contacts/public/{contact_id}/subscribe", tag=_TAG, auth=Auth.NONE, errors=(ContactNotFound,))
async def subscribe_public_contact(relay: Relay, contact_id: str, query: Attribution) -> PublicContact:
    """Subscribe a contact by its own link."""
    return await _choose(relay, contact_id, query, subscribed=True)


@endpoint("POST", "/contacts/public/{contact_id}/unsubscribe", tag=_TAG, auth=Auth.NONE, errors=(ContactNotFound,))
async def unsubscribe_public_contact(relay: Relay, contact_id: str, query: Attribution) -> PublicContact:
    """Unsubscribe a contact by its own link."""
    return await _choose(relay, contact_id, query, subscribed=False)


async def _choose(relay: Relay, contact_id: str, query: Attribution, *, subscribed: bool) -> PublicContact:
    contact = await actions.change_subscription(relay, contact_id, subscribed=subscribed, email_id=query.e)
    if contact is None:
        raise ContactNotFound.of("Contact", contact_id)
    return PublicContact(id=contact.id, email=contact.email, subscribed=contact.subscribed)


@endpoint("POST", "/unsubscribe/{contact_id}", tag=_TAG, auth=Auth.NONE, produces=("text/plain",))
async def unsubscribe_with_one_click(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Unsubscribe at once (RFC 8058).

    Always answers 200, for a repeat and for an unknown contact too; the body is not read.
    """
    await actions.change_subscription(relay, contact_id, subscribed=False, email_id=query.e)
    return Answer(b"Unsubscribed", content_type="text/plain; charset=utf-8")


@endpoint("GET", "/unsubscribe/{contact_id}", tag=_TAG, auth=Auth.NONE, produces=_PAGE)
async def show_unsubscribe_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the page that asks for confirmation; opening it changes nothing."""
    visit = await actions.find_visit(relay, contact_id)
    if visit is None:
        return _unknown_page()
    words = visit.words
    return _page(visit, words.ask_unsubscribe if visit.contact.subscribed else words.unsubscribed, query)


@endpoint("GET", "/subscribe/{contact_id}", tag=_TAG, auth=Auth.NONE, produces=_PAGE)
async def show_subscribe_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the page to subscribe (again); opening it changes nothing."""
    visit = await actions.find_visit(relay, contact_id)
    if visit is None:
        return _unknown_page()
    words = visit.words
    return _page(visit, words.subscribed if visit.contact.subscribed else words.ask_subscribe, query)


@endpoint("GET", "/manage/{contact_id}", tag=_TAG, auth=Auth.NONE, produces=_PAGE)
async def show_manage_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the subscription with the way to change it."""
    visit = await actions.find_visit(relay, contact_id)
    if visit is None:
        return _unknown_page()
    words = visit.words
    return _page(visit, words.subscribed if visit.contact.subscribed else words.unsubscribed, query)


@endpoint("POST", "/manage/{contact_id}", tag=_TAG, auth=Auth.NONE, status=303, also=(200,), produces=_PAGE)
async def choose_on_page(relay: Relay, contact_id: str, query: Choice) -> Answer:
    """Subscribe or unsubscribe with a page's button, and lead to the page that shows the subscription."""
    wanted = query.want == "subscribe"
    contact = await actions.change_subscription(relay, contact_id, subscribed=wanted, email_id=query.e)
    if contact is None:
        return _unknown_page()
    return Answer(status=303, headers=[("location", f"{contact.id}{_attribution('?', query)}")])


def _page(visit: Visit, text: str, query: Attribution) -> Answer:
    """Show a sentence, and the button for the opposite of the present state; links are relative, for any base URL."""
    words, contact = visit.words, visit.contact
    want, button = ("unsubscribe", words.unsubscribe) if contact.subscribed else ("subscribe", words.subscribe)
    values = {
        "language": words.language,
        "heading": words.heading.format(project=visit.project_name),
        "text": text,
        "action": f"../manage/{contact.id}?want={want}{_attribution('&', query)}",
        "button": button,
    }
    return _render(values)


def _unknown_page() -> Answer:
    return _render({"language": "en", "heading": "Subscription", "text": "This link is not valid any more."})


def _attribution(separator: str, query: Attribution) -> str:
    return f"{separator}e={query.e}" if query.e and is_id(query.e) else ""


def _render(values: dict[str, str]) -> Answer:
    return Answer(_template().render(values).encode(), content_type="text/html; charset=utf-8", headers=[_POLICY])


@cache
def _template() -> "jinja2.Template":
    import jinja2  # noqa: PLC0415  2 MB that a server without readers does not need

    environment = jinja2.Environment(loader=jinja2.PackageLoader("plunk_relay.public", "."), autoescape=True)
    return environment.get_template("page.html.jinja")


ENDPOINTS: list[Endpoint] = [
    show_public_contact,
    subscribe_public_contact,
    unsubscribe_public_contact,
    unsubscribe_with_one_click,
    show_unsubscribe_page,
    show_subscribe_page,
    show_manage_page,
    choose_on_page,
]
