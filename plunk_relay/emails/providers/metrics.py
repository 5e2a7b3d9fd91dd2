"""Which providers are not normal? Their pace and who goes by the smarthost, as gauges."""

from collections.abc import Mapping

from plunk_relay.emails.providers.queries import load_provider_states
from plunk_relay.relay import Relay

PACE, FALLBACK = "plunk_relay_provider_pace_percent", "plunk_relay_provider_fallback_active"


async def read_provider_gauges(relay: Relay) -> Mapping[tuple[str, str], float]:
    """Return the pace of each provider that is not normal, 0 while it is paused, and 1 for each that is on fallback."""
    gauges: dict[tuple[str, str], float] = {}
    now = relay.clock.now()
    for row in await relay.db.read(load_provider_states):
        paused = row["paused_until"] is not None and now < row["paused_until"]
        gauges[PACE, row["provider"]] = 0.0 if paused else float(row["pace"])
        if row["fallback_since"] is not None:
            gauges[FALLBACK, row["provider"]] = 1.0
    return gauges
