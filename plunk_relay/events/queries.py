"""What events are stored?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import events
from plunk_relay.ids import new_id


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record; `data` is its JSON payload or None."""

    project_id: str
    name: str
    contact_id: str | None
    email_id: str | None
    data: dict[str, Any] | None
    created_at: datetime


_INSERT = Prepared(sa.insert(events))


def record_events(tx: sa.Connection, new: Sequence[NewEvent]) -> list[str]:
    """Store events in order and return their ids; workflows find them as rows not yet processed."""
    if not new:
        return []
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "project_id": event.project_id,
            "name": event.name,
            "contact_id": event.contact_id,
            "email_id": event.email_id,
            "data": event.data,
            "dispatch_attempts": 0,
            "created_at": event.created_at,
        }
        for event in new
    ]
    _INSERT.run_many(tx, rows)
    return [str(row["id"]) for row in rows]
