"""What may be asked for without waiting? CSV imports and bulk operations, by the id of their job (contract 13 and 14)."""

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, RootModel, TypeAdapter, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from plunk_relay.errors import BadRequest, NotFound, ValidationFailed
from plunk_relay.jobs import actions
from plunk_relay.jobs.bulk import Operation
from plunk_relay.jobs.queries import Job, State
from plunk_relay.relay import Relay
from plunk_relay.web.access import Caller
from plunk_relay.web.binding import bind
from plunk_relay.web.endpoint import ApiModel, Endpoint, aliases, endpoint
from plunk_relay.web.fields import Uuid
from plunk_relay.web.multipart import UploadedFile, UploadField

_TAG = "Contacts"
_FILE = UploadField("file", 5 * 1024 * 1024)
MOST_IDS = 1000
MOST_EXCLUDED = 10_000
ContactId = Annotated[Uuid, WithJsonSchema({"type": "string", "format": "uuid"})]
_EXAMPLES = [
    {"contactIds": ["01951b2e-7c30-7000-8000-000000000000"]},
    {"mode": "query", "filter": {"search": "@example.net", "subscribed": True}},
]


class JobStarted(ApiModel):
    """A job that was queued."""

    message: str
    job_id: str = Field(description="Asks for its status")


class JobBody(ApiModel):
    """How far a job is; subclasses add `data` and `result`."""

    id: str
    state: State
    progress: int = Field(description="Whole percent", ge=0, le=100)
    failed_reason: str | None = Field(
        None, description="Why it failed; absent otherwise", exclude_if=lambda value: value is None
    )


class RowError(ApiModel):
    """A row that was passed over."""

    row: int = Field(description="Its number as a spreadsheet shows it: the header is 1")
    email: str = Field(description="What stands there as the address")
    error: str


class ImportResult(ApiModel):
    """What became of the rows of a file."""

    total_rows: int = Field(description="Rows below the header that are not blank")
    success_count: int
    created_count: int = Field(description="Contacts that are new")
    updated_count: int = Field(description="Contacts that were there, or in a row above")
    failure_count: int
    errors: list[RowError] = Field(description="The first 1000 rows that failed")
    encoding: str = Field(description="How the file was read: UTF-8, or what fits best where it is not")


class ImportData(ApiModel):
    """What is imported."""

    project_id: str
    filename: str


class ImportJob(JobBody):
    """An import."""

    result: ImportResult | None = Field(description="Null until it is completed")
    data: ImportData


class BulkFilter(ApiModel):
    """Which contacts; everyone when nothing is said."""

    search: str | None = Field(
        None, max_length=255, description="What the address contains, in any case", exclude_if=lambda value: value is None
    )
    subscribed: bool | None = Field(
        None, description="Only those who are subscribed, or who are not", exclude_if=lambda value: value is None
    )


class IdSelector(ApiModel):
    """Contacts that are named."""

    mode: Literal["ids"] = Field("ids", description="May be left out")
    contact_ids: list[ContactId] = Field(min_length=1, max_length=MOST_IDS, description="Ids of contacts")


class QuerySelector(ApiModel):
    """Contacts that fit a filter; those that are made after the request are not touched."""

    mode: Literal["query"] = Field(description="Contacts that fit `filter`")
    filter: BulkFilter = Field(default_factory=BulkFilter, description="Which contacts; left out: everyone")
    exclude_ids: list[ContactId] = Field([], max_length=MOST_EXCLUDED, description="Contacts that are left as they are")


class BulkRequest(RootModel[Any]):
    """Contacts by their ids, or by a filter."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say which bodies `_read_selector` takes."""
        return {**handler(TypeAdapter(IdSelector | QuerySelector).core_schema), "examples": _EXAMPLES}


class BulkError(ApiModel):
    """A contact that was passed over."""

    contact_id: str = Field(description="Its id; `batch`: several at once, by an error of the relay")
    email: str
    error: str


class BulkResult(ApiModel):
    """What became of the contacts."""

    operation: Operation
    total_requested: int
    success_count: int = Field(description="Contacts that were changed or deleted")
    unchanged_count: int = Field(description="Contacts that were in the wanted state before")
    failure_count: int = Field(description="Ids that are none of the project's contacts, and what could not be done")
    errors: list[BulkError] = Field(description="The first 1000")


class BulkData(ApiModel):
    """What is done to which contacts."""

    project_id: str
    operation: Operation
    selector: IdSelector | QuerySelector


class BulkJob(JobBody):
    """A bulk operation."""

    result: BulkResult | None = Field(description="Null until it is completed")
    data: BulkData


