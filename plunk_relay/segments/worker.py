"""When are segments counted again? Every five minutes, one at a time; the members of tracked ones are computed."""

import asyncio
from datetime import datetime, timedelta

from plunk_relay.errors import BadRequest, NotFound, Unavailable
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.segments import queries
from plunk_relay.segments.actions import compute_members, refresh_count
from plunk_relay.segments.queries import Segment
from plunk_relay.workers import poll

INTERVAL = timedelta(minutes=5)
_DELETED_AT_ONCE = 500
_EVERY_SECONDS = 30
log = get_logger("segments")
Reported = set[tuple[str, datetime]]
"""Segments that could not be counted, and when they had been changed: each is told once, until it is changed."""


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Count segments until `stop`."""
    reported: Reported = set()

    async def once() -> bool:
        return await run_once(relay, reported)

    await poll(once, wake=asyncio.Event(), stop=stop, every_seconds=_EVERY_SECONDS)


async def run_once(relay: Relay, reported: Reported) -> bool:
    """Remove a piece of a deleted segment, or bring the one that was counted longest ago up to date; True: go on."""
    try:
        if await relay.db.write(queries.delete_discarded, limit=_DELETED_AT_ONCE):
            return True
        segment = await relay.db.read(queries.find_stale, counted_before=relay.clock.now() - INTERVAL)
        if segment is not None:
            await _bring_up_to_date(relay, segment, reported)
    except Unavailable:
        return False
    return segment is not None


async def _bring_up_to_date(relay: Relay, segment: Segment, reported: Reported) -> None:
    """Count or compute; a condition that cannot be asked, as what it names is gone, is left for the next round."""
    try:
        await _count(relay, segment)
    except NotFound:
        log.info("segment was deleted while it was counted", project=segment.project_id, segment=segment.id)
    except BadRequest as error:
        report = (segment.id, segment.updated_at)
        if report not in reported:
            log.warning("segment cannot be counted", project=segment.project_id, segment=segment.id, reason=error.message)
        reported.add(report)
        await _pass_over(relay, segment)
    except Unavailable:
        raise
    except Exception:
        log.exception("segment not counted", project=segment.project_id, segment=segment.id)
        await _pass_over(relay, segment)


async def _count(relay: Relay, segment: Segment) -> None:
    if segment.type == "DYNAMIC" and segment.track_membership:
        await compute_members(relay, segment)
    else:
        await refresh_count(relay, segment)


async def _pass_over(relay: Relay, segment: Segment) -> None:
    counted = {"counted_at": relay.clock.now()}
    await relay.db.write(queries.update_segment, segment.project_id, segment.id, counted)
