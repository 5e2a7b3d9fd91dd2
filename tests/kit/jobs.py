"""How does a test have a job done? Asked for over HTTP, done by the worker, looked at over HTTP."""

from typing import Any

import httpx2

from plunk_relay.jobs.worker import run_once
from plunk_relay.relay import Relay
from tests.kit.relay import Tenant


async def upload(
    http: httpx2.AsyncClient, tenant: Tenant, text: str | bytes, *, name: str = "people.csv", kind: str = "text/csv"
) -> httpx2.Response:
    """Ask for the import of a file."""
    data = text.encode() if isinstance(text, str) else text
    return await http.post("/contacts/import", headers=tenant.headers, files={"file": (name, data, kind)})


async def bulk(http: httpx2.AsyncClient, tenant: Tenant, operation: str, body: object) -> httpx2.Response:
    """Ask for a bulk operation."""
    return await http.post(f"/contacts/bulk-{operation}", headers=tenant.headers, json=body)


async def status(http: httpx2.AsyncClient, tenant: Tenant, job_id: str) -> dict[str, Any]:
    """Return what is told of a job."""
    kind = job_id.partition("-")[0]
    response = await http.get(f"/contacts/{kind}/{job_id}", headers=tenant.headers)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def finish(relay: Relay, http: httpx2.AsyncClient, tenant: Tenant, started: httpx2.Response) -> dict[str, Any]:
    """Have every job done that waits; return what is told of the one that was started."""
    assert started.status_code == 202, started.text
    while await run_once(relay):
        pass
    return await status(http, tenant, started.json()["jobId"])


async def imported(relay: Relay, http: httpx2.AsyncClient, tenant: Tenant, text: str | bytes) -> dict[str, Any]:
    """Import a file to the end; return its result."""
    job = await finish(relay, http, tenant, await upload(http, tenant, text))
    assert job["state"] == "completed", job
    result: dict[str, Any] = job["result"]
    return result
