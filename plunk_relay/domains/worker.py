"""When are domains looked up again? Every five minutes, a few at a time; verified ones too, so a lost record is noticed."""

import asyncio
from datetime import timedelta

from plunk_relay.domains.actions import verify_domain
from plunk_relay.domains.queries import Domain, list_stale
from plunk_relay.errors import Unavailable
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.workers import poll

INTERVAL = timedelta(minutes=5)
_AT_ONCE = 20
log = get_logger("domains")


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Verify domains until `stop`."""

    async def once() -> bool:
        return await run_once(relay)

    await poll(once, wake=relay.wakes.domains, stop=stop, every_seconds=30)


async def run_once(relay: Relay) -> bool:
    """Look up the domains that are due; True when more may be."""
    due = await relay.db.read(list_stale, checked_before=relay.clock.now() - INTERVAL, limit=_AT_ONCE)
    await asyncio.gather(*(_verify(relay, domain) for domain in due))
    return len(due) == _AT_ONCE


async def _verify(relay: Relay, domain: Domain) -> None:
    try:
        checked, _ = await verify_domain(relay, domain)
    except Unavailable:
        return
    if checked.verified != domain.verified:
        log.info("domain verification changed", domain=domain.domain, verified=checked.verified, status=checked.status)
