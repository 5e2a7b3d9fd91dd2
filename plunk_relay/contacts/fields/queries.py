"""Which custom fields do contacts have? Asked of a stretch of them at a time: there may be a million."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.contacts.queries import COLUMNS, Contact, Stretch, update_contacts
from plunk_relay.db.json_values import is_plain_key, json_keys, json_kind, json_text, json_without
from plunk_relay.db.tables import contacts


def count_keys(tx: sa.Connection, stretch: Stretch) -> list[tuple[str, int, str]]:
    """Return each key with how many contacts have it, and the id of the oldest of them."""
    key = json_keys(contacts.c.data)
    found = sa.select(key.c.key, sa.func.count(), sa.func.min(contacts.c.id)).select_from(contacts).join(key, sa.true())
    rows = tx.execute(found.where(stretch.where(), contacts.c.data.is_not(None)).group_by(key.c.key))
    return [(row[0], row[1], row[2]) for row in rows]


def find_value(tx: sa.Connection, project_id: str, contact_id: str, key: str) -> tuple[str | None, Any]:
    """Return the kind of a contact's field, and its value where that is text."""
    found = sa.select(json_kind(contacts.c.data, [key]), json_text(contacts.c.data, [key]))
    row = tx.execute(found.where(contacts.c.project_id == project_id, contacts.c.id == contact_id)).one_or_none()
    return (row[0], row[1]) if row else (None, None)


def list_values(tx: sa.Connection, stretch: Stretch, key: str, *, limit: int) -> list[str]:
    """Return the different values of a field as text, in order; no lists, no objects, no empty text."""
    kind, text = json_kind(contacts.c.data, [key]), json_text(contacts.c.data, [key])
    each = sa.select(kind.label("kind"), text.label("text")).where(stretch.where()).distinct().subquery()
    shown = sa.case((each.c.kind.in_(("true", "false")), each.c.kind), else_=sa.cast(each.c.text, sa.Text)).label("shown")
    plain = each.c.kind.in_(("text", "integer", "real", "true", "false"))
    found = sa.select(shown).distinct().where(plain, shown != "")
    return list(tx.execute(found.order_by(shown).limit(limit)).scalars())


def list_having(tx: sa.Connection, stretch: Stretch, key: str) -> list[str]:
    """Return the ids of the contacts that have a field, in order."""
    having = sa.select(contacts.c.id).where(_has(stretch, key)).order_by(contacts.c.id)
    return list(tx.execute(having).scalars())


def count_having(tx: sa.Connection, stretch: Stretch, key: str) -> int:
    """Count the contacts that have a field."""
    return tx.execute(sa.select(sa.func.count()).select_from(contacts).where(_has(stretch, key))).scalar_one()


def _has(stretch: Stretch, key: str) -> sa.ColumnElement[bool]:
    return stretch.where() & json_kind(contacts.c.data, [key]).is_not(None)


def remove_field(tx: sa.Connection, stretch: Stretch, key: str, *, now: datetime) -> int:
    """Take a field away from the contacts of a stretch; returns how many had it."""
    has = _has(stretch, key)
    if is_plain_key(key):
        less = {"data": json_without(contacts.c.data, key), "updated_at": now}
        return tx.execute(sa.update(contacts).where(has).values(less)).rowcount
    rows: Sequence[Any] = tx.execute(sa.select(*COLUMNS).where(has)).all()
    changes = []
    for row in rows:
        before = Contact(*row)
        rest = {name: value for name, value in (before.data or {}).items() if name != key} or None
        changes.append((before, replace(before, data=rest, updated_at=now)))
    update_contacts(tx, changes)
    return len(changes)
