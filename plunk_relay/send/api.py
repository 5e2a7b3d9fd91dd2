"""What may be asked? One endpoint."""

from plunk_relay.clock import format_time
from plunk_relay.errors import (
    BadRequest,
    BillingLimitReached,
    Forbidden,
    IdempotencyKeyReused,
    PayloadTooLarge,
    TemplateNotFound,
    Unavailable,
)
from plunk_relay.relay import Relay
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest, SendResponse
from plunk_relay.web.access import Auth, Caller
from plunk_relay.web.endpoint import Answer, Endpoint, RequestInfo, endpoint
from plunk_relay.web.envelope import dump_json

_ERRORS = (
    BadRequest,
    Forbidden,
    TemplateNotFound,
    IdempotencyKeyReused,
    PayloadTooLarge,
    BillingLimitReached,
    Unavailable,
)


@endpoint("POST", "/v1/send", tag="Public API", auth=Auth.SECRET_KEY, bucket="send", idempotent=True, errors=_ERRORS)
async def send(relay: Relay, caller: Caller, body: SendRequest, request: RequestInfo) -> SendResponse | Answer:
    """Send a transactional mail.

    Inline content (`subject` and `body`) or a template, to one recipient or many. Subject and body are Liquid.

    All recipients are checked before anything is written: either every mail is queued, or none. When the answer is 200
    the mails are on disk.
    """
    started = relay.clock.now()
    queued = await send_message(relay, caller.project_id, body, hold=request.hold)
    emails = [{"contact": {"id": mail.contact_id, "email": mail.contact_email}, "email": mail.email_id} for mail in queued]
    return Answer(dump_json({"success": True, "data": {"emails": emails, "timestamp": format_time(started)}}))


ENDPOINTS: list[Endpoint] = [send]
