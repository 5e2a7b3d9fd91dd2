"""Where are the parts of a message? Header blocks and bodies by their places, read piece by piece (RFC 2046 5.1).

Only a message with lines that are too long is looked at like this; what is not understood is passed on as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

from plunk_relay.spool import ByteSource

LONGEST_LINE = 998
_DEEPEST = 20
_LARGEST_HEAD = 262144
_MOST_ITEMS = 20_000
_FRAGMENT_BYTES = 65536


class LineTooLongError(ValueError):
    """A header line is too long and has no blank to be folded at, or the parts are too many or too large to look at."""


@dataclass(slots=True)
class Stretch:
    """A body, or text that belongs to no part: where it is, whether a line is too long, whether all is ASCII."""

    start: int
    end: int
    long: bool = False
    ascii: bool = True


@dataclass(slots=True)
class Entity:
    """A message or part: its header block; `body` is None when it consists of other parts, which follow."""

    head: bytes
    blank: bytes
    """The empty line behind the header block; none when the part ends there."""
    headers: Message
    outermost: bool
    body: Stretch | None


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its CRLF, or a fragment of a long one."""

    place: int
    text: bytes
    starts: bool = True
    ends: bool = True

    @property
    def end(self) -> int:
        """The place behind it and its CRLF."""
        return self.place + len(self.text) + (2 if self.ends else 0)


@dataclass(frozen=True, slots=True)
class _Multipart:
    """An open multipart: the beginning of its boundary lines, and how deep its parts are."""

    delimiter: bytes
    depth: int


def encoding_of(headers: Message) -> str:
    """Return the Content-Transfer-Encoding in lower case, `qp` for quoted-printable, empty for none."""
    word = str(headers.get("Content-Transfer-Encoding", "")).strip().lower()
    return {"quoted-printable": "qp"}.get(word, word)


def read_layout(source: ByteSource) -> list[Entity | Stretch]:
    """Return everything in the message in order; raises LineTooLongError."""
    walk = _Walk()
    for line in _lines(source):
        walk.take(line)
    return walk.finish()


def _lines(source: ByteSource) -> Iterator[_Line]:
    rest, place, starts = b"", 0, True
    for piece in source.pieces():
        *lines, rest = (rest + bytes(piece)).split(b"\r\n")
        for text in lines:
            yield _Line(place, text, starts)
            place, starts = place + len(text) + 2, True
        if len(rest) > _FRAGMENT_BYTES:  # but for its last byte, which may be half of a line end
            yield _Line(place, rest[:-1], starts, ends=False)
            place, starts, rest = place + len(rest) - 1, False, rest[-1:]
    if rest:
        yield _Line(place, rest, starts, ends=False)


class _Walk:
    """Goes through the lines once; knows which multiparts are open, and what it is in: a header block, or text."""

    def __init__(self) -> None:
        self._items: list[Entity | Stretch] = []
        self._multiparts: list[_Multipart] = []
        self._depth = 0
        self._head: bytearray | None = bytearray()
        """The header block so far; None: this is text."""
        self._stretch: Stretch | None = None
        self._column = 0

    def take(self, line: _Line) -> None:
        """Go a line on."""
        level = self._find_level(line) if line.starts and line.text.startswith(b"--") else None
        if level is not None:
            self._cross_boundary(line, level)
        elif self._head is None:
            self._take_text(line)
        elif line.starts and line.ends and not line.text:
            self._begin_body(bytes(self._head), line)
        else:
            self._head += line.text + (b"\r\n" if line.ends else b"")
            if len(self._head) > _LARGEST_HEAD:
                raise LineTooLongError(f"a header block of more than {_LARGEST_HEAD} bytes beside lines that are too long")

    def finish(self) -> list[Entity | Stretch]:
        """Return what was found."""
        if self._head:
            self._add_entity(bytes(self._head), b"")
        return self._items

    def _find_level(self, line: _Line) -> int | None:
        """Return which multipart the boundary line belongs to, the outermost first; None: it is none."""
        text = line.text.rstrip(b" \t")
        return next((n for n, one in enumerate(self._multiparts) if text in (one.delimiter, one.delimiter + b"--")), None)

    def _cross_boundary(self, line: _Line, level: int) -> None:
        border = self._end_item(line.place)
        self._add(Stretch(border, line.end, long=len(line.text) > LONGEST_LINE))
        multipart = self._multiparts[level]
        closing = len(line.text.rstrip(b" \t")) > len(multipart.delimiter)
        del self._multiparts[level if closing else level + 1 :]
        self._depth = multipart.depth
        self._head, self._stretch = None if closing else bytearray(), None

    def _end_item(self, place: int) -> int:
        """End what stands before a boundary line, whose own is the line end before it; return where that is."""
        if self._head:
            self._add_entity(bytes(self._head[:-2]), b"")
            return place - 2
        if self._stretch is not None and self._stretch.end > self._stretch.start:
            self._stretch.end -= 2
            return place - 2
        return place

    def _begin_body(self, head: bytes, line: _Line) -> None:
        entity = self._add_entity(head, b"\r\n")
        self._head, self._stretch, self._column = None, Stretch(line.end, line.end), 0
        kind, boundary = entity.headers.get_content_type(), _boundary_of(entity.headers)
        if self._depth < _DEEPEST and kind.startswith("multipart/") and boundary:
            self._depth += 1
            self._multiparts.append(_Multipart(b"--" + boundary, self._depth))
            self._add(self._stretch)
        elif self._depth < _DEEPEST and kind == "message/rfc822" and encoding_of(entity.headers) not in ("base64", "qp"):
            self._depth += 1
            self._head, self._stretch = bytearray(), None
        else:
            entity.body = self._stretch

    def _take_text(self, line: _Line) -> None:
        if self._stretch is None:
            self._stretch = Stretch(line.place, line.place)
            self._add(self._stretch)
        stretch = self._stretch
        self._column = len(line.text) + (0 if line.starts else self._column)
        stretch.end = line.end
        stretch.long = stretch.long or self._column > LONGEST_LINE
        stretch.ascii = stretch.ascii and line.text.isascii()

    def _add_entity(self, head: bytes, blank: bytes) -> Entity:
        headers = BytesHeaderParser().parsebytes(head)
        entity = Entity(head, blank, headers, outermost=not self._items, body=None)
        self._add(entity)
        return entity

    def _add(self, item: Entity | Stretch) -> None:
        if len(self._items) >= _MOST_ITEMS:
            raise LineTooLongError(f"lines of more than {LONGEST_LINE} octets beside more parts than are looked at")
        self._items.append(item)


def _boundary_of(headers: Message) -> bytes:
    try:
        return (headers.get_boundary() or "").encode("ascii", "replace")
    except (ValueError, LookupError):  # an encoded parameter that cannot be decoded
        return b""
