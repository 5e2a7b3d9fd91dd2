"""What happens to contacts? Made or merged by address, patched, subscribed, unsubscribed, deleted; each flip is an event."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from plunk_relay.contacts import queries
from plunk_relay.contacts.merge import merge_data
from plunk_relay.contacts.queries import Contact
from plunk_relay.contents.queries import delete_unused_contents, list_contents_of_contacts, list_contents_of_mails
from plunk_relay.errors import Conflict, ContactNotFound
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id

if TYPE_CHECKING:
    import sqlalchemy as sa

    from plunk_relay.relay import Relay

_LONG_HISTORY = 500
_MAILS_AT_ONCE = 100
"""Each takes its delivery, attempts and events along."""


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
    """Do `upsert_contact` for pairs of project id and change, in order: one look-up a project, few statements for all."""
    addresses: dict[str, list[str]] = {}
    for project_id, change in changes:
        addresses.setdefault(project_id, []).append(change.email)
    batch = _Batch(now)
    for project_id, mine in addresses.items():
        found = queries.find_contacts_by_email(tx, project_id, mine)
        batch.known.update({(project_id, email): contact for email, contact in found.items()})
    done = [batch.apply(project_id, change) for project_id, change in changes]
    batch.store(tx)
    return done


@dataclass(slots=True)
class _Batch:
    """Contacts as they become, change by change; stored at the end, each once."""

    now: datetime
    known: dict[tuple[str, str], Contact] = field(default_factory=dict)
    new: dict[tuple[str, str], None] = field(default_factory=dict)
    before: dict[tuple[str, str], Contact] = field(default_factory=dict)
    flips: list[NewEvent] = field(default_factory=list)

    def apply(self, project_id: str, change: ContactChange) -> tuple[Contact, bool]:
        """Return the contact with the change, and whether it was made by it."""
        key = (project_id, change.email)
        existing = self.known.get(key)
        if existing is None:
            self.known[key] = contact = _make(project_id, change, now=self.now)
            self.new[key] = None
            return contact, True
        self.known[key] = contact = self._merge(existing, change)
        if contact is not existing and key not in self.new:
            self.before.setdefault(key, existing)
        return contact, False

    def _merge(self, existing: Contact, change: ContactChange) -> Contact:
        data = merge_data(existing.data, change.data) if change.data else existing.data
        subscribed = existing.subscribed if change.subscribed is None else change.subscribed
        if data == existing.data and subscribed == existing.subscribed:
            return existing
        if subscribed != existing.subscribed:
            self.flips.append(_flip(existing, subscribed, email_id=None, now=self.now))
        return replace(existing, data=data, subscribed=subscribed, updated_at=self.now)

    def store(self, tx: "sa.Connection") -> None:
        """Write what became of them."""
        queries.insert_contacts(tx, [self.known[key] for key in self.new])
        queries.update_contacts(tx, [(contact, self.known[key]) for key, contact in self.before.items()])
        record_events(tx, self.flips)


def _make(project_id: str, change: ContactChange, *, now: datetime) -> Contact:
    subscribed = change.subscribed_if_new if change.subscribed is None else change.subscribed
    return Contact(change.new_id or new_id(), project_id, change.email, merge_data(None, change.data), subscribed, now, now)


@dataclass(frozen=True, slots=True)
class ContactPatch:
    """What a PATCH says: None leaves a thing as it is; `wipe_data` takes all custom fields away first."""

    email: str | None = None
    """Normalised address."""
    subscribed: bool | None = None
    data: Mapping[str, Any] | None = None
    wipe_data: bool = False


def patch_contact(tx: "sa.Connection", project_id: str, contact_id: str, patch: ContactPatch, *, now: datetime) -> Contact:
    """Change a contact; a flip is an event. Raises ContactNotFound, BadRequest, Conflict for an address that is taken."""
    before = get_contact(tx, project_id, contact_id)
    email = before.email if patch.email is None else patch.email
    if email != before.email and queries.find_contacts_by_email(tx, project_id, [email]):
        raise Conflict(f"Another contact of this project has the address {email}.")
    stored = None if patch.wipe_data else before.data
    data = merge_data(stored, patch.data) if patch.data else stored
    subscribed = before.subscribed if patch.subscribed is None else patch.subscribed
    after = replace(before, email=email, data=data, subscribed=subscribed)
    if after == before:
        return before
    after = replace(after, updated_at=now)
    queries.update_contacts(tx, [(before, after)])
    if subscribed != before.subscribed:
        record_events(tx, [_flip(before, subscribed, email_id=None, now=now)])
    return after


def get_contact(tx: "sa.Connection", project_id: str, contact_id: str) -> Contact:
    """Look a contact up by id, inside the project; raises ContactNotFound."""
    found = queries.find_contact(tx, project_id, contact_id)
    if found is None:
        raise ContactNotFound.of("Contact", contact_id)
    return found


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
    after = replace(contact, subscribed=subscribed, updated_at=now)
    queries.update_contacts(tx, [(contact, after)])
    return after


@dataclass(frozen=True, slots=True)
class SubscriptionCounts:
    """What became of contacts whose subscription was to be set."""

    changed: int
    unchanged: int
    missing: tuple[str, ...]
    """Ids that are none of the project's contacts."""


