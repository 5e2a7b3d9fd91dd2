"""Who asked for what? One row a request in `api_requests`, written in batches; never bodies or keys.

A kill loses at most the last second of the log: the log is for people, the mail is not in it.
"""

import asyncio
from typing import Any

from plunk_relay.errors import Unavailable
from plunk_relay.relay import Relay
from plunk_relay.web import queries
from plunk_relay.workers import wait_any

_SKIPPED = frozenset(
    {
        "/health",
        "/ready",
        "/metrics",
        "/config",
        "/openapi.json",
        "/docs",
        "/docs/errors",
        "/",
        "/contacts/fields",
        "/events/names",
    }
)
_SKIPPED_BELOW = ("/users/@me", "/uploads/files/")
_MOST_WAITING = 5000
_FLUSH_SECONDS = 1.0


class RequestLog:
    """Rows waiting to be written."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take a row with the columns of `api_requests`; when the writer cannot keep up, rows are dropped."""
        path = row["path"]
        if path not in _SKIPPED and not path.startswith(_SKIPPED_BELOW) and len(self._rows) < _MOST_WAITING:
            self._rows.append(row)

    async def flush(self, relay: Relay) -> None:
        """Write what waits; a full disk costs log lines, nothing else."""
        rows, self._rows = self._rows, []
        if rows:
            try:
                await relay.db.write(queries.insert_requests, rows)
            except Unavailable:
                return

    async def run(self, relay: Relay, stop: asyncio.Event) -> None:
        """Flush every second until `stop`, and once more then."""
        while not stop.is_set():
            await wait_any(stop, timeout_seconds=_FLUSH_SECONDS)
            await self.flush(relay)
        await self.flush(relay)
