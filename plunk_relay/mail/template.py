"""What does a customer's template say for one contact? Liquid with JavaScript truthiness (contract section 11).

Authoring (`check_template`) is strict; rendering never raises: what does not parse, or runs into a limit, falls back to
plain placeholders. One pass only: what a value contains is never evaluated. Only keys of dicts and indexes of lists are
reachable, never attributes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TextIO

import orjson
from liquid import Environment, RenderContext
from liquid.ast import Node
from liquid.builtin.expressions.logical import (
    BooleanExpression,
    EqExpression,
    LogicalAndExpression,
    LogicalNotExpression,
    LogicalOrExpression,
    NeExpression,
)
from liquid.builtin.expressions.primitive import Blank, Empty
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.if_tag import IfTag
from liquid.builtin.tags.unless_tag import UnlessTag
from liquid.exceptions import LiquidError
from liquid.expression import Expression
from liquid.stream import TokenStream
from liquid.template import BoundTemplate
from liquid.undefined import is_undefined

from plunk_relay.mail.template_source import prepare_source, read_fallback, split_fallbacks

MOST_SOURCE_CHARACTERS = 2_000_000
_CACHED_SOURCES = 256
_RESERVED = frozenset({"plunk_id", "plunk_email", "id", "email", "unsubscribeUrl", "subscribeUrl", "manageUrl"})
_WIDE_RANGE = re.compile(r"\.\.\s*\d{5,}|\(\s*-?\d{5,}\s*\.\.")
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_LOCATION = re.compile(r"\{\{|\{%")
_FAILURES = (LiquidError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)


class TemplateSyntaxError(ValueError):
    """The source is not valid Liquid; line and column count from 1."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


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
    if len(source) > MOST_SOURCE_CHARACTERS:
        raise TemplateSyntaxError("the template is too long", line=1, column=1)
    try:
        _STRICT.from_string(prepare_source(source))
    except LiquidError as error:
        line, column = _position(error, source)
        raise TemplateSyntaxError(str(error.args[0] if error.args else error), line=line, column=column) from None


def render(source: str, scope: Mapping[str, object]) -> str:
    """Render the source over a scope (see `merge_scope`); never raises."""
    if not has_placeholders(source):
        return source
    values = _plain(scope)
    data = values.get("data")
    merged = {**data, **values} if isinstance(data, dict) else values
    try:
        return _run(_parse(source), merged)
    except _FAILURES:
        return _render_placeholders(source, merged)


def merge_scope(
    *,
    contact_id: str,
    email: str,
    stored: Mapping[str, Any] | None,
    subscribed: bool,
    request: Mapping[str, Any] | None,
    urls: ContactUrls,
) -> dict[str, object]:
    """Merge what a template may see (contract 7.1): stored fields, this request's data, system variables last."""
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


class _JsCondition(Expression):
    """A condition with JavaScript truthiness: empty text and zero are false, missing equals blank."""

    __slots__ = ("inner",)

    def __init__(self, inner: Expression) -> None:
        super().__init__(inner.token)
        self.inner = inner

    def evaluate(self, context: RenderContext) -> bool:
        """Decide."""
        return _decide(self.inner, context)

    def children(self) -> list[Expression]:
        """Return what it is made of."""
        return [self.inner]


def _decide(expression: Expression, context: RenderContext) -> bool:
    match expression:
        case BooleanExpression():
            return _decide(expression.expression, context)
        case LogicalAndExpression():
            return _decide(expression.left, context) and _decide(expression.right, context)
        case LogicalOrExpression():
            return _decide(expression.left, context) or _decide(expression.right, context)
        case LogicalNotExpression():
            return not _decide(expression.right, context)
        case EqExpression() | NeExpression() if isinstance(expression.right, Blank | Empty):
            blank = _is_blank(expression.left.evaluate(context))
            return blank if isinstance(expression, EqExpression) else not blank
    return _is_true(expression.evaluate(context))


