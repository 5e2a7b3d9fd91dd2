"""What may be asked about suppressions? Rules, the mail they caught (contract section 20), and the list of addresses."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from plunk_relay.errors import BadRequest, NotFound, ValidationFailed
from plunk_relay.relay import Relay
from plunk_relay.suppressions import actions, queries
from plunk_relay.suppressions.actions import RuleChange
from plunk_relay.suppressions.queries import CaughtMail, Kind, ListFilter, Reason, Rule, Suppression
from plunk_relay.suppressions.rules import find_match
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint
from plunk_relay.web.paging import CursorPage, CursorQuery

_TAG = "Suppressions"
_KIND = (
    "What is compared, in any case: ADDRESS the whole address, DOMAIN what stands behind the @, PREFIX and SUFFIX the "
    "beginning and the end of what stands before it, WILDCARD the whole address with * for any characters and ? for one"
)


class NewRule(ApiModel):
    """A rule as it shall be; keys that are not named here are refused."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "additionalProperties": False,
            "examples": [{"name": "Staging", "kind": "DOMAIN", "pattern": "example.com"}],
        },
    )
    name: str = Field(min_length=1, max_length=255, description="For people")
    kind: Kind = Field(description=_KIND)
    pattern: str = Field(min_length=1, max_length=254, description="What recipients are compared with")
    enabled: bool = Field(True, description="Off: kept, without effect")


class RuleBody(ApiModel):
    """A rule."""

    id: str
    project_id: str
    name: str
    kind: Kind
    pattern: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


class PreviewRequest(ApiModel):
    """A recipient to try the rules on; keys that are not named here are refused."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"additionalProperties": False, "examples": [{"address": "ann@example.com"}]},
    )
    address: str = Field(min_length=1, max_length=320, description="E-mail address")


class Preview(ApiModel):
    """What the rules would do."""

    suppressed: bool
    match: RuleBody | None = Field(description="The first rule that catches the address; null: none does")


class Held(ApiModel):
    """What held a mail, as it was then: a rule, or an entry of the list of addresses."""

    source: str = Field(description="RULE or LIST")
    id: str | None = Field(None, description="The rule's id")
    name: str | None = Field(None, description="The rule's name")
    kind: Kind | None = Field(None, description="The rule's kind")
    pattern: str | None = Field(None, description="The rule's pattern")
    reason: Reason | None = Field(None, description="The entry's reason")
    detail: str | None = Field(None, description="The entry's detail")
    since: datetime | str | None = Field(None, description="When the address was entered")


class CaughtBody(ApiModel):
    """A mail that was not sent."""

    id: str
    created_at: datetime
    recipient_address: str
    subject: str
    rendered_subject: str
    suppression: Held | None = Field(description="Null: not recorded")
    status: str = Field(description="SUPPRESSED")


class CaughtPage(ApiModel):
    """Mails that were not sent, newest first."""

    emails: list[CaughtBody]
    next_cursor: str | None = Field(description="Asks for the next page; null on the last one")


class CaughtDetail(CaughtBody):
    """A mail that was not sent, with what it would have said."""

    sender: str = Field(alias="from")
    error: str | None = Field(description="Why it was not sent, in one line")
    rendered_body: str | None = Field(description="The HTML, before the footer; null: submitted by SMTP, or purged")
    message: str | None = Field(description="The message as submitted by SMTP; null: sent through the API, or purged")


class Done(ApiModel):
    """Done."""

    success: bool


class AddressQuery(CursorQuery):
    """Which addresses."""

    search: str | None = Field(None, description="What the address begins with, in any case")
    reason: Reason | None = Field(None, description="Only with this reason")


class AddressBody(ApiModel):
    """An address that is on the list."""

    email: str
    reason: Reason = Field(description="BOUNCE and MANUAL hold all mail, COMPLAINT marketing mail and campaigns")
    detail: str | None = Field(description="The reply or report that caused it, or a note; null: none")
    email_id: str | None = Field(description="The mail that caused it; null: entered by hand")
    created_at: datetime


class AddressPage(CursorPage):
    """Addresses, newest first."""

    data: list[AddressBody]


class NewAddress(ApiModel):
    """An address to enter."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ann@example.com", "note": "asked by phone"}]})
    email: str = Field(max_length=320, description="E-mail address")
    note: str | None = Field(None, max_length=queries.LONGEST_DETAIL, description="Why, for people")


@endpoint("GET", "/suppressions", tag=_TAG)
async def list_rules(relay: Relay, caller: Caller) -> list[RuleBody]:
    """List the project's rules, oldest first.

    Mail to a recipient that a rule catches is kept instead of delivered, and the first rule that does is told with it: a
    sink for tests. Rules hold mail of every kind, whatever the setting `delivery.suppress` says.
    """
    return [_rule(rule) for rule in await relay.db.read(queries.list_rules, caller.project_id)]


@endpoint("POST", "/suppressions", tag=_TAG, status=201, errors=(BadRequest,))
async def add_rule(relay: Relay, caller: Caller, body: NewRule) -> RuleBody:
    """Add a rule; a project has at most 100. It counts from the next mail on."""
    return _rule(await actions.add_rule(relay, caller.project_id, _change(body)))


@endpoint("PUT", "/suppressions/{rule_id}", tag=_TAG, errors=(BadRequest, NotFound))
async def replace_rule(relay: Relay, caller: Caller, rule_id: str, body: NewRule) -> Done:
    """Replace a rule; it keeps its place in the order."""
    await actions.replace_rule(relay, caller.project_id, rule_id, _change(body))
    return Done(success=True)


@endpoint("DELETE", "/suppressions/{rule_id}", tag=_TAG, errors=(NotFound,))
async def delete_rule(relay: Relay, caller: Caller, rule_id: str) -> Done:
    """Remove a rule; mail that it caught stays where it is."""
    await actions.delete_rule(relay, caller.project_id, rule_id)
    return Done(success=True)


