"""What remains of incoming data? The rules that merge custom fields into a contact (contract section 7)."""

from collections.abc import Mapping
from typing import Any

from plunk_relay.errors import BadRequest

RESERVED_FIELDS = frozenset(
    {
        "plunk_id",
        "plunk_email",
        "id",
        "email",
        "unsubscribeUrl",
        "subscribeUrl",
        "manageUrl",
        "subscribed",
        "createdAt",
        "updatedAt",
    }
)


def merge_data(stored: Mapping[str, Any] | None, incoming: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Merge key by key at the top level; return None when nothing is left.

    Reserved keys and empty strings are skipped, null deletes, `{value, persistent: false}` is not stored,
    `{value, persistent: true}` stores its value. Raises BadRequest when `locale` is not a string.
    """
    merged = dict(stored or {})
    for key, value in (incoming or {}).items():
        if key in RESERVED_FIELDS or value == "":
            continue
        if value is None:
            merged.pop(key, None)
        elif key == "locale" and not isinstance(value, str):
            raise BadRequest("data.locale must be a string such as `en` or `de-AT`.")
        elif not _is_wrapper(value):
            merged[key] = value
        elif value["persistent"] is not False:
            merged[key] = value["value"]
    return merged or None


def _is_wrapper(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and isinstance(value.get("persistent"), bool)
