"""What contacts are stored?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.portable import insert_if_absent
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import contacts


@dataclass(frozen=True, slots=True)
class Contact:
    """A recipient of one project; `data` is None when there are no custom fields."""

    id: str
    project_id: str
    email: str
    data: dict[str, Any] | None
    subscribed: bool
    created_at: datetime
    updated_at: datetime


_COLUMNS = ("id", "project_id", "email", "data", "subscribed", "created_at", "updated_at")
_SELECT = sa.select(*(contacts.c[name] for name in _COLUMNS))
_BY_EMAIL = _SELECT.where(contacts.c.project_id == sa.bindparam("project_id"), contacts.c.email == sa.bindparam("address"))
_INSERT = Prepared(insert_if_absent(contacts, ["project_id", "email"]))


def find_contact(tx: sa.Connection, project_id: str, contact_id: str) -> Contact | None:
    """Look a contact up by id, inside the project."""
    row = tx.execute(_SELECT.where(contacts.c.project_id == project_id, contacts.c.id == contact_id)).one_or_none()
    return Contact(*row) if row else None


def find_any_contact(tx: sa.Connection, contact_id: str) -> Contact | None:
    """Look a contact up by its unguessable id alone: for the links in its own mail."""
    row = tx.execute(_SELECT.where(contacts.c.id == contact_id)).one_or_none()
    return Contact(*row) if row else None


def find_contact_by_email(tx: sa.Connection, project_id: str, email: str) -> Contact | None:
    """Look a contact up by its normalised address."""
    row = tx.execute(_BY_EMAIL, {"project_id": project_id, "address": email}).one_or_none()
    return Contact(*row) if row else None


def find_contacts_by_email(tx: sa.Connection, project_id: str, emails: Sequence[str]) -> dict[str, Contact]:
    """Look several contacts up by normalised address; absent ones are missing from the result."""
    found: dict[str, Contact] = {}
    for start in range(0, len(emails), 500):
        chunk = list(emails[start : start + 500])
        where = (contacts.c.project_id == project_id) & contacts.c.email.in_(chunk)
        found |= {row.email: Contact(*row) for row in tx.execute(_SELECT.where(where))}
    return found


def insert_contact(tx: sa.Connection, contact: Contact) -> bool:
    """Store a new contact; False when the address is there already."""
    row = {name: getattr(contact, name) for name in _COLUMNS}
    return bool(_INSERT.run(tx, row).rowcount == 1)


def update_contact(
    tx: sa.Connection, contact_id: str, *, data: dict[str, Any] | None, subscribed: bool, now: datetime
) -> None:
    """Replace the custom fields and the subscription."""
    values = {"data": data, "subscribed": subscribed, "updated_at": now}
    tx.execute(sa.update(contacts).where(contacts.c.id == contact_id).values(values))
