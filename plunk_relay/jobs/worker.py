"""When are jobs done? At once, some next to each other, batch by batch; on `stop` they end behind the batch in hand.

Each batch and the note of how far the job is are one unit of work, so whoever takes the job up, after a restart or a
crash, goes on where it was. A job that breaks off by an error is tried once more, from there. While its project is
disabled it waits.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from plunk_relay.errors import Unavailable
from plunk_relay.jobs import queries
from plunk_relay.jobs.actions import open_job
from plunk_relay.jobs.batches import Batch, Cursor, Refused, Step
from plunk_relay.jobs.pace import Pace
from plunk_relay.jobs.queries import Job, JobLost, Kind
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.workers import poll

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("jobs")
KINDS: tuple[Kind, ...] = ("IMPORT", "BULK")
AT_ONCE = 2
"""Jobs of a kind that are done next to each other, whatever number of projects has some."""
LEASE = timedelta(seconds=60)
RETRY_AFTER = timedelta(seconds=5)
TRIES = 2
_EVERY_SECONDS = 2.0


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Do jobs until `stop`, the first ones where an earlier process left them."""
    await take_over(relay)
    pace = Pace(relay.db, relay.clock)
    async with asyncio.TaskGroup() as lanes:
        for kind in KINDS * AT_ONCE:
            once = partial(run_once, relay, stop=stop, kinds=(kind,), pace=pace)
            lanes.create_task(poll(once, wake=relay.wakes.jobs, stop=stop, every_seconds=_EVERY_SECONDS))


async def take_over(relay: Relay) -> None:
    """Free what a server that died had leased."""
    freed = await relay.db.write(queries.release_leases, now=relay.clock.now())
    if freed:
        log.info("took over jobs of an earlier process", jobs=freed)


async def run_once(
    relay: Relay, *, stop: asyncio.Event | None = None, kinds: tuple[Kind, ...] = KINDS, pace: Pace | None = None
) -> bool:
    """Do the job that is next, to its end or to `stop`; False when there is none."""
    for kind in kinds:
        try:
            job = await relay.db.write(queries.claim_job, kind, most=AT_ONCE, lease=LEASE, now=relay.clock.now())
        except Unavailable:
            return False
        if job is not None:
            await _Work(relay, job, stop or asyncio.Event(), pace or Pace(relay.db, relay.clock)).run()
            return True
    return False


class _Work:
    """A job in hand: the lease on it, and how far it is."""

    def __init__(self, relay: Relay, job: Job, stop: asyncio.Event, pace: Pace) -> None:
        self._relay = relay
        self._job = job
        self._stop = stop
        self._pace = pace
        self._cursor: Cursor = job.cursor or {}

    async def run(self) -> None:
        """Do the job to its end, to `stop`, or until it breaks off."""
        try:
            await self._run()
        except Refused as refused:
            await self._end(partial(queries.fail_job, reason=str(refused)))
        except JobLost:
            await self._end(queries.give_back_job)  # its project was disabled: another's job is not changed by it
        except Unavailable:
            log.warning("job waits: nothing can be stored", job=self._job.id)
        except Exception:
            log.exception("job broke off", job=self._job.id, project=self._job.project_id)
            await self._try_later()

    async def _run(self) -> None:
        run = await open_job(self._relay, self._job, self._pace)
        while not self._stop.is_set():
            batch = await run.prepare(self._cursor)
            if batch is None:
                await self._end(partial(queries.complete_job, result=run.result(self._cursor)))
                self._relay.wakes.events.set()
                return
            self._cursor = (await self._store(batch)).cursor
        await self._end(queries.give_back_job)

    async def _store(self, batch: Batch) -> Step:
        """Do a batch, or pass it over where its kind of job does."""
        try:
            return await self._write(batch)
        except (Unavailable, JobLost):
            raise
        except Exception:
            if batch.pass_over is None:
                raise
            log.exception("batch passed over", job=self._job.id, project=self._job.project_id)
            passed = batch.pass_over()
            return await self._write(Batch(lambda _tx, _now: passed))

    async def _write(self, batch: Batch) -> Step:
        now = self._relay.clock.now()
        step = await self._pace.write(_store, self._job, batch, now)
        self._job = replace(self._job, lease_until=now + LEASE, progress=max(step.percent, self._job.progress))
        return step

    async def _try_later(self) -> None:
        job, tries = self._job, self._job.attempts + 1
        if tries < TRIES:
            await self._end(partial(queries.delay_job, until=self._relay.clock.now() + RETRY_AFTER))
            return
        reason = f"It broke off at {job.progress} %, {tries} times, by an internal error; the relay's log has more."
        await self._end(partial(queries.fail_job, reason=reason))

    async def _end(self, change: Callable[..., None]) -> None:
        """Write down what becomes of the job; where that cannot be done, its lease runs out and somebody takes it up."""
        try:
            await self._relay.db.write(change, self._job, now=self._relay.clock.now())
        except JobLost:
            log.warning("job lost to another worker", job=self._job.id)
        except Unavailable:
            log.warning("job waits: nothing can be stored", job=self._job.id)


def _store(tx: "sa.Connection", job: Job, batch: Batch, now: datetime) -> Step:
    queries.renew_lease(tx, job, until=now + LEASE)
    step = batch.apply(tx, now)
    queries.save_progress(tx, job.id, step.cursor, progress=max(step.percent, job.progress), now=now)
    return step
