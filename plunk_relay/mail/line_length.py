"""Which submitted lines are too long for SMTP, and how do they become shorter? At most 998 octets (RFC 5321 4.5.3.1.6).

Servers cut, fold or refuse longer lines, which breaks a signature made before. So the parts that have some are encoded
as quoted-printable before we sign: the reader sees the same text. Everything else stays byte for byte.
"""

import binascii
import re
from email.message import Message
from email.parser import BytesHeaderParser

LONGEST_LINE = 998
_DEEPEST = 20
_BASE64_LINE = 76


class LineTooLongError(ValueError):
    """A header line is too long and has no blank to be folded at."""


def has_long_lines(data: bytes | bytearray) -> bool:
    """Tell whether a line (ended by CRLF) has more than 998 octets; looks only once in a thousand octets."""
    place = 0
    while len(data) - place > LONGEST_LINE:
        end = data.rfind(b"\r\n", place, place + LONGEST_LINE + 2)
        if end < 0:
            return True
        place = end + 2
    return False


def shorten_lines(message: bytes) -> bytes:
    """Return the message with short lines; raises LineTooLongError."""
    return _shorten_entity(message, depth=0, outermost=True)


def _shorten_entity(entity: bytes, *, depth: int, outermost: bool = False) -> bytes:
    if not has_long_lines(entity):
        return entity
    head, body = _split_head(entity)
    headers = BytesHeaderParser().parsebytes(head)
    boundary = headers.get_boundary()
    if depth < _DEEPEST and headers.get_content_maintype() == "multipart" and boundary:
        return _fold_head(head) + b"\r\n" + _shorten_parts(body, boundary, depth)
    if depth < _DEEPEST and headers.get_content_type() == "message/rfc822" and _encoding(headers) not in ("base64", "qp"):
        return _fold_head(head) + b"\r\n" + _shorten_entity(body, depth=depth + 1)
    return _shorten_leaf(head, body, headers, outermost=outermost)


def _split_head(entity: bytes) -> tuple[bytes, bytes]:
    if entity.startswith(b"\r\n"):
        return b"", entity[2:]
    head, separator, body = entity.partition(b"\r\n\r\n")
    return (head + b"\r\n", body) if separator else (head.removesuffix(b"\r\n") + b"\r\n", b"")


def _encoding(headers: Message) -> str:
    word = str(headers.get("Content-Transfer-Encoding", "")).strip().lower()
    return {"quoted-printable": "qp"}.get(word, word)


def _shorten_parts(body: bytes, boundary: str, depth: int) -> bytes:
    """Shorten what stands between the boundary lines (RFC 2046 5.1.1); these and their line ends stay."""
    line = re.compile(rb"((?:\A|\r\n)--" + re.escape(boundary.encode("ascii", "replace")) + rb"(?:--)?[ \t]*(?=\r\n|\Z))")
    pieces = line.split(body)
    # pieces: preamble, boundary line, part, boundary line, ..., epilogue; a part begins with the line end of its boundary
    for index in range(2, len(pieces), 2):
        if not pieces[index - 1].rstrip(b" \t").endswith(b"--") or index < len(pieces) - 1:
            pieces[index] = b"\r\n" + _shorten_entity(pieces[index].removeprefix(b"\r\n"), depth=depth + 1)
    return b"".join(piece if not has_long_lines(piece) else _break(piece) for piece in pieces)


def _shorten_leaf(head: bytes, body: bytes, headers: Message, *, outermost: bool) -> bytes:
    folded = _fold_head(head)
    if not has_long_lines(body):
        return folded + b"\r\n" + body
    encoding = _encoding(headers)
    if encoding == "base64":
        return folded + b"\r\n" + _wrap(b"".join(body.split()))
    text = binascii.a2b_qp(body) if encoding == "qp" else body
    kept = re.sub(rb"(?im)^content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", folded)
    added = b"Content-Transfer-Encoding: quoted-printable\r\n"
    if outermost and "mime-version" not in headers:
        added += b"MIME-Version: 1.0\r\n"
        if "content-type" not in headers and not text.isascii():
            added += b"Content-Type: text/plain; charset=utf-8\r\n"
    return kept + added + b"\r\n" + _to_quoted_printable(text)


def _to_quoted_printable(text: bytes) -> bytes:
    encoded = binascii.b2a_qp(text.replace(b"\r\n", b"\n"), istext=True)
    return encoded.replace(b"\n", b"\r\n")


def _wrap(compact: bytes) -> bytes:
    return b"".join(compact[at : at + _BASE64_LINE] + b"\r\n" for at in range(0, len(compact), _BASE64_LINE))


def _break(text: bytes) -> bytes:
    """Break what no reader shows: the text before the first and after the last part."""
    return b"\r\n".join(
        line[at : at + LONGEST_LINE] for line in text.split(b"\r\n") for at in range(0, max(len(line), 1), LONGEST_LINE)
    )


def _fold_head(head: bytes) -> bytes:
    return b"\r\n".join(_fold(line) for line in head.split(b"\r\n")) if has_long_lines(head) else head


def _fold(line: bytes) -> bytes:
    """Fold a header line at its blanks (RFC 5322 2.2.3)."""
    folded = b""
    while len(line) > LONGEST_LINE:
        place = max(line.rfind(b" ", 1, LONGEST_LINE), line.rfind(b"\t", 1, LONGEST_LINE))
        if place < 0 or not line[:place].strip():
            raise LineTooLongError(f"a header line has more than {LONGEST_LINE} octets and no blank to fold it at")
        folded += line[:place] + b"\r\n"
        line = line[place:]
    return folded + line
