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
    `{value, persistent: true}` counts as its value. Raises BadRequest when `locale` is not a string.
    """
    merged = dict(stored or {})
    for key, given in (incoming or {}).items():
        if key in RESERVED_FIELDS:
            continue
        if key == "locale" and not isinstance(given, str | None):
            raise BadRequest("data.locale must be a string such as `en` or `de-AT`.")
        value = _kept_part(given)
        if value is None:
            merged.pop(key, None)
        elif value != "":
            merged[key] = value
    return merged or None


def _kept_part(given: Any) -> Any:
    """Return what is to be stored of a value: what a wrapper holds, or an empty text for what is not kept."""
    is_wrapper = isinstance(given, dict) and "value" in given and isinstance(given.get("persistent"), bool)
    if not is_wrapper:
        return given
    return given["value"] if given["persistent"] else ""
