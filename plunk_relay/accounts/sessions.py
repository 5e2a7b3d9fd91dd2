"""Who is signed in? A session is a token that we signed: it says who, and until when; nothing of it is stored.

HS256 (RFC 7515, 7519), with the key `accounts.jwt_secret`, or one that is derived from `server.secret_key`.
"""

from datetime import UTC, datetime, timedelta

import jwt

from plunk_relay.accounts import queries
from plunk_relay.relay import Relay
from plunk_relay.web.access import Membership, Person

LIFETIME = timedelta(hours=168)
_ALGORITHM = "HS256"
_PURPOSE = "session"


def issue_session(relay: Relay, user_id: str) -> str:
    """Return a token for the cookie `next_token`."""
    now = relay.clock.now()
    claims = {"id": user_id, "iat": now, "exp": now + LIFETIME}
    return jwt.encode(claims, _key(relay), algorithm=_ALGORITHM)


async def find_person(relay: Relay, token: str) -> Person | None:
    """Return who a token is of; None when it is not ours or not valid any more, or the account is gone."""
    user_id = _read(relay, token)
    user = await relay.db.read(queries.find_user, user_id) if user_id else None
    return Person(user.id, user.email_verified or user.type != "PASSWORD") if user else None


def _read(relay: Relay, token: str) -> str | None:
    try:
        claims = jwt.decode(token, _key(relay), algorithms=[_ALGORITHM], options={"verify_exp": False, "verify_iat": False})
        expires = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
    user_id = claims.get("id")
    return user_id if isinstance(user_id, str) and relay.clock.now() < expires else None  # by our own clock


def _key(relay: Relay) -> bytes:
    chosen = relay.settings.accounts.jwt_secret
    return chosen.encode() if chosen else relay.secrets.mac_key(_PURPOSE)


async def find_membership(relay: Relay, user_id: str, project_id: str) -> Membership | None:
    """Return what a person is in a project; None: nothing, or there is no such project."""
    return await relay.db.read(queries.find_membership, user_id, project_id)
