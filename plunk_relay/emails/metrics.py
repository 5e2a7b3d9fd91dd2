"""How full is the queue? The ledger as gauges."""

from collections.abc import Mapping

from plunk_relay.emails.ledger.queries import read_ledger
from plunk_relay.relay import Relay

_NAME = "plunk_relay_ledger_mails"


async def read_queue_gauges(relay: Relay) -> Mapping[tuple[str, str], float]:
    """Return the number of mails by state, `accepted` and `queued` included."""
    ledger = await relay.db.read(read_ledger)
    return {(_NAME, state): float(count) for state, count in ledger.items()}
