"""What jobs are stored? One row each, written with every batch of its effects; who works on it holds a lease.

A lease is the moment until which nobody else takes the job. The holder knows it exactly, and moves it on with every batch:
who finds another one there has lost the job, and nothing of that batch is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.db.portable import insert_if_absent
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import job_inputs, jobs, projects

Kind = Literal["IMPORT", "BULK"]
State = Literal["waiting", "active", "completed", "failed", "delayed"]


def _literals(*texts: str) -> list[sa.ColumnElement[str]]:
    return [sa.literal_column(f"'{text}'") for text in texts]


_UNFINISHED = _literals("waiting", "active", "delayed")  # written out, as the index says it
_FINISHED = _literals("completed", "failed")
KEPT: Mapping[str, int] = {"completed": 50, "failed": 100}
"""How many of a project's jobs that are over stay, by their state."""


class JobLost(Exception):
    """Another worker has the job, or it is gone, or its project was disabled."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as stored. Nullable columns are None; see db/tables.py."""

    id: str
    project_id: str
    kind: Kind
    state: State
    progress: int
    data: dict[str, Any]
    result: dict[str, Any] | None
    failed_reason: str | None
    cursor: dict[str, Any] | None
    attempts: int
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored; its id is the prefix and the milliseconds of the moment."""

    prefix: str
    project_id: str
    kind: Kind
    data: dict[str, Any]
    input: bytes
    """Compressed."""
    cursor: Mapping[str, Any]


_COLUMNS = tuple(jobs.c[name] for name in Job.__dataclass_fields__)
_SELECT = sa.select(*_COLUMNS)
_INSERT = insert_if_absent(jobs, ["id"])
_RENEW = Prepared(
    sa.update(jobs)
    .where(
        jobs.c.id == sa.bindparam("job_id"),
        jobs.c.lease_until == sa.bindparam("held", type_=jobs.c.lease_until.type),
        sa.exists().where(projects.c.id == jobs.c.project_id, projects.c.disabled.is_(sa.false())),
    )
    .values(lease_until=sa.bindparam("until"))
)
_SAVE = Prepared(
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job_id"))
    .values(progress=sa.bindparam("percent"), cursor=sa.bindparam("place"), updated_at=sa.bindparam("now"))
)


def _select_next() -> sa.Select[Any]:
    kind: sa.BindParameter[str] = sa.bindparam("kind")
    now = sa.bindparam("now", type_=jobs.c.due_at.type)
    earlier, past = jobs.alias("earlier"), jobs.alias("past")
    is_behind = sa.exists().where(
        earlier.c.project_id == jobs.c.project_id,
        earlier.c.kind == kind,
        earlier.c.state.in_(_UNFINISHED),
        sa.tuple_(earlier.c.created_at, earlier.c.id) < sa.tuple_(jobs.c.created_at, jobs.c.id),
    )
    served = sa.select(sa.func.max(past.c.updated_at)).where(
        past.c.project_id == jobs.c.project_id, past.c.kind == kind, past.c.state.in_(_FINISHED)
    )
    due = [
        jobs.c.kind == kind,
        jobs.c.state.in_(_UNFINISHED),
        jobs.c.due_at <= now,
        jobs.c.lease_until.is_(None) | (jobs.c.lease_until <= now),
        projects.c.disabled.is_(sa.false()),
        ~is_behind,
    ]
    order = (served.scalar_subquery().asc().nulls_first(), jobs.c.created_at, jobs.c.id)
    joined = jobs.join(projects, projects.c.id == jobs.c.project_id)
    return (
        sa.select(jobs.c.id, jobs.c.lease_until)
        .select_from(joined)
        .where(*due)
        .order_by(*order)
        .limit(sa.literal_column("1"))
    )


_NEXT = Prepared(_select_next())
_RUNNING = Prepared(
    sa.select(sa.func.count()).where(
        jobs.c.kind == sa.bindparam("kind"),
        jobs.c.state.in_(_UNFINISHED),
        jobs.c.due_at <= sa.bindparam("now", type_=jobs.c.due_at.type),  # it was due when it was taken: the index has it
        jobs.c.state == "active",
        jobs.c.lease_until > sa.bindparam("now", type_=jobs.c.lease_until.type),
    )
)


def insert_job(tx: sa.Connection, new: NewJob, *, now: datetime) -> str:
    """Store a job that waits; return its id."""
    moment = int(now.timestamp() * 1000)
    row = {
        "project_id": new.project_id,
        "kind": new.kind,
        "state": "waiting",
        "progress": 0,
        "data": new.data,
        "due_at": now,
        "created_at": now,
        "updated_at": now,
        "cursor": dict(new.cursor),
        "attempts": 0,
    }
    while True:
        job_id = f"{new.prefix}-{new.project_id}-{moment}"
        if tx.execute(_INSERT, row | {"id": job_id}).rowcount:
            break
        moment += 1  # two in a millisecond
    tx.execute(sa.insert(job_inputs), {"job_id": job_id, "data": new.input})
    return job_id


def count_unfinished(tx: sa.Connection, project_id: str, kind: Kind) -> tuple[int, int]:
    """Return how many jobs of a kind a project has that are not over, and the bytes of their input."""
    waiting = (jobs.c.project_id == project_id) & (jobs.c.kind == kind) & jobs.c.state.in_(_UNFINISHED)
    counts = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(job_inputs.c.data)), 0))
    row = tx.execute(counts.select_from(jobs.outerjoin(job_inputs)).where(waiting)).one()
    return int(row[0]), int(row[1])


def find_job(tx: sa.Connection, project_id: str, kind: Kind, job_id: str) -> Job | None:
    """Look a job of a kind up, inside the project."""
    mine = (jobs.c.id == job_id) & (jobs.c.project_id == project_id) & (jobs.c.kind == kind)
    row = tx.execute(_SELECT.where(mine)).one_or_none()
    return Job(*row) if row else None


def find_input(tx: sa.Connection, project_id: str, job_id: str) -> bytes | None:
    """Return what a job works on, compressed, or None when it is over and it was an import."""
    mine = (jobs.c.id == job_id) & (jobs.c.project_id == project_id)
    found = sa.select(job_inputs.c.data).select_from(jobs.join(job_inputs)).where(mine)
    data: bytes | None = tx.execute(found).scalar_one_or_none()
    return data


def claim_job(tx: sa.Connection, kind: Kind, *, most: int, lease: timedelta, now: datetime) -> Job | None:
    """Take the job that is next, unless `most` of its kind are being worked on, by whomever; None: there is none.

    A project's jobs of a kind are done one after another, as they were asked for. The project whose last one is longest
    ago comes first. A job whose project is disabled waits.
    """
    if _RUNNING.fetch(tx, {"kind": kind, "now": now})[0][0] >= most:
        return None
    found = _NEXT.fetch(tx, {"kind": kind, "now": now})
    if not found:
        return None
    [(job_id, lease_until)] = found
    free = (jobs.c.id == job_id) & jobs.c.lease_until.is_not_distinct_from(lease_until)
    taken = sa.update(jobs).where(free).values(state="active", lease_until=now + lease, updated_at=now)
    row = tx.execute(taken.returning(*_COLUMNS)).one_or_none()
    return Job(*row) if row else None


def renew_lease(tx: sa.Connection, job: Job, *, until: datetime) -> None:
    """Hold a job longer; raises JobLost."""
    if _RENEW.run(tx, {"job_id": job.id, "held": job.lease_until, "until": until}) == 0:
        raise JobLost(job.id)


def save_progress(tx: sa.Connection, job_id: str, cursor: Mapping[str, Any], *, progress: int, now: datetime) -> None:
    """Note how far a job is; in the unit of what was done, behind `renew_lease`."""
    _SAVE.run(tx, {"job_id": job_id, "percent": progress, "place": dict(cursor), "now": now})


def complete_job(tx: sa.Connection, job: Job, *, result: Mapping[str, Any], now: datetime) -> None:
    """Note that a job is done; raises JobLost."""
    _end(tx, job, {"state": "completed", "progress": 100, "result": dict(result)}, now=now)


def fail_job(tx: sa.Connection, job: Job, *, reason: str, now: datetime) -> None:
    """Note that a job is given up; raises JobLost."""
    _end(tx, job, {"state": "failed", "failed_reason": reason}, now=now)


def delay_job(tx: sa.Connection, job: Job, *, until: datetime, now: datetime) -> None:
    """Try a job again later, from where it is: it broke off by an error. Raises JobLost."""
    values = {"state": "delayed", "due_at": until, "lease_until": None, "updated_at": now}
    _change(tx, job, values | {"attempts": job.attempts + 1})


def give_back_job(tx: sa.Connection, job: Job, *, now: datetime) -> None:
    """Let whoever comes go on with a job; raises JobLost."""
    _change(tx, job, {"state": "waiting", "lease_until": None, "updated_at": now})


def release_leases(tx: sa.Connection, *, now: datetime) -> int:
    """Free the jobs of a worker that died: where one process has the database, nobody else can hold any."""
    held = jobs.c.state.in_(_UNFINISHED) & jobs.c.lease_until.is_not(None)
    return tx.execute(sa.update(jobs).where(held).values(state="waiting", lease_until=None, updated_at=now)).rowcount


def _end(tx: sa.Connection, job: Job, values: Mapping[str, Any], *, now: datetime) -> None:
    _change(tx, job, {**values, "lease_until": None, "cursor": None, "updated_at": now})
    if job.kind == "IMPORT":
        tx.execute(sa.delete(job_inputs).where(job_inputs.c.job_id == job.id))
    for state, most in KEPT.items():
        old = sa.select(jobs.c.id).where(jobs.c.project_id == job.project_id, jobs.c.state == state)
        beyond = old.order_by(jobs.c.updated_at.desc(), jobs.c.created_at.desc(), jobs.c.id.desc()).offset(most).limit(most)
        tx.execute(sa.delete(jobs).where(jobs.c.id.in_(tx.execute(beyond).scalars().all())))


def _change(tx: sa.Connection, job: Job, values: Mapping[str, Any]) -> None:
    mine = (jobs.c.id == job.id) & (jobs.c.lease_until == job.lease_until)
    if tx.execute(sa.update(jobs).where(mine).values(**values)).rowcount == 0:
        raise JobLost(job.id)
