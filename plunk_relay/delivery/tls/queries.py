"""What is stored about TLS to other servers? The MTA-STS policies in force, and how the sessions of a day ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from plunk_relay.db.portable import upsert
from plunk_relay.db.tables import mta_sts_policies, tls_results
from plunk_relay.mail.tls_report import SessionCount

_KEYS = ["day", "domain", "kind", "result", "sending_address", "mx_host", "receiving_address", "policy"]


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """One domain's row; see db/tables.py."""

    domain: str
    policy_id: str
    policy: str | None
    fetched_at: datetime
    expires_at: datetime


def list_policies(tx: sa.Connection, *, now: datetime) -> list[StoredPolicy]:
    """Return the policies in force."""
    columns = [mta_sts_policies.c[name] for name in ("domain", "policy_id", "policy", "fetched_at", "expires_at")]
    return [StoredPolicy(*row) for row in tx.execute(sa.select(*columns).where(mta_sts_policies.c.expires_at > now))]


def store_policy(tx: sa.Connection, stored: StoredPolicy) -> None:
    """Write a policy in the place of the domain's former one."""
    values = {
        "domain": stored.domain,
        "policy_id": stored.policy_id,
        "policy": stored.policy,
        "fetched_at": stored.fetched_at,
        "expires_at": stored.expires_at,
    }
    tx.execute(upsert(mta_sts_policies, ["domain"], ["policy_id", "policy", "fetched_at", "expires_at"]), values)


def delete_expired_policies(tx: sa.Connection, *, now: datetime) -> int:
    """Remove what is in force no longer; return how many."""
    return tx.execute(sa.delete(mta_sts_policies).where(mta_sts_policies.c.expires_at <= now)).rowcount


def add_results(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Add counted sessions to what is stored of the same kind."""
    statement = insert(tls_results)
    total = tls_results.c.sessions + statement.excluded.sessions
    tx.execute(statement.on_conflict_do_update(index_elements=_KEYS, set_={"sessions": total}), rows)


def list_reportable(tx: sa.Connection, *, before: str, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
    """Return the next pairs of day and domain that have results of days before `before`."""
    day, domain = tls_results.c.day, tls_results.c.domain
    found = (
        sa.select(day, domain)
        .where(day < before, sa.tuple_(day, domain) > sa.tuple_(*after))
        .distinct()
        .order_by(day, domain)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in tx.execute(found)]


def list_counts(tx: sa.Connection, *, day: str, domain: str) -> list[SessionCount]:
    """Return the counts of one day and domain, in an order that does not change."""
    names = ("kind", "policy", "result", "sending_address", "mx_host", "receiving_address", "sessions")
    columns = [tls_results.c[name] for name in names]
    where = (tls_results.c.day == day) & (tls_results.c.domain == domain)
    return [SessionCount(*row) for row in tx.execute(sa.select(*columns).where(where).order_by(*columns[:-1]))]


def delete_counts(tx: sa.Connection, pairs: Sequence[tuple[str, str]]) -> None:
    """Remove the counts of days and domains that have been reported, or are not to be."""
    for day, domain in pairs:
        tx.execute(sa.delete(tls_results).where(tls_results.c.day == day, tls_results.c.domain == domain))


def delete_old_counts(tx: sa.Connection, *, before: str) -> int:
    """Remove the counts of days too long ago to be reported; return how many."""
    return tx.execute(sa.delete(tls_results).where(tls_results.c.day < before)).rowcount
