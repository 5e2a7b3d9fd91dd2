"""What can go wrong, and how is each case told? One tree; one handler per door turns it into an answer.

    RelayError                       code                          HTTP  SMTP
    ├─ SetupError                    (command line: one line, exit 1)
    │  └─ UsageError                 (command line: one line, exit 2)
    ├─ ValidationFailed              VALIDATION_ERROR              422   554 5.6.0   fields, each with its own message
    ├─ MalformedBody                 VALIDATION_ERROR              400   -
    ├─ TemplateFailed                VALIDATION_ERROR              400   554 5.6.0   line and column
    ├─ BadRequest                    BAD_REQUEST                   400   554 5.6.0
    │  └─ MailLoop                   BAD_REQUEST                   400   554 5.4.6
    ├─ NotSignedIn                   UNAUTHORIZED                  401   530 5.7.0
    ├─ MissingAuth                   MISSING_AUTH                  401   530 5.7.0
    ├─ InvalidApiKey                 INVALID_API_KEY               401   535 5.7.8
    ├─ Forbidden                     FORBIDDEN                     403   550 5.7.1
    │  ├─ ProjectAccessDenied        PROJECT_ACCESS_DENIED         403   550 5.7.1
    │  ├─ ProjectDisabled            PROJECT_DISABLED              403   550 5.7.1
    │  └─ EmailVerificationRequired  EMAIL_VERIFICATION_REQUIRED   403   550 5.7.1
    ├─ NotFound                      RESOURCE_NOT_FOUND            404   550 5.1.1
    │  ├─ ContactNotFound            CONTACT_NOT_FOUND
    │  ├─ TemplateNotFound           TEMPLATE_NOT_FOUND
    │  ├─ CampaignNotFound           CAMPAIGN_NOT_FOUND
    │  └─ WorkflowNotFound           WORKFLOW_NOT_FOUND
    ├─ MethodNotAllowed              BAD_REQUEST                   405   -
    ├─ Conflict                      CONFLICT                      409   554 5.6.0
    │  └─ IdempotencyKeyReused       IDEMPOTENCY_KEY_REUSED        409   -
    ├─ PayloadTooLarge               BAD_REQUEST                   413   552 5.3.4
    ├─ RateLimited                   RATE_LIMIT_EXCEEDED           429   451 4.7.1
    │  └─ BillingLimitReached        BILLING_LIMIT_EXCEEDED        429   451 4.7.1
    ├─ StoreFailed                   EXTERNAL_SERVICE_ERROR        500   -           of uploaded files
    └─ Unavailable                   INTERNAL_SERVER_ERROR         503   452 4.3.1   disk full, stopping: try again

Codes and statuses: the API reference and contract section 3; enhanced status codes: RFC 3463.
Delivery results are values (`mail/outcome.py`), not exceptions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

FIELD_CODES = (
    "invalid_type",
    "invalid_string",
    "too_small",
    "too_big",
    "invalid_enum_value",
    "invalid_literal",
    "invalid_union",
    "invalid_union_discriminator",
    "custom",
    "reserved_event",
    "required",
)
"""The documented codes of a field's fault."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that failed validation: `field` is a dot path (`to.0`), `code` from the documented vocabulary."""

    field: str
    message: str
    code: str
    received: str | None = None


class RelayError(Exception):
    """Anything we tell a caller about. Subclasses set the answer; instances set the words."""

    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"
    status: ClassVar[int] = 500
    smtp: ClassVar[tuple[int, str]] = (451, "4.3.0")
    suggestion: ClassVar[str | None] = None

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class SetupError(RelayError):
    """The operator must repair something before the relay can run: one line that names it and the repair."""

    exit_code: ClassVar[int] = 1


class UsageError(SetupError):
    """The configuration or command line itself is wrong."""

    exit_code = 2


