"""What may be asked about segments? Made, changed, counted, and who is in them (contract section 17)."""

import math
from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from plunk_relay.contacts.api import ContactBody
from plunk_relay.contacts.api import show as show_contact
from plunk_relay.errors import BadRequest, Conflict, NotFound
from plunk_relay.relay import Relay
from plunk_relay.segments import actions, queries
from plunk_relay.segments.actions import NewSegment
from plunk_relay.segments.queries import PageOf, Segment, SegmentType
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint
from plunk_relay.web.paging import Page, PageQuery

_TAG = "Segments"
MOST_EMAILS = 500
_CONDITION = (
    "`{logic, groups}`: `logic` AND or OR joins the groups; of a group all `filters`, and the nested `conditions`, hold. "
    "A filter is `{field, operator, value, unit}`; fields are `email`, `subscribed`, `createdAt`, `updatedAt`, "
    "`data.<key>`, `event.<name>`, `email.<opened, clicked, bounced, complained, sent, delivered>` and `segment.<id>`"
)
_TYPE = "DYNAMIC: who fits the condition. STATIC: who was added"
_EXAMPLE: JsonDict = {
    "name": "Active on the pro plan",
    "condition": {
        "logic": "AND",
        "groups": [
            {
                "filters": [
                    {"field": "data.plan", "operator": "equals", "value": "pro"},
                    {"field": "event.login", "operator": "triggeredWithin", "value": 30, "unit": "days"},
                ]
            }
        ],
    },
}


class SegmentBody(ApiModel):
    """A segment."""

    id: str
    name: str
    description: str | None
    type: SegmentType = Field(description=_TYPE)
    condition: dict[str, Any] | None = Field(description="Null for STATIC")
    track_membership: bool = Field(description="Entries and exits are events")
    member_count: int = Field(description="As last counted")
    project_id: str
    created_at: datetime
    updated_at: datetime


class SegmentRequest(ApiModel):
    """A segment to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    name: str = Field(min_length=1, max_length=100, description="Shown in lists, and part of the names of its events")
    description: str | None = Field(None, max_length=500, description="A note")
    type: SegmentType = Field("DYNAMIC", description=_TYPE)
    condition: Any = Field(None, description=f"For DYNAMIC. {_CONDITION}")
    track_membership: bool = Field(False, description="Record entries and exits as events")


class SegmentChanges(ApiModel):
    """What is to change; what is left out stays, and so does the type."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"trackMembership": True}]})
    name: str = Field("", min_length=1, max_length=100, description="Left out: it stays")
    description: str | None = Field(None, max_length=500, description="A note; null removes it")
    condition: Any = Field(None, description=f"Ignored for STATIC. {_CONDITION}")
    track_membership: bool = Field(False, description="Left out: it stays")


class Members(ApiModel):
    """Addresses of contacts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"emails": ["user@example.net"]}]})
    emails: list[str] = Field(min_length=1, max_length=MOST_EMAILS, description=f"1 to {MOST_EMAILS} addresses, in any case")


class NewMembers(Members):
    """Addresses of contacts that are to be members."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"emails": ["user@example.net"], "createMissing": True}]})
    create_missing: bool = Field(False, description="Make contacts of valid addresses that are none")
    subscribed: bool = Field(True, description="Whether those are subscribed")


class AddedMembers(ApiModel):
    """What became of the addresses."""

    added: int = Field(description="Contacts that are members now, whether they were before or not")
    created: int
    not_found: list[str] = Field(description="As they were sent")


class RemovedMembers(ApiModel):
    """How many memberships ended."""

    removed: int


class ComputedMembers(ApiModel):
    """What a computation changed."""

    added: int
    removed: int
    total: int


class MemberCount(ApiModel):
    """How many contacts are in a segment."""

    member_count: int


class ContactsOfSegment(Page):
    """A page of contacts."""

    data: list[ContactBody]


@endpoint("GET", "/segments", tag=_TAG)
async def list_segments(relay: Relay, caller: Caller) -> list[SegmentBody]:
    """List all segments, newest first."""
    return [_show(one) for one in await relay.db.read(queries.list_segments, caller.project_id)]


@endpoint("POST", "/segments", tag=_TAG, status=201, errors=(BadRequest,))
async def create_segment(relay: Relay, caller: Caller, body: SegmentRequest) -> SegmentBody:
    """Make a segment.

    Negations (`notEquals`, `notContains`) hold for contacts without the field; add `exists` to leave these out.
    """
    new = NewSegment(body.name, body.description, body.type, body.condition, body.track_membership)
    return _show(await actions.create_segment(relay, caller.project_id, new))


