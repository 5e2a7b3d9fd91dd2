"""How is a template parsed and run? As Liquid with JavaScript's truth, within bounds that no source and no data can pass.

LiquidJS stops by a clock; here steps and memory are counted, so that the same mail always comes out the same. A block pays
for what stands in it each time it runs, a loop for its rounds, a filter for what goes in and comes out.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO, cast

from liquid import BlockNode, BoundTemplate, Environment, Expression, Node, RenderContext, Token, TokenStream
from liquid.builtin.expressions import FilteredExpression, Path
from liquid.builtin.expressions.logical import (
    BooleanExpression,
    ContainsExpression,
    EqExpression,
    GeExpression,
    GtExpression,
    LeExpression,
    LogicalAndExpression,
    LogicalNotExpression,
    LogicalOrExpression,
    LtExpression,
    NeExpression,
)
from liquid.builtin.expressions.primitive import Blank, Empty, RangeLiteral
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.case_tag import MultiExpressionBlockNode
from liquid.builtin.tags.cycle_tag import CycleNode
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.builtin.tags.for_tag import ForNode
from liquid.builtin.tags.if_tag import IfTag
from liquid.builtin.tags.tablerow_tag import TablerowNode
from liquid.builtin.tags.unless_tag import UnlessTag
from liquid.exceptions import LiquidError, ResourceLimitError
from liquid.parser import get_parser
from liquid.token import TOKEN_EXPRESSION, TOKEN_OUTPUT, TOKEN_TAG
from liquid.utils import ReadOnlyChainMap

from plunk_relay.mail.template_filters import install_filters
from plunk_relay.mail.template_source import Excerpt, read_tokens
from plunk_relay.mail.template_values import (
    MOST_OUTPUT,
    contains,
    is_blank,
    is_less,
    is_missing,
    is_true,
    show,
    size_of,
)

MOST_SOURCE_CHARACTERS = 2_000_000
MOST_STEPS = 100_000
MOST_MEMORY = 10_000_000
_WIDEST_RANGE = 50_000
_LONGEST_INTEGER_BITS = 1024
_LONGEST_INDEX = 9
_REMOVED_TAGS = ("doc", "ifchanged", "include", "render")
_DATE_STEPS = 20
_CHARACTERS_A_UNIT = 10  # to search or compare ten characters costs what to make one does


class TemplateSyntaxError(ValueError):
    """The source is not valid Liquid; line and column count from 1."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def parse(source: str, *, strict: bool = False) -> BoundTemplate:
    """Return the template; raises TemplateSyntaxError. `strict`: an unknown filter is an error too."""
    if len(source) > MOST_SOURCE_CHARACTERS:
        raise TemplateSyntaxError("the template is too long", line=1, column=1)
    stream = TokenStream(iter(()))
    try:
        stream = TokenStream(read_tokens(source))
        template = BoundTemplate(_LIQUID, get_parser(_LIQUID).parse(stream))
        _harden(template, strict=strict)
    except LiquidError as error:
        raise _syntax_error(source, str(error.args[0]), _find_fault(error, stream)) from None
    except (RecursionError, ValueError) as error:
        what = "the tag is too complex" if isinstance(error, RecursionError) else str(error)
        raise _syntax_error(source, what, _last_start(_seen(stream))) from None
    return template


def run(template: BoundTemplate, values: Mapping[str, object], *, unset: dict[str, None] | None = None) -> str:
    """Render over values that `to_json_values` made; raises one of many errors when it cannot.

    `unset` takes the names of what was to be printed and has no value, in their order; a `default` counts as one.
    """
    context = _Context(template, values, unset)
    buffer = context.get_buffer()
    template.render_with_context(context, buffer)
    return buffer.getvalue()


def _syntax_error(source: str, message: str, place: int) -> TemplateSyntaxError:
    before = source.rfind("\n", 0, place) + 1
    return TemplateSyntaxError(message, line=source.count("\n", 0, place) + 1, column=place - before + 1)


def _find_fault(error: LiquidError, stream: TokenStream) -> int:
    """Return the place of the fault; one found only at an end belongs to the tag that is not closed or not finished."""
    place = _token_place(error.token) if error.token else None
    if place is not None:
        return place
    if str(error.args[0]).startswith("expected tag"):
        return _last_start(_unclosed_tags(stream.tokens))
    return _last_start(_seen(stream))


