"""What is stored about suppressed mail? The list of addresses, the rules, and the mails that either of them caught."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.contents.queries import load_content
from plunk_relay.db.portable import insert_if_absent
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import contents, deliveries, emails, suppression_rules, suppressions
from plunk_relay.db.types import Time
from plunk_relay.mail.address import normalize_address

Reason = Literal["BOUNCE", "COMPLAINT", "MANUAL"]
Kind = Literal["ADDRESS", "DOMAIN", "PREFIX", "SUFFIX", "WILDCARD"]
LONGEST_DETAIL = 1000
"""Characters of a detail that are kept: a reply may be longer than anybody reads."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """An entry of a project's list. Nullable columns are None; see db/tables.py."""

    project_id: str
    address: str
    reason: Reason
    detail: str | None
    email_id: str | None
    created_at: datetime


_COLUMNS = [suppressions.c[name] for name in Suppression.__dataclass_fields__]
_SELECT = sa.select(*_COLUMNS)
_INSERT = Prepared(insert_if_absent(suppressions, ["project_id", "address"]))


def suppress(
    tx: sa.Connection,
    project_id: str,
    address: str,
    *,
    reason: Reason,
    detail: str | None,
    email_id: str | None,
    now: datetime,
) -> None:
    """Put an address on a project's list; repeatable.

    The first cause stays, but BOUNCE and MANUAL, which hold all mail, replace COMPLAINT, which holds marketing alone.
    """
    cause = {"reason": reason, "detail": detail and detail[:LONGEST_DETAIL], "email_id": email_id, "created_at": now}
    named = {"project_id": project_id, "address": normalize_address(address)}
    if _INSERT.run(tx, named | cause) == 0 and reason != "COMPLAINT":
        weaker = _is(project_id, named["address"]) & (suppressions.c.reason == "COMPLAINT")
        tx.execute(sa.update(suppressions).where(weaker).values(cause))


def find_suppression(tx: sa.Connection, project_id: str, address: str) -> Suppression | None:
    """Look an address up on a project's list, in any case."""
    row = tx.execute(_SELECT.where(_is(project_id, address))).one_or_none()
    return Suppression(*row) if row else None


def find_suppressions(tx: sa.Connection, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Suppression]:
    """Look up pairs of project id and address; absent ones are missing from the result."""
    found = ((pair, find_suppression(tx, *pair)) for pair in dict.fromkeys(wanted))
    return {pair: entry for pair, entry in found if entry is not None}


def remove_suppression(tx: sa.Connection, project_id: str, address: str) -> bool:
    """Take an address off a project's list; False when it was not there."""
    return tx.execute(sa.delete(suppressions).where(_is(project_id, address))).rowcount == 1


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which entries of a list; what is None does not matter."""

    prefix: str | None = None
    """What the address begins with, in any case."""
    reason: str | None = None


def list_suppressions(
    tx: sa.Connection, project_id: str, chosen: ListFilter, *, after: Suppression | None = None, limit: int = 100
) -> list[Suppression]:
    """Return entries that fit, newest first, from behind `after` on."""
    place = sa.tuple_(suppressions.c.created_at, suppressions.c.address)
    where = _fitting(project_id, chosen)
    if after is not None:
        where.append(place < sa.tuple_(sa.literal(after.created_at, Time), sa.literal(after.address)))
    found = _SELECT.where(*where).order_by(suppressions.c.created_at.desc(), suppressions.c.address.desc()).limit(limit)
    return [Suppression(*row) for row in tx.execute(found)]


def count_suppressions(tx: sa.Connection, project_id: str, chosen: ListFilter) -> int:
    """Count entries that fit."""
    return tx.execute(sa.select(sa.func.count()).where(*_fitting(project_id, chosen))).scalar_one()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a project; it catches mail while it is on."""

    id: str
    project_id: str
    name: str
    kind: Kind
    pattern: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


_RULE_COLUMNS = tuple(Rule.__dataclass_fields__)
_SELECT_RULES = sa.select(*(suppression_rules.c[name] for name in _RULE_COLUMNS))


