"""What happens to events besides being recorded? They are counted, and those of a name removed.

A project may have millions of them. Few are counted on the spot; many with one walk through an index, which is done by
one reader at a time and remembered for some seconds.
"""

import asyncio

from plunk_relay.errors import BadRequest
from plunk_relay.events import queries
from plunk_relay.events.names import is_reserved
from plunk_relay.events.queries import EVER, NameCount, NameTotals, Span
from plunk_relay.relay import Relay
from plunk_relay.usage.queries import find_event_usage

_FEW = 20_000
REMEMBERED_SECONDS = 10.0
_REMEMBERED_ENTRIES = 100
_DELETED_AT_ONCE = 100
_COUNTS, _TOTALS = "event counts", "event totals"


async def count_names(relay: Relay, project_id: str, span: Span = EVER) -> list[NameCount]:
    """Return how often each name was recorded in a time, most frequent first."""
    if await relay.db.read(queries.count_up_to, project_id, _FEW, span=span) < _FEW:
        return await relay.db.read(queries.count_names_by_time, project_id, span)

    async def load() -> list[NameCount]:
        return await relay.db.scan(queries.count_names, project_id, span)

    return await relay.memory.remember(
        _COUNTS, (project_id, span), load, seconds=REMEMBERED_SECONDS, entries=_REMEMBERED_ENTRIES
    )


async def count_named(relay: Relay, project_id: str, name: str) -> NameTotals:
    """Return how many events have a name, and how many contacts they are about."""
    if await relay.db.read(queries.count_up_to, project_id, _FEW, name=name) < _FEW:
        return await relay.db.read(queries.count_named, project_id, name)

    async def load() -> NameTotals:
        return await relay.db.scan(queries.count_named, project_id, name)

    return await relay.memory.remember(_TOTALS, (project_id, name), load, seconds=REMEMBERED_SECONDS)


async def delete_named(relay: Relay, project_id: str, name: str) -> int:
    """Remove every event of a name that is there now, and return how many; raises BadRequest for one that is needed.

    Some at a time, so that nobody waits for the writer: what is recorded meanwhile stays.
    """
    if is_reserved(name):
        raise BadRequest(f"{name} is a reserved name: its events cannot be deleted.")
    usage = await relay.db.read(find_event_usage, project_id, name)
    if usage:
        raise BadRequest(f"{name} is used by {usage.describe()}: its events cannot be deleted.")
    now, deleted = relay.clock.now(), 0
    while True:
        some = await relay.db.write(queries.delete_named, project_id, name, until=now, limit=_DELETED_AT_ONCE)
        deleted += some
        if some < _DELETED_AT_ONCE:
            break
        await asyncio.sleep(0)
    relay.memory.forget(_COUNTS)
    relay.memory.forget(_TOTALS)
    return deleted