class ValidationFailed(RelayError):
    """The request has the wrong shape; every bad field is listed."""

    code = "VALIDATION_ERROR"
    status = 422
    smtp = (554, "5.6.0")

    def __init__(
        self,
        errors: Sequence[FieldError],
        message: str = "Request validation failed",
        *,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.errors = tuple(errors)


class MalformedBody(RelayError):
    """The body is not JSON."""

    code = "VALIDATION_ERROR"
    status = 400
    smtp = (554, "5.6.0")
    suggestion = "Send a valid JSON object with the header `Content-Type: application/json`."


class TemplateFailed(RelayError):
    """A template's Liquid does not parse; `details` has field, line and column."""

    code = "VALIDATION_ERROR"
    status = 400
    smtp = (554, "5.6.0")
    suggestion = "Correct the template at the line and column given in details."


class BadRequest(RelayError):
    """A well-formed request that makes no sense in the present state."""

    code = "BAD_REQUEST"
    status = 400
    smtp = (554, "5.6.0")


class MailLoop(BadRequest):
    """A message that has gone through too many servers, or keeps coming back."""

    smtp = (554, "5.4.6")


class NotSignedIn(RelayError):
    """No session cookie, or one that is invalid or expired."""

    code = "UNAUTHORIZED"
    status = 401
    smtp = (530, "5.7.0")


class MissingAuth(RelayError):
    """The Authorization header is absent or malformed."""

    code = "MISSING_AUTH"
    status = 401
    smtp = (530, "5.7.0")
    suggestion = "Send the header `Authorization: Bearer sk_...` with your project's key."


class InvalidApiKey(RelayError):
    """No project has this key, or it is of the wrong kind."""

    code = "INVALID_API_KEY"
    status = 401
    smtp = (535, "5.7.8")
    suggestion = "Check the key's prefix: sk_ keys work everywhere, pk_ keys only with /v1/track."


class Forbidden(RelayError):
    """Known, but not allowed."""

    code = "FORBIDDEN"
    status = 403
    smtp = (550, "5.7.1")
    suggestion: ClassVar[str | None] = (
        "Check that the sender domain is verified in this project and that your role allows the action."
    )


class ProjectAccessDenied(Forbidden):
    """The signed-in user is not a member of the project."""

    code = "PROJECT_ACCESS_DENIED"
    suggestion = None


class ProjectDisabled(Forbidden):
    """Writes to a disabled project are refused."""

    code = "PROJECT_DISABLED"
    suggestion = "Ask the operator of this relay to enable the project: `plunk-relay projects enable`."


class EmailVerificationRequired(Forbidden):
    """The signed-in user has not confirmed their address."""

    code = "EMAIL_VERIFICATION_REQUIRED"
    suggestion = None


class NotFound(RelayError):
    """No such thing in this project."""

    code = "RESOURCE_NOT_FOUND"
    status = 404
    smtp = (550, "5.1.1")

    @classmethod
    def of(cls, resource: str, identifier: str) -> "NotFound":
        """Say which resource and id were looked for."""
        return cls(f"{resource} not found", details={"resource": resource, "id": identifier})


class ContactNotFound(NotFound):
    """No such contact in this project."""

    code = "CONTACT_NOT_FOUND"


class TemplateNotFound(NotFound):
    """No such template in this project."""

    code = "TEMPLATE_NOT_FOUND"
    suggestion = "List the project's templates with GET /templates and use one of their ids."


class CampaignNotFound(NotFound):
    """No such campaign in this project."""

    code = "CAMPAIGN_NOT_FOUND"


class WorkflowNotFound(NotFound):
    """No such workflow in this project."""

    code = "WORKFLOW_NOT_FOUND"


class MethodNotAllowed(RelayError):
    """The path exists, the method does not."""

    code = "BAD_REQUEST"
    status = 405


class Conflict(RelayError):
    """The request contradicts what is stored."""

    code = "CONFLICT"
    status = 409
    smtp = (554, "5.6.0")


class IdempotencyKeyReused(Conflict):
    """Another request of this project already used the key."""

    code = "IDEMPOTENCY_KEY_REUSED"
    suggestion = "Use a new Idempotency-Key for a new request; details tell what became of the first one."


class PayloadTooLarge(RelayError):
    """The body is larger than the door accepts."""

    code = "BAD_REQUEST"
    status = 413
    smtp = (552, "5.3.4")


class RateLimited(RelayError):
    """Too many requests; `details.retryAfter` says how many whole seconds to wait."""

    code = "RATE_LIMIT_EXCEEDED"
    status = 429
    smtp = (451, "4.7.1")
    suggestion: ClassVar[str | None] = "Wait for the number of seconds in Retry-After, then try again."

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message, details={"retryAfter": retry_after_seconds})
        self.retry_after_seconds = retry_after_seconds


class BillingLimitReached(RateLimited):
    """The project's monthly cap for this kind of mail is used up."""

    code = "BILLING_LIMIT_EXCEEDED"
    suggestion = None


class StoreFailed(RelayError):
    """The store of uploaded files, a disk or an S3 service, did not do what it was asked to."""

    code = "EXTERNAL_SERVICE_ERROR"
    suggestion = "Try again; if it stays like this, tell the operator of this relay, whose log says more."


class Unavailable(RelayError):
    """We cannot store anything now: disk full, read-only, or stopping. Nothing was accepted; try again."""

    status = 503
    smtp = (452, "4.3.1")
    suggestion = "Nothing was accepted. Try again after the time in Retry-After."
    retry_after_seconds: ClassVar[int] = 30


def describe(error: RelayError) -> str:
    """Say an error in one line, for the command line and logs: the message with what it is about."""
    if isinstance(error, ValidationFailed):
        return "; ".join(f"{fault.field}: {fault.message}" for fault in error.errors) or error.message
    about = error.details.get("id") if isinstance(error, NotFound) and error.details else None
    return f"{error.message}: {about}" if about else error.message
