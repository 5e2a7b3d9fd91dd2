"""What may be asked about templates? Written, listed, tried out, copied and deleted (contract section 16)."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue

from plunk_relay.errors import BadRequest, Conflict, ContactNotFound, Forbidden, TemplateFailed, TemplateNotFound
from plunk_relay.relay import Relay
from plunk_relay.templates import actions, previews, queries
from plunk_relay.templates.queries import SortColumn, Template, TemplateFilter, TemplateStep
from plunk_relay.usage.api import UserBody
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint
from plunk_relay.web.fields import Email, JsonObject, Line, Uuid
from plunk_relay.web.paging import ANY_NUMBER, ANY_WORD, MOST, USUAL, Page, PageQuery, lenient, one_of

_TAG = "Templates"
_MOST_IDS = 1000
TemplateType = Literal["MARKETING", "TRANSACTIONAL", "HEADLESS"]
_TYPE = (
    "MARKETING: for subscribed contacts, with a footer to unsubscribe; TRANSACTIONAL: for anybody; HEADLESS: for anybody, "
    "nothing is added"
)
_FROM = "Sender, on a verified domain of the project"
_FROM_NAME = "Display name of the sender; null: the project's name"
_LIQUID = "Liquid, such as `{{firstName ?? there}}`"
_EXAMPLE: dict[str, JsonValue] = {
    "name": "Welcome",
    "subject": "Welcome {{firstName ?? there}}",
    "body": "<p>Hello {{firstName ?? there}}, good to have you here.</p>",
    "from": "hello@example.com",
    "type": "TRANSACTIONAL",
}


class TemplateBody(ApiModel):
    """A template."""

    id: str
    name: str
    description: str | None = Field(description="A note; null: none")
    subject: str
    body: str
    sender: str = Field(alias="from")
    from_name: str | None = Field(description=_FROM_NAME)
    reply_to: str | None = Field(description="Reply-To address; null: none")
    type: TemplateType = Field(description=_TYPE)
    project_id: str
    created_at: datetime
    updated_at: datetime


class TemplatePage(Page):
    """A page of templates."""

    data: list[TemplateBody]


class NewTemplate(ApiModel):
    """A template to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    name: str = Field(min_length=1, max_length=actions.LONGEST_NAME, description="Shown in lists")
    description: str | None = Field(None, max_length=500, description="A note")
    subject: str = Field(min_length=1, description=_LIQUID)
    body: str = Field(min_length=1, description=f"HTML with {_LIQUID}")
    sender: Email = Field(alias="from", description=_FROM)
    from_name: Line | None = Field(None, max_length=100, description=_FROM_NAME)
    reply_to: Email | None = Field(None, description="Reply-To address")
    type: TemplateType = Field("MARKETING", description=_TYPE)


class TemplateChanges(ApiModel):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"subject": "Welcome aboard", "replyTo": None}]})
    name: str = Field(default_factory=str, min_length=1, max_length=actions.LONGEST_NAME, description="Shown in lists")
    description: str | None = Field(None, max_length=500, description="A note; null removes it")
    subject: str = Field(default_factory=str, min_length=1, description=_LIQUID)
    body: str = Field(default_factory=str, min_length=1, description=f"HTML with {_LIQUID}")
    sender: Email = Field(default_factory=str, alias="from", description=_FROM)
    from_name: Line | None = Field(None, max_length=100, description=_FROM_NAME)
    reply_to: Email | None = Field(None, description="Reply-To address; null removes it")
    type: TemplateType = Field(default_factory=lambda: "MARKETING", description=_TYPE)


