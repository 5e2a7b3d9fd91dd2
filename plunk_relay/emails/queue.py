"""What is in the queue, and whose turn is it?

A delivery is QUEUED until it is final: DELIVERED, BOUNCED, EXPIRED, SUPPRESSED, CANCELLED or FAILED; an operator may put
it on HELD. `due_at` says when it may be tried; a claim moves it to the end of the lease, so a claimed row whose worker
died is simply due again. Finished rows stay: they are the ledger.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import insert_if_absent, listed
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import attempts, captured, contents, deliveries, emails, suppressions
from plunk_relay.emails.queries import EMAIL_COLUMNS, Email

FINAL_STATES = ("DELIVERED", "BOUNCED", "EXPIRED", "SUPPRESSED", "CANCELLED", "FAILED")
INLINE_CONTENT_BYTES = 65536
"""Contents up to this size are read with the claim; larger ones one by one when their turn comes."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in the hands of a worker."""

    id: str
    project_id: str
    priority: int
    sender: str
    recipient: str
    domain: str
    attempts: int
    dot_sent_at: datetime | None
    unknown_outcomes: int
    never_twice: bool
    expires_at: datetime
    created_at: datetime
    tls_wish: str | None
    """REQUIRED, OPTIONAL, or None; see db/tables.py."""
    notify: bool
    delay_notified_at: datetime | None
    last_address: str | None
    suppressed: str | None
    """Why the recipient is on the project's suppression list; None: it is not, or its address is not ASCII.

    SQLite lower-cases ASCII alone; delivery/suppression.py looks the others up.
    """
    email: Email
    kind: str | None
    """MIME or HTML; None when the content is gone."""
    content: bytes | None
    """The content when it is small; None: read it."""


_INSERT = Prepared(sa.insert(deliveries))
_QUEUED = deliveries.c.state == sa.literal_column("'QUEUED'")  # the index of what is due holds these only
_FIRST_TURN = (
    sa.select(deliveries.c.priority, deliveries.c.project_id)
    .where(_QUEUED)
    .order_by(deliveries.c.priority, deliveries.c.project_id)
    .limit(1)
)
# two ranges: SQLite reads through every row of the last turn when asked for (priority, project_id) > (?, ?)
_NEXT_PROJECT = Prepared(
    _FIRST_TURN.where(
        deliveries.c.priority == sa.bindparam("after_priority"), deliveries.c.project_id > sa.bindparam("after_project")
    )
)
_NEXT_PRIORITY = Prepared(_FIRST_TURN.where(deliveries.c.priority > sa.bindparam("after_priority")))
_DUE_OF_TURN = (
    sa.select(deliveries.c.id)
    .where(
        _QUEUED,
        deliveries.c.priority == sa.bindparam("turn_priority"),
        deliveries.c.project_id == sa.bindparam("turn_project"),
        deliveries.c.due_at <= sa.bindparam("now"),
        deliveries.c.domain.not_in(listed("busy")),
    )
    .order_by(deliveries.c.due_at)
    .limit(sa.bindparam("most"))
)
_LEASE_DUE = Prepared(
    sa.update(deliveries)
    .where(deliveries.c.id.in_(_DUE_OF_TURN))
    .values(due_at=sa.bindparam("lease_until"), lease_owner=sa.bindparam("owner"))
    .returning(deliveries.c.id)
)
_INLINE = sa.case((contents.c.size <= INLINE_CONTENT_BYTES, contents.c.data), else_=None)
_CLAIMED = Prepared(
    sa.select(
        deliveries.c.id,
        deliveries.c.project_id,
        deliveries.c.priority,
        deliveries.c.sender,
        deliveries.c.recipient,
        deliveries.c.domain,
        deliveries.c.attempts,
        deliveries.c.dot_sent_at,
        deliveries.c.unknown_outcomes,
        deliveries.c.never_twice,
        deliveries.c.expires_at,
        deliveries.c.created_at,
        deliveries.c.tls_wish,
        deliveries.c.notify,
        deliveries.c.delay_notified_at,
        deliveries.c.last_address,
        suppressions.c.reason.label("suppressed"),
        contents.c.kind,
        _INLINE.label("content"),
        *(column.label(f"email_{column.name}") for column in EMAIL_COLUMNS),
    )
    .select_from(
        deliveries.join(emails, emails.c.id == deliveries.c.email_id)
        .outerjoin(contents, contents.c.id == emails.c.content_id)
        .outerjoin(  # by where the mail goes: the address of its contact may be another one by now
            suppressions,
            (suppressions.c.project_id == deliveries.c.project_id)
            & (suppressions.c.address == sa.func.lower(deliveries.c.recipient)),
        )
    )
    .where(deliveries.c.id.in_(listed("ids")))
    .order_by(deliveries.c.priority, deliveries.c.id)
)
_SENDING = Prepared(
    sa.update(emails)
    .where(
        emails.c.id.in_(sa.select(deliveries.c.email_id).where(deliveries.c.id.in_(listed("ids")))),
        emails.c.status == "PENDING",
    )
    .values(status="SENDING")
)
_THERE = Prepared(sa.select(deliveries.c.id).where(deliveries.c.id.in_(listed("delivery_ids"))))
_DOT = Prepared(
    sa.update(deliveries)
    .where(deliveries.c.id == sa.bindparam("row_id"))
    .values(dot_sent_at=sa.bindparam("moment"), last_address=sa.bindparam("peer_address"))
)
_NO_DOT = Prepared(sa.update(deliveries).where(deliveries.c.id == sa.bindparam("row_id")).values(dot_sent_at=None))
_OUTCOME = Prepared(
    sa.update(deliveries)
    .where(deliveries.c.id == sa.bindparam("row_id"), _QUEUED)
    .values(
        state=sa.bindparam("new_state"),
        due_at=sa.bindparam("new_due_at"),
        lease_owner=None,
        dot_sent_at=None,
        last_address=sa.bindparam("peer_address"),
        attempts=deliveries.c.attempts + sa.bindparam("counted"),
        unknown_outcomes=deliveries.c.unknown_outcomes + sa.bindparam("unknown"),
        last_reply=sa.bindparam("reply"),
        finished_at=sa.bindparam("new_finished_at"),
    )
)
_INSERT_ATTEMPT = Prepared(sa.insert(attempts))


