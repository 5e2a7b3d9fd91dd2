"""What is asked of fields? Which there are, how many contacts have them, and their removal.

Answers come from all contacts of a project, in stretches, so that nobody else waits. What takes long, because there are
many, is remembered for some seconds.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from plunk_relay.contacts.fields import queries
from plunk_relay.contacts.queries import ContactFilter, Stretch, count_contacts, find_stretch
from plunk_relay.errors import BadRequest
from plunk_relay.relay import Relay
from plunk_relay.usage.queries import Usage, find_field_usage

T = TypeVar("T")
FieldType = Literal["string", "number", "boolean", "date"]
STANDARD: dict[str, FieldType] = {"email": "string", "subscribed": "boolean", "createdAt": "date", "updatedAt": "date"}
MOST_FIELDS = 2000
_CUSTOM = "data."
_MANY = 20_000
_READ_AT_ONCE = 10_000
_CHANGED_AT_ONCE = 500
_REMEMBERED_SECONDS = 20.0
_FIELDS, _VALUES = "contact fields", "field values"
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,3})?Z?)?\Z")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?\Z")


@dataclass(frozen=True, slots=True)
class Field:
    """A field, and how many percent of the contacts have it."""

    name: str
    type: FieldType
    coverage: int


async def list_fields(relay: Relay, project_id: str) -> list[Field]:
    """Return the standard fields and the custom ones that any contact has, by name."""

    async def load() -> list[Field]:
        return await _load_fields(relay, project_id)

    return await _remember(relay, _FIELDS, project_id, project_id, load)


async def _load_fields(relay: Relay, project_id: str) -> list[Field]:
    contacts = await relay.db.read(count_contacts, project_id, ContactFilter())
    counts: dict[str, int] = {}
    oldest: dict[str, str] = {}
    async for stretch in _walk(relay, project_id):
        for key, count, contact_id in await relay.db.scan(queries.count_keys, stretch):
            if key in counts or len(counts) < MOST_FIELDS:
                counts[key] = counts.get(key, 0) + count
                oldest.setdefault(key, contact_id)
    fields = [Field(name, kind, 100 if contacts else 0) for name, kind in STANDARD.items()]
    for key, count in counts.items():
        kind, value = await relay.db.read(queries.find_value, project_id, oldest[key], key)
        fields.append(Field(_CUSTOM + key, _type_of(kind, value), _percent(count, contacts)))
    return sorted(fields, key=lambda field: field.name)


async def _walk(relay: Relay, project_id: str) -> AsyncIterator[Stretch]:
    """Go through the contacts of a project, in stretches."""
    after = ""
    while stretch := await relay.db.scan(find_stretch, project_id, after, limit=_READ_AT_ONCE):
        yield stretch
        after = stretch.upto


def _percent(count: int, contacts: int) -> int:
    """Return how many percent have a field, halves rounded up; contacts that come while it is counted make no 101."""
    return min(100, (200 * count + contacts) // (2 * contacts)) if contacts else 0


def _type_of(kind: str | None, value: Any) -> FieldType:
    match kind:
        case "integer" | "real":
            return "number"
        case "true" | "false":
            return "boolean"
        case "text" if _DATE.match(str(value)):
            return "date"
    return "string"


async def list_values(relay: Relay, project_id: str, field: str, *, limit: int) -> list[str | int | float | bool]:
    """Return the different values of a field, up to `limit`, in the order of their text."""
    if field == "subscribed":
        return [True, False]
    if field in STANDARD:
        return []
    key = field.removeprefix(_CUSTOM)

    async def load() -> list[str]:
        values: list[str] = []
        async for stretch in _walk(relay, project_id):
            more = await relay.db.scan(queries.list_values, stretch, key, limit=limit)
            values = sorted({*values, *more})[:limit]
        return values

    found = await _remember(relay, _VALUES, project_id, (project_id, key, limit), load)
    return [_convert(text) for text in found]


async def _remember(
    relay: Relay, kind: str, project_id: str, key: Hashable, load: Callable[[], Awaitable[list[T]]]
) -> list[T]:
    if await relay.db.read(count_contacts, project_id, ContactFilter()) < _MANY:
        return await load()
    return await relay.memory.remember(kind, key, load, seconds=_REMEMBERED_SECONDS, entries=100)


def _convert(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    if not _NUMBER.match(text) or len(text) > 15:  # more digits than a number keeps
        return text
    return float(text) if "." in text else int(text)


@dataclass(frozen=True, slots=True)
class FieldUsage:
    """Who uses a field, and how many contacts have it."""

    users: Usage
    contacts: int
    can_delete: bool


async def find_usage(relay: Relay, project_id: str, field: str) -> FieldUsage:
    """Return who uses a field; a name without `data.` that is no standard field is none."""
    users = await relay.db.read(find_field_usage, project_id, field)
    if field.startswith(_CUSTOM):
        key, having = field.removeprefix(_CUSTOM), 0
        async for stretch in _walk(relay, project_id):
            having += await relay.db.scan(queries.count_having, stretch, key)
        return FieldUsage(users, having, can_delete=bool(key) and not users)
    number = await relay.db.read(count_contacts, project_id, ContactFilter()) if field in STANDARD else 0
    return FieldUsage(users, number, can_delete=False)


async def delete_field(relay: Relay, project_id: str, field: str) -> int:
    """Take a custom field away from every contact and return how many had it; no event tells of it.

    Raises BadRequest for a field that is not custom, and for one that is used.
    """
    if not field.startswith(_CUSTOM) or field == _CUSTOM:
        raise BadRequest(f"{field} cannot be deleted: only custom fields can, named as `data.<key>`.")
    users = await relay.db.read(find_field_usage, project_id, field)
    if users:
        raise BadRequest(f"{field} is used by {users.describe()}: it cannot be deleted.")
    key, changed = field.removeprefix(_CUSTOM), 0
    async for stretch in _walk(relay, project_id):
        changed += await _remove(relay, stretch, key)
    relay.memory.forget(_FIELDS)
    relay.memory.forget(_VALUES)
    return changed


async def _remove(relay: Relay, stretch: Stretch, key: str) -> int:
    """Take a field away from the contacts of a stretch, some at a time, so that nobody waits for the writer."""
    having = await relay.db.scan(queries.list_having, stretch, key)
    after, changed = stretch.after, 0
    for upto in [*having[_CHANGED_AT_ONCE - 1 :: _CHANGED_AT_ONCE], *having[-1:]]:
        some = Stretch(stretch.project_id, after, upto)
        changed += await relay.db.write(queries.remove_field, some, key, now=relay.clock.now())
        after = upto
        await asyncio.sleep(0)
    return changed
