"""Which submitted lines are too long for SMTP, and how do they become shorter? At most 998 octets (RFC 5321 4.5.3.1.6).

Servers cut, fold or refuse longer lines, which breaks a signature made before. So the parts that have some are encoded
as quoted-printable before we sign: the reader sees the same text. Everything else stays byte for byte. The message is
read twice, piece by piece, and never held: `mime_layout` tells where its parts are, this module writes them anew.
"""

import binascii
import re
from collections.abc import Iterable, Iterator

from plunk_relay.mail.mime_layout import (
    LONGEST_LINE,
    Entity,
    LineTooLongError,
    Stretch,
    encoding_of,
    read_layout,
)
from plunk_relay.spool import Buffer, ByteSource, Held

__all__ = ["LONGEST_LINE", "LineTooLongError", "has_long_lines", "has_long_lines_in", "shorten", "shorten_lines"]
_BASE64_LINE = 76
_QUOTED_BYTES = 65536
"""How much of a line without an end is encoded at once."""


def has_long_lines(data: Buffer) -> bool:
    """Tell whether a line (ended by CRLF) has more than 998 octets; looks only once in a thousand octets."""
    data = bytes(data) if isinstance(data, memoryview) else data
    place = 0
    while len(data) - place > LONGEST_LINE:
        end = data.rfind(b"\r\n", place, place + LONGEST_LINE + 2)
        if end < 0:
            return True
        place = end + 2
    return False


def has_long_lines_in(source: ByteSource) -> bool:
    """Tell the same of what is not held."""
    rest = b""
    for piece in source.pieces():
        data = rest + bytes(piece)
        last = data.rfind(b"\r\n") + 2 if b"\r\n" in data else 0
        rest = data[last:]
        if has_long_lines(data[:last]) or len(rest) > LONGEST_LINE + 1:  # a CR may be the end of it
            return True
    return has_long_lines(rest)


def shorten_lines(message: bytes) -> bytes:
    """Return the message with short lines; raises LineTooLongError."""
    return b"".join(shorten(Held(message))) if has_long_lines(message) else message


def shorten(source: ByteSource) -> Iterator[Buffer]:
    """Yield the message with short lines, piece by piece; raises LineTooLongError."""
    for item in read_layout(source):
        if isinstance(item, Entity):
            yield _shorten_head(item)
            if item.body is not None:
                yield from _shorten_body(source, item.body, encoding_of(item.headers))
        elif item.long:
            yield from _break(source.pieces(item.start, item.end))
        else:
            yield from source.pieces(item.start, item.end)


def _shorten_head(entity: Entity) -> bytes:
    """Return the header block with its empty line; it says so when the body is encoded another way than before."""
    head = entity.head
    if any(len(line) > LONGEST_LINE for line in head.split(b"\r\n")):
        head = b"\r\n".join(_fold(line) for line in head.split(b"\r\n"))
    body, encoding = entity.body, encoding_of(entity.headers)
    if body is None or not body.long or encoding == "base64":
        return head + entity.blank
    head = re.sub(rb"(?im)^content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", head)
    head += b"Content-Transfer-Encoding: quoted-printable\r\n"
    if entity.outermost and "mime-version" not in entity.headers:
        head += b"MIME-Version: 1.0\r\n"
        if "content-type" not in entity.headers and (encoding == "qp" or not body.ascii):
            head += b"Content-Type: text/plain; charset=utf-8\r\n"
    return head + entity.blank


def _fold(line: bytes) -> bytes:
    """Fold a header line at its blanks (RFC 5322 2.2.3)."""
    folded: list[bytes] = []
    while len(line) > LONGEST_LINE:
        place = max(line.rfind(b" ", 1, LONGEST_LINE), line.rfind(b"\t", 1, LONGEST_LINE))
        if place < 0 or not line[:place].strip():
            raise LineTooLongError(f"a header line has more than {LONGEST_LINE} octets and no blank to fold it at")
        folded.append(line[:place])
        line = line[place:]
    return b"\r\n".join([*folded, line])


def _shorten_body(source: ByteSource, body: Stretch, encoding: str) -> Iterator[Buffer]:
    pieces = source.pieces(body.start, body.end)
    if not body.long:
        yield from pieces
    elif encoding == "base64":
        yield from _wrap(pieces)
    else:
        yield from _to_quoted_printable(_from_quoted_printable(pieces) if encoding == "qp" else pieces)


def _wrap(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        rest += bytes(piece).translate(None, b" \t\r\n\f\v")
        whole = len(rest) - len(rest) % _BASE64_LINE
        yield b"".join(rest[at : at + _BASE64_LINE] + b"\r\n" for at in range(0, whole, _BASE64_LINE))
        rest = rest[whole:]
    yield rest + b"\r\n" if rest else b""


def _from_quoted_printable(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Decode; a piece ends behind a line, or where no `=XX` is cut and no blanks stand before what may be a line end."""
    rest = b""
    for piece in pieces:
        rest += bytes(piece)
        end = rest.rfind(b"\n") + 1
        if not end and len(rest) > _QUOTED_BYTES:
            end = len(rest) - 2
            end = rest.rfind(b"=", end - 2, end) if b"=" in rest[end - 2 : end] else end
        yield binascii.a2b_qp(rest[:end])
        rest = rest[end:]
    yield binascii.a2b_qp(rest)


def _to_quoted_printable(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Encode whole lines; of a line without an end so much at once, with a soft line break behind it."""
    rest = b""
    for piece in pieces:
        rest += bytes(piece)
        end = rest.rfind(b"\r\n") + 2 if b"\r\n" in rest else 0
        yield _quote(rest[:end])
        rest = rest[end:]
        while len(rest) > _QUOTED_BYTES:
            yield _quote(rest[: _QUOTED_BYTES // 2]) + b"=\r\n"
            rest = rest[_QUOTED_BYTES // 2 :]
    yield _quote(rest)


def _quote(text: bytes) -> bytes:
    encoded = binascii.b2a_qp(text.replace(b"\r\n", b"\n"), istext=True)
    return encoded.replace(b"\n", b"\r\n")


def _break(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Break what no reader shows: the text before the first and after the last part."""
    column = 0
    for piece in pieces:
        for number, line in enumerate(bytes(piece).split(b"\r\n")):
            if number:
                yield b"\r\n"
                column = 0
            place = 0
            while column + len(line) - place > LONGEST_LINE:
                yield line[place : place + LONGEST_LINE - column] + b"\r\n"
                place, column = place + LONGEST_LINE - column, 0
            yield line[place:]
            column += len(line) - place