def _is_true(value: object) -> bool:
    if value is None or is_undefined(value):
        return False
    return isinstance(value, list | dict) or bool(value)


def _is_blank(value: object) -> bool:
    if value is None or value is False or is_undefined(value):
        return True
    return not value.strip() if isinstance(value, str) else isinstance(value, list | dict) and not value


class _JsIf(IfTag):
    def parse(self, stream: TokenStream) -> Node:
        return _with_js_conditions(super().parse(stream))


class _JsUnless(UnlessTag):
    def parse(self, stream: TokenStream) -> Node:
        return _with_js_conditions(super().parse(stream))


def _with_js_conditions(node: Any) -> Node:
    if hasattr(node, "condition"):
        node.condition = _JsCondition(node.condition)
        for alternative in node.alternatives:
            alternative.expression = _JsCondition(alternative.expression)
    return node  # type: ignore[no-any-return]  # the node itself


class _ListOutputNode(OutputNode):
    """Output of a bare list: one `<li>` an item."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Write the value."""
        return buffer.write(_show(self.expression.evaluate(context)))


class _ListOutput(Output):
    node_class = _ListOutputNode


class _RawList(list[object]):
    """A list that asked to be printed bare."""


def _show(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or is_undefined(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _RawList):
        return ",".join(_show(item) for item in value)
    if isinstance(value, list | tuple):
        return "\n".join(f"<li>{_show(item)}</li>" for item in value)
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return orjson.dumps(value).decode() if isinstance(value, dict) else str(value)


def _default(value: object, fallback: object = "", *, allow_false: bool = False) -> object:
    if allow_false and value is False:
        return value
    return value if _is_true(value) and value != [] else fallback


class _Liquid(Environment):
    context_depth_limit = 20
    loop_iteration_limit = 20_000
    local_namespace_limit = 2_000_000
    output_stream_limit = 10_000_000
    shorthand_indexes = True


def _environment(*, strict_filters: bool) -> Environment:
    environment = _Liquid(strict_filters=strict_filters)
    for tag in (_JsIf, _JsUnless, _ListOutput):
        environment.add_tag(tag)
    for name in ("include", "render"):
        del environment.tags[name]
    environment.add_filter("default", _default)
    environment.add_filter("raw", lambda value: _RawList(value) if isinstance(value, list) else value)
    return environment


_STRICT = _environment(strict_filters=True)
_LENIENT = _environment(strict_filters=False)


@lru_cache(_CACHED_SOURCES)
def _parse(source: str) -> BoundTemplate:
    if len(source) > MOST_SOURCE_CHARACTERS or _WIDE_RANGE.search(source):
        raise LiquidError("the template is beyond the limits", token=None)
    return _LENIENT.from_string(prepare_source(source))


def _run(template: BoundTemplate, values: dict[str, object]) -> str:
    context = RenderContext(template, globals=values)
    buffer = context.get_buffer()
    template.render_with_context(context, buffer)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Keep JSON values only, so that nothing with attributes is in reach; whole floats print as integers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _render_placeholders(source: str, values: Mapping[str, object]) -> str:
    """Replace `{{path}}` and `{{path ?? default}}`; tags stay as text."""

    def replace(found: re.Match[str]) -> str:
        name, *fallbacks = split_fallbacks(found[1])
        value = _look_up(values, name.strip())
        for fallback in fallbacks:
            value = _default(value, read_fallback(fallback))
        return _show(value)

    return _PLACEHOLDER.sub(replace, source)


def _look_up(values: Mapping[str, object], path: str) -> object:
    value: object = values
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if value is not None else values.get(path)


def _position(error: LiquidError, source: str) -> tuple[int, int]:
    """Return line and column of the fault, counted in the customer's source as near as the parser tells."""
    token = getattr(error, "token", None)
    index = min(max(getattr(token, "start_index", 0) or 0, 0), len(source))
    if index == 0 and (first := _LOCATION.search(source)):
        index = first.start()
    return source.count("\n", 0, index) + 1, index - (source.rfind("\n", 0, index) + 1) + 1
