"""Which URLs are there? Every feature's endpoints, in the order of the reference."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from plunk_relay.accounts.sessions import find_membership, find_person
from plunk_relay.acme.api import ENDPOINTS as ACME
from plunk_relay.contacts.api import ENDPOINTS as CONTACTS
from plunk_relay.contacts.fields.api import ENDPOINTS as FIELDS
from plunk_relay.domains.api import ENDPOINTS as DOMAINS
from plunk_relay.emails.metrics import read_queue_gauges
from plunk_relay.emails.providers.metrics import read_provider_gauges
from plunk_relay.events.api import ENDPOINTS as EVENTS
from plunk_relay.jobs.api import ENDPOINTS as JOBS
from plunk_relay.projects.actions import identify_key
from plunk_relay.public.api import ENDPOINTS as PUBLIC
from plunk_relay.relay import Relay
from plunk_relay.segments.api import ENDPOINTS as SEGMENTS
from plunk_relay.send.api import ENDPOINTS as SEND
from plunk_relay.suppressions.api import ENDPOINTS as SUPPRESSIONS
from plunk_relay.templates.api import ENDPOINTS as TEMPLATES
from plunk_relay.track.api import ENDPOINTS as TRACK
from plunk_relay.track.api import EVENT_ENDPOINTS
from plunk_relay.uploads.api import ENDPOINTS as UPLOADS
from plunk_relay.verify.api import ENDPOINTS as VERIFY
from plunk_relay.web.access import Registry
from plunk_relay.web.dispatch import PathApp, Toolkit
from plunk_relay.web.endpoint import Endpoint
from plunk_relay.web.meta import meta_endpoints
from plunk_relay.web.metrics import HttpMetrics
from plunk_relay.web.paths import SlashMarker
from plunk_relay.web.ratelimit import RateLimiter, read_rates
from plunk_relay.web.requestlog import RequestLog

FEATURES: list[Endpoint] = [
    *SEND,
    *TRACK,
    *VERIFY,
    *CONTACTS,
    *FIELDS,
    *JOBS,
    *SEGMENTS,
    *TEMPLATES,
    *EVENT_ENDPOINTS,
    *EVENTS,
    *DOMAINS,
    *UPLOADS,
    *SUPPRESSIONS,
    *PUBLIC,
]


def create_app(relay: Relay, request_log: RequestLog, *, more: Sequence[Endpoint] = ()) -> Starlette:
    """Return the HTTP application; `more` are endpoints of this process alone, such as the pages of dev mode."""
    metrics = HttpMetrics()
    limiter = RateLimiter(read_rates(relay.settings.limits), relay.clock.monotonic)
    toolkit = Toolkit(relay, Registry(identify_key, find_person, find_membership), limiter, request_log, metrics)
    operating = meta_endpoints(FEATURES, metrics, [read_queue_gauges, read_provider_gauges])
    endpoints = [*FEATURES, *operating, *ACME, *more]
    app = Starlette(routes=make_routes(toolkit, endpoints), middleware=[Middleware(SlashMarker)])
    app.router.default = PathApp(toolkit, [])
    app.router.redirect_slashes = False
    return app


def make_routes(toolkit: Toolkit, endpoints: Sequence[Endpoint]) -> list[Route]:
    """Group endpoints by path; of two paths, the one whose segments are literal sooner comes first.

    A method that the first one lacks is looked for in the next: DELETE /events/stats is about an event of that name.
    """
    paths: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, []).append(endpoint)
    ordered = sorted(paths.items(), key=lambda item: [segment.startswith("{") for segment in item[0].split("/")])
    routes: list[Route] = []
    for path, group in ordered:
        also = [endpoint.method for other, more in ordered if _covers(other, path) for endpoint in more]
        routes.append(_MethodRoute(path, PathApp(toolkit, group, also=also), methods=_methods(group)))
    return routes


def _covers(template: str, path: str) -> bool:
    """Tell whether every request to a path fits another template as well."""
    ours, theirs = path.split("/"), template.split("/")
    return len(ours) == len(theirs) and all(
        wanted == segment or wanted.startswith("{") for segment, wanted in zip(ours, theirs, strict=True)
    )


class _MethodRoute(Route):
    """A route that answers for other methods too, when no other route of the path has them."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the path's own application say which methods there are."""
        await self.app(scope, receive, send)


def _methods(group: Sequence[Endpoint]) -> list[str]:
    return [*(endpoint.method for endpoint in group), "OPTIONS"]
