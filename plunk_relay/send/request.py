"""What may `POST /v1/send` say? Its body, field by field (contract section 8.1)."""

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from plunk_relay.errors import FieldError
from plunk_relay.mail.address import check_address
from plunk_relay.web.binding import missing, report_faults, wrong_type
from plunk_relay.web.endpoint import ApiModel
from plunk_relay.web.fields import Email, JsonObject, Line, Uuid, has_line_break

_HEADER_NAME = re.compile(r"[!-9;-~]+\Z")
_SENDER_SHAPE = "Give the sender as an e-mail address or as an object with `email` and, if you like, `name`"
MOST_RECIPIENTS = 10_000
SHORTEST_LIFETIME_SECONDS = 30


class AddressObject(ApiModel):
    """An address with a display name."""

    email: str = Field(description="E-mail address")
    name: str | None = Field(None, description="Display name")


def _read_recipients(value: object) -> list[AddressObject]:
    """Make a list of what may be one recipient or many; report every bad one with its place."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise report_faults([FieldError("", "Must contain at least 1 element(s)", "too_small")])
    if len(items) > MOST_RECIPIENTS:
        raise report_faults([FieldError("", f"Must contain at most {MOST_RECIPIENTS} element(s)", "too_big")])
    faults: list[FieldError] = []
    found = [
        _read_recipient(item, str(index) if isinstance(value, list) else "", faults) for index, item in enumerate(items)
    ]
    if faults:
        raise report_faults(faults)
    return [item for item in found if item is not None]


def _read_recipient(item: object, place: str, faults: list[FieldError]) -> AddressObject | None:
    if isinstance(item, str):
        if check_address(item) is None:
            return AddressObject(email=item)
        faults.append(FieldError(place, "Invalid email", "invalid_string"))
    elif isinstance(item, dict):
        return _read_named(item, place, faults)
    else:
        faults.append(FieldError(place, "Invalid input", "invalid_union"))
    return None


def _read_named(item: dict[str, Any], place: str, faults: list[FieldError]) -> AddressObject | None:
    email, name = item.get("email"), item.get("name")
    before = len(faults)
    prefix = f"{place}." if place else ""
    if "email" not in item:
        faults.append(missing(f"{prefix}email"))
    elif not isinstance(email, str):
        faults.append(wrong_type(f"{prefix}email", "string", email))
    elif check_address(email) is not None:
        faults.append(FieldError(f"{prefix}email", "Invalid email", "invalid_string"))
    if name is not None and not isinstance(name, str):
        faults.append(wrong_type(f"{prefix}name", "string", name))
    elif name and has_line_break(name):
        faults.append(FieldError(f"{prefix}name", "A name must not contain line breaks", "invalid_string"))
    return AddressObject(email=email or "", name=name) if len(faults) == before else None


def _read_sender(value: object) -> AddressObject | None:
    if value is None or not isinstance(value, str | dict):
        raise report_faults([FieldError("", _SENDER_SHAPE, "invalid_union")])
    faults: list[FieldError] = []
    found = _read_recipient(value, "", faults)
    if faults:
        raise report_faults(faults)
    return found


def _drop_default(schema: dict[str, Any]) -> None:
    """Say nothing of a default: null, ours for an absent sender, is not among the values."""
    schema.pop("default", None)


def _check_headers(value: object) -> object:
    if not isinstance(value, dict):
        return value
    faults = [fault for name, content in value.items() if (fault := _find_header_fault(name, content))]
    if faults:
        raise report_faults(faults)
    return value


def _find_header_fault(name: str, content: object) -> FieldError | None:
    if not _HEADER_NAME.match(name):
        return FieldError(name, "A header name is printable ASCII without blanks and colons", "invalid_string")
    if name.lower().startswith("x-plunk-"):
        return FieldError(name, "X-Plunk headers are reserved", "custom")
    if not isinstance(content, str):
        return wrong_type(name, "string", content)
    if len(content) > 998:
        return FieldError(name, "Must contain at most 998 character(s)", "too_big")
    return FieldError(name, "Line breaks are not allowed", "invalid_string") if has_line_break(content) else None


def _check_base64(value: object) -> object:
    """Refuse what is not base64: a broken attachment must not be found out at delivery."""
    if isinstance(value, str):
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            compact = "".join(value.split())
            try:
                base64.b64decode(compact, validate=True)
            except (binascii.Error, ValueError):
                raise PydanticCustomError("invalid_string", "Content must be base64") from None
            return compact
    return value


_OneAddress = str | AddressObject
_Recipients = str | AddressObject | list[str | AddressObject]


class AttachmentBody(ApiModel):
    """A file to send along."""

    filename: Line = Field(min_length=1, max_length=255, pattern=r'^[^"]*$', description="Name shown to the recipient")
    content: Annotated[str, BeforeValidator(_check_base64)] = Field(min_length=1, description="The file in base64")
    content_type: Line = Field(min_length=1, max_length=255, description="MIME type, such as application/pdf")
    disposition: Literal["attachment", "inline"] = Field("attachment", description="`inline`: shown in the HTML")
    content_id: Line | None = Field(
        None, min_length=1, max_length=255, pattern=r"^[^<>]*$", description="For inline files: the id in `cid:` links"
    )


class SendRequest(ApiModel):
    """A transactional mail: inline content or a template, for one recipient or many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "from": "hello@example.com",
                    "to": "user@example.net",
                    "subject": "Hello {{name ?? there}}",
                    "body": "<p>Your message here</p>",
                    "data": {"name": "Ann"},
                }
            ]
        }
    )
    to: Annotated[list[AddressObject], BeforeValidator(_read_recipients, json_schema_input_type=_Recipients)] = Field(
        description="An address, an object with `email` and `name`, or an array of either; each gets a mail of its own"
    )
    subject: Line | None = Field(None, min_length=1, max_length=998, description="Subject; needed without `template`")
    body: str | None = Field(None, min_length=1, description="HTML body; needed without `template`")
    template: Uuid | None = Field(None, description="Id of a template")
    sender: Annotated[AddressObject | None, BeforeValidator(_read_sender, json_schema_input_type=_OneAddress)] = Field(
        None,
        alias="from",
        json_schema_extra=_drop_default,
        description="Sender on a verified domain; unset: the template's, else no-reply@ your first one",
    )
    name: Line | None = Field(None, description="Sender's display name, when `from` has none")
    reply: Email | None = Field(None, description="Reply-To address")
    subscribed: bool | None = Field(None, description="Sets the contacts' subscription; unset: unchanged, new ones false")
    data: JsonObject | None = Field(None, description="Variables of the template, stored with the contact")
    headers: Annotated[dict[str, str], BeforeValidator(_check_headers)] | None = Field(
        None, description="Additional headers"
    )
    attachments: list[AttachmentBody] | None = Field(None, description="Files to send along")
    tracking: bool | None = Field(None, description="Opens and clicks for this mail; unset: the project's setting")
    expires_in: int | None = Field(
        None,
        ge=SHORTEST_LIFETIME_SECONDS,
        description="Lifetime in whole seconds, for one-time codes: not delivered later, and tried a last time before "
        "its end. At most, and when unset, what the operator has set (4 days). An extension of this relay",
    )

    @property
    def sender_name(self) -> str | None:
        """The display name that counts: the one inside `from` before `name`."""
        return (self.sender.name if self.sender else None) or self.name


class SentContact(ApiModel):
    """The contact a mail goes to."""

    id: str
    email: str


class SentEmail(ApiModel):
    """One queued mail; `email` is the id that later events carry as `emailId`."""

    contact: SentContact
    email: str


class SendData(ApiModel):
    """The queued mails in the order of the recipients."""

    emails: list[SentEmail]
    timestamp: str


class SendResponse(ApiModel):
    """Everything is stored; delivery follows."""

    success: bool
    data: SendData
