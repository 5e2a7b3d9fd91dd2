"""Does a request have the documented shape? pydantic checks; its findings are told in the documented vocabulary (zod 3).

A validator that finds several faults in one field raises PydanticCustomError with `faults` in its context: a list of
FieldErrors whose path starts below the field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from plunk_relay.errors import FIELD_CODES, FieldError, MalformedBody, ValidationFailed

Model = TypeVar("Model", bound=BaseModel)
_EXPECTED = {
    "string_type": "string",
    "int_type": "number",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "int_from_float": "integer",
}


def parse_json(raw: bytes) -> object:
    """Parse a body; an empty one is an empty object. Raises MalformedBody."""
    if not raw:
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedBody("The request body is not valid JSON.") from error


def bind(model: type[Model], value: object) -> Model:
    """Make the model of a JSON value, whose keys are the documented names; raises ValidationFailed with every fault."""
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = [fault for item in error.errors(include_url=False) for fault in _translate(item)]
        raise ValidationFailed(faults) from None


def bind_query(model: type[Model], pairs: Sequence[tuple[str, str]]) -> Model:
    """Make the model of a query string, the last of equal names winning; query models convert text leniently."""
    try:
        return model.model_validate(dict(pairs), strict=False, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = [fault for item in error.errors(include_url=False) for fault in _translate(item)]
        raise ValidationFailed(faults) from None


def report_faults(faults: Sequence[FieldError]) -> PydanticCustomError:
    """Return the error for a field validator to raise; the paths of the faults start below the field."""
    return PydanticCustomError("custom", "Invalid value", {"faults": list(faults)})


def wrong_type(field: str, expected: str, value: object) -> FieldError:
    """Describe a value of another JSON type than `expected`; null included."""
    received = _type_name(value)
    return FieldError(field, f"Expected {expected}, received {received}", "invalid_type", received)


def missing(field: str) -> FieldError:
    """Describe a field that is not there."""
    return FieldError(field, "Required", "invalid_type", "undefined")


def _translate(item: ErrorDetails) -> list[FieldError]:
    path = ".".join(str(part) for part in item["loc"])
    context: Mapping[str, Any] = item.get("ctx", {})
    if "faults" in context:
        return [replace(fault, field=".".join(filter(None, (path, fault.field)))) for fault in context["faults"]]
    kind, value = item["type"], item["input"]
    if kind == "missing":
        return [missing(path)]
    if kind in _EXPECTED:
        return [wrong_type(path, _EXPECTED[kind], value)]
    message, code = _describe(kind, context, "character(s)" if isinstance(value, str) else "element(s)", item["msg"])
    return [FieldError(path, message, code)]


def _describe(kind: str, context: Mapping[str, Any], unit: str, message: str) -> tuple[str, str]:
    match kind:
        case "string_too_short" | "too_short":
            return f"Must contain at least {context['min_length']} {unit}", "too_small"
        case "string_too_long" | "too_long":
            return f"Must contain at most {context['max_length']} {unit}", "too_big"
        case "greater_than" | "greater_than_equal":
            return message, "too_small"
        case "less_than" | "less_than_equal":
            return message, "too_big"
        case "literal_error" | "enum":
            return f"Invalid value. Expected {context['expected']}", "invalid_enum_value"
        case "string_pattern_mismatch":
            return "Invalid", "invalid_string"
    return message.removeprefix("Value error, "), kind if kind in FIELD_CODES else "custom"


def _type_name(value: object) -> str:
    """Name a JSON type as clients know it."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "unknown")
