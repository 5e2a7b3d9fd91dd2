"""How does a test speak HTTP? Over a socket, to the whole application; every answer is checked against its OpenAPI."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from plunk_relay.app import create_app
from plunk_relay.relay import Relay
from plunk_relay.web.endpoint import Endpoint
from plunk_relay.web.requestlog import RequestLog
from plunk_relay.web.server import HttpDoor


class SchemaMismatch(AssertionError):
    """The server answered what its OpenAPI document does not say."""


class SchemaCheck:
    """Compares answers with a document; installed as a hook of the client."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._paths: list[tuple[re.Pattern[str], dict[str, Any]]] = []

    def load(self, document: dict[str, Any]) -> None:
        """Take the document that the server serves."""
        self.document = document
        ordered = sorted(document["paths"].items(), key=lambda item: item[0].count("{"))
        self._paths = [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + r"\Z"), item) for path, item in ordered]

    async def check(self, response: httpx2.Response) -> None:
        """Raise SchemaMismatch for an undocumented status or another shape; unknown paths only need the envelope."""
        await response.aread()
        method, path = response.request.method.lower(), response.request.url.path
        item = next((item for pattern, item in self._paths if pattern.match(path)), None)
        if not self.document or method in ("options", "head"):
            return
        if item is None or method not in item:
            if response.status_code in (404, 405):
                self._validate(response, {"$ref": "#/components/schemas/Error"})
            return
        answer = item[method]["responses"].get(str(response.status_code))
        if answer is None:
            raise SchemaMismatch(f"{method.upper()} {path} answered {response.status_code}, which is not documented")
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if schema is not None:
            self._validate(response, schema)

    def _validate(self, response: httpx2.Response, schema: dict[str, Any]) -> None:
        whole = {**schema, "components": self.document["components"]}
        faults = [error.message for error in Draft202012Validator(whole).iter_errors(response.json())]
        if faults:
            raise SchemaMismatch(f"{response.request.method} {response.request.url.path}: {'; '.join(faults)}")


@asynccontextmanager
async def running_http(relay: Relay, *, pages: Sequence[Endpoint] = (), port: int = 0) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the application on a port, 0 = a free one, and yield a client for it; no redirect is followed."""
    log = RequestLog()
    door = HttpDoor(create_app(relay, log, more=pages), host="127.0.0.1", port=port)
    door.open()
    stop = asyncio.Event()
    serving = asyncio.create_task(door.run(stop, grace_seconds=1))
    check = SchemaCheck()
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{door.port}", event_hooks={"response": [check.check]}, timeout=10, verify=False
        ) as client:
            check.load((await client.get("/openapi.json")).json())
            yield client
    finally:
        stop.set()
        await serving
        await log.flush(relay)
