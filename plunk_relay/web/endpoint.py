"""What is an endpoint? A function whose signature is the contract.

The decorator holds method, path, guard and errors; parameters hold path, query and body; the return annotation holds the
result; the docstring holds summary and prose. One `Endpoint` yields the route, the validation and the OpenAPI entry.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from plunk_relay.errors import RelayError
from plunk_relay.web.access import Auth, Guard
from plunk_relay.web.multipart import UploadField

_PATH_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


class ApiModel(BaseModel):
    """Base of bodies, queries and results: camelCase outside, strict types, unknown keys ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", strict=True)


@dataclass(frozen=True, slots=True)
class KeyHold:
    """A request's hold on its Idempotency-Key.

    The unit of work that stores the request's effect settles the key too (`web.queries.settle_key`), so that a crash
    leaves either both or neither.
    """

    project_id: str
    key: str
    request_id: str


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What an endpoint may know beside its parameters."""

    request_id: str
    ip: str | None
    hold: KeyHold | None = None
    """None: the request has no Idempotency-Key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is not JSON, or has a status of its own."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()


Handler = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path; `body` and `query` are models or None."""

    name: str
    """What the document calls it: `operationId`."""
    method: str
    path: str
    guard: Guard
    handler: Handler
    tag: str
    status: int
    also: tuple[int, ...]
    """Other statuses of the same result."""
    errors: tuple[type[RelayError], ...]
    bucket: str | None
    idempotent: bool
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    upload: UploadField | None
    """The file that is asked for instead of a body; the handler gets it as `upload`."""
    path_parameters: tuple[str, ...]
    extras: tuple[str, ...]
    """Names among relay, caller, request that the handler asks for."""
    result: Any
    """The return annotation."""
    produces: tuple[str, ...]
    """Media types of what an `Answer` carries."""

    @property
    def auth(self) -> Auth:
        """What it asks for."""
        return self.guard.auth

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return inspect.getdoc(self.handler).partition("\n")[0] if self.handler.__doc__ else ""  # type: ignore[union-attr]

    @property
    def prose(self) -> str:
        """The rest of the docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[2].strip()


def endpoint(
    method: str,
    path: str,
    *,
    tag: str,
    auth: Auth = Auth.DUAL,
    status: int = 200,
    also: Sequence[int] = (),
    errors: Sequence[type[RelayError]] = (),
    bucket: str | None = None,
    idempotent: bool = False,
    upload: UploadField | None = None,
    confirmed: bool = True,
    produces: Sequence[str] = (),
) -> Callable[[Handler], Endpoint]:
    """Declare an endpoint.

    `bucket` names its rate limit, `idempotent` honours Idempotency-Key, `upload` asks for a file, `confirmed=False` lets
    people in who have not confirmed their address, `produces` names the media types of an answer that is not JSON. A path
    parameter is explained by its annotation, `Annotated[str, "what it is"]`, unless its name says it: `contact_id`.
    """

    def declare(handler: Handler) -> Endpoint:
        hints = get_type_hints(handler)
        path_parameters = tuple(_PATH_PARAMETER.findall(path))
        return Endpoint(
            name=handler.__name__,
            method=method,
            path=path,
            guard=Guard(auth, confirmed),
            handler=handler,
            tag=tag,
            status=status,
            also=tuple(also),
            errors=tuple(errors),
            bucket=bucket,
            idempotent=idempotent,
            body=hints.get("body"),
            query=hints.get("query"),
            upload=upload,
            path_parameters=path_parameters,
            extras=tuple(name for name in ("relay", "caller", "request") if name in hints),
            result=hints.get("return"),
            produces=tuple(produces),
        )

    return declare


def aliases(endpoints: Sequence[Endpoint], prefix: str) -> list[Endpoint]:
    """Return the same endpoints below another path, such as /v1."""
    return [replace(one, name=f"{one.name}_below_{prefix.strip('/')}", path=prefix + one.path) for one in endpoints]