@endpoint("POST", "/contacts/import", tag=_TAG, status=202, upload=_FILE, confirmed=False)
async def import_contacts(relay: Relay, caller: Caller, upload: UploadedFile) -> JobStarted:
    """Queue the import of a CSV file: `file`, of type text/csv or with a name that ends in .csv.

    The first row names the columns, in any case and order. `email` is required; `subscribed` is true for `true`, `1` and
    `yes`, and other words mean false; where it is empty, new contacts are subscribed and others stay as they are. Any other
    column is a custom field, named in lower case: `true` and `yes`, `false` and `no`, and plain numbers become what they
    say, but `locale` stays text; an empty cell changes nothing. Columns are separated by commas, or by semicolons or
    tabulators. The text is UTF-8, UTF-16 with a byte order mark, or what it looks like. Of equal addresses the last row
    wins. While the project is disabled, the import waits.
    """
    if upload.content_type != "text/csv" and not upload.filename.lower().endswith(".csv"):
        raise BadRequest("The file is no CSV file: send it as text/csv, or with a name that ends in .csv.")
    job_id = await actions.start_import(relay, caller.project_id, upload.filename, upload.data)
    return JobStarted(message="The import is queued.", job_id=job_id)


@endpoint("GET", "/contacts/import/{job_id}", tag=_TAG, errors=(NotFound,))
async def show_import(relay: Relay, caller: Caller, job_id: str) -> ImportJob:
    """Tell how far an import is. The last 50 jobs that were completed and the last 100 that failed are kept."""
    job = await actions.get_job(relay, caller.project_id, "IMPORT", job_id)
    return ImportJob.model_validate(_shown(job), by_alias=True, by_name=False)


@endpoint("POST", "/contacts/bulk-subscribe", tag=_TAG, status=202, errors=(BadRequest,))
async def bulk_subscribe(relay: Relay, caller: Caller, body: BulkRequest) -> JobStarted:
    """Queue the subscription of contacts: up to 1000 ids, or all that fit a filter. Each flip is an event.

    A body without `mode` means the mode `ids`.
    """
    return await _start(relay, caller, "subscribe", body)


@endpoint("POST", "/contacts/bulk-unsubscribe", tag=_TAG, status=202, errors=(BadRequest,))
async def bulk_unsubscribe(relay: Relay, caller: Caller, body: BulkRequest) -> JobStarted:
    """Queue the unsubscription of contacts: up to 1000 ids, or all that fit a filter. Each flip is an event."""
    return await _start(relay, caller, "unsubscribe", body)


@endpoint("POST", "/contacts/bulk-delete", tag=_TAG, status=202, errors=(BadRequest,))
async def bulk_delete(relay: Relay, caller: Caller, body: BulkRequest) -> JobStarted:
    """Queue the deletion of contacts, with their mails and events: up to 1000 ids, or all that fit a filter."""
    return await _start(relay, caller, "delete", body)


@endpoint("GET", "/contacts/bulk/{bulk_job_id}", tag=_TAG, errors=(NotFound,))
async def show_bulk(relay: Relay, caller: Caller, bulk_job_id: str) -> BulkJob:
    """Tell how far a bulk operation is."""
    job = await actions.get_job(relay, caller.project_id, "BULK", bulk_job_id)
    return BulkJob.model_validate(_shown(job), by_alias=True, by_name=False)


async def _start(relay: Relay, caller: Caller, operation: Operation, body: BulkRequest) -> JobStarted:
    selector = _read_selector(body.root)
    job_id = await actions.start_bulk(relay, caller.project_id, operation, selector)
    return JobStarted(message=f"The operation is queued: {operation}.", job_id=job_id)


def _read_selector(value: object) -> dict[str, Any]:
    """Return a selector with ids written alike, each once; raises BadRequest with the first fault."""
    given = value if isinstance(value, dict) else {}
    mode = given.get("mode", "ids" if "contactIds" in given else None)
    if mode not in ("ids", "query"):
        raise BadRequest("mode must be `ids`, with contactIds, or `query`, with a filter.")
    try:
        selector = bind(IdSelector if mode == "ids" else QuerySelector, given).model_dump(by_alias=True)
    except ValidationFailed as error:
        raise BadRequest(f"{error.errors[0].field}: {error.errors[0].message}") from None
    for name in ("contactIds", "excludeIds"):
        if name in selector:
            selector[name] = list(dict.fromkeys(one.lower() for one in selector[name]))
    return selector


def _shown(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "progress": job.progress,
        "failedReason": job.failed_reason,
        "data": job.data,
        "result": job.result,
    }


_ENDPOINTS = [import_contacts, show_import, bulk_subscribe, bulk_unsubscribe, bulk_delete, show_bulk]
ENDPOINTS: list[Endpoint] = [*_ENDPOINTS, *aliases(_ENDPOINTS, "/v1")]
