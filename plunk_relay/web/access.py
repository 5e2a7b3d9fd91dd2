"""Who is asking? An API key in the Authorization header, or a session cookie, and what each guard accepts (contract 2).

A cookie comes along with every request that a browser sends, also with those that another site makes it send. What
protects the cookie path: `SameSite=Lax`; the header X-Project-Id, which no other site can set without a CORS preflight
that is refused; and the Origin of a write, which must be our own.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Literal

from plunk_relay.errors import (
    BadRequest,
    EmailVerificationRequired,
    Forbidden,
    InvalidApiKey,
    MissingAuth,
    NotSignedIn,
    ProjectAccessDenied,
    ProjectDisabled,
)
from plunk_relay.relay import Relay

COOKIE = "next_token"
PROJECT_HEADER = "x-project-id"
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
class Person:
    """Who is signed in; `confirmed`: their address is, or need not be."""

    id: str
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """What a person is in a project, and whether that is disabled."""

    role: Literal["OWNER", "ADMIN", "MEMBER"]
    disabled: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """The identified caller of a request."""

    project_id: str
    kind: Literal["secret", "public", "session"]
    user_id: str | None = None
    """For a session."""


@dataclass(frozen=True, slots=True)
class Registry:
    """How keys, sessions and memberships are looked up; each returns None when there is none."""

    find_key: Callable[[Relay, str], Awaitable[KeyOwner | None]]
    find_person: Callable[[Relay, str], Awaitable[Person | None]]
    """By the token of a session."""
    find_membership: Callable[[Relay, str, str], Awaitable[Membership | None]]
    """By the ids of person and project."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What an endpoint asks of its callers."""

    auth: Auth
    confirmed: bool = True
    """People must have confirmed their address."""


async def identify(relay: Relay, registry: Registry, guard: Guard, method: str, headers: Mapping[str, str]) -> Caller | None:
    """Return the caller, None when the endpoint asks for nobody.

    An Authorization header counts alone: the cookie is not looked at then. Raises MissingAuth, InvalidApiKey,
    NotSignedIn, BadRequest without the header X-Project-Id, Forbidden for another site's request, ProjectAccessDenied,
    EmailVerificationRequired, or ProjectDisabled for a write to a disabled project.
    """
    if guard.auth is Auth.NONE:
        return None
    if guard.auth is Auth.DUAL and "authorization" not in headers:
        caller, disabled, confirmed = await _identify_person(relay, registry, method, headers)
    else:
        caller, disabled = await _identify_key(relay, registry, guard.auth, headers.get("authorization"))
        confirmed = True
    if disabled and method in _WRITES:
        raise ProjectDisabled("This project is disabled.")
    if guard.confirmed and not confirmed:
        raise EmailVerificationRequired("Confirm your e-mail address first: a link was mailed to it.")
    return caller


async def _identify_key(relay: Relay, registry: Registry, auth: Auth, header: str | None) -> tuple[Caller, bool]:
    key = _bearer(header)
    owner = await registry.find_key(relay, key) if key.startswith(("sk_", "pk_")) else None
    if owner is None:
        raise InvalidApiKey("No project has this API key.")
    if owner.kind == "public" and auth is not Auth.ANY_KEY:
        raise InvalidApiKey("This endpoint needs the secret key (sk_), not the public one.")
    return Caller(owner.project_id, owner.kind), owner.disabled


def _bearer(header: str | None) -> str:
    if header is None:
        raise MissingAuth("The Authorization header is missing.")
    parts = header.split(" ")
    if len(parts) != 2 or parts[0] != "Bearer" or not parts[1]:
        raise MissingAuth("The Authorization header must read `Bearer <key>`.")
    return parts[1]


async def _identify_person(
    relay: Relay, registry: Registry, method: str, headers: Mapping[str, str]
) -> tuple[Caller, bool, bool]:
    """Return the caller, whether the project is disabled, and whether the person's address is confirmed."""
    token = _cookie(headers.get("cookie", ""))
    person = await registry.find_person(relay, token) if token else None
    if person is None:
        raise NotSignedIn("Sign in, or send an API key in the Authorization header.")
    own, origin = relay.settings.server.public_url.rstrip("/"), headers.get("origin")
    if method in _WRITES and origin is not None and origin != own:
        raise Forbidden(f"Requests with a session must come from {own}.")
    project_id = headers.get(PROJECT_HEADER)
    if not project_id:
        raise BadRequest("The header X-Project-Id is missing: say which project is meant.")
    membership = await registry.find_membership(relay, person.id, project_id)
    if membership is None:
        raise ProjectAccessDenied("You are not a member of this project.")
    return Caller(project_id, "session", person.id), membership.disabled, person.confirmed


def _cookie(header: str) -> str | None:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None
