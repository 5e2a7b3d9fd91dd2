"""How does an error look? One envelope for all of them (contract section 3)."""

from typing import Any

import orjson
from pydantic import BaseModel

from plunk_relay.clock import Clock, format_time
from plunk_relay.errors import RelayError, ValidationFailed
from plunk_relay.web.endpoint import Answer

_TYPES_HINT = (
    "One or more fields have incorrect types. Check that strings are quoted, numbers are unquoted, "
    "and booleans are true/false."
)
_REQUIRED_HINT = "One or more required fields are missing. Add the fields named in errors."
_DOCS_HINT = "Compare the request with the API reference at /docs, and the codes at /docs/errors."


def error_answer(error: RelayError, *, request_id: str, clock: Clock) -> Answer:
    """Return the response for an error we know."""
    body = _envelope(error.code, error.message, error.status, request_id, clock)
    if isinstance(error, ValidationFailed):
        body["error"]["errors"] = [_field_error(fault) for fault in error.errors]
    if error.details:
        body["error"]["details"] = dict(error.details)
    suggestion = _suggest(error) if isinstance(error, ValidationFailed) else error.suggestion
    if suggestion:
        body["error"]["suggestion"] = suggestion
    retry_after = getattr(error, "retry_after_seconds", None)
    headers = [("retry-after", str(retry_after))] if retry_after is not None else []
    return Answer(dump_json(body), error.status, headers=headers)


def crash_answer(*, request_id: str, clock: Clock) -> Answer:
    """Return the response for an error nobody expected: it tells nothing but the request id."""
    body = _envelope("INTERNAL_SERVER_ERROR", "An unexpected error occurred.", 500, request_id, clock)
    body["error"]["suggestion"] = f"Give the request id {request_id} to the operator of this relay."
    return Answer(dump_json(body), 500)


def dump_json(value: object) -> bytes:
    """Write JSON as the API shows it: times with milliseconds and Z, models by their camelCase names."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    return format_time(value)


def _envelope(code: str, message: str, status: int, request_id: str, clock: Clock) -> dict[str, Any]:
    error = {"code": code, "message": message, "statusCode": status, "requestId": request_id}
    return {"success": False, "error": error, "timestamp": format_time(clock.now())}


def _field_error(fault: Any) -> dict[str, str]:
    shown = {"field": fault.field, "message": fault.message, "code": fault.code}
    return shown | {"received": fault.received} if fault.received is not None else shown


def _suggest(error: ValidationFailed) -> str:
    if any(fault.code == "invalid_type" for fault in error.errors):
        return _TYPES_HINT
    return _REQUIRED_HINT if any("required" in fault.message for fault in error.errors) else _DOCS_HINT