@endpoint("POST", "/suppressions/preview", tag=_TAG, errors=(BadRequest,))
async def preview_rules(relay: Relay, caller: Caller, body: PreviewRequest) -> Preview:
    """Tell which rule would catch mail to an address; the list of addresses is not asked."""
    _refuse_unknown_keys(body)
    match = find_match(await actions.remembered_rules(relay, caller.project_id), body.address)
    return Preview(suppressed=match is not None, match=_rule(match) if match else None)


@endpoint("GET", "/suppressions/emails", tag=_TAG)
async def list_caught(relay: Relay, caller: Caller, query: CursorQuery) -> CaughtPage:
    """List the mails that a rule or the list of addresses held, newest first."""
    found = await relay.db.read(queries.list_caught, caller.project_id, after=query.cursor or None, limit=query.limit + 1)
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return CaughtPage(emails=[CaughtBody(**_caught(mail)) for mail in page], next_cursor=cursor)


@endpoint("GET", "/suppressions/emails/{email_id}", tag=_TAG, errors=(NotFound,))
async def show_caught(relay: Relay, caller: Caller, email_id: str) -> CaughtDetail:
    """Show a mail that was held, with its content."""
    found = await relay.db.read(queries.find_caught, caller.project_id, email_id)
    if found is None:
        raise NotFound.of("Suppressed email", email_id)
    mail, kind, data = found
    text = data.decode("utf-8", "replace") if data else None
    return CaughtDetail(
        **_caught(mail),
        sender=mail.from_address,
        error=mail.error,
        rendered_body=text if kind == "HTML" else None,
        message=text if kind == "MIME" else None,
    )


@endpoint("GET", "/suppressions/addresses", tag=_TAG, errors=(ValidationFailed,))
async def list_addresses(relay: Relay, caller: Caller, query: AddressQuery) -> AddressPage:
    """List the addresses that get no mail, newest first.

    An address comes here by a permanent failure that is about the recipient (BOUNCE), by a spam report (COMPLAINT) or by
    hand (MANUAL). What is held for it has the status SUPPRESSED and says why; it is not attempted and no event is
    recorded. The operator's setting `delivery.suppress` decides how much the list holds. A contact who subscribes again
    does not lift an entry: remove it.
    """
    chosen = ListFilter(query.search or None, query.reason)
    after: Suppression | None = None
    if query.cursor:
        after = await relay.db.read(queries.find_suppression, caller.project_id, query.cursor)
        if after is None:
            return AddressPage(data=[], total=0, has_more=False)
    found = await relay.db.read(queries.list_suppressions, caller.project_id, chosen, after=after, limit=query.limit + 1)
    total = 0 if after else await relay.db.read(queries.count_suppressions, caller.project_id, chosen)
    page, more = found[: query.limit], len(found) > query.limit
    cursor = page[-1].address if more else None
    return AddressPage(data=[_address(entry) for entry in page], total=total, cursor=cursor, has_more=more)


@endpoint("POST", "/suppressions/addresses", tag=_TAG, status=201)
async def add_address(relay: Relay, caller: Caller, body: NewAddress) -> AddressBody:
    """Enter an address by hand (MANUAL); safe to repeat.

    An address that is there already by a bounce or by hand stays as it is; a COMPLAINT becomes MANUAL, which holds all
    mail.
    """
    [entry] = await actions.add_addresses(relay, caller.project_id, [body.email], note=body.note)
    return _address(entry)


@endpoint("GET", "/suppressions/addresses/{email:path}", tag=_TAG, errors=(NotFound,))
async def show_address(relay: Relay, caller: Caller, email: Annotated[str, "E-mail address"]) -> AddressBody:
    """Tell whether an address is on the list, and why."""
    return _address(await actions.get_address(relay, caller.project_id, email))


@endpoint("DELETE", "/suppressions/addresses/{email:path}", tag=_TAG, errors=(NotFound,))
async def remove_address(relay: Relay, caller: Caller, email: Annotated[str, "E-mail address"]) -> Done:
    """Take an address off the list: mail to it is sent again from now on.

    Mail that was held before is not sent. Whether the contact is subscribed does not change.
    """
    await actions.remove_addresses(relay, caller.project_id, [email])
    return Done(success=True)


def _change(body: NewRule) -> RuleChange:
    _refuse_unknown_keys(body)
    return RuleChange(body.name, body.kind, body.pattern, body.enabled)


def _refuse_unknown_keys(body: NewRule | PreviewRequest) -> None:
    if body.model_extra:
        raise BadRequest(f"Unknown keys: {', '.join(sorted(body.model_extra))}. Remove them, or correct their spelling.")


def _rule(rule: Rule) -> RuleBody:
    return RuleBody(**{name: getattr(rule, name) for name in Rule.__dataclass_fields__})


def _caught(mail: CaughtMail) -> dict[str, Any]:
    return {
        "id": mail.id,
        "created_at": mail.created_at,
        "recipient_address": mail.recipient,
        "subject": mail.subject,
        "rendered_subject": mail.subject,
        "suppression": Held(**mail.suppression) if mail.suppression else None,
        "status": mail.status,
    }


def _address(entry: Suppression) -> AddressBody:
    return AddressBody(
        email=entry.address,
        reason=entry.reason,
        detail=entry.detail,
        email_id=entry.email_id,
        created_at=entry.created_at,
    )


ENDPOINTS: list[Endpoint] = [
    list_rules,
    add_rule,
    replace_rule,
    delete_rule,
    preview_rules,
    list_caught,
    show_caught,
    list_addresses,
    add_address,
    show_address,
    remove_address,
]
