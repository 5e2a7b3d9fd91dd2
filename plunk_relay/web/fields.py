"""Which fields do many bodies have? Addresses and custom data, checked alike everywhere."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, JsonValue
from pydantic_core import PydanticCustomError

from plunk_relay.ids import is_id
from plunk_relay.mail.address import check_address

MOST_LEVELS = 100


def _check_email(value: object) -> object:
    if isinstance(value, str) and check_address(value) is not None:
        raise PydanticCustomError("invalid_string", "Invalid email")
    return value


def has_line_break(text: str) -> bool:
    """Tell whether a text would be more than one line of a header."""
    return "\r" in text or "\n" in text


def _check_line(value: object) -> object:
    if isinstance(value, str) and has_line_break(value):
        raise PydanticCustomError("invalid_string", "Line breaks are not allowed")
    return value


def _check_uuid(value: object) -> object:
    if isinstance(value, str) and not is_id(value):
        raise PydanticCustomError("invalid_string", "Invalid uuid")
    return value


def _check_depth(value: object) -> object:
    """Refuse what is nested beyond what templates and the database read back."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise PydanticCustomError("custom", "Must be nested at most {levels} levels deep", {"levels": MOST_LEVELS})


def _inside(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


Email = Annotated[str, BeforeValidator(_check_email)]
"""An address without blanks around it."""
Line = Annotated[str, BeforeValidator(_check_line)]
"""Text without line breaks."""
Uuid = Annotated[str, BeforeValidator(_check_uuid)]
"""An id as it is written; in any case."""
JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(_check_depth)]
"""Custom data: a JSON object that is not nested too deeply."""
AnyJson = Annotated[JsonValue, BeforeValidator(_check_depth)]
