"""What may be asked about fields? Which there are, their values and users, and their deletion (contract 12.7 to 12.9)."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from plunk_relay.contacts.fields import actions
from plunk_relay.contacts.fields.actions import FieldType
from plunk_relay.errors import BadRequest
from plunk_relay.relay import Relay
from plunk_relay.usage.api import UserBody, show_users
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, aliases, endpoint
from plunk_relay.web.paging import ANY_NUMBER, lenient

_TAG = "Contacts"
USUAL_VALUES = 100
MOST_VALUES = 200
FieldName = Annotated[str, "Name of a field: `data.plan`, or `email` and its like"]


class FieldBody(ApiModel):
    """A field of contacts."""

    field: str = Field(description="`email`, `subscribed`, `createdAt`, `updatedAt`, or `data.<key>`")
    type: FieldType = Field(description="Of a custom field: what the oldest contact that has it holds there")
    coverage: int = Field(description="How many percent of the contacts have it")
    is_custom: bool


class FieldList(ApiModel):
    """All fields, by name."""

    fields: list[FieldBody]
    count: int


class ValueQuery(ApiModel):
    """How many values."""

    limit: Annotated[int, BeforeValidator(lenient(USUAL_VALUES, MOST_VALUES))] = Field(
        USUAL_VALUES, description=f"Most values, up to {MOST_VALUES}", json_schema_extra=ANY_NUMBER
    )


class ValueList(ApiModel):
    """Different values of a field, in the order of their text."""

    field: str
    values: list[bool | int | float | str]
    count: int
    limit: int


class FieldUsageBody(ApiModel):
    """Who uses a field."""

    used_in_segments: list[UserBody]
    used_in_campaigns: list[UserBody]
    used_in_workflows: list[UserBody]
    contact_count: int = Field(description="How many contacts have it")
    can_delete: bool


class DeletedField(ApiModel):
    """What a deletion changed."""

    deleted_from: int = Field(description="How many contacts had the field")


@endpoint("GET", "/contacts/fields", tag=_TAG)
async def list_fields(relay: Relay, caller: Caller) -> FieldList:
    """List the standard fields and every custom field, with type and coverage.

    A custom field is a key of a contact's own object, with all that is in it: `data.company` may hold an object, and
    `data.company.name` is listed only for contacts with a key `company.name`. In a path, a slash in a name is `%2F`.
    """
    found = await actions.list_fields(relay, caller.project_id)
    fields = [
        FieldBody(field=one.name, type=one.type, coverage=one.coverage, is_custom=one.name.startswith("data."))
        for one in found
    ]
    return FieldList(fields=fields, count=len(fields))


@endpoint("GET", "/contacts/fields/{field}/values", tag=_TAG)
async def list_field_values(relay: Relay, caller: Caller, field: FieldName, query: ValueQuery) -> ValueList:
    """List the different values of a field, `data.plan` or `plan`."""
    values = await actions.list_values(relay, caller.project_id, field, limit=query.limit)
    return ValueList(field=field, values=values, count=len(values), limit=query.limit)


@endpoint("GET", "/contacts/fields/{field}/usage", tag=_TAG)
async def show_field_usage(relay: Relay, caller: Caller, field: FieldName) -> FieldUsageBody:
    """Tell which segments, campaigns and workflows name a field, or something inside it."""
    usage = await actions.find_usage(relay, caller.project_id, field)
    return FieldUsageBody(
        used_in_segments=show_users(usage.users.segments),
        used_in_campaigns=show_users(usage.users.campaigns),
        used_in_workflows=show_users(usage.users.workflows),
        contact_count=usage.contacts,
        can_delete=usage.can_delete,
    )


@endpoint("DELETE", "/contacts/fields/{field}", tag=_TAG, errors=(BadRequest,))
async def delete_field(relay: Relay, caller: Caller, field: FieldName) -> DeletedField:
    """Delete a custom field from every contact; refused while a segment, campaign or workflow names it, or what is in it."""
    return DeletedField(deleted_from=await actions.delete_field(relay, caller.project_id, field))


_ENDPOINTS = [list_fields, list_field_values, show_field_usage, delete_field]
ENDPOINTS: list[Endpoint] = [*_ENDPOINTS, *aliases(_ENDPOINTS, "/v1")]
