"""What is in a report? Its MIME parts: header fields and decoded bodies, of hostile mail in bounded time.

Only the beginning of a message is looked at, only as many parts and as deep as reports have them, and never into a message
inside it: what somebody forwards is no report. RFC 2045, 2046; UTF-8 in headers as RFC 6532 allows it.
"""

import binascii
import quopri
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message

MOST_BYTES = 262144
"""Of a report, the part that says what happened is in its first quarter of a megabyte."""
_MOST_PARTS = 20
_MOST_FIELDS = 5000
_DEEPEST = 3
_LONGEST_PARAMETERS = 2000


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one."""

    content_type: str
    """Lower case, such as `multipart/report`; `text/plain` when it is not told."""
    fields: Sequence[tuple[str, str]]
    """Header fields in order: name in lower case, value unfolded."""
    body: bytes
    """Decoded, except of multiparts."""
    boundary: str | None

    def get(self, name: str) -> str:
        """Return the first value of a field, empty when there is none; `name` is in lower case."""
        return next((value for known, value in self.fields if known == name), "")


def read_part(raw: bytes) -> Part:
    """Read header block and body; never raises, whatever the bytes are."""
    raw = raw[:MOST_BYTES]
    if raw.startswith((b"\r\n", b"\n")):
        head, body = b"", raw.lstrip(b"\r").removeprefix(b"\n")
    else:
        found = re.search(rb"\r?\n\r?\n", raw)
        head, body = (raw[: found.start()], raw[found.end() :]) if found else (raw, b"")
    fields = read_fields(head)
    described = Message()
    described["Content-Type"] = _first(fields, "content-type")[:_LONGEST_PARAMETERS]
    content_type, boundary = described.get_content_type(), _boundary_of(described)
    if not content_type.startswith("multipart/"):
        body = _decode(body, _first(fields, "content-transfer-encoding").strip().lower())
    return Part(content_type, fields, body, boundary)


def _boundary_of(described: Message) -> str | None:
    try:
        return described.get_boundary()
    except (ValueError, LookupError):  # RFC 2231 lets a parameter name any character set
        return None


def read_fields(block: bytes) -> list[tuple[str, str]]:
    """Read lines of `Name: value` with folds; what is no field is passed over."""
    fields: list[tuple[str, list[str]]] = []
    for line in _decode_text(block).replace("\r\n", "\n").split("\n")[:_MOST_FIELDS]:
        if line[:1] in (" ", "\t"):
            if fields:
                fields[-1][1].append(line.strip())
            continue
        name, colon, value = line.partition(":")
        if colon and name.strip().isascii():
            fields.append((name.strip().lower(), [value.strip()]))
    return [(name, " ".join(pieces)) for name, pieces in fields]


def walk(part: Part, *, depth: int = _DEEPEST) -> Iterator[Part]:
    """Yield a part and all parts of its multiparts, in order; a message in it is one part."""
    yield part
    if depth and part.boundary and part.content_type.startswith("multipart/"):
        for raw in _split(part.body, part.boundary):
            yield from walk(read_part(raw), depth=depth - 1)


def _split(body: bytes, boundary: str) -> list[bytes]:
    """Return the raw parts between boundary lines; the last one may have no end."""
    line = re.compile(rb"^--" + re.escape(boundary.encode("utf-8", "surrogateescape")) + rb"(--)?[ \t]*\r?$", re.MULTILINE)
    parts: list[bytes] = []
    start: int | None = None
    for found in line.finditer(body):
        if start is not None:
            parts.append(body[start : max(start, found.start())].removesuffix(b"\n").removesuffix(b"\r"))
        start = None if found[1] else found.end() + 1
        if start is None or len(parts) >= _MOST_PARTS:
            return parts
    return parts if start is None else [*parts, body[start:]]


def _decode(body: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return quopri.decodestring(body)
    if encoding == "base64":
        try:
            return binascii.a2b_base64(body)
        except binascii.Error:
            return b""
    return body


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _first(fields: Sequence[tuple[str, str]], name: str) -> str:
    return next((value for known, value in fields if known == name), "")
