"""When are the operator's lists read? At start, and again after the hours that are set."""

import asyncio

from plunk_relay.relay import Relay
from plunk_relay.workers import poll

_EVERY_SECONDS = 60.0


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Keep the lists fresh until `stop`."""

    async def once() -> bool:
        return await run_once(relay)

    await poll(once, wake=asyncio.Event(), stop=stop, every_seconds=_EVERY_SECONDS)


async def run_once(relay: Relay) -> bool:
    """Read the lists that are due; never more to do at once."""
    await relay.domain_lists.refresh()
    return False