@endpoint("GET", "/segments/{segment_id}", tag=_TAG, errors=(NotFound,))
async def get_segment(relay: Relay, caller: Caller, segment_id: str) -> SegmentBody:
    """Return a segment."""
    return _show(await actions.get_segment(relay, caller.project_id, segment_id))


@endpoint("PATCH", "/segments/{segment_id}", tag=_TAG, errors=(NotFound, BadRequest))
async def update_segment(relay: Relay, caller: Caller, segment_id: str, body: SegmentChanges) -> SegmentBody:
    """Change a segment.

    A new condition is counted at once; memberships and their events follow with the next computation. While
    `trackMembership` is off, members stay as they were; the first computation after it is on again tells who came and went.
    """
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    return _show(await actions.update_segment(relay, caller.project_id, segment_id, changes))


@endpoint("DELETE", "/segments/{segment_id}", tag=_TAG, status=204, errors=(NotFound, Conflict))
async def delete_segment(relay: Relay, caller: Caller, segment_id: str) -> None:
    """Delete a segment, unless a campaign that is not over, a workflow or another segment names it."""
    await actions.delete_segment(relay, caller.project_id, segment_id)


@endpoint("GET", "/segments/{segment_id}/contacts", tag=_TAG, errors=(NotFound, BadRequest))
async def list_segment_contacts(relay: Relay, caller: Caller, segment_id: str, query: PageQuery) -> ContactsOfSegment:
    """List the contacts in a segment: for DYNAMIC who fits now, newest first; for STATIC who was added last first."""
    segment = await actions.get_segment(relay, caller.project_id, segment_id)
    found, total = await actions.list_contacts(relay, segment, PageOf(query.page, query.page_size))
    return ContactsOfSegment(
        data=[show_contact(contact) for contact in found],
        total=total,
        page=query.page,
        page_size=query.page_size,
        total_pages=math.ceil(total / query.page_size),
    )


@endpoint("POST", "/segments/{segment_id}/members", tag=_TAG, errors=(NotFound, BadRequest))
async def add_segment_members(relay: Relay, caller: Caller, segment_id: str, body: NewMembers) -> AddedMembers:
    """Add contacts to a STATIC segment."""
    segment = await actions.get_segment(relay, caller.project_id, segment_id)
    done = await actions.add_members(
        relay, segment, body.emails, create_missing=body.create_missing, subscribed=body.subscribed
    )
    return AddedMembers(added=done.added, created=done.created, not_found=done.not_found)


@endpoint("DELETE", "/segments/{segment_id}/members", tag=_TAG, errors=(NotFound, BadRequest))
async def remove_segment_members(relay: Relay, caller: Caller, segment_id: str, body: Members) -> RemovedMembers:
    """Remove contacts from a STATIC segment; unknown addresses do not matter."""
    segment = await actions.get_segment(relay, caller.project_id, segment_id)
    return RemovedMembers(removed=await actions.remove_members(relay, segment, body.emails))


@endpoint("POST", "/segments/{segment_id}/compute", tag=_TAG, errors=(NotFound, BadRequest))
async def compute_segment(relay: Relay, caller: Caller, segment_id: str) -> ComputedMembers:
    """Bring the members of a tracked segment in line with its condition.

    Each contact that enters or leaves is an event, `segment.<name>.entry` or `segment.<name>.exit`. It happens every
    five minutes anyway.
    """
    segment = await actions.get_segment(relay, caller.project_id, segment_id)
    done = await actions.compute_members(relay, segment)
    return ComputedMembers(added=done.added, removed=done.removed, total=done.total)


@endpoint("POST", "/segments/{segment_id}/refresh", tag=_TAG, errors=(NotFound, BadRequest))
async def refresh_segment(relay: Relay, caller: Caller, segment_id: str) -> MemberCount:
    """Count the contacts in a segment again; no events, no memberships."""
    segment = await actions.get_segment(relay, caller.project_id, segment_id)
    return MemberCount(member_count=await actions.refresh_count(relay, segment))


def _show(segment: Segment) -> SegmentBody:
    return SegmentBody(
        id=segment.id,
        name=segment.name,
        description=segment.description,
        type=segment.type,
        condition=segment.condition,
        track_membership=segment.track_membership,
        member_count=segment.member_count,
        project_id=segment.project_id,
        created_at=segment.created_at,
        updated_at=segment.updated_at,
    )


ENDPOINTS: list[Endpoint] = [
    list_segments,
    create_segment,
    get_segment,
    update_segment,
    delete_segment,
    list_segment_contacts,
    add_segment_members,
    remove_segment_members,
    compute_segment,
    refresh_segment,
]
