"""What domains and DKIM keys are stored?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.tables import campaigns, dkim_keys, domains, templates


@dataclass(frozen=True, slots=True)
class Domain:
    """A sending domain of one project. `records` is the last verdict of each DNS record by purpose, or None."""

    id: str
    project_id: str
    domain: str
    verified: bool
    trusted: bool
    status: str
    records: dict[str, Any] | None
    checked_at: datetime | None
    created_at: datetime
    updated_at: datetime
    receiving: bool = False
    """Mail to it is accepted at the inbound door."""


@dataclass(frozen=True, slots=True)
class StoredDkimKey:
    """A key pair of a domain; the private half is sealed."""

    id: str
    domain_id: str
    selector: str
    algorithm: str
    private_sealed: str
    public_record: str
    created_at: datetime


_COLUMNS = tuple(Domain.__dataclass_fields__)
_KEY_COLUMNS = tuple(StoredDkimKey.__dataclass_fields__)
_SELECT = sa.select(*(domains.c[name] for name in _COLUMNS))
_SELECT_KEYS = sa.select(*(dkim_keys.c[name] for name in _KEY_COLUMNS))


def insert_domain(tx: sa.Connection, domain: Domain, keys: Sequence[StoredDkimKey]) -> None:
    """Store a domain with its keys."""
    tx.execute(sa.insert(domains), {name: getattr(domain, name) for name in _COLUMNS})
    insert_keys(tx, keys)


def insert_keys(tx: sa.Connection, keys: Sequence[StoredDkimKey]) -> None:
    """Store keys."""
    tx.execute(sa.insert(dkim_keys), [{name: getattr(key, name) for name in _KEY_COLUMNS} for key in keys])


def find_domain(tx: sa.Connection, project_id: str, domain_id: str) -> Domain | None:
    """Look a domain up by id, inside the project."""
    return _one(tx, _SELECT.where(domains.c.project_id == project_id, domains.c.id == domain_id))


def find_domain_named(tx: sa.Connection, name: str) -> Domain | None:
    """Look a domain up by name in the whole relay."""
    return _one(tx, _SELECT.where(domains.c.domain == name))


def list_domains(tx: sa.Connection, project_id: str | None = None, *, limit: int = 1000) -> list[Domain]:
    """Return the domains of a project, or of all, newest first."""
    chosen = _SELECT if project_id is None else _SELECT.where(domains.c.project_id == project_id)
    return [Domain(*row) for row in tx.execute(chosen.order_by(domains.c.id.desc()).limit(limit))]


def list_local_names(tx: sa.Connection) -> list[tuple[str, bool, bool]]:
    """Return of each verified domain that gets mail here: its name, whether it receives, whether its bounces come here."""
    bounces = sa.func.coalesce(domains.c.records["return-path"].as_string() == "Success", sa.false())
    found = sa.select(domains.c.domain, domains.c.receiving, bounces).where(domains.c.verified)
    rows = tx.execute(found.where(domains.c.receiving | bounces))
    return [(name, bool(receiving), bool(returns)) for name, receiving, returns in rows]


def list_stale(tx: sa.Connection, *, checked_before: datetime, limit: int) -> list[Domain]:
    """Return domains not looked up since a moment, the longest waiting first; trusted ones are never looked up."""
    stale = (domains.c.checked_at.is_(None) | (domains.c.checked_at < checked_before)) & ~domains.c.trusted
    return [Domain(*row) for row in tx.execute(_SELECT.where(stale).order_by(domains.c.checked_at).limit(limit))]


def list_keys(tx: sa.Connection, domain_id: str) -> list[StoredDkimKey]:
    """Return the keys in use, oldest first."""
    where = (dkim_keys.c.domain_id == domain_id) & dkim_keys.c.retired_at.is_(None)
    return [StoredDkimKey(*row) for row in tx.execute(_SELECT_KEYS.where(where).order_by(dkim_keys.c.id))]


def set_verdict(
    tx: sa.Connection, domain_id: str, *, verified: bool, status: str, records: dict[str, Any], now: datetime
) -> None:
    """Store what the DNS said."""
    values = {"verified": verified, "status": status, "records": records, "checked_at": now, "updated_at": now}
    tx.execute(sa.update(domains).where(domains.c.id == domain_id).values(values))


def set_trusted(tx: sa.Connection, domain_id: str, *, now: datetime) -> None:
    """Count a domain as verified by the operator's word."""
    values = {"verified": True, "trusted": True, "status": "Success", "updated_at": now}
    tx.execute(sa.update(domains).where(domains.c.id == domain_id).values(values))


def set_receiving(tx: sa.Connection, domain_id: str, *, receiving: bool, now: datetime) -> None:
    """Switch receiving on or off."""
    tx.execute(sa.update(domains).where(domains.c.id == domain_id).values(receiving=receiving, updated_at=now))


def retire_keys(tx: sa.Connection, keys: Sequence[StoredDkimKey], *, now: datetime) -> None:
    """Stop using keys."""
    mine = dkim_keys.c.id.in_([key.id for key in keys])
    tx.execute(sa.update(dkim_keys).where(mine).values(retired_at=now))


def delete_domain(tx: sa.Connection, domain_id: str) -> None:
    """Remove a domain and its keys."""
    tx.execute(sa.delete(domains).where(domains.c.id == domain_id))


def find_users_of_domain(tx: sa.Connection, project_id: str, name: str) -> list[str]:
    """Return the names of templates and unfinished campaigns that send from the domain."""
    template = sa.select(templates.c.name).where(
        templates.c.project_id == project_id, templates.c.from_address.endswith(f"@{name}", autoescape=True)
    )
    campaign = sa.select(campaigns.c.name).where(
        campaigns.c.project_id == project_id,
        campaigns.c.status.in_(["DRAFT", "SCHEDULED", "SENDING"]),
        campaigns.c.from_address.endswith(f"@{name}", autoescape=True),
    )
    return list(tx.execute(sa.union_all(template, campaign).limit(20)).scalars())


def _one(tx: sa.Connection, statement: sa.Select[Any]) -> Domain | None:
    row = tx.execute(statement).one_or_none()
    return Domain(*row) if row else None
