"""What happens to contacts? Made or merged by address, subscribed and unsubscribed; every flip is an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from plunk_relay.contacts import queries
from plunk_relay.contacts.merge import merge_data
from plunk_relay.contacts.queries import Contact
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class ContactChange:
    """What a request says about a contact: `subscribed` None leaves the flag of an existing contact as it is."""

    email: str
    """Normalised address."""
    data: Mapping[str, Any] | None = None
    subscribed: bool | None = None
    subscribed_if_new: bool = True
    new_id: str | None = None
    """Id to use when the contact is made; None: a fresh one."""


def upsert_contact(tx: "sa.Connection", project_id: str, change: ContactChange, *, now: datetime) -> tuple[Contact, bool]:
    """Make or merge a contact; return it and whether it is new.

    A flip of an existing contact's subscription records `contact.subscribed` or `contact.unsubscribed`; creation
    records nothing. Raises BadRequest when `data.locale` is not a string.
    """
    return upsert_contacts(tx, [(project_id, change)], now=now)[0]


def upsert_contacts(
    tx: "sa.Connection", changes: Sequence[tuple[str, ContactChange]], *, now: datetime
) -> list[tuple[Contact, bool]]:
    """Do `upsert_contact` for pairs of project id and change, in order, with one look-up a project."""
    addresses: dict[str, list[str]] = {}
    for project_id, change in changes:
        addresses.setdefault(project_id, []).append(change.email)
    known = {project_id: queries.find_contacts_by_email(tx, project_id, mine) for project_id, mine in addresses.items()}
    done = []
    for project_id, change in changes:
        existing = known[project_id].get(change.email)
        contact = _merge(tx, existing, change, now=now) if existing else _insert(tx, project_id, change, now=now)
        known[project_id][change.email] = contact
        done.append((contact, existing is None))
    return done


def _merge(tx: "sa.Connection", existing: Contact, change: ContactChange, *, now: datetime) -> Contact:
    data = merge_data(existing.data, change.data) if change.data else existing.data
    subscribed = existing.subscribed if change.subscribed is None else change.subscribed
    if data == existing.data and subscribed == existing.subscribed:
        return existing
    queries.update_contact(tx, existing.id, data=data, subscribed=subscribed, now=now)
    if subscribed != existing.subscribed:
        record_events(tx, [_flip(existing, subscribed, email_id=None, now=now)])
    return replace(existing, data=data, subscribed=subscribed, updated_at=now)


def set_subscription(
    tx: "sa.Connection",
    contact: Contact,
    *,
    subscribed: bool,
    email_id: str | None,
    now: datetime,
    reason: Literal["bounce", "complaint"] | None = None,
) -> Contact:
    """Set the subscription; only a flip is written and recorded as an event. `reason` None: the contact asked for it."""
    if contact.subscribed == subscribed:
        return contact
    record_events(tx, [_flip(contact, subscribed, email_id=email_id, reason=reason, now=now)])
    queries.update_contact(tx, contact.id, data=contact.data, subscribed=subscribed, now=now)
    return replace(contact, subscribed=subscribed, updated_at=now)


def _flip(contact: Contact, subscribed: bool, *, email_id: str | None, now: datetime, reason: str | None = None) -> NewEvent:
    name = "contact.subscribed" if subscribed else "contact.unsubscribed"
    return NewEvent(contact.project_id, name, contact.id, email_id, {"reason": reason} if reason else None, now)


def _insert(tx: "sa.Connection", project_id: str, change: ContactChange, *, now: datetime) -> Contact:
    subscribed = change.subscribed_if_new if change.subscribed is None else change.subscribed
    data = merge_data(None, change.data)
    contact = Contact(change.new_id or new_id(), project_id, change.email, data, subscribed, now, now)
    queries.insert_contact(tx, contact)
    return contact
