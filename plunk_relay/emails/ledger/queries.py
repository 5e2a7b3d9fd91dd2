"""What does the ledger say?

`accepted` counts mails, the states count deliveries: rows of two tables, updated apart after acceptance, so that a lost,
doubled or half-recorded outcome shows as a difference.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from plunk_relay.db.tables import deliveries, emails

LEDGER_STATES = ("DELIVERED", "BOUNCED", "EXPIRED", "SUPPRESSED", "CANCELLED", "FAILED", "HELD", "QUEUED")
_ACCEPTED = ("SENT", "DELIVERED", "OPENED", "CLICKED", "BOUNCED", "COMPLAINED")
_GIVEN_UP = ("FAILED", "BOUNCED", "COMPLAINED")  # an attempt without a reply may have delivered it: a report may follow
_FITTING = {
    "DELIVERED": _ACCEPTED,
    "BOUNCED": ("BOUNCED", "COMPLAINED", "FAILED"),
    "EXPIRED": _GIVEN_UP,
    "SUPPRESSED": ("SUPPRESSED", "BOUNCED", "COMPLAINED"),
    "CANCELLED": _GIVEN_UP,
    "FAILED": _GIVEN_UP,
    "HELD": ("PENDING", "SENDING"),
    "QUEUED": ("PENDING", "SENDING", "OPENED", "CLICKED"),
}


@dataclass(frozen=True, slots=True)
class Imbalance:
    """A mail whose two rows disagree; `state` is None when it has no delivery."""

    email_id: str
    delivery_id: str | None
    status: str
    state: str | None


def read_ledger(tx: sa.Connection) -> dict[str, int]:
    """Return `accepted` and the count of each state, lower-cased."""
    outgoing = sa.select(sa.func.count()).select_from(emails).where(emails.c.source_type != "INBOUND")
    by_state = sa.select(deliveries.c.state, sa.func.count()).group_by(deliveries.c.state)
    counts = {row[0]: row[1] for row in tx.execute(by_state)}
    return {"accepted": tx.execute(outgoing).scalar_one()} | {s.lower(): counts.get(s, 0) for s in LEDGER_STATES}


def is_balanced(ledger: dict[str, int]) -> bool:
    """Tell whether accepted equals the sum of the rest."""
    return ledger["accepted"] == sum(count for state, count in ledger.items() if state != "accepted")


def find_imbalances(tx: sa.Connection, *, limit: int = 100) -> list[Imbalance]:
    """Return mails without a delivery, or whose status does not fit the delivery's state."""
    fits = sa.or_(
        *((deliveries.c.state == state) & emails.c.status.in_(list(statuses)) for state, statuses in _FITTING.items())
    )
    join = emails.outerjoin(deliveries, deliveries.c.email_id == emails.c.id)
    found = (
        sa.select(emails.c.id, deliveries.c.id, emails.c.status, deliveries.c.state)
        .select_from(join)
        .where(emails.c.source_type != "INBOUND", deliveries.c.id.is_(None) | ~fits)
        .limit(limit)
    )
    return [Imbalance(*row) for row in tx.execute(found)]
