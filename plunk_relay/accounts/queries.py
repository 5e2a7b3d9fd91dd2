"""What accounts are stored?"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.tables import memberships, projects, users
from plunk_relay.web.access import Membership


@dataclass(frozen=True, slots=True)
class User:
    """A person. `password_hash` is argon2id, or None for accounts of another sign-in service."""

    id: str
    email: str
    password_hash: str | None
    type: str
    email_verified: bool
    created_at: datetime


_SELECT = sa.select(
    users.c.id, users.c.email, users.c.password_hash, users.c.type, users.c.email_verified, users.c.created_at
)


def insert_user(tx: sa.Connection, user: User) -> None:
    """Store a new account."""
    tx.execute(
        sa.insert(users),
        {
            "id": user.id,
            "email": user.email,
            "password_hash": user.password_hash,
            "type": user.type,
            "email_verified": user.email_verified,
            "created_at": user.created_at,
            "updated_at": user.created_at,
        },
    )


def find_user_by_email(tx: sa.Connection, email: str) -> User | None:
    """Look an account up by its lower-cased address."""
    row = tx.execute(_SELECT.where(users.c.email == email)).one_or_none()
    return User(*row) if row else None


def find_user(tx: sa.Connection, user_id: str) -> User | None:
    """Look an account up by id."""
    row = tx.execute(_SELECT.where(users.c.id == user_id)).one_or_none()
    return User(*row) if row else None


def find_membership(tx: sa.Connection, user_id: str, project_id: str) -> Membership | None:
    """Look up what a person is in a project."""
    joined = memberships.join(projects, projects.c.id == memberships.c.project_id)
    of_both = (memberships.c.user_id == user_id) & (memberships.c.project_id == project_id)
    found = sa.select(memberships.c.role, projects.c.disabled).select_from(joined).where(of_both)
    row = tx.execute(found).one_or_none()
    return Membership(*row) if row else None


def list_users(tx: sa.Connection, *, limit: int = 1000) -> list[User]:
    """Return accounts, oldest first."""
    return [User(*row) for row in tx.execute(_SELECT.order_by(users.c.id).limit(limit))]


def set_password(tx: sa.Connection, user_id: str, password_hash: str, *, now: datetime) -> None:
    """Replace the password."""
    values = {"password_hash": password_hash, "updated_at": now}
    tx.execute(sa.update(users).where(users.c.id == user_id).values(values))
