"""What contacts are stored? Their number is kept with every change: all writes to the table are here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.json_values import text_position
from plunk_relay.db.portable import insert_if_absent, insert_or_add, listed, unindexed
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import contact_counts, contacts, emails, events
from plunk_relay.db.types import Time

SortColumn = Literal["email", "createdAt"]
Direction = Literal["asc", "desc"]
_LAST_CHARACTER = "\U0010ffff"
_FEW = 5_000
"""So many addresses are looked up one by one and sorted at once."""
_RARE = 100
"""A flag is rare when fewer than one contact in so many has it."""


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
COLUMNS = tuple(contacts.c[name] for name in _COLUMNS)
"""What a `Contact` is made of, in order."""
_SELECT = sa.select(*COLUMNS)
_BY_EMAIL = Prepared(
    _SELECT.where(  # as pairs: SQLite walks over the whole project when only the address is looked for in a list
        sa.tuple_(contacts.c.email, contacts.c.project_id).in_(listed("addresses").add_columns(sa.bindparam("project_id")))
    )
)
_BY_ID = Prepared(
    _SELECT.where(contacts.c.project_id == sa.bindparam("project_id"), contacts.c.id.in_(listed("contact_ids")))
)
_INSERT = Prepared(insert_if_absent(contacts, ["project_id", "email"]))
_UPDATE = Prepared(
    sa.update(contacts)
    .where(contacts.c.project_id == sa.bindparam("of_project"), contacts.c.id == sa.bindparam("row_id"))
    .values(
        email=sa.bindparam("new_email"),
        data=sa.bindparam("new_data"),
        subscribed=sa.bindparam("new_subscribed"),
        updated_at=sa.bindparam("new_updated_at"),
    )
)
_COUNT = Prepared(insert_or_add(contact_counts, ["project_id"], ["contacts", "subscribed"]))


def find_contact(tx: sa.Connection, project_id: str, contact_id: str) -> Contact | None:
    """Look a contact up by id, inside the project."""
    found = find_contacts(tx, project_id, [contact_id])
    return found[0] if found else None


def find_contacts(tx: sa.Connection, project_id: str, contact_ids: Sequence[str]) -> list[Contact]:
    """Look contacts up by id, inside the project; absent ones are missing from the result, which has no order."""
    rows = _BY_ID.fetch(tx, {"project_id": project_id, "contact_ids": dump_json(list(contact_ids))})
    return [Contact(*row) for row in rows]


def find_any_contact(tx: sa.Connection, contact_id: str) -> Contact | None:
    """Look a contact up by its unguessable id alone: for the links in its own mail."""
    row = tx.execute(_SELECT.where(contacts.c.id == contact_id)).one_or_none()
    return Contact(*row) if row else None


def find_contacts_by_email(tx: sa.Connection, project_id: str, emails: Sequence[str]) -> dict[str, Contact]:
    """Look contacts up by normalised address; absent ones are missing from the result."""
    rows = _BY_EMAIL.fetch(tx, {"project_id": project_id, "addresses": dump_json(list(emails))})
    return {row[2]: Contact(*row) for row in rows}


def insert_contacts(tx: sa.Connection, new: Sequence[Contact]) -> None:
    """Store new contacts; their addresses must not be there yet."""
    if new:
        _INSERT.run_many(tx, [{name: getattr(contact, name) for name in _COLUMNS} for contact in new])
        _count(tx, ((contact.project_id, 1, contact.subscribed) for contact in new))


def update_contacts(tx: sa.Connection, changes: Sequence[tuple[Contact, Contact]]) -> None:
    """Store what became of contacts: pairs of a contact as it is stored, and as it shall be."""
    if changes:
        _UPDATE.run_many(tx, [_update_row(after) for _, after in changes])
        flips = [(after.project_id, 0, after.subscribed - before.subscribed) for before, after in changes]
        _count(tx, [flip for flip in flips if flip[2]])


def _update_row(contact: Contact) -> dict[str, Any]:
    return {
        "of_project": contact.project_id,
        "row_id": contact.id,
        "new_email": contact.email,
        "new_data": contact.data,
        "new_subscribed": contact.subscribed,
        "new_updated_at": contact.updated_at,
    }


def delete_contacts(tx: sa.Connection, project_id: str, contact_ids: Sequence[str]) -> int:
    """Remove contacts with all that hangs on them; returns how many there were."""
    chosen = (contacts.c.project_id == project_id) & contacts.c.id.in_(listed("contact_ids"))
    removing = sa.delete(contacts).where(chosen).returning(contacts.c.subscribed)
    removed = tx.execute(removing, _ids(contact_ids)).scalars().all()
    _count(tx, [(project_id, -1, -subscribed) for subscribed in removed])
    return len(removed)


def has_long_history(tx: sa.Connection, project_id: str, contact_ids: Sequence[str], *, limit: int) -> bool:
    """Tell whether contacts have more than `limit` events, or more mails."""
    for table in (events, emails):
        some = sa.select(table.c.id).where(_history(table, project_id)).limit(limit + 1).subquery()
        if tx.execute(sa.select(sa.func.count()).select_from(some), _ids(contact_ids)).scalar_one() > limit:
            return True
    return False


def delete_some_events(tx: sa.Connection, project_id: str, contact_ids: Sequence[str], *, limit: int) -> None:
    """Remove some events of contacts."""
    some = sa.select(events.c.id).where(_history(events, project_id)).limit(limit)
    tx.execute(sa.delete(events).where(events.c.id.in_(some)), _ids(contact_ids))


def list_some_mails(tx: sa.Connection, project_id: str, contact_ids: Sequence[str], *, limit: int) -> list[str]:
    """Return the ids of some mails of contacts."""
    some = sa.select(emails.c.id).where(_history(emails, project_id)).limit(limit)
    return list(tx.execute(some, _ids(contact_ids)).scalars())


def delete_mails(tx: sa.Connection, project_id: str, email_ids: Sequence[str]) -> None:
    """Remove mails with their deliveries and events."""
    mine = emails.c.id.in_(listed("email_ids")) & (unindexed(emails.c.project_id) == project_id)
    tx.execute(sa.delete(emails).where(mine), {"email_ids": dump_json(list(email_ids))})


def _history(table: sa.Table, project_id: str) -> sa.ColumnElement[bool]:
    return table.c.contact_id.in_(listed("contact_ids")) & (unindexed(table.c.project_id) == project_id)


def _ids(contact_ids: Sequence[str]) -> dict[str, str]:
    return {"contact_ids": dump_json(list(contact_ids))}


def _count(tx: sa.Connection, changes: Iterable[tuple[str, int, int]]) -> None:
    """Add to the numbers of projects: triples of project id, contacts, subscribed ones."""
    number: Counter[str] = Counter()
    subscribed: Counter[str] = Counter()
    for project_id, more, more_subscribed in changes:
        number[project_id] += more
        subscribed[project_id] += more_subscribed
    rows = [{"project_id": one, "contacts": number[one], "subscribed": subscribed[one]} for one in number]
    for row in rows:
        _COUNT.run(tx, row)


@dataclass(frozen=True, slots=True)
class ContactFilter:
    """Which contacts of a project; what is None does not matter."""

    search: str | None = None
    """What the address contains, in any case."""
    prefix: str | None = None
    """What the address begins with, in any case."""
    subscribed: bool | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a list of contacts: its order, and the contact it goes on behind; None: the beginning."""

    sort: SortColumn = "createdAt"
    direction: Direction = "desc"
    after: Contact | None = None


