"""Was this request made before? Idempotency-Key: one claim a project and key, kept for a day (contract section 5)."""

from datetime import timedelta

from plunk_relay.clock import format_time
from plunk_relay.errors import BadRequest, IdempotencyKeyReused, Unavailable
from plunk_relay.relay import Relay
from plunk_relay.web import queries
from plunk_relay.web.endpoint import KeyHold
from plunk_relay.web.queries import StoredClaim


async def claim_key(relay: Relay, hold: KeyHold, *, method: str, path: str) -> None:
    """Claim the key for this request; raises BadRequest for a bad key, IdempotencyKeyReused when it is taken."""
    key = hold.key
    if not 1 <= len(key) <= 255 or not all(" " <= character <= "~" for character in key):
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.")
    now = relay.clock.now()
    claim = StoredClaim(key, hold.request_id, method, path, None, now)
    expires_at = now + timedelta(hours=relay.settings.limits.idempotency_hours)
    holder = await relay.db.write(queries.claim_key, hold.project_id, claim, expires_at=expires_at)
    if holder is not None:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used by another request.",
            details={
                "key": key,
                "originalRequest": f"{holder.method} {holder.path}",
                "originalRequestAt": format_time(holder.created_at),
                "originalStatusCode": holder.status_code,
            },
        )


async def settle_key(relay: Relay, hold: KeyHold, *, status: int) -> None:
    """Note the answer; a request that was refused (4xx, or 503: try again) and wrote nothing frees its key."""
    refused = 400 <= status < 500 or status == Unavailable.status
    await relay.db.write(queries.release_key if refused else queries.settle_key, hold, status)


async def release_unsettled(relay: Relay) -> None:
    """Free the keys of requests that died with an earlier server: they had no effect, else their key were settled."""
    await relay.db.write(queries.release_unsettled)
