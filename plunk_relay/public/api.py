"""What may anybody open? One-click unsubscribe (RFC 8058) and the pages to unsubscribe, subscribe and manage."""

from functools import cache

import jinja2

from plunk_relay.contacts.queries import Contact
from plunk_relay.public import actions
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, ApiModel, Endpoint, endpoint

_TAG = "Public pages"
_POLICY = (
    "content-security-policy",
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
)


class Attribution(ApiModel):
    """Which mail the link was in."""

    e: str | None = None


@endpoint("POST", "/unsubscribe/{contact_id}", tag=_TAG, auth=Auth.NONE)
async def unsubscribe_with_one_click(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Unsubscribe at once (RFC 8058).

    Always answers 200, for a repeat and for an unknown contact too; the body is not read.
    """
    await actions.change_subscription(relay, contact_id, subscribed=False, email_id=query.e)
    return Answer(b"Unsubscribed", content_type="text/plain; charset=utf-8")


@endpoint("GET", "/unsubscribe/{contact_id}", tag=_TAG, auth=Auth.NONE)
async def show_unsubscribe_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the page that asks for confirmation; opening it changes nothing."""
    return _page(await actions.find_contact(relay, contact_id), "unsubscribe", query)


@endpoint("GET", "/subscribe/{contact_id}", tag=_TAG, auth=Auth.NONE)
async def show_subscribe_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the page to subscribe (again)."""
    return _page(await actions.find_contact(relay, contact_id), "subscribe", query)


@endpoint("POST", "/subscribe/{contact_id}", tag=_TAG, auth=Auth.NONE)
async def subscribe(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Subscribe from the page."""
    contact = await actions.change_subscription(relay, contact_id, subscribed=True, email_id=query.e)
    return _page(contact, "manage", query)


@endpoint("GET", "/manage/{contact_id}", tag=_TAG, auth=Auth.NONE)
async def show_manage_page(relay: Relay, contact_id: str, query: Attribution) -> Answer:
    """Show the subscription with the way to change it."""
    return _page(await actions.find_contact(relay, contact_id), "manage", query)


def _page(contact: Contact | None, kind: str, query: Attribution) -> Answer:
    source = f"?e={query.e}" if query.e and query.e.replace("-", "").isalnum() else ""
    if contact is None:
        values = {"title": "Subscription", "text": "This link is not valid any more."}
    elif kind == "unsubscribe" or (kind == "manage" and contact.subscribed):
        text = "Do you want to unsubscribe?" if contact.subscribed else "You are unsubscribed."
        action = f"/unsubscribe/{contact.id}{source}" if contact.subscribed else ""
        values = {"title": "Unsubscribe", "text": text, "action": action, "button": "Unsubscribe"}
    else:
        text = "You are subscribed." if contact.subscribed else "You are unsubscribed. Do you want to subscribe?"
        action = "" if contact.subscribed else f"/subscribe/{contact.id}{source}"
        values = {"title": "Subscribe", "text": text, "action": action, "button": "Subscribe"}
    return Answer(_template().render(values).encode(), content_type="text/html; charset=utf-8", headers=[_POLICY])


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("plunk_relay.public", "."), autoescape=True)
    return environment.get_template("page.html.jinja")


ENDPOINTS: list[Endpoint] = [
    unsubscribe_with_one_click,
    show_unsubscribe_page,
    show_subscribe_page,
    subscribe,
    show_manage_page,
]