class TemplateQuery(PageQuery):
    """Which templates, in which order."""

    limit: Annotated[int, BeforeValidator(lenient(USUAL, MOST))] = Field(
        USUAL, description="As `pageSize`, which goes before", json_schema_extra=ANY_NUMBER
    )
    search: str | None = Field(None, description="What name, description or subject contains, in any case")
    type: Annotated[TemplateType | None, one_of("MARKETING", "TRANSACTIONAL", "HEADLESS"), ANY_WORD] = Field(
        None, description="`MARKETING`, `TRANSACTIONAL` or `HEADLESS`; anything else: all"
    )
    sort: Annotated[SortColumn | None, one_of("name", "createdAt", "updatedAt"), ANY_WORD] = Field(
        None, description="`name`, `createdAt` or `updatedAt`; unset: `createdAt`"
    )
    dir: Annotated[Literal["asc", "desc"] | None, one_of("asc", "desc"), ANY_WORD] = Field(
        None, description="`asc` or `desc`; unset: `desc`"
    )

    @property
    def size(self) -> int:
        """How many templates a page has."""
        return self.page_size if "page_size" in self.model_fields_set else self.limit

    def chosen(self) -> TemplateFilter:
        """Return which templates are meant."""
        return TemplateFilter(self.search or None, self.type, self.sort or "createdAt", self.dir or "desc")


class TemplateStepBody(ApiModel):
    """A workflow's step that sends the template."""

    id: str
    name: str
    workflow_id: str
    workflow_name: str


class TemplateUsageBody(ApiModel):
    """What uses a template."""

    workflow_steps: int = Field(description="How many steps send it")
    emails_sent: int = Field(description="How many mails were made of it")
    campaigns: list[UserBody] = Field(description="Always empty: a campaign takes a copy of the text")
    steps: list[TemplateStepBody] = Field(description=f"The steps, up to {queries.MOST_STEPS}")


class TemplatePreviewRequest(ApiModel):
    """For whom, and with which values."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": {"firstName": "Ann"}}]})
    data: JsonObject | None = Field(None, description="Variables, as in POST /v1/send")
    contact_id: Uuid | None = Field(None, description="A contact whose fields and links are used; unset: an example of one")


class TemplatePreview(ApiModel):
    """The mail as it would be sent."""

    subject: str
    html: str = Field(description="With the footer, when the template has one")
    text: str = Field(description="The plain text part")
    warnings: list[str] = Field(description="What is likely not meant, a sentence each")


class TemplateBulkUpdate(ApiModel):
    """What to do with some templates."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ids": ["0190d3a2-4b5c-7000-8000-5f1e2d3c4b5a"], "delete": True}]}
    )
    ids: list[Uuid] = Field(min_length=1, max_length=_MOST_IDS, description="Ids of templates")
    delete: Literal[True] | None = Field(None, description="True: delete them")


def _absent(value: object) -> bool:
    return value is None


class TemplateBulkResult(ApiModel):
    """How many templates were concerned."""

    deleted: int | None = Field(None, exclude_if=_absent, description="With `delete`")
    updated: int | None = Field(None, exclude_if=_absent, description="Without: 0, as there is nothing else to do")