def list_rules(tx: sa.Connection, project_id: str) -> list[Rule]:
    """Return a project's rules, oldest first."""
    found = _SELECT_RULES.where(suppression_rules.c.project_id == project_id)
    return [Rule(*row) for row in tx.execute(found.order_by(suppression_rules.c.created_at, suppression_rules.c.id))]


def count_rules(tx: sa.Connection, project_id: str) -> int:
    """Count a project's rules."""
    where = suppression_rules.c.project_id == project_id
    return tx.execute(sa.select(sa.func.count()).select_from(suppression_rules).where(where)).scalar_one()


def insert_rule(tx: sa.Connection, rule: Rule) -> None:
    """Store a rule."""
    tx.execute(sa.insert(suppression_rules), {name: getattr(rule, name) for name in _RULE_COLUMNS})


def replace_rule(tx: sa.Connection, project_id: str, rule_id: str, values: dict[str, Any]) -> bool:
    """Set what a rule is; False when the project has no such rule."""
    return tx.execute(sa.update(suppression_rules).where(_is_rule(project_id, rule_id)).values(values)).rowcount == 1


def delete_rule(tx: sa.Connection, project_id: str, rule_id: str) -> bool:
    """Remove a rule; False when the project has no such rule."""
    return tx.execute(sa.delete(suppression_rules).where(_is_rule(project_id, rule_id))).rowcount == 1


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """A mail that was suppressed. Nullable columns are None; see db/tables.py."""

    id: str
    recipient: str
    from_address: str
    subject: str
    status: str
    error: str | None
    suppression: dict[str, Any] | None
    created_at: datetime


_CAUGHT_COLUMNS = [emails.c[name] for name in CaughtMail.__dataclass_fields__]


def list_caught(tx: sa.Connection, project_id: str, *, after: str | None = None, limit: int) -> list[CaughtMail]:
    """Return a project's suppressed mails, newest first, from behind the mail with the id `after` on."""
    where = [deliveries.c.project_id == project_id, deliveries.c.state == "SUPPRESSED"]
    if after is not None:
        known = sa.select(deliveries.c.id).where(deliveries.c.email_id == after, *where)
        where.append(deliveries.c.id < known.scalar_subquery())
    found = sa.select(*_CAUGHT_COLUMNS).select_from(deliveries.join(emails, emails.c.id == deliveries.c.email_id))
    rows = tx.execute(found.where(*where).order_by(deliveries.c.id.desc()).limit(limit))
    return [CaughtMail(*row) for row in rows]


def find_caught(tx: sa.Connection, project_id: str, email_id: str) -> tuple[CaughtMail, str | None, bytes | None] | None:
    """Look a suppressed mail up; return it with the kind and the bytes of its content, None when that is gone."""
    where = (emails.c.project_id == project_id) & (emails.c.id == email_id) & (emails.c.status == "SUPPRESSED")
    joined = emails.outerjoin(contents, contents.c.id == emails.c.content_id)
    found = sa.select(*_CAUGHT_COLUMNS, contents.c.kind, emails.c.content_id).select_from(joined).where(where)
    row = tx.execute(found).one_or_none()
    if row is None:
        return None
    data = load_content(tx, row.content_id) if row.content_id is not None else None
    return CaughtMail(*row[:-2]), row.kind, data


def _is_rule(project_id: str, rule_id: str) -> sa.ColumnElement[bool]:
    return (suppression_rules.c.project_id == project_id) & (suppression_rules.c.id == rule_id)


def _is(project_id: str, address: str) -> sa.ColumnElement[bool]:
    return (suppressions.c.project_id == project_id) & (suppressions.c.address == normalize_address(address))


def _fitting(project_id: str, chosen: ListFilter) -> list[Any]:
    where: list[Any] = [suppressions.c.project_id == project_id]
    if chosen.prefix:
        where.append(suppressions.c.address.startswith(normalize_address(chosen.prefix), autoescape=True))
    if chosen.reason is not None:
        where.append(suppressions.c.reason == chosen.reason)
    return where
