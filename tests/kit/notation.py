"""How are bytes, repetitions and "any text" written in `.dialog` and `.peer` files?"""

import base64
import re
from collections.abc import Mapping

_ESCAPE = re.compile(r"\\(r|n|t|0|\\|x[0-9A-Fa-f]{2})")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_BASE64 = re.compile(r"base64\(([^()]*)\)")
_REPEAT = re.compile(r"repeat\(([^(),]*), *(\d+)\)")


class UnknownName(LookupError):
    """A `$NAME` that stands for nothing."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put in what `$NAME`, `repeat()` and `base64()` stand for; raises UnknownName."""

    def lookup(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise UnknownName(f"nothing is called ${found[1]}")
        return variables[found[1]]

    text = re.sub(r"\$([A-Z_]+)", lookup, text)
    text = _REPEAT.sub(lambda found: found[1] * int(found[2]), text)
    return _BASE64.sub(lambda found: base64.b64encode(unescape(found[1])).decode(), text)


def unescape(text: str) -> bytes:
    r"""Turn `\r \n \t \0 \\ \xHH` into bytes; other characters are UTF-8."""
    return _ESCAPE.sub(_byte, text).encode("utf-8", "surrogateescape")


def fits(pattern: str, text: str) -> bool:
    """Compare with a pattern in which `*` stands for any text."""
    return re.match(".*".join(map(re.escape, pattern.split("*"))) + r"\Z", text) is not None


def _byte(found: re.Match[str]) -> str:
    """Return one byte as a character: plain, or above ASCII as the surrogate that stands for it."""
    code = found[1]
    if code[0] != "x":
        return _ESCAPES[code]
    value = int(code[1:], 16)
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