def set_subscriptions(
    tx: "sa.Connection", project_id: str, contact_ids: Sequence[str], *, subscribed: bool, now: datetime
) -> SubscriptionCounts:
    """Set the subscription of contacts; each flip is an event."""
    found = queries.find_contacts(tx, project_id, contact_ids)
    flipped = [contact for contact in found if contact.subscribed != subscribed]
    record_events(tx, [_flip(contact, subscribed, email_id=None, now=now) for contact in flipped])
    changes = [(contact, replace(contact, subscribed=subscribed, updated_at=now)) for contact in flipped]
    queries.update_contacts(tx, changes)
    there = {contact.id for contact in found}
    missing = tuple(one for one in contact_ids if one not in there)
    return SubscriptionCounts(len(flipped), len(found) - len(flipped), missing)


def delete_contacts(tx: "sa.Connection", project_id: str, contact_ids: Sequence[str]) -> int:
    """Remove contacts with their mails, events and memberships; returns how many there were.

    What only these mails contained goes too. A mail that is on its way may still arrive; nothing is recorded of it.
    """
    left_over = list_contents_of_contacts(tx, project_id, contact_ids)
    removed = queries.delete_contacts(tx, project_id, contact_ids)
    delete_unused_contents(tx, project_id, left_over)
    return removed


async def shorten_histories(relay: "Relay", project_id: str, contact_ids: Sequence[str]) -> None:
    """Remove most mails and events of contacts that are about to be deleted, some at a time.

    One unit would hold up all who write, when a contact has a hundred thousand.
    """
    while await relay.db.read(queries.has_long_history, project_id, contact_ids, limit=_LONG_HISTORY):
        await relay.db.write(_shorten, project_id, contact_ids)
        await asyncio.sleep(0)


def _shorten(tx: "sa.Connection", project_id: str, contact_ids: Sequence[str]) -> None:
    queries.delete_some_events(tx, project_id, contact_ids, limit=_LONG_HISTORY)
    mails = queries.list_some_mails(tx, project_id, contact_ids, limit=_MAILS_AT_ONCE)
    left_over = list_contents_of_mails(tx, project_id, mails)
    queries.delete_mails(tx, project_id, mails)
    delete_unused_contents(tx, project_id, left_over)


def _flip(contact: Contact, subscribed: bool, *, email_id: str | None, now: datetime, reason: str | None = None) -> NewEvent:
    name = "contact.subscribed" if subscribed else "contact.unsubscribed"
    return NewEvent(contact.project_id, name, contact.id, email_id, {"reason": reason} if reason else None, now)
