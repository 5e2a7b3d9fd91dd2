"""What may be asked? One endpoint."""

from pydantic import ConfigDict, Field

from plunk_relay.relay import Relay
from plunk_relay.verify.actions import judge_address
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import ApiModel, Endpoint, endpoint
from plunk_relay.web.fields import Email


class VerifyRequest(ApiModel):
    """An address to look at."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ann@gmial.com"}]})
    email: Email = Field(description="The address")


class VerifyData(ApiModel):
    """What is known about an address."""

    email: str = Field(description="As sent")
    valid: bool = Field(description="False when its domain does not exist or has no mail exchanger")
    is_disposable: bool = Field(description="Of a service for throw-away addresses; that does not make it invalid")
    is_alias: bool = Field(description="Of a service that forwards to somebody's real mailbox")
    is_typo: bool = Field(description="The domain is probably mistyped")
    is_plus_addressed: bool = Field(description="The local part has a `+`")
    is_personal_email: bool = Field(description="Of a provider where anybody may have a mailbox")
    domain_exists: bool = Field(description="The domain has name servers or a mail exchanger")
    has_website: bool = Field(description="The domain has an address (A or AAAA)")
    has_mx_records: bool = Field(description="The domain has a mail exchanger; a null MX is none")
    suggested_email: str | None = Field(
        None, description="What was probably meant; absent when it looks right", exclude_if=lambda value: value is None
    )
    reasons: list[str] = Field(description="The findings, for people")


class VerifyResponse(ApiModel):
    """The address was looked at."""

    success: bool
    data: VerifyData


@endpoint("POST", "/v1/verify", tag="Public API", auth=Auth.SECRET_KEY)
async def verify(relay: Relay, body: VerifyRequest) -> VerifyResponse:
    """Look at an address: its form, its domain in the DNS, lists of providers, and likely spelling mistakes.

    No mail is sent, and no server is asked about the mailbox. The DNS has five seconds; what does not answer by then
    counts as not there.
    """
    found = await judge_address(relay, body.email)
    data = VerifyData(
        email=body.email,
        valid=found.valid,
        is_disposable=found.disposable,
        is_alias=found.alias,
        is_typo=found.suggestion is not None,
        is_plus_addressed=found.plus_addressed,
        is_personal_email=found.personal,
        domain_exists=found.presence.exists,
        has_website=found.presence.has_website,
        has_mx_records=found.presence.receives,
        suggested_email=found.suggestion,
        reasons=list(found.reasons),
    )
    return VerifyResponse(success=True, data=data)


ENDPOINTS: list[Endpoint] = [verify]
