"""How does a background worker loop? All in one shape: work until idle, then wait for a wake, a timer or stop."""

import asyncio
from collections.abc import Awaitable, Callable


async def poll(
    run_once: Callable[[], Awaitable[bool]],
    *,
    wake: asyncio.Event,
    stop: asyncio.Event,
    every_seconds: float,
) -> None:
    """Call `run_once` until it returns False (idle), then wait for `wake`, `every_seconds` or `stop`; return on `stop`.

    A wake that comes while `run_once` works is not lost: the event is cleared before the work starts.
    """
    while not stop.is_set():
        wake.clear()
        if await run_once():
            await asyncio.sleep(0)
            continue
        await wait_any(wake, stop, timeout_seconds=every_seconds)


async def wait_any(*events: asyncio.Event, timeout_seconds: float) -> None:
    """Return when one of the events is set or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
