"""What happens to a request? Identify, limit, claim, bind, call, answer, log: in this order, for every endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from plunk_relay.errors import MalformedBody, MethodNotAllowed, NotFound, PayloadTooLarge, RelayError
from plunk_relay.ids import new_id
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.web.access import Caller, Registry, identify
from plunk_relay.web.binding import bind, bind_query, parse_json
from plunk_relay.web.endpoint import Answer, Endpoint, KeyHold, RequestInfo
from plunk_relay.web.envelope import crash_answer, dump_json, error_answer
from plunk_relay.web.idempotency import claim_key, settle_key
from plunk_relay.web.metrics import HttpMetrics
from plunk_relay.web.multipart import FORM_BYTES, UploadedFile, UploadField, read_upload
from plunk_relay.web.paths import unmark_slashes
from plunk_relay.web.ratelimit import LimitReached, RateLimiter
from plunk_relay.web.requestlog import RequestLog

log = get_logger("http")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_MOST_QUERY_FIELDS = 100
_AUTH_TYPES = {"secret": "apiKey", "public": "apiKey", "session": "jwt"}
_OPEN_CORS = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("access-control-allow-headers", "Content-Type, Authorization, Idempotency-Key"),
    (
        "access-control-expose-headers",
        "X-Request-ID, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After",
    ),
]


@dataclass(frozen=True, slots=True)
class Toolkit:
    """What all routes share."""

    relay: Relay
    registry: Registry
    limiter: RateLimiter
    request_log: RequestLog
    metrics: HttpMetrics


@dataclass(slots=True)
class _Exchange:
    """One request and what is known of it so far."""

    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    ip: str | None
    started: float
    route: str = ""
    caller: Caller | None = None
    hold: KeyHold | None = None
    body_size: int = 0
    error: RelayError | None = None


class PathApp:
    """The ASGI application of one path: all its methods; without endpoints, of every path that is unknown.

    `also` are methods that a less literal path answers, as DELETE /events/{name} does at /events/stats.
    """

    def __init__(self, toolkit: Toolkit, endpoints: Sequence[Endpoint], *, also: Sequence[str] = ()) -> None:
        self._toolkit = toolkit
        self._also = also
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        self._route = endpoints[0].path if endpoints else "unknown"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _begin(scope, self._toolkit.relay.clock.monotonic())
        exchange.route = self._route
        answer, extra = await self._answer(exchange, scope, receive)
        headers = [*answer.headers, *extra, *self._cors(exchange)]
        await _send(send, exchange, answer, headers)
        self._note(exchange, answer)

    async def _answer(self, exchange: _Exchange, scope: Scope, receive: Receive) -> tuple[Answer, list[tuple[str, str]]]:
        limits: list[tuple[str, str]] = []
        relay = self._toolkit.relay
        try:
            if exchange.method == "OPTIONS":
                return Answer(headers=[("allow", self._allowed())]), limits
            endpoint = self._find(exchange.method)
            return await self._call(endpoint, exchange, scope, receive, limits), limits
        except LimitReached as error:
            exchange.error, limits = error, error.headers
        except RelayError as error:
            exchange.error = error
        except Exception:
            log.exception("request failed", request_id=exchange.id, method=exchange.method, path=exchange.path)
            exchange.error = RelayError("An unexpected error occurred.")
            return crash_answer(request_id=exchange.id, clock=relay.clock), limits
        answer = error_answer(exchange.error, request_id=exchange.id, clock=relay.clock)
        if isinstance(exchange.error, MethodNotAllowed):
            limits = [("allow", self._allowed())]
        return answer, limits

    def _find(self, method: str) -> Endpoint:
        if not self._endpoints:
            raise NotFound("There is no such endpoint.")
        endpoint = self._endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(f"This path does not support {method}; it supports {self._allowed()}.")
        return endpoint

    def _allowed(self) -> str:
        methods = {*self._endpoints, *self._also, "OPTIONS"}
        return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))

    async def _call(
        self, endpoint: Endpoint, exchange: _Exchange, scope: Scope, receive: Receive, limits: list[tuple[str, str]]
    ) -> Answer:
        tools, headers = self._toolkit, exchange.headers
        exchange.caller = await identify(tools.relay, tools.registry, endpoint.guard, exchange.method, headers)
        if exchange.caller is not None:
            limits += tools.limiter.spend(exchange.caller.project_id, endpoint.bucket)
        await self._claim(endpoint, exchange)
        try:
            arguments = await self._bind(endpoint, exchange, scope, receive)
            answer = _as_answer(endpoint, await endpoint.handler(**arguments))
        except RelayError as error:
            await self._settle(exchange, error.status)
            raise
        except Exception:
            await self._settle(exchange, 500)
            raise
        await self._settle(exchange, answer.status)
        return answer

    async def _claim(self, endpoint: Endpoint, exchange: _Exchange) -> None:
        key = exchange.headers.get("idempotency-key") if endpoint.idempotent else None
        if key is not None and exchange.caller is not None:
            hold = KeyHold(exchange.caller.project_id, key, exchange.id)
            await claim_key(self._toolkit.relay, hold, method=exchange.method, path=exchange.path)
            exchange.hold = hold

    async def _settle(self, exchange: _Exchange, status: int) -> None:
        if exchange.hold is not None:
            await settle_key(self._toolkit.relay, exchange.hold, status=status)

    async def _bind(self, endpoint: Endpoint, exchange: _Exchange, scope: Scope, receive: Receive) -> dict[str, object]:
        arguments: dict[str, object] = {
            name: unmark_slashes(scope["path_params"][name]) for name in endpoint.path_parameters
        }
        if endpoint.body is not None:
            most = self._toolkit.relay.settings.http.max_body_bytes
            raw = await _read_body(receive, exchange.headers.get("content-length"), most)
            exchange.body_size = len(raw)
            arguments["body"] = bind(endpoint.body, parse_json(raw))
        if endpoint.upload is not None:
            most = endpoint.upload.most_bytes + FORM_BYTES
            raw = await _read_body(receive, exchange.headers.get("content-length"), most)
            exchange.body_size = len(raw)
            arguments["upload"] = _find_upload(endpoint.upload, raw, exchange.headers.get("content-type", ""))
        if endpoint.query is not None:
            arguments["query"] = bind_query(endpoint.query, _read_query(scope["query_string"]))
        extras = {
            "relay": self._toolkit.relay,
            "caller": exchange.caller,
            "request": RequestInfo(exchange.id, exchange.ip, exchange.hold, exchange.headers),
        }
        return arguments | {name: extras[name] for name in endpoint.extras}

    def _cors(self, exchange: _Exchange) -> list[tuple[str, str]]:
        """Open below /v1; elsewhere only this server's own pages, with credentials."""
        if exchange.path == "/v1" or exchange.path.startswith("/v1/"):
            return _OPEN_CORS
        own = self._toolkit.relay.settings.server.public_url.rstrip("/")
        if exchange.headers.get("origin") != own:
            return []
        methods, headers = _OPEN_CORS[1], _OPEN_CORS[2]
        allowed = ("access-control-allow-headers", f"{headers[1]}, X-Project-Id")
        return [
            ("access-control-allow-origin", own),
            ("access-control-allow-credentials", "true"),
            ("vary", "Origin"),
            methods,
            allowed,
        ]

    def _note(self, exchange: _Exchange, answer: Answer) -> None:
        elapsed = self._toolkit.relay.clock.monotonic() - exchange.started
        self._toolkit.metrics.observe(exchange.method, exchange.route, answer.status, elapsed)
        caller, error = exchange.caller, exchange.error
        self._toolkit.request_log.add(
            {
                "id": exchange.id,
                "method": exchange.method,
                "path": exchange.path[:1000],
                "status_code": answer.status,
                "duration": int(elapsed * 1000),
                "project_id": caller.project_id if caller else None,
                "user_id": caller.user_id if caller else None,
                "auth_type": _AUTH_TYPES[caller.kind] if caller else None,
                "ip": exchange.ip,
                "user_agent": exchange.headers.get("user-agent", "")[:500] or None,
                "error_code": error.code if error else None,
                "error_message": error.message[:500] if error else None,
                "request_size": exchange.body_size,
                "response_size": len(answer.body),
                "created_at": self._toolkit.relay.clock.now(),
            }
        )


