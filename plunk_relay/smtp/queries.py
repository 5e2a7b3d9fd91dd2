"""What do the SMTP doors store? Counters with an end, in rows that outlive a restart."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.portable import upsert
from plunk_relay.db.tables import counters


@dataclass(frozen=True, slots=True)
class Counter:
    """How often something happened in a window of time, which ends at `expires_at`."""

    name: str
    value: int
    expires_at: datetime


_UPSERT = upsert(counters, ["name"], ["value", "expires_at"])


def list_counters(tx: sa.Connection, prefix: str) -> list[Counter]:
    """Return all counters whose names begin so."""
    found = sa.select(counters.c.name, counters.c.value, counters.c.expires_at)
    return [Counter(*row) for row in tx.execute(found.where(counters.c.name.startswith(prefix, autoescape=True)))]


def store_counters(tx: sa.Connection, stored: Sequence[Counter], deleted: Sequence[str]) -> None:
    """Write some counters and remove others."""
    if stored:
        rows = [{"name": one.name, "value": one.value, "expires_at": one.expires_at} for one in stored]
        tx.execute(_UPSERT, rows)
    if deleted:
        tx.execute(sa.delete(counters).where(counters.c.name == sa.bindparam("gone")), [{"gone": n} for n in deleted])