def _seen(stream: TokenStream) -> list[Token]:
    """Return the tokens up to the one that is being parsed: an expression is current, or was just taken."""
    return stream.tokens[: stream.pos + (stream.current.kind == TOKEN_EXPRESSION)]


def _last_start(tokens: Iterable[Token]) -> int:
    places = [_token_place(token) or 0 for token in tokens if token.kind in (TOKEN_TAG, TOKEN_OUTPUT)]
    return places[-1] if places else 0


def _token_place(token: Token) -> int | None:
    if isinstance(token.source, Excerpt):
        return token.source.locate(token.start_index)
    return token.start_index if token.start_index >= 0 else None


def _unclosed_tags(tokens: Iterable[Token]) -> list[Token]:
    stack: list[Token] = []
    for token in tokens:
        if token.kind != TOKEN_TAG:
            continue
        if stack and token.value == _LIQUID.tags[stack[-1].value].end:
            stack.pop()
        elif token.value in _LIQUID.tags and _LIQUID.tags[token.value].block:
            stack.append(token)
    return stack


class _Context(RenderContext):
    """Where a rendering stands, and what it may still spend."""

    __slots__ = ("memory_left", "steps_left", "unset")

    def __init__(self, template: BoundTemplate, values: Mapping[str, object], unset: dict[str, None] | None = None) -> None:
        super().__init__(template, globals=values)
        self.scope = ReadOnlyChainMap(self.locals, self.globals, self.counters)  # without python-liquid's `now`
        self.steps_left = MOST_STEPS
        self.memory_left = MOST_MEMORY
        self.unset = unset

    def walk(self, steps: int) -> None:
        """Pay for steps."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise ResourceLimitError("the template takes too many steps", token=None)

    def charge(self, units: int) -> None:
        """Pay for memory."""
        self.memory_left -= units
        if self.memory_left < 0:
            raise ResourceLimitError("the template needs too much memory", token=None)

    def assign(self, key: str, val: Any) -> None:
        """Set a variable."""
        self.charge(size_of(val))
        self.locals[key] = val

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Pay for the rounds of a loop that begins."""
        self.walk(length)

    def get_item(self, obj: Any, key: Any) -> Any:
        """Look into an object or a list; in JavaScript `a.0` and `a["0"]` are the same."""
        if isinstance(obj, dict) and isinstance(key, int):
            key = str(key)
        elif isinstance(obj, list) and isinstance(key, str) and key.isdecimal() and len(key) <= _LONGEST_INDEX:
            key = int(key)
        return super().get_item(obj, key)

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """Return a filter that pays for what goes through it."""
        known = super().filter(name, token)

        def run_paid(left: object, *arguments: object, **options: object) -> object:
            self.walk(_DATE_STEPS if name == "date" else 0)
            self.charge(_effort(left, arguments))
            made = known(left, *arguments, **options)
            self.charge(size_of(made))
            if isinstance(made, int) and made.bit_length() > _LONGEST_INTEGER_BITS:
                raise ResourceLimitError("the number is too big", token=token)
            return made

        return run_paid


def _effort(left: object, arguments: Iterable[object]) -> int:
    """Return what a filter may have to read: a list's items may each be compared with the arguments."""
    read = sum(map(size_of, arguments))
    items = len(left) * read // _CHARACTERS_A_UNIT if isinstance(left, list | tuple | range) else 0
    return size_of(left) + read + items


