"""What may be asked about domains? List, add, verify, switch receiving, delete (contract section 7)."""

from datetime import datetime

from pydantic import ConfigDict, Field, StrictBool

from plunk_relay.domains import actions, queries
from plunk_relay.domains.queries import Domain
from plunk_relay.domains.records import DnsRecord
from plunk_relay.errors import BadRequest, Conflict, FieldError, Forbidden, NotFound, Unavailable, ValidationFailed
from plunk_relay.ids import is_id
from plunk_relay.projects.actions import get_project
from plunk_relay.relay import Relay
from plunk_relay.web.access import Caller
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint

_TAG = "Domains"


class RecordBody(ApiModel):
    """A DNS record to publish and whether it was found."""

    type: str = Field(description="TXT or MX")
    name: str = Field(description="Full name of the record")
    value: str = Field(description="What to publish")
    priority: int | None = Field(None, description="For MX records")
    required: bool = Field(description="Needed before mail can be sent; the others help it to arrive")
    purpose: str = Field(
        description="dkim-rsa, dkim-ed25519 (-old: being replaced), spf, return-path, return-path-spf, dmarc or inbound"
    )
    status: str = Field(description="NotStarted, Pending (absent), Failed (another value), Success, TemporaryFailure")


class DomainBody(ApiModel):
    """A sending domain."""

    id: str
    domain: str
    verified: bool
    status: str
    receiving: bool = Field(description="Mail to the domain is accepted here")
    dkim_tokens: list[str]
    project_id: str
    records: list[RecordBody]
    created_at: datetime
    updated_at: datetime


class ProjectName(ApiModel):
    """The project that owns a domain."""

    name: str


class AddedDomain(DomainBody):
    """The new domain, with its project."""

    project: ProjectName


class NewDomain(ApiModel):
    """A domain to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"domain": "example.com"}]})
    domain: str = Field(min_length=3, max_length=253, description="Bare name, such as example.com")
    project_id: str | None = Field(None, description="Accepted and passed over: the key names the project")


class DomainChange(ApiModel):
    """What to change about a domain."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"receiving": True}]})
    receiving: StrictBool = Field(description="Accept mail to the domain; it needs the MX record that is shown then")


class Verification(ApiModel):
    """What the DNS said just now."""

    domain: str
    tokens: list[str]
    status: str
    verified: bool
    records: list[RecordBody]


class Deleted(ApiModel):
    """Done."""

    success: bool


@endpoint("GET", "/domains/project/{project_id}", tag=_TAG)
async def list_domains(relay: Relay, caller: Caller, project_id: str) -> list[DomainBody]:
    """List the project's domains, newest first.

    The key names the project; the path parameter is passed over.
    """
    found = await relay.db.read(queries.list_domains, caller.project_id)
    return [_body(domain, await actions.describe_records(relay, domain)) for domain in found]


@endpoint("POST", "/domains", tag=_TAG, status=201, errors=(BadRequest, Forbidden))
async def add_domain(relay: Relay, caller: Caller, body: NewDomain) -> AddedDomain:
    """Add a domain and get the DNS records to publish.

    Mail can be sent from it once the required DKIM record is found: at once with the verify endpoint, else within five
    minutes.
    """
    domain = await actions.add_domain(relay, caller.project_id, body.domain)
    project = await get_project(relay, caller.project_id)
    shown = _body(domain, await actions.describe_records(relay, domain))
    return AddedDomain(**dict(shown), project=ProjectName(name=project.name))


@endpoint("GET", "/domains/{domain_id}/verify", tag=_TAG, errors=(NotFound, ValidationFailed, Unavailable))
async def verify_domain(relay: Relay, caller: Caller, domain_id: str) -> Verification:
    """Look the domain's records up now."""
    domain = await actions.get_domain(relay, caller.project_id, _check_id(domain_id))
    checked, records = await actions.verify_domain(relay, domain)
    return Verification(
        domain=checked.domain,
        tokens=_tokens(records),
        status=checked.status,
        verified=checked.verified,
        records=[_record(record) for record in records],
    )


@endpoint("PATCH", "/domains/{domain_id}", tag=_TAG, errors=(NotFound, ValidationFailed))
async def change_domain(relay: Relay, caller: Caller, domain_id: str, body: DomainChange) -> DomainBody:
    """Switch receiving on or off.

    Mail to a verified domain with receiving on becomes a mail with status RECEIVED and an `email.received` event; its
    sender becomes a contact. Mail to it that this relay itself sends is delivered here, whatever its MX record says.
    """
    domain = await actions.get_domain(relay, caller.project_id, _check_id(domain_id))
    changed = await actions.set_receiving(relay, domain, receiving=body.receiving)
    return _body(changed, await actions.describe_records(relay, changed))


@endpoint("DELETE", "/domains/{domain_id}", tag=_TAG, errors=(NotFound, Conflict, ValidationFailed))
async def delete_domain(relay: Relay, caller: Caller, domain_id: str) -> Deleted:
    """Remove a domain that no template and no unfinished campaign uses."""
    await actions.delete_domain(relay, caller.project_id, _check_id(domain_id))
    return Deleted(success=True)


def _check_id(domain_id: str) -> str:
    if not is_id(domain_id):
        raise ValidationFailed([FieldError("id", "Invalid uuid", "invalid_string")])
    return domain_id.lower()


def _body(domain: Domain, records: list[DnsRecord]) -> DomainBody:
    return DomainBody(
        id=domain.id,
        domain=domain.domain,
        verified=domain.verified,
        status=domain.status,
        receiving=domain.receiving,
        dkim_tokens=_tokens(records),
        project_id=domain.project_id,
        records=[_record(record) for record in records],
        created_at=domain.created_at,
        updated_at=domain.updated_at,
    )


def _record(record: DnsRecord) -> RecordBody:
    return RecordBody(
        type=record.type,
        name=record.name,
        value=record.value,
        priority=record.priority,
        required=record.required,
        purpose=record.purpose,
        status=record.status,
    )


def _tokens(records: list[DnsRecord]) -> list[str]:
    return [record.name.partition(".")[0] for record in records if record.purpose.startswith("dkim")]


ENDPOINTS: list[Endpoint] = [list_domains, add_domain, verify_domain, change_domain, delete_domain]
