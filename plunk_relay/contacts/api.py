"""What may be asked about contacts? Made, found, listed, changed and deleted (contract section 12)."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from plunk_relay.contacts import actions, queries
from plunk_relay.contacts.actions import ContactChange, ContactPatch
from plunk_relay.contacts.queries import Contact, ContactFilter, Place
from plunk_relay.errors import BadRequest, Conflict, ContactNotFound, ValidationFailed
from plunk_relay.mail.address import normalize_address
from plunk_relay.relay import Relay
from plunk_relay.web.access import Caller
from plunk_relay.web.binding import wrong_type
from plunk_relay.web.endpoint import Answer, ApiModel, Endpoint, aliases, endpoint
from plunk_relay.web.envelope import dump_json
from plunk_relay.web.fields import AnyJson, Email, JsonObject
from plunk_relay.web.paging import ANY_WORD, CursorPage, CursorQuery, one_of

_TAG = "Contacts"
_BUCKET = "contacts:write"
MOST_LOOKUPS = 500
_DATA = (
    "Custom fields, merged into those that are there: null removes a field, an empty text changes nothing, "
    "`{value, persistent: false}` is not kept"
)


def _trim(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


TrimmedEmail = Annotated[Email, BeforeValidator(_trim)]


class ContactBody(ApiModel):
    """A contact."""

    id: str
    email: str
    data: dict[str, Any] | None = Field(description="Custom fields; null: there are none")
    subscribed: bool
    project_id: str
    created_at: datetime
    updated_at: datetime


class ContactMeta(ApiModel):
    """What became of a contact that was sent."""

    is_new: bool
    is_update: bool


class UpsertedContact(ContactBody):
    """A contact, and whether it is new."""

    meta: ContactMeta = Field(alias="_meta")


class ContactPage(CursorPage):
    """A page of contacts."""

    data: list[ContactBody]


class NewContact(ApiModel):
    """A contact to make, or to merge into the one with the address."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"email": "user@example.net", "subscribed": True, "data": {"firstName": "John", "plan": "pro"}},
            ]
        }
    )
    email: TrimmedEmail = Field(description="Address; blanks around it and its case do not matter")
    subscribed: bool | None = Field(None, description="Unset: unchanged, new contacts are subscribed")
    data: JsonObject | None = Field(None, description=_DATA)


class ContactChanges(ApiModel):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"subscribed": False, "data": {"plan": "free"}}]})
    email: TrimmedEmail | None = Field(None, description="New address, which no other contact of the project may have")
    subscribed: bool | None = Field(None, description="Whether marketing mail is sent; a change is an event")
    data: AnyJson = Field(
        None,
        description=f"{_DATA}. Null: all of them are removed",
        json_schema_extra={"anyOf": [{"type": "object"}, {"type": "null"}]},
    )


