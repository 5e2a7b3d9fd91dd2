"""What happens when an event is tracked? The contact is made or merged, then the event stored: one unit of work.

Workflows find the event as a row; they are only woken from here, so that a crash in between loses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.merge import merge_data
from plunk_relay.contacts.queries import find_contact
from plunk_relay.emails.queries import belongs_to_project
from plunk_relay.errors import ContactNotFound, FieldError, NotFound, Unavailable, ValidationFailed
from plunk_relay.events.names import is_reserved
from plunk_relay.events.queries import Event, NewEvent, record_events
from plunk_relay.log import get_logger
from plunk_relay.mail.address import normalize_address
from plunk_relay.relay import Relay
from plunk_relay.web.endpoint import KeyHold
from plunk_relay.web.meta import list_reasons
from plunk_relay.web.queries import settle_key

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("track")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What an application says happened to a contact."""

    name: str
    email: str
    data: Mapping[str, Any] | None = None
    subscribed: bool | None = None
    preserve_existing_subscription: bool = False

    def contact_change(self) -> ContactChange:
        """Return what it means for the contact: a new one is subscribed unless it says otherwise."""
        return ContactChange(
            normalize_address(self.email),
            data=self.data,
            subscribed=None if self.preserve_existing_subscription else self.subscribed,
            subscribed_if_new=self.subscribed is not False,
        )


@dataclass(frozen=True, slots=True)
class Tracked:
    """What was stored."""

    contact_id: str
    event_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One request in a group of many."""

    project_id: str
    occurrence: Occurrence
    hold: KeyHold | None
    now: datetime


async def track(relay: Relay, project_id: str, occurrence: Occurrence, *, hold: KeyHold | None = None) -> Tracked:
    """Make or merge the contact and store the event, and settle the Idempotency-Key that `hold` holds with them.

    Raises ValidationFailed (reserved name), BadRequest (data.locale), Unavailable.
    """
    _refuse_reserved(occurrence.name, field="event")
    _refuse_bad_locale(occurrence.data)
    await _refuse_when_full(relay)
    stored = await relay.db.write_joint(_store, _Waiting(project_id, occurrence, hold, relay.clock.now()))
    relay.wakes.events.set()
    return stored


async def record_plain_event(
    relay: Relay, project_id: str, *, name: str, contact_id: str | None, email_id: str | None, data: Any
) -> Event:
    """Store an event about a contact or mail that is there; raises ValidationFailed, ContactNotFound, NotFound."""
    _refuse_reserved(name, field="name")
    await _refuse_when_full(relay)
    new = NewEvent(project_id, name, contact_id, email_id, data, relay.clock.now())
    event = await relay.db.write(_store_plain, new)
    relay.wakes.events.set()
    return event


def _store(tx: "sa.Connection", waiting: Sequence[_Waiting]) -> list[Tracked]:
    """Store all requests of a group; each contact's change of subscription is recorded before its event."""
    now = max(one.now for one in waiting)
    contacts = upsert_contacts(tx, [(one.project_id, one.occurrence.contact_change()) for one in waiting], now=now)
    new = [_new_event(one, contact.id) for one, (contact, _) in zip(waiting, contacts, strict=True)]
    ids = record_events(tx, new)
    for one in waiting:
        if one.hold is not None:
            settle_key(tx, one.hold, 200)
    return [Tracked(event.contact_id or "", event_id, event.created_at) for event, event_id in zip(new, ids, strict=True)]


def _new_event(one: _Waiting, contact_id: str) -> NewEvent:
    data = one.occurrence.data
    return NewEvent(one.project_id, one.occurrence.name, contact_id, None, None if data is None else dict(data), one.now)


def _store_plain(tx: "sa.Connection", new: NewEvent) -> Event:
    if new.contact_id is not None and find_contact(tx, new.project_id, new.contact_id) is None:
        raise ContactNotFound.of("Contact", new.contact_id)
    if new.email_id is not None and not belongs_to_project(tx, new.email_id, new.project_id):
        raise NotFound.of("Email", new.email_id)
    [event_id] = record_events(tx, [new])
    return Event(event_id, new.name, new.data, new.project_id, new.contact_id, new.email_id, new.created_at)


def _refuse_reserved(name: str, *, field: str) -> None:
    if is_reserved(name):
        text = f"{name} is a reserved name: only the relay itself records such events"
        fault = {"field": field, "message": text, "code": "reserved_event", "received": name}
        raise ValidationFailed([FieldError(**fault)], text, details={"errors": [fault]})


def _refuse_bad_locale(data: Mapping[str, Any] | None) -> None:
    """Raise BadRequest before the request joins a group, which would have to be taken apart for it."""
    if data and "locale" in data:
        merge_data(None, {"locale": data["locale"]})


async def _refuse_when_full(relay: Relay) -> None:
    reasons = await list_reasons(relay)
    if reasons:
        log.warning("event refused", reasons=reasons)
        raise Unavailable("The relay cannot accept events at the moment.")