def list_contacts(
    tx: sa.Connection, project_id: str, chosen: ContactFilter, place: Place, *, limit: int = 20
) -> tuple[list[Contact], int]:
    """Return contacts that fit, in the order asked for and then by id, and how many fit in all, from the beginning on.

    Places are found in an index that holds all that is asked about; only then the rows of a page are read.
    """
    columns = _choose_columns(tx, project_id, chosen, place.sort)
    where = _fitting(project_id, chosen, columns.email)
    if place.after is not None:
        where.append(_is_behind(place, columns))
    order = [columns.email] if place.sort == "email" else [columns.created_at, contacts.c.id]  # an address is there once
    directed = [column.asc() if place.direction == "asc" else column.desc() for column in order]
    ids = tx.execute(sa.select(contacts.c.id).where(*where).order_by(*directed).limit(limit)).scalars().all()
    found = {contact.id: contact for contact in find_contacts(tx, project_id, ids)}
    total = count_contacts(tx, project_id, chosen) if place.after is None else 0
    return [found[one] for one in ids], total


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a question, of which those whose index would be the long way are out of the planner's sight.

    By the index of addresses few addresses are near together, but whether each contact is subscribed must be looked up;
    that of times holds everything, and must be read from end to end.
    """

    email: sa.ColumnElement[str] = contacts.c.email
    created_at: sa.ColumnElement[datetime] = contacts.c.created_at


def _choose_columns(tx: sa.Connection, project_id: str, chosen: ContactFilter, sort: SortColumn | None) -> _Columns:
    """Choose for a page in an order, or for a count: `sort` None."""
    if chosen.prefix and _is_narrow(tx, project_id, chosen.prefix):
        return _Columns(created_at=unindexed(contacts.c.created_at))
    if chosen.subscribed is None or sort == "createdAt":
        return _Columns()
    if chosen.search or sort is None or _is_rare(tx, project_id, chosen.subscribed):
        return _Columns(email=unindexed(contacts.c.email))
    return _Columns()


def _is_narrow(tx: sa.Connection, project_id: str, prefix: str) -> bool:
    """Tell whether few addresses begin so."""
    some = sa.select(contacts.c.email).where(*_fitting(project_id, ContactFilter(prefix=prefix))).limit(_FEW + 1)
    return tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one() <= _FEW


def _is_rare(tx: sa.Connection, project_id: str, subscribed: bool) -> bool:
    number = count_contacts(tx, project_id, ContactFilter())
    return number > _FEW and count_contacts(tx, project_id, ContactFilter(subscribed=subscribed)) * _RARE < number


def _is_behind(place: Place, columns: _Columns) -> sa.ColumnElement[bool]:
    after, ascending = place.after, place.direction == "asc"
    assert after is not None  # noqa: S101  asked for only then
    if place.sort == "email":
        return columns.email > after.email if ascending else columns.email < after.email
    here = sa.tuple_(columns.created_at, contacts.c.id)
    there = sa.tuple_(sa.literal(after.created_at, Time), sa.literal(after.id))
    return here > there if ascending else here < there


def list_ids(
    tx: sa.Connection, project_id: str, chosen: ContactFilter, *, below: str | None = None, limit: int = 100
) -> list[str]:
    """Return ids of contacts that fit, the largest first, from below `below` on."""
    where = _fitting(project_id, chosen)
    if below is not None:
        where.append(contacts.c.id < below)
    return list(tx.execute(sa.select(contacts.c.id).where(*where).order_by(contacts.c.id.desc()).limit(limit)).scalars())


def count_ids(tx: sa.Connection, project_id: str, chosen: ContactFilter, *, below: str, without: Sequence[str]) -> int:
    """Count contacts that fit, whose ids are below one, but not those of a list."""
    where = _fitting(project_id, chosen)
    others = (contacts.c.id >= below) | contacts.c.id.in_(listed("without"))
    left_out = sa.select(sa.func.count()).where(*where, others)
    counted = count_contacts(tx, project_id, chosen)
    return counted - int(tx.execute(left_out, {"without": dump_json(list(without))}).scalar_one())


def count_contacts(tx: sa.Connection, project_id: str, chosen: ContactFilter) -> int:
    """Count contacts that fit: at once when nothing is said about the address, else by a walk over the addresses."""
    if chosen.search or chosen.prefix:
        email = _choose_columns(tx, project_id, chosen, None).email
        return tx.execute(sa.select(sa.func.count()).where(*_fitting(project_id, chosen, email))).scalar_one()
    kept = sa.select(contact_counts.c.contacts, contact_counts.c.subscribed).where(contact_counts.c.project_id == project_id)
    row = tx.execute(kept).one_or_none()
    if row is None:
        return 0
    number, subscribed = int(row.contacts), int(row.subscribed)
    return {None: number, True: subscribed, False: number - subscribed}[chosen.subscribed]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring contacts of a project: those behind `after`, up to `upto`."""

    project_id: str
    after: str
    upto: str

    def where(self) -> sa.ColumnElement[bool]:
        """Return the test."""
        inside = (contacts.c.id > self.after) & (contacts.c.id <= self.upto)
        return (contacts.c.project_id == self.project_id) & inside


def find_stretch(tx: sa.Connection, project_id: str, after: str, *, limit: int) -> Stretch | None:
    """Return the next contacts, up to `limit`, in the order of their ids; None: there are none."""
    behind = (contacts.c.project_id == project_id) & (contacts.c.id > after)
    few = sa.select(contacts.c.id).where(behind).order_by(contacts.c.id).limit(limit).subquery()
    upto = tx.execute(sa.select(sa.func.max(few.c.id))).scalar_one()
    return None if upto is None else Stretch(project_id, after, upto)


def _fitting(
    project_id: str, chosen: ContactFilter, email: sa.ColumnElement[str] = contacts.c.email
) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = [contacts.c.project_id == project_id]
    if chosen.prefix:
        start = chosen.prefix.lower()
        where += [email >= start, email < start + _LAST_CHARACTER]
    if chosen.search:
        where.append(text_position(email, chosen.search.lower()) > 0)
    if chosen.subscribed is not None:
        where.append(contacts.c.subscribed.is_(chosen.subscribed))
    return where
