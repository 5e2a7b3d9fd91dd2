"""What does an authority ask of us? The answer to its challenge, at a path that RFC 8555 8.3 names."""

from plunk_relay.errors import NotFound
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, Endpoint, endpoint


@endpoint("GET", "/.well-known/acme-challenge/{token}", tag="Operating", auth=Auth.NONE, errors=(NotFound,))
async def answer_challenge(relay: Relay, token: str) -> Answer:
    """Answer a challenge that is under way."""
    answer = relay.acme_answers.get(token)
    if answer is None:
        raise NotFound("No certificate is being asked for with this token.")
    return Answer(answer.encode(), content_type="text/plain; charset=utf-8")


ENDPOINTS: list[Endpoint] = [answer_challenge]
"""Not for callers of the API, and so not in its document."""
