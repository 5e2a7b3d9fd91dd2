"""What projects and keys are stored?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.db.tables import memberships, projects
from plunk_relay.ids import same_secret

RELAY_PROJECT_ID = "00000000-0000-7000-8000-000000000000"
"""Owns what the relay itself sends: delivery status notifications, reports, forwarded postmaster mail. No key opens it."""


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant. Keys are sealed; `actions.open_keys` decrypts them."""

    id: str
    name: str
    public_sealed: str
    secret_sealed: str
    disabled: bool
    disabled_reason: str | None
    tracking: str
    language: str
    billing_limit_transactional: int | None
    created_at: datetime
    updated_at: datetime
    billing_limit_inbound: int | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as stored: its hash for lookup, its sealed text for display."""

    hash: str
    sealed: str


_COLUMNS = [
    projects.c[name]
    for name in (
        "id",
        "name",
        "public_sealed",
        "secret_sealed",
        "disabled",
        "disabled_reason",
        "tracking",
        "language",
        "billing_limit_transactional",
        "created_at",
        "updated_at",
        "billing_limit_inbound",
    )
]
_SELECT = sa.select(*_COLUMNS)
_BY_KEY = sa.select(projects.c.id, projects.c.disabled, projects.c.secret_hash, projects.c.public_hash).where(
    (projects.c.secret_hash == sa.bindparam("hash")) | (projects.c.public_hash == sa.bindparam("hash"))
)


def insert_project(
    tx: sa.Connection, project_id: str, *, name: str, public: StoredKey, secret: StoredKey, now: datetime
) -> None:
    """Store a new, enabled project."""
    tx.execute(
        sa.insert(projects),
        {
            "id": project_id,
            "name": name,
            "public_hash": public.hash,
            "public_sealed": public.sealed,
            "secret_hash": secret.hash,
            "secret_sealed": secret.sealed,
            "disabled": False,
            "tracking": "ENABLED",
            "language": "en",
            "created_at": now,
            "updated_at": now,
        },
    )


def ensure_relay_project(tx: sa.Connection, *, now: datetime) -> None:
    """Make the relay's own project if it is not there yet."""
    if find_project(tx, RELAY_PROJECT_ID) is None:
        public, secret = StoredKey("no public key", ""), StoredKey("no secret key", "")
        insert_project(tx, RELAY_PROJECT_ID, name="Plunk Relay", public=public, secret=secret, now=now)


def find_project(tx: sa.Connection, project_id: str) -> Project | None:
    """Look a project up by id."""
    row = tx.execute(_SELECT.where(projects.c.id == project_id)).one_or_none()
    return _project(row) if row else None


def find_projects_named(tx: sa.Connection, name_or_id: str) -> list[Project]:
    """Return the projects with this id or exact name, oldest first."""
    where = ((projects.c.id == name_or_id) | (projects.c.name == name_or_id)) & (projects.c.id != RELAY_PROJECT_ID)
    return [_project(row) for row in tx.execute(_SELECT.where(where).order_by(projects.c.id).limit(100))]


def list_projects(tx: sa.Connection, *, after_id: str = RELAY_PROJECT_ID, limit: int = 1000) -> list[Project]:
    """Return projects but the relay's own, oldest first."""
    page = _SELECT.where(projects.c.id > after_id).order_by(projects.c.id).limit(limit)
    return [_project(row) for row in tx.execute(page)]


def find_key_owner(tx: sa.Connection, key_hash: str) -> tuple[str, Literal["secret", "public"], bool] | None:
    """Return (project id, kind of key, disabled) of the key with this SHA-256, or None; compared in constant time."""
    row = tx.execute(_BY_KEY, {"hash": key_hash}).one_or_none()
    if row is None:
        return None
    return row.id, "secret" if same_secret(key_hash, row.secret_hash) else "public", row.disabled


def replace_keys(tx: sa.Connection, project_id: str, *, public: StoredKey, secret: StoredKey, now: datetime) -> None:
    """Store new keys; the old ones stop working with this commit."""
    tx.execute(
        sa.update(projects)
        .where(projects.c.id == project_id)
        .values(
            public_hash=public.hash,
            public_sealed=public.sealed,
            secret_hash=secret.hash,
            secret_sealed=secret.sealed,
            updated_at=now,
        )
    )


def set_disabled(tx: sa.Connection, project_id: str, *, reason: str | None, now: datetime) -> None:
    """Disable a project for a reason, or enable it (None)."""
    values: dict[str, Any] = {"disabled": reason is not None, "disabled_reason": reason, "updated_at": now}
    tx.execute(sa.update(projects).where(projects.c.id == project_id).values(values))


def add_member(tx: sa.Connection, project_id: str, user_id: str, *, role: str, now: datetime) -> None:
    """Make a user a member."""
    tx.execute(
        sa.insert(memberships),
        {"user_id": user_id, "project_id": project_id, "role": role, "created_at": now, "updated_at": now},
    )


def find_owned_project(tx: sa.Connection, user_id: str, name: str) -> Project | None:
    """Return the user's oldest project of this name, or None."""
    join = projects.join(memberships, memberships.c.project_id == projects.c.id)
    where = (memberships.c.user_id == user_id) & (projects.c.name == name)
    row = tx.execute(sa.select(*_COLUMNS).select_from(join).where(where).order_by(projects.c.id).limit(1)).one_or_none()
    return _project(row) if row else None


def _project(row: sa.Row[Any] | Sequence[Any]) -> Project:
    return Project(*row)
