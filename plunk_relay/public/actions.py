"""What happens when a contact follows a link? Only a POST changes the subscription; a GET never does."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plunk_relay.contacts.actions import set_subscription
from plunk_relay.contacts.queries import Contact, find_any_contact
from plunk_relay.emails.queries import belongs_to_contact
from plunk_relay.projects.actions import get_project
from plunk_relay.public.queries import count_unsubscribed
from plunk_relay.public.words import Words, find_words
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Visit:
    """Who opens a page: the contact, and how the page speaks to them."""

    contact: Contact
    project_name: str
    language: str
    """The contact's own, else the project's; there may be no words in it."""
    words: Words


async def find_visit(relay: Relay, contact_id: str) -> Visit | None:
    """Look a contact up by its id, in whatever project; its own language goes before the project's."""
    contact = await relay.db.read(find_any_contact, contact_id)
    if contact is None:
        return None
    project = await get_project(relay, contact.project_id)
    language = contact.locale or project.language
    return Visit(contact, project.name, language, find_words(language))


async def change_subscription(relay: Relay, contact_id: str, *, subscribed: bool, email_id: str | None) -> Contact | None:
    """Set the subscription and record the flip, also for the campaign that an opt-out is about.

    `email_id` counts only when that mail went to this contact. None: there is no such contact.
    """
    now = relay.clock.now()

    def change(tx: "sa.Connection") -> Contact | None:
        contact = find_any_contact(tx, contact_id)
        if contact is None:
            return None
        source = email_id if email_id and belongs_to_contact(tx, email_id, contact_id) else None
        if source and contact.subscribed and not subscribed:
            count_unsubscribed(tx, contact.project_id, source)
        return set_subscription(tx, contact, subscribed=subscribed, email_id=source, now=now)

    return await relay.db.write(change)
