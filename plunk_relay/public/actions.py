"""What happens when a contact follows a link? Only a POST changes the subscription; a GET never does."""

from typing import TYPE_CHECKING

from plunk_relay.contacts.actions import set_subscription
from plunk_relay.contacts.queries import Contact, find_any_contact
from plunk_relay.emails.queries import belongs_to_contact
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa


async def find_contact(relay: Relay, contact_id: str) -> Contact | None:
    """Look a contact up by its id, in whatever project."""
    return await relay.db.read(find_any_contact, contact_id)


async def change_subscription(relay: Relay, contact_id: str, *, subscribed: bool, email_id: str | None) -> Contact | None:
    """Set the subscription and record the flip; `email_id` counts only when that mail went to this contact."""
    now = relay.clock.now()

    def change(tx: "sa.Connection") -> Contact | None:
        contact = find_any_contact(tx, contact_id)
        if contact is None:
            return None
        source = email_id if email_id and belongs_to_contact(tx, email_id, contact_id) else None
        return set_subscription(tx, contact, subscribed=subscribed, reason=None, email_id=source, now=now)

    return await relay.db.write(change)
