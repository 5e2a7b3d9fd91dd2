"""What may be told? An event, in the form of `/v1/track` or with ids."""

from plunk_relay.errors import BadRequest, ContactNotFound, IdempotencyKeyReused, NotFound
from plunk_relay.events.api import EventBody, show_event
from plunk_relay.relay import Relay
from plunk_relay.track.actions import Occurrence, Tracked, record_plain_event, track
from plunk_relay.track.request import EventRequest, PlainEvent, TrackRequest, TrackResponse
from plunk_relay.web.access import Auth, Caller
from plunk_relay.web.endpoint import Answer, Endpoint, RequestInfo, endpoint
from plunk_relay.web.envelope import dump_json


@endpoint(
    "POST",
    "/v1/track",
    tag="Public API",
    auth=Auth.ANY_KEY,
    bucket="track",
    idempotent=True,
    errors=(BadRequest, IdempotencyKeyReused),
)
async def track_event(relay: Relay, caller: Caller, body: TrackRequest, request: RequestInfo) -> TrackResponse | Answer:
    """Track an event for a contact.

    The contact is made when there is none with this address, and `data` is merged into it. A change of its subscription
    is recorded as an event of its own, before this one. Then the event starts the workflows that wait for its name.

    Takes the public key too, so that pages in a browser can call it. Every call records a new event; with an
    `Idempotency-Key` a repeated one is refused.
    """
    return _answer(await track(relay, caller.project_id, _occurrence(body), hold=request.hold))


@endpoint("POST", "/events/track", tag="Events", status=201, also=(200,), errors=(BadRequest, ContactNotFound, NotFound))
async def record_event(relay: Relay, caller: Caller, body: EventRequest) -> TrackResponse | EventBody | Answer:
    """Record an event, in one of two forms.

    With `event` and `email` it is `POST /v1/track`, and answers like it (200). With `name`, and the ids of a contact and a
    mail if you like, the event is stored by itself: no contact is made or changed (201, the event).
    """
    if isinstance(body.root, TrackRequest):
        return _answer(await track(relay, caller.project_id, _occurrence(body.root)))
    plain: PlainEvent = body.root
    event = await record_plain_event(
        relay,
        caller.project_id,
        name=plain.name,
        contact_id=plain.contact_id,
        email_id=plain.email_id,
        data=plain.data,
    )
    return show_event(event)


def _occurrence(body: TrackRequest) -> Occurrence:
    preserve = bool(body.preserve_existing_subscription)
    return Occurrence(body.event, body.email, body.data, body.subscribed, preserve)


def _answer(tracked: Tracked) -> Answer:
    stored = {"contact": tracked.contact_id, "event": tracked.event_id, "timestamp": tracked.created_at}
    return Answer(dump_json({"success": True, "data": stored}))


ENDPOINTS: list[Endpoint] = [track_event]
EVENT_ENDPOINTS: list[Endpoint] = [record_event]
"""What stands among the endpoints of events."""