class Lookup(ApiModel):
    """Addresses to look for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"emails": ["user@example.net", "nobody@example.net"]}]})
    emails: list[str] = Field(
        description=f"1 to {MOST_LOOKUPS} addresses, in any case",
        json_schema_extra={"minItems": 1, "maxItems": MOST_LOOKUPS},
    )


class LookupResult(ApiModel):
    """The addresses as they were sent, in their order."""

    found: list[str]
    not_found: list[str]


def _read_flag(value: object) -> bool | None:
    return {"true": True, "false": False}.get(str(value))


class ContactQuery(CursorQuery):
    """Which contacts, in which order."""

    search: str | None = Field(None, description="What the address contains, in any case")
    prefix: str | None = Field(
        None, description="What the address begins with, in any case: found at once in an audience of any size"
    )
    subscribed: Annotated[bool | None, BeforeValidator(_read_flag), ANY_WORD] = Field(
        None, description="`true` or `false`; anything else: all"
    )
    sort: Annotated[Literal["email", "createdAt"] | None, one_of("createdAt", "email"), ANY_WORD] = Field(
        None,
        description="`createdAt` or `email`. Unset: `email` with a `prefix`, else `createdAt`",
    )
    dir: Annotated[Literal["asc", "desc"] | None, one_of("asc", "desc"), ANY_WORD] = Field(
        None,
        description="`asc` or `desc`. Unset: newest first, addresses from a to z",
    )

    def place(self, after: Contact | None) -> Place:
        """Return where in which order the page begins."""
        sort = self.sort or ("email" if self.prefix else "createdAt")
        usual: Literal["asc", "desc"] = "asc" if self.prefix and self.sort is None else "desc"
        return Place(sort, self.dir or usual, after)


@endpoint("GET", "/contacts", tag=_TAG)
async def list_contacts(relay: Relay, caller: Caller, query: ContactQuery) -> ContactPage:
    """List contacts, newest first.

    A cursor goes with the same filters and the same order.
    """
    chosen = ContactFilter(query.search or None, query.prefix or None, query.subscribed)
    after = None
    if query.cursor:
        after = await relay.db.read(queries.find_contact, caller.project_id, query.cursor)
        if after is None:
            return ContactPage(data=[], total=0, has_more=False)
    read = relay.db.scan if chosen.search else relay.db.read
    place = query.place(after)
    found, total = await read(queries.list_contacts, caller.project_id, chosen, place, limit=query.limit + 1)
    page = [show(contact) for contact in found[: query.limit]]
    more = len(found) > query.limit
    return ContactPage(data=page, total=total, cursor=page[-1].id if more else None, has_more=more)


@endpoint("POST", "/contacts", tag=_TAG, status=201, also=(200,), bucket=_BUCKET, errors=(BadRequest,))
async def create_contact(relay: Relay, caller: Caller, body: NewContact) -> UpsertedContact | Answer:
    """Make a contact, or merge into the one with the address: 201 when it is new, 200 when it was there."""
    change = ContactChange(normalize_address(body.email), body.data, body.subscribed)
    contact, is_new = await relay.db.write(actions.upsert_contact, caller.project_id, change, now=relay.clock.now())
    meta = ContactMeta(is_new=is_new, is_update=not is_new)
    shown = UpsertedContact(**show(contact).model_dump(), meta=meta)
    return Answer(dump_json(shown), 201 if is_new else 200)


@endpoint("GET", "/contacts/{contact_id}", tag=_TAG, errors=(ContactNotFound,))
async def get_contact(relay: Relay, caller: Caller, contact_id: str) -> ContactBody:
    """Return a contact."""
    return show(await relay.db.read(actions.get_contact, caller.project_id, contact_id))


@endpoint("PATCH", "/contacts/{contact_id}", tag=_TAG, bucket=_BUCKET, errors=(ContactNotFound, BadRequest, Conflict))
async def update_contact(relay: Relay, caller: Caller, contact_id: str, body: ContactChanges) -> ContactBody:
    """Change a contact's address, subscription or custom fields."""
    patch = _read_patch(body)
    return show(await relay.db.write(actions.patch_contact, caller.project_id, contact_id, patch, now=relay.clock.now()))


def _read_patch(body: ContactChanges) -> ContactPatch:
    """Read a PATCH; raises BadRequest when `data` is no object, ValidationFailed for a null that means nothing."""
    nulls = [name for name in ("email", "subscribed") if name in body.model_fields_set and getattr(body, name) is None]
    if nulls:
        expected = {"email": "string", "subscribed": "boolean"}
        raise ValidationFailed([wrong_type(name, expected[name], None) for name in nulls])
    if body.data is not None and not isinstance(body.data, dict):
        raise BadRequest("data must be an object of custom fields, or null to remove them all.")
    wipe = body.data is None and "data" in body.model_fields_set
    email = None if body.email is None else normalize_address(body.email)
    return ContactPatch(email, body.subscribed, body.data, wipe)


@endpoint("DELETE", "/contacts/{contact_id}", tag=_TAG, status=204, bucket=_BUCKET, errors=(ContactNotFound,))
async def delete_contact(relay: Relay, caller: Caller, contact_id: str) -> None:
    """Delete a contact with its mails, events and memberships."""
    await actions.shorten_histories(relay, caller.project_id, [contact_id])
    if not await relay.db.write(actions.delete_contacts, caller.project_id, [contact_id]):
        raise ContactNotFound.of("Contact", contact_id)


@endpoint("POST", "/contacts/lookup", tag=_TAG, errors=(BadRequest,))
async def lookup_contacts(relay: Relay, caller: Caller, body: Lookup) -> LookupResult:
    """Tell which addresses are contacts of the project."""
    if not 1 <= len(body.emails) <= MOST_LOOKUPS:
        raise BadRequest(f"emails must hold 1 to {MOST_LOOKUPS} addresses.")
    wanted = {email: normalize_address(email) for email in body.emails}
    known = await relay.db.read(queries.find_contacts_by_email, caller.project_id, sorted(set(wanted.values())))
    return LookupResult(
        found=[email for email in body.emails if wanted[email] in known],
        not_found=[email for email in body.emails if wanted[email] not in known],
    )


def show(contact: Contact) -> ContactBody:
    """Return a contact as the API shows it."""
    return ContactBody(
        id=contact.id,
        email=contact.email,
        data=contact.data,
        subscribed=contact.subscribed,
        project_id=contact.project_id,
        created_at=contact.created_at,
        updated_at=contact.updated_at,
    )


_ENDPOINTS = [list_contacts, create_contact, get_contact, update_contact, delete_contact, lookup_contacts]
ENDPOINTS: list[Endpoint] = [*_ENDPOINTS, *aliases(_ENDPOINTS, "/v1")]
