"""Which error codes are there? Read from the tree of errors itself, so that the page about them cannot miss one."""

from collections.abc import Iterator
from dataclasses import dataclass

from plunk_relay.errors import RelayError, SetupError

UNSENT = (
    "INVALID_CREDENTIALS",
    "INVALID_EMAIL",
    "INVALID_REQUEST_BODY",
    "MISSING_REQUIRED_FIELD",
    "UPGRADE_REQUIRED",
    "DATABASE_ERROR",
)
"""Codes of the documented vocabulary for which there is no error of ours."""
_REPAIRS = {
    "ValidationFailed": "Correct the fields named in `errors`.",
    "BadRequest": "The message says what to change.",
    "MailLoop": "Look where the message comes from: it has gone through too many servers.",
    "NotSignedIn": "Sign in, or send `Authorization: Bearer sk_...`.",
    "ProjectAccessDenied": "Ask an owner of the project to add you, or correct the header `X-Project-Id`.",
    "EmailVerificationRequired": "Open the link that was mailed to you.",
    "NotFound": "Check the id: things of other projects are not found either.",
    "ContactNotFound": "Check the id; `POST /contacts/lookup` finds contacts by address.",
    "CampaignNotFound": "Check the id.",
    "WorkflowNotFound": "Check the id.",
    "MethodNotAllowed": "The header `Allow` lists the methods of the path.",
    "Conflict": "The message says what is in the way.",
    "PayloadTooLarge": "Send less at a time.",
    "BillingLimitReached": "Wait for the next month, or raise the project's limit.",
    "RelayError": "Give the request id to the operator of this relay, whose log says more.",
}


@dataclass(frozen=True, slots=True)
class Case:
    """When a code is sent."""

    status: int
    meaning: str
    repair: str


@dataclass(frozen=True, slots=True)
class Row:
    """A code, and when it is sent."""

    code: str
    cases: tuple[Case, ...]


def list_codes() -> list[Row]:
    """Return every code that the HTTP door may send, by status."""
    cases: dict[str, list[Case]] = {}
    for error in _walk(RelayError):
        meaning = "Something unexpected went wrong." if error is RelayError else _first_line(error)
        repair = error.suggestion or _REPAIRS[error.__name__]
        cases.setdefault(error.code, []).append(Case(error.status, meaning, repair))
    rows = [Row(code, tuple(sorted(found, key=lambda case: case.status))) for code, found in cases.items()]
    return sorted(rows, key=lambda row: (row.cases[0].status, row.code))


def _walk(error: type[RelayError]) -> Iterator[type[RelayError]]:
    """Go through what is told over HTTP; errors of a request that are defined elsewhere say nothing new."""
    yield error
    for kind in error.__subclasses__():
        if kind is not SetupError and kind.__module__ == RelayError.__module__:
            yield from _walk(kind)


def _first_line(error: type[RelayError]) -> str:
    return (error.__doc__ or "").strip().partition("\n")[0]
