"""Is the server alive, ready, documented? The endpoints beside the API: no key, no envelope of their own."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import Field

from plunk_relay import __version__
from plunk_relay.errors import FieldError, Unavailable, ValidationFailed
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.docs import render_docs, render_errors
from plunk_relay.web.endpoint import Answer, ApiModel, Endpoint, RequestInfo, endpoint
from plunk_relay.web.envelope import dump_json, error_answer
from plunk_relay.web.metrics import HttpMetrics, ReadGauges
from plunk_relay.web.openapi import build_document

_TAG = "Operating"
_PAGE_POLICY = ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:")


class Memory(ApiModel):
    """Memory of the process in bytes."""

    rss: int
    """Resident set."""


class Health(ApiModel):
    """The process is alive."""

    status: str
    time: int
    environment: str
    uptime: float
    memory_usage: Memory


@endpoint("GET", "/health", tag=_TAG, auth=Auth.NONE)
async def health(relay: Relay) -> Health:
    """Tell that the process is alive."""
    return Health(
        status="ok",
        time=int(relay.clock.now().timestamp() * 1000),
        environment="production",
        uptime=relay.clock.monotonic() - relay.started,
        memory_usage=Memory(rss=_resident_bytes()),
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Readiness(ApiModel):
    """Whether mail is accepted."""

    ready: bool
    reasons: list[str] = Field(description="Why not; empty when it is")


@endpoint("GET", "/ready", tag=_TAG, auth=Auth.NONE, also=(Unavailable.status,))
async def ready(relay: Relay) -> Readiness | Answer:
    """Tell whether mail is accepted: 200, or 503 with the reasons."""
    reasons = await list_reasons(relay)
    body = dump_json(Readiness(ready=not reasons, reasons=reasons))
    if not reasons:
        return Answer(body)
    return Answer(body, Unavailable.status, headers=[("retry-after", str(Unavailable.retry_after_seconds))])


async def list_reasons(relay: Relay) -> list[str]:
    """Return why nothing can be accepted now; empty when everything can. The disk is looked at once a second."""
    reasons = [relay.db.failure] if relay.db.failure else []
    if relay.stopping.is_set():
        reasons.append("the server is stopping")

    async def load() -> list[str]:
        shortage = find_shortage(relay)
        return [shortage] if shortage else []

    return reasons + await relay.memory.remember("disk", "", load, seconds=1.0)


def find_shortage(relay: Relay) -> str | None:
    """Return what the disk lacks, bytes or inodes, below the limit of the settings; None when there is enough."""
    directory, limits = relay.settings.server.data_dir, relay.settings.limits
    volume = os.statvfs(directory)
    free = volume.f_bavail * volume.f_frsize // 1_000_000
    if free < limits.minimum_free_megabytes:
        return f"only {free} MB are free in {directory}; limits.minimum_free_megabytes is {limits.minimum_free_megabytes}"
    if volume.f_files and volume.f_favail < limits.minimum_free_inodes:  # some file systems count none
        least = limits.minimum_free_inodes
        return f"only {volume.f_favail} inodes are free in {directory}; limits.minimum_free_inodes is {least}"
    return None


def meta_endpoints(features: Sequence[Endpoint], metrics: HttpMetrics, gauges: Sequence[ReadGauges]) -> list[Endpoint]:
    """Return the operating endpoints; the document covers `features` and these."""

    def document(relay: Relay) -> dict[str, Any]:
        url = relay.settings.server.public_url.rstrip("/")
        return build_document((*features, health, ready), version=__version__, server_url=url)

    @endpoint("GET", "/openapi.json", tag=_TAG, auth=Auth.NONE)
    async def openapi(relay: Relay) -> Answer:
        """Return this API as an OpenAPI 3.1 document."""
        return Answer(dump_json(document(relay)))

    @endpoint("GET", "/docs", tag=_TAG, auth=Auth.NONE)
    async def docs(relay: Relay) -> Answer:
        """Show the API reference."""
        return Answer(render_docs(document(relay)), content_type="text/html; charset=utf-8", headers=[_PAGE_POLICY])

    @endpoint("GET", "/docs/errors", tag=_TAG, auth=Auth.NONE)
    async def error_codes(relay: Relay, request: RequestInfo) -> Answer:
        """Show every error code, when it is sent, and what to do."""
        fault = ValidationFailed([FieldError("email", "Invalid email", "invalid_string")])
        shown = orjson.loads(error_answer(fault, request_id=request.request_id, clock=relay.clock).body)
        page = render_errors(document(relay), json.dumps(shown, indent=2))
        return Answer(page, content_type="text/html; charset=utf-8", headers=[_PAGE_POLICY])

    @endpoint("GET", "/metrics", tag=_TAG, auth=Auth.NONE)
    async def prometheus(relay: Relay) -> Answer:
        """Return metrics for Prometheus."""
        metrics.set_gauges({place: value for read in gauges for place, value in (await read(relay)).items()})
        return Answer(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @endpoint("GET", "/", tag=_TAG, auth=Auth.NONE)
    async def root(relay: Relay) -> Answer:
        """Lead to the reference."""
        return Answer(status=302, headers=[("location", f"{relay.settings.server.public_url.rstrip('/')}/docs")])

    return [health, ready, openapi, docs, error_codes, prometheus, root]
