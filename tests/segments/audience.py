"""Whom do conditions speak of? People as plain values, stored as rows, and asked who of them fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from plunk_relay.conditions import check_condition
from plunk_relay.db.tables import contacts, emails, events, projects, segment_memberships, segments
from plunk_relay.ids import new_id
from plunk_relay.segments.filters import Among, match

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1000)
Json = dict[str, Any]


def ago(days: float) -> datetime:
    """Return a moment so many days before now."""
    return NOW - timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Person:
    """A contact with its history."""

    subscribed: bool = True
    data: Mapping[str, Any] | None = None
    created_at: datetime = LONG_AGO
    updated_at: datetime = LONG_AGO
    email: str = field(default_factory=lambda: f"{new_id()}@example.com")
    events: Sequence[tuple[str, datetime]] = ()
    """Names and times."""
    mails: Sequence[Mapping[str, datetime]] = ()
    """For each mail the times that are set: `opened_at` and the like."""
    segments: Sequence[str] = ()
    """Ids of the segments whose table has this contact as a member."""
    left: Sequence[str] = ()
    """Ids of the segments that this contact was a member of."""


def one(field: str, operator: str, value: Any = None, unit: str | None = None) -> Json:
    """Return the condition of one filter."""
    return {"logic": "AND", "groups": [{"filters": [a(field, operator, value, unit)]}]}


def a(field: str, operator: str, value: Any = None, unit: str | None = None) -> Json:
    """Return a filter."""
    return {"field": field, "operator": operator, "value": value} | ({"unit": unit} if unit else {})


class Audience:
    """The contacts and segments of a project."""

    def __init__(self, tx: sa.Connection) -> None:
        self.tx = tx
        self.project_id = new_id()
        values: Json = {
            "id": self.project_id,
            "name": "acme",
            "disabled": False,
            "tracking": "ENABLED",
            "language": "en",
            "created_at": LONG_AGO,
            "updated_at": LONG_AGO,
        }
        keys = dict.fromkeys(("public_hash", "public_sealed", "secret_hash", "secret_sealed"), self.project_id)
        tx.execute(sa.insert(projects), values | keys)

    def add(self, *people: Person) -> None:
        """Store people."""
        for person in people:
            contact_id = new_id()
            own: Json = {"project_id": self.project_id, "id": contact_id, "email": person.email, "data": person.data}
            times = {"created_at": person.created_at, "updated_at": person.updated_at}
            self.tx.execute(sa.insert(contacts), own | times | {"subscribed": person.subscribed})
            for name, at in person.events:
                self.add_event(contact_id, name, at)
            for mail in person.mails:
                self.add_mail(contact_id, person.email, mail)
            for segment_id in person.segments:
                self._add_membership(segment_id, contact_id, None)
            for segment_id in person.left:
                self._add_membership(segment_id, contact_id, NOW)

    def add_event(self, contact_id: str | None, name: str, at: datetime) -> None:
        """Store an event; without a contact, it is about nobody."""
        values: Json = {"id": new_id(), "project_id": self.project_id, "name": name, "contact_id": contact_id}
        self.tx.execute(sa.insert(events), values | {"dispatch_attempts": 0, "created_at": at})

    def add_segment(self, condition: Json | None, *, tracked: bool = False, segment_id: str | None = None) -> str:
        """Store a segment; without a condition it is static."""
        values: Json = {
            "id": segment_id or new_id(),
            "project_id": self.project_id,
            "name": "a segment",
            "type": "STATIC" if condition is None else "DYNAMIC",
            "condition": condition,
            "track_membership": tracked,
            "member_count": 0,
            "created_at": LONG_AGO,
            "updated_at": LONG_AGO,
        }
        self.tx.execute(sa.insert(segments), values)
        return str(values["id"])

    def find(self, condition: Json, *, within: frozenset[str] = frozenset(), among: Among = "all") -> set[str]:
        """Return the addresses of those who fit."""
        checked = check_condition(condition)
        fits = match(self.tx, self.project_id, checked, now=NOW, within=within, among=among)
        found = sa.select(contacts.c.email).where(contacts.c.project_id == self.project_id, fits)
        return set(self.tx.execute(found).scalars())

    def contact_ids(self) -> list[str]:
        """Return the ids of all contacts."""
        return list(self.tx.execute(sa.select(contacts.c.id).where(contacts.c.project_id == self.project_id)).scalars())

    def add_mail(self, contact_id: str, recipient: str, times: Mapping[str, datetime]) -> None:
        """Store a mail with the times that are set."""
        values: Json = {
            "id": new_id(),
            "project_id": self.project_id,
            "contact_id": contact_id,
            "recipient": recipient,
            "subject": "Hello",
            "from_address": "app@acme.test",
            "message_id": new_id(),
            "mail_class": "marketing",
            "source_type": "CAMPAIGN",
            "status": "SENT",
            "opens": 0,
            "clicks": 0,
            "created_at": LONG_AGO,
            "updated_at": LONG_AGO,
        }
        self.tx.execute(sa.insert(emails), values | dict(times))

    def _add_membership(self, segment_id: str, contact_id: str, exited_at: datetime | None) -> None:
        values: Json = {"segment_id": segment_id, "contact_id": contact_id, "entered_at": LONG_AGO, "exited_at": exited_at}
        self.tx.execute(sa.insert(segment_memberships), values)
