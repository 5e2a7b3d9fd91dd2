"""Was this request made before? Idempotency-Key: one claim a project and key, kept for a day (contract section 5)."""

from datetime import timedelta

from plunk_relay.clock import format_time
from plunk_relay.errors import BadRequest, IdempotencyKeyReused
from plunk_relay.relay import Relay
from plunk_relay.web import queries
from plunk_relay.web.queries import StoredClaim


async def claim_key(relay: Relay, project_id: str, key: str, *, request_id: str, method: str, path: str) -> None:
    """Claim the key for this request; raises BadRequest for a bad key, IdempotencyKeyReused when it is taken."""
    if not 1 <= len(key) <= 255 or not all(" " <= character <= "~" for character in key):
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.")
    now = relay.clock.now()
    claim = StoredClaim(key, request_id, method, path, None, now)
    expires_at = now + timedelta(hours=relay.settings.limits.idempotency_hours)
    holder = await relay.db.write(queries.claim_key, project_id, claim, expires_at=expires_at)
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


async def settle_key(relay: Relay, project_id: str, key: str, *, request_id: str, status: int, kept: bool) -> None:
    """Note the answer; a refused request (4xx) that wrote nothing frees its key."""
    if 400 <= status < 500 and not kept:
        await relay.db.write(queries.release_key, project_id, key, request_id)
    else:
        await relay.db.write(queries.settle_key, project_id, key, request_id, status)
