"""When are segments counted again? Every five minutes, one at a time; the members of tracked ones are computed."""

import asyncio
from datetime import timedelta

from plunk_relay.errors import BadRequest, Unavailable
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.segments import queries
from plunk_relay.segments.actions import compute_members, refresh_count
from plunk_relay.segments.queries import Segment
from plunk_relay.workers import poll

INTERVAL = timedelta(minutes=5)
log = get_logger("segments")


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Count segments until `stop`."""

    async def once() -> bool:
        return await run_once(relay)

    await poll(once, wake=asyncio.Event(), stop=stop, every_seconds=30)


async def run_once(relay: Relay) -> bool:
    """Bring the segment that was counted longest ago up to date; True when more may be due."""
    try:
        segment = await relay.db.read(queries.find_stale, counted_before=relay.clock.now() - INTERVAL)
        if segment is None:
            return False
        await _bring_up_to_date(relay, segment)
    except Unavailable:
        return False
    return True


async def _bring_up_to_date(relay: Relay, segment: Segment) -> None:
    """Count or compute; a condition that cannot be asked, as what it names is gone, is left for the next round."""
    try:
        if segment.type == "DYNAMIC" and segment.track_membership:
            await compute_members(relay, segment)
        else:
            await refresh_count(relay, segment)
    except BadRequest as error:
        log.warning("segment cannot be counted", project=segment.project_id, segment=segment.id, reason=error.message)
        now = relay.clock.now()
        await relay.db.write(queries.update_segment, segment.project_id, segment.id, {"counted_at": now})
