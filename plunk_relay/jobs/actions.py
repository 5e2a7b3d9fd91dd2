"""What happens to jobs? They are asked for, looked up, and opened by the worker."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plunk_relay.contacts.queries import ContactFilter
from plunk_relay.db.engine import dump_json, load_json
from plunk_relay.errors import NotFound, RateLimited
from plunk_relay.ids import new_id
from plunk_relay.jobs import queries
from plunk_relay.jobs.batches import Refused, Run
from plunk_relay.jobs.bulk import BulkRun, FoundIds, GivenIds, Operation
from plunk_relay.jobs.csv_file import CsvFile
from plunk_relay.jobs.imports import BEGINNING, ImportRun
from plunk_relay.jobs.pace import Pace
from plunk_relay.jobs.queries import Job, Kind, NewJob
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

MOST_UNFINISHED = 1000
MOST_UNFINISHED_BYTES = 64 * 1024 * 1024
"""Of a project, for each kind of job, compressed."""
_RETRY_SECONDS = 10
_FASTEST = 1  # level of zlib: a third of the size in 30 ms for 5 MB


async def start_import(relay: Relay, project_id: str, filename: str, data: bytes) -> str:
    """Queue the import of a CSV file; return the job's id. Raises RateLimited when too much is waiting."""
    shown = {"projectId": project_id, "filename": filename}
    packed = await asyncio.to_thread(zlib.compress, data, _FASTEST)
    return await _start(relay, NewJob("import", project_id, "IMPORT", shown, packed, BEGINNING))


async def start_bulk(relay: Relay, project_id: str, operation: Operation, selector: Mapping[str, Any]) -> str:
    """Queue an operation on the contacts of a selector, as documented; return the job's id. Raises RateLimited.

    Contacts that are made from now on are not touched.
    """
    place = 0 if selector["mode"] == "ids" else new_id()
    shown = {"projectId": project_id, "operation": operation}
    packed = zlib.compress(dump_json(selector).encode(), _FASTEST)
    return await _start(relay, NewJob(f"bulk-{operation}", project_id, "BULK", shown, packed, {"place": place}))


async def _start(relay: Relay, new: NewJob) -> str:
    job_id = await relay.db.write(_store, new, relay)
    relay.wakes.jobs.set()
    return job_id


def _store(tx: "sa.Connection", new: NewJob, relay: Relay) -> str:
    number, size = queries.count_unfinished(tx, new.project_id, new.kind)
    if number >= MOST_UNFINISHED or size + len(new.input) > MOST_UNFINISHED_BYTES:
        raise RateLimited(
            f"{number} jobs of this kind are waiting: let some of them end first.", retry_after_seconds=_RETRY_SECONDS
        )
    return queries.insert_job(tx, new, now=relay.clock.now())


async def get_job(relay: Relay, project_id: str, kind: Kind, job_id: str) -> Job:
    """Look a job up, inside the project; that of a bulk operation with its selector. Raises NotFound."""
    job, packed = await relay.db.read(_find, project_id, kind, job_id)
    if job is None:
        raise NotFound.of("Job", job_id)
    return job if packed is None else replace(job, data={**job.data, "selector": _read_selector(packed)})


def _find(tx: "sa.Connection", project_id: str, kind: Kind, job_id: str) -> tuple[Job | None, bytes | None]:
    job = queries.find_job(tx, project_id, kind, job_id)
    return job, queries.find_input(tx, project_id, job_id) if job is not None and kind == "BULK" else None


async def open_job(relay: Relay, job: Job, pace: Pace) -> Run:
    """Make a job ready to be done; raises Refused."""
    packed = await relay.db.read(queries.find_input, job.project_id, job.id)
    if packed is None:
        raise Refused("What was to be done is not there any more.")
    if job.kind == "IMPORT":
        return ImportRun(job.project_id, await asyncio.to_thread(_read_file, packed), pace)
    return _open_bulk(relay, job, _read_selector(packed))


def _read_file(packed: bytes) -> CsvFile:
    return CsvFile(zlib.decompress(packed))


def _read_selector(packed: bytes) -> dict[str, Any]:
    selector: dict[str, Any] = load_json(zlib.decompress(packed).decode())
    return selector


def _open_bulk(relay: Relay, job: Job, selector: Mapping[str, Any]) -> BulkRun:
    operation: Operation = job.data["operation"]
    if selector["mode"] == "ids":
        return BulkRun(relay, job.project_id, operation, GivenIds(selector["contactIds"]))
    wanted = selector["filter"]
    chosen = ContactFilter(search=wanted.get("search") or None, subscribed=wanted.get("subscribed"))
    return BulkRun(relay, job.project_id, operation, FoundIds(relay, job.project_id, chosen, selector.get("excludeIds", [])))
