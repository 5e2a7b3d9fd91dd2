"""What does a customer's template say, piece by piece? Read in one pass into Liquid's tokens, each knowing its place.

`??` fallbacks, names with blanks and the entities of rich-text editors become plain Liquid on the way. Every step is
linear: the lexer of python-liquid would search an unclosed delimiter anew from each place (see `read_tokens`).
"""

import re
from collections.abc import Iterator

from liquid import Token
from liquid.exceptions import LiquidSyntaxError
from liquid.token import TOKEN_CONTENT, TOKEN_EOF, TOKEN_EXPRESSION, TOKEN_OUTPUT, TOKEN_TAG

MOST_TAGS = 5_000
"""Placeholders and tags in one template; to parse so many takes about 0.1 s."""
_MOST_WORK = 100_000
"""Characters inside all tags together; Liquid looks at the rest of an expression once more for each bracket in it."""
_LOOKS_A_CHARACTER = 50  # a look costs a fiftieth of what reading does
_ENTITIES = {
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&#34;": '"',
    "&#39;": "'",
    "&apos;": "'",
    "&amp;": "&",
    "&nbsp;": " ",
    "&#160;": " ",
}
_ENTITY = re.compile("|".join(_ENTITIES))
_OPEN = re.compile(r"\{\{|\{%")
_TAG = re.compile(r"(#|\w+)\s*")
_END_RAW = re.compile(r"\{%-?\s*endraw\s*-?%\}")
_COMMENT = re.compile(r"\{%-?\s*(comment|endcomment)\b")
_SPACED_NAME = re.compile(r"[\w\-. ]+\Z")
_QUOTED_OR_FALLBACK = re.compile(r"\"[^\"]*\"|'[^']*'|\?\?")
_LEADING_BLANKS = re.compile(r"(?:\s|&nbsp;|&#160;)*")
_BLANK_ENDS = ("&nbsp;", "&#160;")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_LONG_BLANKS = re.compile(r"[ \t\r]{100,}")  # the `liquid` tag reads them again and again


class Excerpt(str):
    """An expression as Liquid reads it, which remembers where in the source it was written, and how."""

    start: int
    original: str

    def locate(self, offset: int) -> int:
        """Return the place in the source of the character at an offset."""
        shift = 0
        for entity in _ENTITY.finditer(self.original):
            if entity.start() - shift >= offset:
                break
            shift += len(entity[0]) - 1
        return self.start + min(offset + shift, len(self.original))


def read_tokens(source: str) -> Iterator[Token]:
    """Yield Liquid's tokens; raises LiquidSyntaxError. Comments are left out, raw blocks are content."""
    scanner = _Scanner(source)
    while (found := _OPEN.search(source, scanner.place)) is not None:
        if scanner.tags == MOST_TAGS:
            raise scanner.fault(f"the template has more than {MOST_TAGS} tags", found.start())
        if found[0] == "{{":
            yield from scanner.read_output(found.start())
        else:
            yield from scanner.read_tag(found.start())
    yield from scanner.read_content(len(source))