def _begin(scope: Scope, started: float) -> _Exchange:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")
    return _Exchange(
        new_id(), scope["method"], unmark_slashes(scope["path"]), headers, client[0] if client else None, started
    )


def _as_answer(endpoint: Endpoint, result: object) -> Answer:
    if isinstance(result, Answer):
        return result
    return Answer(status=204) if result is None else Answer(dump_json(result), endpoint.status)


def _read_query(raw: bytes) -> list[tuple[str, str]]:
    """Return names and values; what follows the first hundred is passed over, as every unknown name is."""
    pairs = raw.decode("latin-1").split("&", _MOST_QUERY_FIELDS)[:_MOST_QUERY_FIELDS]
    return parse_qsl("&".join(pairs), keep_blank_values=True)


def _find_upload(field: UploadField, raw: bytes, content_type: str) -> UploadedFile:
    upload = read_upload(raw, content_type, field)
    if len(upload.data) > field.most_bytes:
        raise PayloadTooLarge(f"The file is larger than {field.most_bytes} bytes.")
    return upload


async def _read_body(receive: Receive, declared: str | None, most: int) -> bytes:
    """Read the body; stop as soon as it is larger than `most` bytes. One that breaks off is no request."""
    if declared is not None and declared.isdigit() and int(declared) > most:
        raise PayloadTooLarge(f"The request body is larger than {most} bytes.")
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody("The connection was closed before the end of the request body.")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise PayloadTooLarge(f"The request body is larger than {most} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else parts[0]


async def _send(send: Send, exchange: _Exchange, answer: Answer, headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    raw += [(b"x-request-id", exchange.id.encode()), *_SECURITY_HEADERS]
    if answer.body:
        raw.append((b"content-type", answer.content_type.encode()))
    if answer.status not in (204, 304):
        raw.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else answer.body})
