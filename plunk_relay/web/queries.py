"""What does the toolkit store? Idempotency keys and the log of requests."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import insert_if_absent, listed
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import api_requests, idempotency_keys, projects
from plunk_relay.web.endpoint import KeyHold


@dataclass(frozen=True, slots=True)
class StoredClaim:
    """A request's hold on an Idempotency-Key; `status_code` is None while it runs."""

    key: str
    request_id: str
    method: str
    path: str
    status_code: int | None
    created_at: datetime


_PROJECTS = Prepared(sa.select(projects.c.id).where(projects.c.id.in_(listed("project_ids"))))
_INSERT_REQUEST = Prepared(sa.insert(api_requests))
_INSERT_KEY = insert_if_absent(idempotency_keys, ["project_id", "key"])
_COLUMNS = [idempotency_keys.c[name] for name in StoredClaim.__dataclass_fields__]


def claim_key(tx: sa.Connection, project_id: str, claim: StoredClaim, *, expires_at: datetime) -> StoredClaim | None:
    """Claim a key; return None on success, else who has it. An expired claim counts as absent."""
    mine = (idempotency_keys.c.project_id == project_id) & (idempotency_keys.c.key == claim.key)
    tx.execute(sa.delete(idempotency_keys).where(mine, idempotency_keys.c.expires_at <= claim.created_at))
    row = {name: getattr(claim, name) for name in StoredClaim.__dataclass_fields__}
    if tx.execute(_INSERT_KEY, row | {"project_id": project_id, "expires_at": expires_at}).rowcount == 1:
        return None
    return StoredClaim(*tx.execute(sa.select(*_COLUMNS).where(mine)).one())


def settle_key(tx: sa.Connection, hold: KeyHold, status_code: int) -> None:
    """Note the answer of the claiming request."""
    tx.execute(sa.update(idempotency_keys).where(_held(hold)).values(status_code=status_code))


def release_key(tx: sa.Connection, hold: KeyHold, _status_code: int) -> None:
    """Forget the claim of a request that was refused, unless its effect was stored with the key."""
    tx.execute(sa.delete(idempotency_keys).where(_held(hold), idempotency_keys.c.status_code.is_(None)))


def release_unsettled(tx: sa.Connection) -> None:
    """Forget every claim without an answer."""
    tx.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.status_code.is_(None)))


def delete_expired_keys(tx: sa.Connection, *, now: datetime) -> int:
    """Remove keys whose time is over; return how many."""
    return tx.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.expires_at <= now)).rowcount


def delete_old_requests(tx: sa.Connection, *, before: datetime, limit: int = 1000) -> int:
    """Remove those of the oldest log lines that are from before a moment; return how many. Ids are ordered by time."""
    oldest = sa.select(api_requests.c.id).order_by(api_requests.c.id).limit(limit)
    where = api_requests.c.id.in_(oldest) & (api_requests.c.created_at < before)
    return tx.execute(sa.delete(api_requests).where(where)).rowcount


def insert_requests(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Store a batch of log lines; those of a project that was deleted meanwhile are nobody's."""
    wanted = {row["project_id"] for row in rows}
    there = {row[0] for row in _PROJECTS.fetch(tx, {"project_ids": dump_json(sorted(wanted - {None}))})}
    kept = [row if row["project_id"] in there else row | {"project_id": None} for row in rows]
    _INSERT_REQUEST.run_many(tx, kept)


def _held(hold: KeyHold) -> sa.ColumnElement[bool]:
    return (
        (idempotency_keys.c.project_id == hold.project_id)
        & (idempotency_keys.c.key == hold.key)
        & (idempotency_keys.c.request_id == hold.request_id)
    )
