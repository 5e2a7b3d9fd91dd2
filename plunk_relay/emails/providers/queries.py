"""What is known about mail providers that are not normal: slowed down, paused, or reached by the smarthost?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.portable import upsert
from plunk_relay.db.tables import deliveries, provider_states

_STATE_COLUMNS = ("provider", "pace", "paused_until", "fallback_since", "probe_at", "reason", "alerted_at", "updated_at")
ALL_ADDRESSES = ""
"""Source address of a state that holds for all of ours."""


def load_provider_states(tx: sa.Connection) -> list[dict[str, Any]]:
    """Return what is not normal, by provider."""
    columns = [provider_states.c[name] for name in _STATE_COLUMNS]
    return [dict(row) for row in tx.execute(sa.select(*columns).order_by(provider_states.c.provider)).mappings()]


def store_provider_states(tx: sa.Connection, changes: Sequence[tuple[str, dict[str, Any] | None]]) -> list[None]:
    """Write the states of providers, one after the other; None deletes: all is normal."""
    save = upsert(provider_states, ["provider", "source_address"], _STATE_COLUMNS[1:])
    for provider, row in changes:
        if row is None:
            tx.execute(sa.delete(provider_states).where(provider_states.c.provider == provider))
        else:
            tx.execute(save, row | {"source_address": ALL_ADDRESSES})
    return [None] * len(changes)


def waiting_text(provider: str) -> str:
    """Return how the last reply of a delivery begins that waits for its provider: paused until ..., slowed down to ..."""
    return f"{provider} is "


def resume_provider(tx: sa.Connection, provider: str, *, now: datetime) -> int | None:
    """Forget a provider's state and make due what waits for it; return how many wait, or None when all was normal."""
    gone = tx.execute(sa.delete(provider_states).where(provider_states.c.provider == provider)).rowcount
    if not gone:
        return None
    waiting = (
        (deliveries.c.state == sa.literal_column("'QUEUED'"))
        & deliveries.c.lease_owner.is_(None)
        & deliveries.c.last_reply.startswith(waiting_text(provider), autoescape=True)
    )
    return tx.execute(sa.update(deliveries).where(waiting).values(due_at=now)).rowcount
