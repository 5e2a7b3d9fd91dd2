"""What may be asked? The newest events, how often each name was recorded, where a name is used, and its removal."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from plunk_relay.conditions import read_day, read_time
from plunk_relay.errors import BadRequest
from plunk_relay.events import actions, queries
from plunk_relay.events.names import is_reserved
from plunk_relay.events.queries import Event, Span
from plunk_relay.relay import Relay
from plunk_relay.usage.api import UserBody, show_users
from plunk_relay.usage.queries import find_event_usage
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint
from plunk_relay.web.fields import AnyJson
from plunk_relay.web.paging import ANY_NUMBER, lenient

_TAG = "Events"
_MOST = 1000
EventName = Annotated[str, "Name of the event; a slash in it is written `%2F`"]
_DAY = timedelta(days=1) - timedelta(milliseconds=1)


class EventBody(ApiModel):
    """Something that happened."""

    id: str
    name: str = Field(description="As tracked, or a system name such as email.sent")
    data: AnyJson | None = Field(description="As sent, or the documented payload of a system event; null: none")
    project_id: str
    contact_id: str | None = Field(description="The contact it is about; null: none")
    email_id: str | None = Field(description="The mail it is about; null: none")
    created_at: datetime


class EventContact(ApiModel):
    """The contact an event is about."""

    email: str


class ListedEvent(EventBody):
    """Something that happened, with the contact's address."""

    contact: EventContact | None = Field(description="Null: it is about no contact")


class EventList(ApiModel):
    """Events, newest first."""

    events: list[ListedEvent]


class ContactEventList(ApiModel):
    """Events about one contact, newest first."""

    events: list[EventBody]


class EventListQuery(ApiModel):
    """Which events."""

    event_name: str | None = Field(None, description="Only those of this name")
    limit: Annotated[int, BeforeValidator(lenient(100, _MOST))] = Field(
        100,
        description=f"Most events, up to {_MOST}; what is no number counts as 100",
        json_schema_extra=ANY_NUMBER,
    )


class ContactEventQuery(ApiModel):
    """How many events."""

    limit: Annotated[int, BeforeValidator(lenient(50, _MOST))] = Field(
        50,
        description=f"Most events, up to {_MOST}; what is no number counts as 50",
        json_schema_extra=ANY_NUMBER,
    )


def _read_start(value: object) -> datetime | None:
    if value in (None, ""):
        return None
    moment = read_time(value)
    if moment is None:
        raise PydanticCustomError("invalid_string", "Invalid date: write ISO 8601, such as 2026-03-01T12:00:00Z")
    return moment


def _read_end(value: object) -> datetime | None:
    """Read a time; a day without one means the whole day."""
    moment = _read_start(value)
    return moment + _DAY if moment and isinstance(value, str) and read_day(value) == value else moment


class StatsQuery(ApiModel):
    """Which events are counted."""

    start_date: Annotated[datetime | None, BeforeValidator(_read_start, json_schema_input_type=str)] = Field(
        None, description="From then on (ISO 8601, UTC unless it says otherwise)"
    )
    end_date: Annotated[datetime | None, BeforeValidator(_read_end, json_schema_input_type=str)] = Field(
        None, description="Up to and including then; a date without a time means the whole day"
    )


class NameCountBody(ApiModel):
    """How often a name was recorded."""

    name: str
    count: int


class EventNames(ApiModel):
    """The names of events."""

    event_names: list[str]


class EventUsageBody(ApiModel):
    """Where an event's name is used."""

    used_in_segments: list[UserBody] = Field(description="Segments that filter by it")
    used_in_campaigns: list[UserBody] = Field(description="Campaigns whose audience is filtered by it")
    used_in_workflows: list[UserBody] = Field(description="Workflows that it triggers, or whose waits or conditions name it")
    total_count: int = Field(description="How many events have this name")
    unique_contacts: int = Field(description="How many contacts they are about")
    can_delete: bool = Field(description="Nothing uses the name, and it is not reserved")


class DeletedEvents(ApiModel):
    """The events are gone."""

    deleted_count: int


def show_event(event: Event) -> EventBody:
    """Return an event as the API shows it."""
    return EventBody(**{name: getattr(event, name) for name in Event.__dataclass_fields__})


@endpoint("GET", "/events", tag=_TAG)
async def list_events(relay: Relay, caller: Caller, query: EventListQuery) -> EventList:
    """List the newest events, system events included, newest first."""
    found = await relay.db.read(queries.list_events, caller.project_id, name=query.event_name or None, limit=query.limit)
    return EventList(events=[_listed(event, address) for event, address in found])


@endpoint("GET", "/events/stats", tag=_TAG)
async def show_event_stats(relay: Relay, caller: Caller, query: StatsQuery) -> list[NameCountBody]:
    """Tell how often each event was recorded, most frequent first.

    Up to 1000 names are told. Numbers of more than 20,000 events may be ten seconds old.
    """
    counts = await actions.count_names(relay, caller.project_id, Span(query.start_date, query.end_date))
    return [NameCountBody(name=one.name, count=one.count) for one in counts]


@endpoint("GET", "/events/contact/{contact_id}", tag=_TAG)
async def list_contact_events(relay: Relay, caller: Caller, contact_id: str, query: ContactEventQuery) -> ContactEventList:
    """List the newest events about a contact; there are none about one that is unknown."""
    found = await relay.db.read(queries.list_contact_events, caller.project_id, contact_id, limit=query.limit)
    return ContactEventList(events=[show_event(event) for event in found])


@endpoint("GET", "/events/names", tag=_TAG)
async def list_event_names(relay: Relay, caller: Caller) -> EventNames:
    """List the names of all events, most frequent first; up to 1000.

    In a project with more than 20,000 events a new name may be missing for ten seconds.
    """
    return EventNames(event_names=[one.name for one in await actions.count_names(relay, caller.project_id)])


@endpoint("GET", "/events/{event_name}/usage", tag=_TAG)
async def show_event_usage(relay: Relay, caller: Caller, event_name: EventName) -> EventUsageBody:
    """Tell which segments, campaigns and workflows use an event, and how many of it there are.

    A slash in the name is written `%2F`. Numbers of more than 20,000 events may be ten seconds old.
    """
    usage = await relay.db.read(find_event_usage, caller.project_id, event_name)
    totals = await actions.count_named(relay, caller.project_id, event_name)
    return EventUsageBody(
        used_in_segments=show_users(usage.segments),
        used_in_campaigns=show_users(usage.campaigns),
        used_in_workflows=show_users(usage.workflows),
        total_count=totals.events,
        unique_contacts=totals.contacts,
        can_delete=not usage and not is_reserved(event_name),
    )


@endpoint("DELETE", "/events/{event_name}", tag=_TAG, errors=(BadRequest,))
async def delete_events(relay: Relay, caller: Caller, event_name: EventName) -> DeletedEvents:
    """Delete every event of a name.

    Events of reserved names stay, and so do those whose name a segment, campaign or workflow uses. A slash in the name
    is written `%2F`.
    """
    return DeletedEvents(deleted_count=await actions.delete_named(relay, caller.project_id, event_name))


def _listed(event: Event, address: str | None) -> ListedEvent:
    contact = EventContact(email=address) if address is not None else None
    return ListedEvent(**dict(show_event(event)), contact=contact)


ENDPOINTS: list[Endpoint] = [
    list_events,
    show_event_stats,
    list_contact_events,
    list_event_names,
    show_event_usage,
    delete_events,
]
