"""How does a test speak HTTP? Over a socket, to the whole application; every answer is checked against its OpenAPI."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from plunk_relay.app import FEATURES, create_app
from plunk_relay.relay import Relay
from plunk_relay.web.endpoint import Endpoint
from plunk_relay.web.requestlog import RequestLog
from plunk_relay.web.server import HttpDoor

LONG = {re.sub(r":path\}", "}", endpoint.path) for endpoint in FEATURES if ":path}" in endpoint.path}
"""Paths whose last parameter may have slashes."""


class SchemaMismatch(AssertionError):
    """The server answered what its OpenAPI document does not say."""


class SchemaCheck:
    """Compares answers with a document; a client has it as a hook."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.document: dict[str, Any] = {}
        self._paths: list[tuple[re.Pattern[str], dict[str, Any]]] = []
        if document is not None:
            self.load(document)

    def load(self, document: dict[str, Any]) -> None:
        """Take the document that the server serves; of two paths, the one whose segments are literal sooner counts."""
        self.document = document
        ordered = sorted(document["paths"].items(), key=lambda item: [part.startswith("{") for part in item[0].split("/")])
        self._paths = [(_pattern(path), item) for path, item in ordered]

    async def check(self, response: httpx2.Response) -> None:
        """Raise SchemaMismatch for an undocumented status, type or shape."""
        body = await response.aread()
        path = response.request.url.raw_path.decode().partition("?")[0]
        kind = response.headers.get("content-type")
        self.check_answer(response.request.method, path, response.status_code, kind, body)

    def check_answer(self, method: str, path: str, status: int, kind: str | None, body: bytes) -> None:
        """Raise SchemaMismatch for an undocumented status, type or shape; unknown paths only need the envelope.

        `path` is as sent, percent-encoded; `kind` is the Content-Type.
        """
        if not self.document or method in ("OPTIONS", "HEAD"):
            return
        what = f"{method} {path}"
        operation = self._find(method, path)
        if operation is None:
            if status in (404, 405):
                self._validate(what, body, {"$ref": "#/components/schemas/Error"})
            return
        answer = operation["responses"].get(str(status))
        if answer is None:
            raise SchemaMismatch(f"{what} answered {status}, which is not documented")
        content = answer.get("content", {})
        media = (kind or "").partition(";")[0]
        if media not in content if body else content:
            documented = ", ".join(content) or "nothing"
            raise SchemaMismatch(f"{what} answered {status} with {media or 'nothing'}, documented: {documented}")
        if media == "application/json":
            self._validate(what, body, content[media]["schema"])

    def _find(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the operation; a method that the first fitting path lacks is looked for in the next."""
        fitting = (item for pattern, item in self._paths if pattern.match(path) and method.lower() in item)
        found: dict[str, Any] | None = next((item[method.lower()] for item in fitting), None)
        return found

    def _validate(self, what: str, body: bytes, schema: dict[str, Any]) -> None:
        whole = {**schema, "components": self.document["components"]}
        faults = [error.message for error in Draft202012Validator(whole).iter_errors(json.loads(body))]
        if faults:
            raise SchemaMismatch(f"{what}: {'; '.join(faults)}")


def _pattern(path: str) -> re.Pattern[str]:
    inside = ".+" if path in LONG else "[^/]+"
    return re.compile(re.sub(r"\\{\w+\\}", inside, re.escape(path)) + r"\Z")


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
