"""What does a customer's template mean before Liquid sees it? `??` fallbacks, names with blanks, entities of editors."""

import re
from html import unescape

_TOKEN = re.compile(r"\{\{(.*?)\}\}|\{%(.*?)%\}", re.DOTALL)
_RAW_START = re.compile(r"-?\s*raw\s*-?\Z")
_RAW_END = re.compile(r"\{%-?\s*endraw\s*-?%\}")
_SPACED_NAME = re.compile(r"[\w\-. ]*\w ++\w[\w\-. ]*\Z")
_KEYWORDS = frozenset({"and", "or", "contains", "blank", "empty"})


def prepare_source(source: str) -> str:
    """Rewrite the placeholders into plain Liquid; text, raw blocks and unterminated delimiters stay as they are."""
    parts: list[str] = []
    place = 0
    while found := _TOKEN.search(source, place):
        parts.append(source[place : found.start()])
        output, tag = found[1], found[2]
        if output is not None:
            parts.append(_output(output))
            place = found.end()
        elif _RAW_START.match(tag.strip()):
            end = _RAW_END.search(source, found.end())
            place = end.end() if end else len(source)
            parts.append(source[found.start() : place])
        else:
            parts.append("{%" + _decode(tag) + "%}")
            place = found.end()
    parts.append(source[place:])
    return "".join(parts)


def _decode(text: str) -> str:
    """Undo, once, what rich-text editors escape."""
    return unescape(text).replace("\xa0", " ") if "&" in text else text


def _output(inner: str) -> str:
    text = _decode(inner)
    left, right = ("-" if text.startswith("-") else ""), ("-" if text.endswith("-") else "")
    core = text.removeprefix("-").removesuffix("-").strip()
    if not core:
        return ""
    name, *fallbacks = split_fallbacks(core)
    filters = "".join(f" | default: {_literal(fallback)}" for fallback in fallbacks)
    return "{{" + f"{left} {_name(name.strip())}{filters} {right}" + "}}"


def _name(text: str) -> str:
    """Write a path with blanks in its names segment by segment as bracket look-ups."""
    if not _SPACED_NAME.match(text) or _KEYWORDS & set(text.split()):
        return text
    first, *rest = (segment.strip() for segment in text.split("."))
    root = f'["{first}"]' if " " in first else first
    return root + "".join(f'["{segment}"]' for segment in rest)


def split_fallbacks(text: str) -> list[str]:
    """Split at `??` outside quotes."""
    parts, quote, start, index = [], "", 0, 0
    while index < len(text):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif text.startswith("??", index):
            parts.append(text[start:index])
            index += 2
            start = index
            continue
        index += 1
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
