"""What does a customer's template say for one contact? Liquid as LiquidJS reads it, plus `??` fallbacks.

Authoring (`check_template`) is strict; rendering never raises: what does not parse, or runs into a limit, falls back to
plain placeholders. One pass only: what a value contains is never evaluated. Only keys of dicts and indexes of lists are
reachable, never attributes.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from liquid import BoundTemplate
from liquid.exceptions import LiquidError

from plunk_relay.mail.template_filters import use_default
from plunk_relay.mail.template_language import TemplateSyntaxError, parse, run
from plunk_relay.mail.template_source import read_fallback, split_fallbacks
from plunk_relay.mail.template_values import TooMuch, join_bounded, show, to_json_values

__all__ = [
    "ContactUrls",
    "Rendered",
    "TemplateSyntaxError",
    "check_template",
    "contact_urls",
    "has_placeholders",
    "merge_scope",
    "render",
    "render_subject",
    "render_watched",
    "to_subject",
]
_RESERVED = frozenset({"plunk_id", "plunk_email", "id", "email", "unsubscribeUrl", "subscribeUrl", "manageUrl"})
_PLACEHOLDER = re.compile(r"\{\{-?([^{}]*?)-?\}\}")
_FAILURES = (LiquidError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
_MOST_PLACEHOLDERS = 20_000  # replaced in 50 ms
_CACHE_BYTES = 64_000_000
_BYTES_A_TAG = 2_000


@dataclass(frozen=True, slots=True)
class ContactUrls:
    """The contact's own pages."""

    unsubscribe: str
    subscribe: str
    manage: str


def contact_urls(base_url: str, contact_id: str, email_id: str) -> ContactUrls:
    """Return the links to a contact's pages; `e` tells which mail led there."""
    base = base_url.rstrip("/")
    pages = (f"{base}/{page}/{contact_id}?e={email_id}" for page in ("unsubscribe", "subscribe", "manage"))
    return ContactUrls(*pages)


def has_placeholders(source: str) -> bool:
    """Tell whether rendering could change the source."""
    return "{{" in source or "{%" in source


def check_template(source: str) -> None:
    """Raise TemplateSyntaxError unless the source is valid; unknown filters are errors here."""
    parse(source, strict=True)


def render(source: str, scope: Mapping[str, object]) -> str:
    """Render the source over a scope (see `merge_scope`); never raises."""
    return _render(source, scope, None).text if has_placeholders(source) else source


def render_subject(source: str, scope: Mapping[str, object]) -> str:
    """Render a subject: whatever its values are, it is one line."""
    return to_subject(render(source, scope))


def to_subject(rendered: str) -> str:
    """Make one line of a rendered subject."""
    return rendered.replace("\n", " ").replace("\r", " ")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered text, and what its author may want to know."""

    text: str
    unset: tuple[str, ...] = ()
    """Variables that were to be printed and have no value."""
    failed: bool = False
    """It does not parse, or ran into a limit: plain placeholders alone were filled in."""


def render_watched(source: str, scope: Mapping[str, object]) -> Rendered:
    """Render as `render` does, and tell what went missing; never raises."""
    return _render(source, scope, {}) if has_placeholders(source) else Rendered(source)


def _render(source: str, scope: Mapping[str, object], unset: dict[str, None] | None) -> Rendered:
    values = to_json_values(scope)
    data = values.get("data")
    merged = {**data, **values} if isinstance(data, dict) else values
    try:
        template = _PARSED.find(source)
        if template is not None:
            text = run(template, merged, unset=unset)
            return Rendered(text, tuple(unset or ()))
    except _FAILURES:
        pass
    return Rendered(_render_placeholders(source, merged), failed=True)


def merge_scope(
    *,
    contact_id: str,
    email: str,
    stored: Mapping[str, Any] | None,
    subscribed: bool,
    request: Mapping[str, Any] | None,
    urls: ContactUrls,
) -> dict[str, object]:
    """Merge what a template may see: stored fields, this request's data, system variables last."""
    merged: dict[str, object] = {"plunk_id": contact_id, "plunk_email": email, **(stored or {})}
    merged.setdefault("locale", None)
    for key, value in (request or {}).items():
        if key not in _RESERVED:
            merged[key] = value["value"] if _is_wrapper(value) else value
    return {
        **merged,
        "data": merged,
        "id": contact_id,
        "email": email,
        "subscribed": subscribed,
        "unsubscribeUrl": urls.unsubscribe,
        "subscribeUrl": urls.subscribe,
        "manageUrl": urls.manage,
    }


def _is_wrapper(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and isinstance(value.get("persistent"), bool)


class _Cache:
    """Keeps parsed templates, the latest used, up to a size; None for one that does not parse. For any thread."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, BoundTemplate | None] = OrderedDict()
        self._lock = Lock()

    def find(self, source: str) -> BoundTemplate | None:
        """Return the parsed template."""
        with self._lock:
            if source in self._kept:
                self._kept.move_to_end(source)
                return self._kept[source]
        try:
            template = parse(source)
        except TemplateSyntaxError:
            template = None
        with self._lock:
            self._keep(source, template)
        return template

    def _keep(self, source: str, template: BoundTemplate | None) -> None:
        if source not in self._kept:
            self._bytes += _estimate_bytes(source)
        self._kept[source] = template
        while self._bytes > self._most_bytes:
            dropped, _ = self._kept.popitem(last=False)
            self._bytes -= _estimate_bytes(dropped)


def _estimate_bytes(source: str) -> int:
    return 1_000 + 4 * len(source) + _BYTES_A_TAG * (source.count("{{") + source.count("{%"))


_PARSED = _Cache(_CACHE_BYTES)


def _render_placeholders(source: str, values: Mapping[str, object]) -> str:
    """Replace `{{path}}` and `{{path ?? default}}`; tags stay as text. A source with too much of them stays as it is."""
    try:
        return join_bounded(_placeholder_parts(source, values), "")
    except TooMuch:
        return source


def _placeholder_parts(source: str, values: Mapping[str, object]) -> Iterator[str]:
    place = 0
    for number, found in enumerate(_PLACEHOLDER.finditer(source)):
        if number == _MOST_PLACEHOLDERS:
            raise TooMuch("the source has too many placeholders")
        yield source[place : found.start()]
        place = found.end()
        name, *fallbacks = split_fallbacks(found[1])
        value = _look_up(values, name.strip())
        for fallback in fallbacks:
            value = use_default(value, read_fallback(fallback))
        yield show(value)
    yield source[place:]


def _look_up(values: Mapping[str, object], path: str) -> object:
    value: object = values
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if value is not None else values.get(path)
