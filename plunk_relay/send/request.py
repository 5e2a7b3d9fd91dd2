"""What may `POST /v1/send` say? Its body, field by field (contract section 8.1)."""

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from plunk_relay.mail.address import Mailbox, check_address
from plunk_relay.web.binding import Fault, report_faults
from plunk_relay.web.endpoint import ApiModel

_LINE_BREAK = re.compile(r"[\r\n]")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
_SENDER_SHAPE = "Give the sender as an e-mail address or as an object with `email` and, if you like, `name`"
MOST_RECIPIENTS = 10_000


class AddressObject(ApiModel):
    """An address with a display name."""

    email: str = Field(description="E-mail address")
    name: str | None = Field(None, description="Display name")


def _read_recipients(value: object) -> list[AddressObject]:
    """Make a list of what may be one recipient or many; report every bad one with its place."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise report_faults([("", "Array must contain at least 1 element(s)", "too_small")])
    if len(items) > MOST_RECIPIENTS:
        raise report_faults([("", f"Array must contain at most {MOST_RECIPIENTS} element(s)", "too_big")])
    faults: list[Fault] = []
    found = [
        _read_recipient(item, str(index) if isinstance(value, list) else "", faults) for index, item in enumerate(items)
    ]
    if faults:
        raise report_faults(faults)
    return [item for item in found if item is not None]


def _read_recipient(item: object, place: str, faults: list[Fault]) -> AddressObject | None:
    if isinstance(item, str):
        if check_address(item) is None:
            return AddressObject(email=item)
        faults.append((place, "Invalid email", "invalid_string"))
    elif isinstance(item, dict):
        return _read_named(item, place, faults)
    else:
        faults.append((place, "Invalid input", "invalid_union"))
    return None


def _read_named(item: dict[str, Any], place: str, faults: list[Fault]) -> AddressObject | None:
    email, name = item.get("email"), item.get("name")
    before = len(faults)
    prefix = f"{place}." if place else ""
    if not isinstance(email, str):
        faults.append((f"{prefix}email", "Required" if email is None else "Expected string", "invalid_type"))
    elif check_address(email) is not None:
        faults.append((f"{prefix}email", "Invalid email", "invalid_string"))
    if name is not None and not isinstance(name, str):
        faults.append((f"{prefix}name", "Expected string", "invalid_type"))
    elif name and _LINE_BREAK.search(name):
        faults.append((f"{prefix}name", "A name must not contain line breaks", "invalid_string"))
    return AddressObject(email=email or "", name=name) if len(faults) == before else None


def _read_sender(value: object) -> AddressObject | None:
    if value is None or not isinstance(value, str | dict):
        raise report_faults([("", _SENDER_SHAPE, "invalid_union")])
    faults: list[Fault] = []
    found = _read_recipient(value, "", faults)
    if faults:
        raise report_faults(faults)
    return found


def _check_email(value: object) -> object:
    if isinstance(value, str) and check_address(value) is not None:
        raise PydanticCustomError("invalid_string", "Invalid email")
    return value


def _check_line(value: object) -> object:
    if isinstance(value, str) and _LINE_BREAK.search(value):
        raise PydanticCustomError("invalid_string", "Line breaks are not allowed")
    return value


def _check_uuid(value: object) -> object:
    if isinstance(value, str) and not _UUID.match(value):
        raise PydanticCustomError("invalid_string", "Invalid uuid")
    return value


def _check_headers(value: object) -> object:
    if not isinstance(value, dict):
        return value
    faults: list[Fault] = []
    for name, content in value.items():
        if not re.fullmatch(r"[!-9;-~]+", name):
            faults.append((name, "A header name is printable ASCII without blanks and colons", "invalid_string"))
        elif name.lower().startswith("x-plunk-"):
            faults.append((name, "X-Plunk headers are reserved", "custom"))
        elif isinstance(content, str) and (len(content) > 998 or _LINE_BREAK.search(content)):
            faults.append((name, "A header value has at most 998 characters and no line breaks", "invalid_string"))
    if faults:
        raise report_faults(faults)
    return value


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


Email = Annotated[str, BeforeValidator(_check_email)]
Line = Annotated[str, BeforeValidator(_check_line)]


class AttachmentBody(ApiModel):
    """A file to send along."""

    filename: Annotated[str, BeforeValidator(_check_line)] = Field(
        min_length=1, max_length=255, pattern=r'^[^"]*$', description="Name shown to the recipient"
    )
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
    to: Annotated[list[AddressObject], BeforeValidator(_read_recipients)] = Field(
        description="An address, an object with `email` and `name`, or an array of either; each gets a mail of its own"
    )
    subject: Line | None = Field(None, min_length=1, max_length=998, description="Subject; needed without `template`")
    body: str | None = Field(None, min_length=1, description="HTML body; needed without `template`")
    template: Annotated[str, BeforeValidator(_check_uuid)] | None = Field(None, description="Id of a template")
    sender: Annotated[AddressObject | None, BeforeValidator(_read_sender)] = Field(
        None,
        alias="from",
        description="Sender on a verified domain; unset: the template's, else no-reply@ your first one",
    )
    name: Line | None = Field(None, description="Sender's display name, when `from` has none")
    reply: Email | None = Field(None, description="Reply-To address")
    subscribed: bool | None = Field(None, description="Sets the contacts' subscription; unset: unchanged, new ones false")
    data: dict[str, JsonValue] | None = Field(None, description="Variables of the template, stored with the contact")
    headers: Annotated[dict[str, str], BeforeValidator(_check_headers)] | None = Field(
        None, description="Additional headers"
    )
    attachments: list[AttachmentBody] | None = Field(None, description="Files to send along")
    tracking: bool | None = Field(None, description="Opens and clicks for this mail; unset: the project's setting")

    def sender_mailbox(self) -> Mailbox | None:
        """Return the sender with the name that counts."""
        return Mailbox(self.sender.email, self.sender.name or self.name) if self.sender else None


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