class _Scanner:
    """Where the reading stands: what is before `place` is done."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.place = 0
        self.tags = 0
        self._work = 0
        self._trim = False
        """Whether the tag before ended with a dash."""

    def fault(self, message: str, place: int) -> LiquidSyntaxError:
        """Return the error for a place in the source."""
        return LiquidSyntaxError(message, token=Token(TOKEN_EOF, "", place, self.source))

    def read_content(self, end: int, *, trim: bool = False) -> Iterator[Token]:
        """Yield the text before the next delimiter."""
        text = self.source[self.place : end]
        if self._trim:
            text = text.lstrip()
        if trim:
            text = text.rstrip()
        if text:
            yield Token(TOKEN_CONTENT, text, self.place, self.source)

    def read_output(self, start: int) -> Iterator[Token]:
        """Yield the tokens of `{{ … }}`; an empty one prints nothing."""
        content, core, place = self._read_delimited(start, "}}")
        yield from content
        expression = _rewrite_output(_decode(core))
        if expression.strip():
            yield Token(TOKEN_OUTPUT, core, start, self.source)
            yield self._expression(expression, core, place)

    def read_tag(self, start: int) -> Iterator[Token]:
        """Yield the tokens of `{% … %}`."""
        content, core, place = self._read_delimited(start, "%}")
        yield from content
        name = _TAG.match(core)
        if name is None:
            raise self.fault("a tag needs a name", start)
        rest = core[name.end() :]
        if name[1] == "comment":
            self._skip_comment(place)
        elif name[1] == "raw" and not rest:
            yield from self._read_raw(place)
        elif name[1] != "#":
            yield Token(TOKEN_TAG, name[1], place, self.source)
            if rest:
                expression = _LONG_BLANKS.sub(" ", _decode(rest)) if name[1] == "liquid" else _decode(rest)
                yield self._expression(expression, rest, place + name.end())

    def _read_delimited(self, start: int, closing: str) -> tuple[list[Token], str, int]:
        """Return the text before, what stands between the delimiters without dashes and blanks, and where that begins."""
        end = self.source.find(closing, start + 2)
        if end < 0:
            raise self.fault(f"expected '{closing}', found the end of the template", start)
        inner = self.source[start + 2 : end]
        content = list(self.read_content(start, trim=inner.startswith("-")))
        core = inner.removeprefix("-")
        self._trim = core.endswith("-")
        core = core.removesuffix("-")
        bare = _LEADING_BLANKS.sub("", core, count=1)
        self.place = end + 2
        self.tags += 1
        return content, _strip_end(bare), end - len(bare) - self._trim

    def _expression(self, text: str, original: str, place: int) -> Token:
        excerpt = Excerpt(text)
        excerpt.start, excerpt.original = place, original
        bare = _QUOTED.sub("", text)
        looks = len(text) * (bare.count("(") + bare.count("["))
        self._work += len(text) + looks // _LOOKS_A_CHARACTER
        if self._work > _MOST_WORK:
            raise self.fault("the template says too much inside its tags", place)
        return Token(TOKEN_EXPRESSION, excerpt, 0, excerpt)

    def _read_raw(self, tag: int) -> Iterator[Token]:
        """Yield what stands before `endraw`, untouched."""
        end = _END_RAW.search(self.source, self.place)
        if end is None:
            raise self.fault("the tag 'raw' is not closed", tag)
        self._trim = False
        yield from self.read_content(end.start())
        self.place = end.end()
        self._trim = end[0].endswith("-%}")

    def _skip_comment(self, tag: int) -> None:
        depth = 1
        while depth:
            found = _COMMENT.search(self.source, self.place)
            end = self.source.find("%}", found.end()) if found else -1
            if found is None or end < 0:
                raise self.fault("the tag 'comment' is not closed", tag)
            depth += 1 if found[1] == "comment" else -1
            self.place = end + 2
            self._trim = self.source[end - 1] == "-"


def _strip_end(text: str) -> str:
    """Take blanks away from the end, also those that an editor escaped."""
    end = len(text)
    while (blank := text.endswith(_BLANK_ENDS, 0, end)) or text[end - 1 : end].isspace():
        end -= len(_BLANK_ENDS[0]) if blank else 1
    return text[:end]


def _decode(text: str) -> str:
    """Undo, once, what rich-text editors escape."""
    if "&" in text:
        text = _ENTITY.sub(lambda found: _ENTITIES[found[0]], text)
    return text.replace("\xa0", " ")


def _rewrite_output(text: str) -> str:
    if "??" not in text:
        return _name(text)
    name, *fallbacks = split_fallbacks(text)
    return _name(name) + "".join(f" | default: {_literal(fallback)}" for fallback in fallbacks)


def _name(text: str) -> str:
    """Write a path with blanks in its names segment by segment as bracket look-ups."""
    bare = text.strip()
    if " " not in bare or not _SPACED_NAME.match(bare):
        return text
    return "".join(f'["{segment.strip()}"]' for segment in bare.split("."))


def split_fallbacks(text: str) -> list[str]:
    """Split at `??` outside quotes."""
    parts, start = [], 0
    for found in _QUOTED_OR_FALLBACK.finditer(text):
        if found[0] == "??":
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def read_fallback(text: str) -> str:
    """Return the literal a fallback stands for: trimmed, its surrounding quotes taken off."""
    literal = text.strip()
    if len(literal) >= 2 and literal[0] == literal[-1] and literal[0] in "\"'":
        return literal[1:-1]
    return literal


def _literal(text: str) -> str:
    value = read_fallback(text)
    if '"' not in value:
        return f'"{value}"'
    return f"'{value}'" if "'" not in value else '"' + value.replace('"', "&quot;") + '"'
