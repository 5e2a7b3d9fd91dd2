"""What contacts are stored?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import insert_if_absent, listed
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

    @property
    def locale(self) -> str | None:
        """The contact's own language, such as `de-AT`; None: the project's counts."""
        locale = (self.data or {}).get("locale")
        return locale if isinstance(locale, str) else None


_COLUMNS = ("id", "project_id", "email", "data", "subscribed", "created_at", "updated_at")
_SELECT = sa.select(*(contacts.c[name] for name in _COLUMNS))
_BY_EMAIL = Prepared(
    _SELECT.where(contacts.c.project_id == sa.bindparam("project_id"), contacts.c.email.in_(listed("addresses")))
)
_INSERT = Prepared(insert_if_absent(contacts, ["project_id", "email"]))


def find_contact(tx: sa.Connection, project_id: str, contact_id: str) -> Contact | None:
    """Look a contact up by id, inside the project."""
    row = tx.execute(_SELECT.where(contacts.c.project_id == project_id, contacts.c.id == contact_id)).one_or_none()
    return Contact(*row) if row else None


def find_any_contact(tx: sa.Connection, contact_id: str) -> Contact | None:
    """Look a contact up by its unguessable id alone: for the links in its own mail."""
    row = tx.execute(_SELECT.where(contacts.c.id == contact_id)).one_or_none()
    return Contact(*row) if row else None


def find_contacts_by_email(tx: sa.Connection, project_id: str, emails: Sequence[str]) -> dict[str, Contact]:
    """Look contacts up by normalised address; absent ones are missing from the result."""
    rows = _BY_EMAIL.fetch(tx, {"project_id": project_id, "addresses": dump_json(list(emails))})
    return {row[2]: Contact(*row) for row in rows}


def insert_contact(tx: sa.Connection, contact: Contact) -> bool:
    """Store a new contact; False when the address is there already."""
    row = {name: getattr(contact, name) for name in _COLUMNS}
    return _INSERT.run(tx, row) == 1


def update_contact(
    tx: sa.Connection, contact_id: str, *, data: dict[str, Any] | None, subscribed: bool, now: datetime
) -> None:
    """Replace the custom fields and the subscription."""
    values = {"data": data, "subscribed": subscribed, "updated_at": now}
    tx.execute(sa.update(contacts).where(contacts.c.id == contact_id).values(values))