@endpoint("GET", "/templates", tag=_TAG)
async def list_templates(relay: Relay, caller: Caller, query: TemplateQuery) -> TemplatePage:
    """List templates."""
    chosen, size = query.chosen(), query.size
    offset = (query.page - 1) * size
    total = await relay.db.read(queries.count_templates, caller.project_id, chosen)
    found = await relay.db.read(queries.list_templates, caller.project_id, chosen, offset=offset, limit=size)
    data = [_body(template) for template in found]
    return TemplatePage(data=data, total=total, page=query.page, page_size=size, total_pages=-(-total // size))


@endpoint("POST", "/templates", tag=_TAG, status=201, errors=(BadRequest, Forbidden, TemplateFailed))
async def create_template(relay: Relay, caller: Caller, body: NewTemplate) -> TemplateBody:
    """Create a template.

    Subject and body are Liquid and are checked now: what does not parse, and a filter that is not there, is refused with
    the line and the column. `from` must be on a verified domain.
    """
    return _body(await actions.create_template(relay, caller.project_id, _columns(body.model_dump())))


@endpoint("GET", "/templates/{template_id}", tag=_TAG, errors=(TemplateNotFound,))
async def get_template(relay: Relay, caller: Caller, template_id: str) -> TemplateBody:
    """Get a template."""
    return _body(await actions.get_template(relay, caller.project_id, template_id))


@endpoint("PATCH", "/templates/{template_id}", tag=_TAG, errors=(BadRequest, Forbidden, TemplateFailed, TemplateNotFound))
async def update_template(relay: Relay, caller: Caller, template_id: str, body: TemplateChanges) -> TemplateBody:
    """Update a template; the next mail is made of the new text."""
    changes = _columns(body.model_dump(exclude_unset=True))
    return _body(await actions.change_template(relay, caller.project_id, template_id, changes))


@endpoint("DELETE", "/templates/{template_id}", tag=_TAG, status=204, errors=(TemplateNotFound, Conflict))
async def delete_template(relay: Relay, caller: Caller, template_id: str) -> None:
    """Delete a template, unless a workflow's step sends it; mails that were made of it stay."""
    await actions.delete_templates(relay, caller.project_id, [template_id])


@endpoint("POST", "/templates/{template_id}/duplicate", tag=_TAG, status=201, errors=(TemplateNotFound,))
async def duplicate_template(relay: Relay, caller: Caller, template_id: str) -> TemplateBody:
    """Duplicate a template: the new one is answered, and its name ends in ` (Copy)`."""
    return _body(await actions.duplicate_template(relay, caller.project_id, template_id))


@endpoint("GET", "/templates/{template_id}/usage", tag=_TAG, errors=(TemplateNotFound,))
async def get_template_usage(relay: Relay, caller: Caller, template_id: str) -> TemplateUsageBody:
    """Tell which workflow steps send a template, and how many mails were made of it."""
    usage = await actions.describe_usage(relay, caller.project_id, template_id)
    steps = [
        TemplateStepBody(**{name: getattr(step, name) for name in TemplateStep.__dataclass_fields__}) for step in usage.steps
    ]
    return TemplateUsageBody(workflow_steps=usage.step_count, emails_sent=usage.mail_count, campaigns=[], steps=steps)


@endpoint("POST", "/templates/{template_id}/preview", tag=_TAG, errors=(BadRequest, ContactNotFound, TemplateNotFound))
async def preview_template(relay: Relay, caller: Caller, template_id: str, body: TemplatePreviewRequest) -> TemplatePreview:
    """Show what a template would say, without sending or storing anything.

    It is rendered as a mail is: with the contact's fields and `data`, the links to unsubscribe, the footer of marketing
    mail and the plain text part. An extension of this relay.
    """
    contact_id = body.contact_id.lower() if body.contact_id else None
    shown = await previews.preview_template(relay, caller.project_id, template_id, data=body.data, contact_id=contact_id)
    return TemplatePreview(subject=shown.subject, html=shown.html, text=shown.text, warnings=list(shown.warnings))


@endpoint("POST", "/templates/bulk-update", tag=_TAG, errors=(TemplateNotFound, Conflict))
async def update_templates(relay: Relay, caller: Caller, body: TemplateBulkUpdate) -> TemplateBulkResult:
    """Delete up to 1000 templates, all or none."""
    ids = [template_id.lower() for template_id in body.ids]
    if body.delete is None:
        await actions.check_existence(relay, caller.project_id, ids)
        return TemplateBulkResult(updated=0)
    return TemplateBulkResult(deleted=await actions.delete_templates(relay, caller.project_id, ids))


def _body(template: Template) -> TemplateBody:
    fields: dict[str, Any] = {name: getattr(template, name) for name in Template.__dataclass_fields__}
    return TemplateBody(sender=fields.pop("from_address"), **fields)


def _columns(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the columns for the fields of a request."""
    return {("from_address" if name == "sender" else name): value for name, value in fields.items()}


ENDPOINTS: list[Endpoint] = [
    list_templates,
    create_template,
    get_template,
    update_template,
    delete_template,
    duplicate_template,
    get_template_usage,
    preview_template,
    update_templates,
]
