"""What may a tracked event say? The bodies, field by field (contract sections 9 and 18.3)."""

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, RootModel

from plunk_relay.errors import ValidationFailed
from plunk_relay.web.binding import bind, report_faults
from plunk_relay.web.endpoint import ApiModel
from plunk_relay.web.fields import AnyJson, Email, JsonObject

LONGEST_NAME = 1000


class TrackRequest(ApiModel):
    """A contact, by address, and what happened."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"event": "signed_up", "email": "user@example.net", "data": {"firstName": "Ann", "plan": "pro"}}]
        }
    )
    event: str = Field(
        min_length=1,
        max_length=LONGEST_NAME,
        description="Any name; case counts. Reserved: `email.*`, `contact.subscribed`, `contact.unsubscribed`, "
        "`segment.*.entry`, `segment.*.exit`",
    )
    email: Email = Field(description="The contact's address; a contact that is not there is made")
    subscribed: bool | None = Field(
        None, description="Sets the contact's subscription; unset: unchanged, new ones are subscribed"
    )
    preserve_existing_subscription: bool | None = Field(
        None, description="True: `subscribed` counts only for a contact that this request makes"
    )
    data: JsonObject | None = Field(
        None,
        description="Stored with the event as it is, and merged into the contact: null removes a field, an empty text "
        "changes nothing, `{value, persistent: false}` stays with the event",
    )


class TrackData(ApiModel):
    """What was stored."""

    contact: str = Field(description="Id of the contact")
    event: str = Field(description="Id of the event")
    timestamp: datetime = Field(description="When the event was recorded")


class TrackResponse(ApiModel):
    """The event is stored; workflows follow."""

    success: bool
    data: TrackData


class PlainEvent(ApiModel):
    """An event by itself, about a contact or mail that is there already, or about none."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME, description="Any name that is not reserved; case counts")
    contact_id: str | None = Field(None, description="Id of the contact it is about")
    email_id: str | None = Field(None, description="Id of the mail it is about")
    data: AnyJson | None = Field(None, description="Stored with the event as it is")


def _read_form(value: object) -> TrackRequest | PlainEvent:
    """Tell the two forms apart by their own words; the faults of the form that is meant are told."""
    fields = value if isinstance(value, dict) else {}
    tracked = "event" in fields or ("email" in fields and "name" not in fields)
    try:
        return bind(TrackRequest, value) if tracked else bind(PlainEvent, value)
    except ValidationFailed as error:
        raise report_faults(error.errors) from None


class EventRequest(RootModel[Annotated[TrackRequest | PlainEvent, BeforeValidator(_read_form)]]):
    """Either form: a contact by address and `event`, or `name` with ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "invoice_paid", "data": {"amount": 12.5}}]})