class _Toll(Node):
    """Stands first in a block and takes what one run of it costs."""

    __slots__ = ("price",)

    def __init__(self, token: Token, price: int) -> None:
        super().__init__(token)
        self.price = price

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Pay."""
        cast("_Context", context).walk(self.price)
        return 0


class _Charged(Expression):
    """A list to loop over, or a value to compare: reading it costs."""

    __slots__ = ("inner",)

    def __init__(self, inner: Expression) -> None:
        super().__init__(inner.token)
        self.inner = inner

    def __str__(self) -> str:
        return str(self.inner)

    def evaluate(self, context: RenderContext) -> object:
        """Return the value."""
        value = self.inner.evaluate(context)
        cast("_Context", context).charge(size_of(value) // _CHARACTERS_A_UNIT)
        return value

    def children(self) -> list[Expression]:
        """Return what it is made of."""
        return [self.inner]


class _ShortRange(RangeLiteral):
    """`(1..n)` of a bounded width."""

    __slots__ = ()

    def evaluate(self, context: RenderContext) -> range:
        """Return the range."""
        made = super().evaluate(context)
        if made.stop - made.start > _WIDEST_RANGE:
            raise ResourceLimitError("the range is too wide", token=self.token)
        return made


def _harden(template: BoundTemplate, *, strict: bool) -> None:
    """Put a toll into every block, bound ranges, let what may be long pay where it is read; check filters when strict."""
    context = RenderContext(template)
    pending = list(template.nodes)
    while pending:
        node = pending.pop()
        _harden_expressions(node, strict=strict)
        if isinstance(node, ForNode | TablerowNode):
            node.expression.iterable = _Charged(node.expression.iterable)
        elif isinstance(node, CycleNode):
            node.args = [_Charged(argument) for argument in node.args]
        elif isinstance(node, MultiExpressionBlockNode):
            node.expression.expressions = [_Charged(value) for value in node.expression.expressions]
        pending += node.children(context)
        if isinstance(node, BlockNode):
            node.nodes.insert(0, _Toll(node.token, sum(_price(child, context) for child in node.nodes)))


def _harden_expressions(node: Node, *, strict: bool) -> None:
    for expression in _all_expressions(node):
        if type(expression) is RangeLiteral:
            expression.__class__ = _ShortRange
        elif isinstance(expression, EqExpression | NeExpression):
            expression.left = _Charged(expression.left)
        elif strict and isinstance(expression, FilteredExpression):
            for one in expression.filters or []:
                one.validate_filter_arguments(_LIQUID)


def _price(node: Node, context: RenderContext) -> int:
    """Count the steps of a node without those of the blocks in it, which pay themselves."""
    price = 1 + sum(len(part.path) if isinstance(part, Path) else 1 for part in _all_expressions(node))
    inner = [child for child in node.children(context) if not isinstance(child, BlockNode)]
    return price + sum(_price(child, context) for child in inner if child is not node)


def _all_expressions(node: Node) -> list[Expression]:
    return _parts(*node.expressions())


def _parts(*expressions: Expression) -> list[Expression]:
    """Return expressions with all that is in them."""
    found, pending = [], list(expressions)
    while pending:
        expression = pending.pop()
        found.append(expression)
        pending += expression.children()
    return found


class _JsCondition(Expression):
    """A condition with JavaScript's truth and order; missing equals blank."""

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
            blank = is_blank(expression.left.evaluate(context))
            return blank if isinstance(expression, EqExpression) else not blank
        case LtExpression() | LeExpression() | GtExpression() | GeExpression() | ContainsExpression():
            return _compare(expression, context)
    return is_true(expression.evaluate(context))


def _compare(
    expression: LtExpression | LeExpression | GtExpression | GeExpression | ContainsExpression, context: RenderContext
) -> bool:
    left, right = _Charged(expression.left).evaluate(context), _Charged(expression.right).evaluate(context)
    match expression:
        case ContainsExpression():
            return contains(left, right)
        case GtExpression() | GeExpression():
            return is_less(right, left, or_equal=isinstance(expression, GeExpression))
    return is_less(left, right, or_equal=isinstance(expression, LeExpression))


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


class _ShownNode(OutputNode):
    """Output of a value: of a bare list, one `<li>` an item."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        """Write the value."""
        unset = cast("_Context", context).unset
        if unset is not None:
            unset.update(dict.fromkeys(_list_unset(self.expression, context)))
        return buffer.write(show(self.expression.evaluate(context)))


def _list_unset(expression: Expression, context: RenderContext) -> list[str]:
    """Return the variables of an output that have no value, unless it has a `default`."""
    if isinstance(expression, FilteredExpression) and any(one.name == "default" for one in expression.filters or []):
        return []
    return [str(part) for part in _parts(expression) if isinstance(part, Path) and is_missing(part.evaluate(context))]


class _ShownOutput(Output):
    node_class = _ShownNode


class _ShownEcho(EchoTag):
    node_class = _ShownNode  # type: ignore[assignment]  # an OutputNode too


class _Liquid(Environment):
    context_depth_limit = 40
    output_stream_limit = MOST_OUTPUT
    shorthand_indexes = True


def _environment() -> Environment:
    environment = _Liquid(strict_filters=False)
    for tag in (_JsIf, _JsUnless, _ShownOutput, _ShownEcho):
        environment.add_tag(tag)
    for name in _REMOVED_TAGS:
        del environment.tags[name]
    install_filters(environment)
    return environment


_LIQUID = _environment()
