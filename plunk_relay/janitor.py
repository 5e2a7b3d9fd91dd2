"""What is thrown away, and when? Idempotency keys past their time, conversations after 30 days, request logs after 30."""

import asyncio
from datetime import timedelta

from plunk_relay.emails.queue import delete_old_attempts
from plunk_relay.errors import Unavailable
from plunk_relay.relay import Relay
from plunk_relay.web.queries import delete_expired_keys, delete_old_requests
from plunk_relay.workers import poll

CONVERSATIONS_KEPT = timedelta(days=30)
REQUESTS_KEPT = timedelta(days=30)
_EVERY_SECONDS = 3600


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Clean up every hour until `stop`."""

    async def once() -> bool:
        return await run_once(relay)

    await poll(once, wake=asyncio.Event(), stop=stop, every_seconds=_EVERY_SECONDS)


async def run_once(relay: Relay) -> bool:
    """Remove one batch of each kind; True when there may be more."""
    now = relay.clock.now()
    try:
        await relay.db.write(delete_expired_keys, now=now)
        attempts = await relay.db.write(delete_old_attempts, before=now - CONVERSATIONS_KEPT)
        requests = await relay.db.write(delete_old_requests, before=now - REQUESTS_KEPT)
    except Unavailable:
        return False
    return bool(attempts or requests)
