"""Who is asking? API keys in the Authorization header, and what each guard accepts (contract section 2)."""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from plunk_relay.errors import InvalidApiKey, MissingAuth, NotSignedIn, ProjectDisabled
from plunk_relay.relay import Relay

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Auth(enum.Enum):
    """What an endpoint asks for."""

    NONE = "none"
    ANY_KEY = "public or secret key"
    SECRET_KEY = "secret key"  # noqa: S105  the name of a guard
    DUAL = "secret key or session"


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose key it is, and of which kind."""

    project_id: str
    kind: Literal["secret", "public"]
    disabled: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """The identified caller of a request."""

    project_id: str
    kind: Literal["secret", "public"]


IdentifyKey = Callable[[Relay, str], Awaitable[KeyOwner | None]]


async def identify(
    relay: Relay, identify_key: IdentifyKey, auth: Auth, method: str, headers: Mapping[str, str]
) -> Caller | None:
    """Return the caller, None when the endpoint asks for nobody.

    Raises MissingAuth, InvalidApiKey, NotSignedIn, or ProjectDisabled for a write to a disabled project.
    """
    if auth is Auth.NONE:
        return None
    key = _bearer(headers.get("authorization"), auth)
    owner = await identify_key(relay, key) if key.startswith(("sk_", "pk_")) else None
    if owner is None:
        raise InvalidApiKey("No project has this API key.")
    if owner.kind == "public" and auth is not Auth.ANY_KEY:
        raise InvalidApiKey("This endpoint needs the secret key (sk_), not the public one.")
    if owner.disabled and method in _WRITES:
        raise ProjectDisabled("This project is disabled.")
    return Caller(owner.project_id, owner.kind)


def _bearer(header: str | None, auth: Auth) -> str:
    if header is None:
        if auth is Auth.DUAL:
            raise NotSignedIn("Sign in, or send an API key in the Authorization header.")
        raise MissingAuth("The Authorization header is missing.")
    parts = header.split(" ")
    if len(parts) != 2 or parts[0] != "Bearer" or not parts[1]:
        raise MissingAuth("The Authorization header must read `Bearer <key>`.")
    return parts[1]