def insert_deliveries(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Put deliveries into the queue; `actions.queue_mails` makes the rows."""
    _INSERT.run_many(tx, rows)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker asks for: at most `limit` due deliveries, none to the `busy` domains or of the `busy_turns`."""

    owner: str
    now: datetime
    lease_until: datetime
    limit: int
    busy: Collection[str] = ()
    busy_turns: Collection[tuple[int, str]] = ()
    """Pairs of priority and project that have enough in the worker's hands."""
    after_project: str = ""
    """The project that had the last turn: within a priority the next one is first."""


def claim_due(tx: sa.Connection, claim: Claim) -> list[Claimed]:
    """Lease due deliveries to a worker: by priority; within a priority projects take turns; within a project by time."""
    ids: list[str] = []
    for priority, project_ids in _turns(tx).items():
        waiting = _rotate([p for p in project_ids if (priority, p) not in claim.busy_turns], claim.after_project)
        ids += _share(tx, claim, priority, waiting, claim.limit - len(ids))
        if len(ids) >= claim.limit:
            break
    if not ids:
        return []
    listed_ids = {"ids": dump_json(ids)}
    _SENDING.run(tx, listed_ids)
    return [_claimed(row) for row in _CLAIMED.fetch(tx, listed_ids)]


def _turns(tx: sa.Connection) -> dict[int, list[str]]:
    """Step through the index from one (priority, project) to the next; cost grows with projects, not with mails."""
    turns: dict[int, list[str]] = {}
    at = {"after_priority": -1, "after_project": ""}
    while found := _NEXT_PROJECT.fetch(tx, at) or _NEXT_PRIORITY.fetch(tx, at):
        [[priority, project_id]] = found
        turns.setdefault(priority, []).append(project_id)
        at = {"after_priority": priority, "after_project": project_id}
    return turns


def _rotate(project_ids: list[str], after: str) -> list[str]:
    return [p for p in project_ids if p > after] + [p for p in project_ids if p <= after]


def _share(tx: sa.Connection, claim: Claim, priority: int, waiting: list[str], room: int) -> list[str]:
    """Give each waiting project an equal part of the room, and what is left to those who have more, in turn."""
    ids: list[str] = []
    while waiting and room > len(ids):
        part = max(1, (room - len(ids)) // len(waiting))
        hungry = []
        for project_id in waiting:
            most = min(part, room - len(ids))
            if most <= 0:
                break
            due = _lease_due(tx, claim, priority, project_id, most)
            ids += due
            if len(due) == most:
                hungry.append(project_id)
        waiting = hungry
    return ids


def _lease_due(tx: sa.Connection, claim: Claim, priority: int, project_id: str, most: int) -> list[str]:
    values = {
        "turn_priority": priority,
        "turn_project": project_id,
        "now": claim.now,
        "busy": dump_json(list(claim.busy)),
        "most": most,
        "lease_until": claim.lease_until,
        "owner": claim.owner,
    }
    return [row[0] for row in _LEASE_DUE.fetch(tx, values)]


def _claimed(row: Sequence[Any]) -> Claimed:
    head: list[Any] = [*row[:17], Email(*row[19:]), row[17], row[18]]
    return Claimed(*head)


def mark_dots(tx: sa.Connection, dots: Sequence[tuple[str, datetime, str]]) -> list[None]:
    """Note when, and to which address, the final dots of deliveries are about to go out.

    From then on they may arrive without our knowing.
    """
    _DOT.run_many(tx, [{"row_id": row_id, "moment": moment, "peer_address": peer} for row_id, moment, peer in dots])
    return [None] * len(dots)


def clear_dots(tx: sa.Connection, ids: Sequence[str]) -> list[None]:
    """Take the marks of deliveries back: their connection ended before the dots could leave."""
    _NO_DOT.run_many(tx, [{"row_id": delivery_id} for delivery_id in ids])
    return [None] * len(ids)


def record_outcomes(tx: sa.Connection, rows: list[dict[str, Any]], tries: list[dict[str, Any]]) -> None:
    """End leases: set each row's new state and next time, and store the attempts; `delivery/outcomes` makes the rows."""
    _OUTCOME.run_many(tx, rows)
    _INSERT_ATTEMPT.run_many(tx, tries)


def find_gone(tx: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Return which of these deliveries are not there any more: their contact was deleted while they were on their way."""
    there = _THERE.fetch(tx, {"delivery_ids": dump_json(list(ids))})
    return set(ids) - {row[0] for row in there}


def keep_captured(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Store the messages that the route `capture` keeps; one kept before a crash stays."""
    gone = find_gone(tx, [row["delivery_id"] for row in rows])
    kept = [row for row in rows if row["delivery_id"] not in gone]
    if kept:
        tx.execute(insert_if_absent(captured, ["delivery_id"]), kept)


def give_back(tx: sa.Connection, owner: str, unsent: Sequence[str] = (), *, now: datetime) -> int:
    """End the leases of a worker that stops, so that all it had is due at once; returns how many.

    The dot marks of `unsent` go; those of the rest stay: their results could not be recorded.
    """
    mine = (deliveries.c.lease_owner == owner) & _QUEUED
    never_left = mine & deliveries.c.id.in_(listed("unsent"))
    tx.execute(sa.update(deliveries).where(never_left).values(dot_sent_at=None), {"unsent": dump_json(list(unsent))})
    return _release(tx, mine, now)


def take_over(tx: sa.Connection, owner: str, *, now: datetime) -> int:
    """End the leases of workers before `owner`, which died: at most one server owns the data; returns how many."""
    theirs = (deliveries.c.lease_owner != owner) & deliveries.c.lease_owner.is_not(None) & _QUEUED
    return _release(tx, theirs, now)


def _release(tx: sa.Connection, where: sa.ColumnElement[bool], now: datetime) -> int:
    mails = sa.select(deliveries.c.email_id).where(where)
    tx.execute(sa.update(emails).where(emails.c.id.in_(mails), emails.c.status == "SENDING").values(status="PENDING"))
    return tx.execute(sa.update(deliveries).where(where).values(due_at=now, lease_owner=None)).rowcount


def delete_old_attempts(tx: sa.Connection, *, before: datetime, limit: int = 1000) -> int:
    """Remove those of the oldest conversations that are from before a moment; return how many. Ids are ordered by time."""
    oldest = sa.select(attempts.c.id).order_by(attempts.c.id).limit(limit)
    where = attempts.c.id.in_(oldest) & (attempts.c.started_at < before)
    return tx.execute(sa.delete(attempts).where(where)).rowcount
