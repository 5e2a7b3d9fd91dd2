"""How does a message with 8-bit octets become one that an older server takes? Its parts and headers are encoded anew.

RFC 6152 3: a server that does not offer 8BITMIME must not be sent such octets; RFC 6531 3: one that does not offer
SMTPUTF8 takes none in headers. So texts become quoted-printable and files base64 (RFC 2045 6), words of headers become
encoded words (RFC 2047), parameters extended ones (RFC 2231). The structure stays. Old signatures break, so we sign after.
"""

import binascii
import re
from base64 import encodebytes
from urllib.parse import quote

from plunk_relay.mail.address import encode_words, format_mailbox, parse_mailboxes
from plunk_relay.mail.dkim import split_fields
from plunk_relay.mail.mime_layout import Entity, LineTooLongError, Stretch, encoding_of, read_layout
from plunk_relay.spool import Held

_ADDRESSES = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc", "resent-from", "resent-sender", "resent-to"})
_PARAMETERS = frozenset({"content-type", "content-disposition"})
_NO_WORDS = frozenset(
    "message-id in-reply-to references resent-message-id content-id date resent-date received return-path"
    " dkim-signature arc-seal arc-message-signature authentication-results mime-version content-transfer-encoding".split()
)
"""Fields with a grammar that has no place for encoded words."""
_SEALED = ("multipart/signed", "multipart/encrypted")
_KEPT_ENCODINGS = ("", "7bit", "8bit", "binary")
_PARAMETER = re.compile(r';\s*([!#$&+.^`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)', re.ASCII)
_ENCODING_FIELD = re.compile(rb"(?im)^content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")


class CannotConvert(ValueError):
    """The message has 8-bit octets where no encoding is allowed; the text says where."""


def to_seven_bit(message: bytes) -> bytes:
    """Return the message (CRLF lines) in ASCII; raises CannotConvert."""
    if message.isascii():
        return message
    try:
        converted = b"".join(_convert(item, message) for item in read_layout(Held(message)))
    except (LineTooLongError, binascii.Error) as error:
        raise CannotConvert(str(error)) from None
    if not converted.isascii():
        raise CannotConvert("8-bit octets are left in a place that cannot be encoded")
    return converted


def _convert(item: Entity | Stretch, message: bytes) -> bytes:
    if isinstance(item, Stretch):  # text before, between or behind parts, which no reader shows
        return message[item.start : item.end].decode("ascii", "replace").replace("\ufffd", "?").encode()
    kind = item.headers.get_content_type()
    if kind in _SEALED:
        raise CannotConvert(f"{kind} must not be changed")
    head = item.head if item.head.isascii() else b"".join(map(_convert_field, split_fields(item.head)))
    if item.body is None:
        return _with_encoding(head, item, "7bit") + item.blank
    body = message[item.body.start : item.body.end]
    if item.body.ascii:
        return _with_encoding(head, item, "7bit") + item.blank + body
    encoding, encoded = _encode_body(body, item)
    return _with_encoding(head, item, encoding) + _missing_type(item, body) + item.blank + encoded


def _encode_body(body: bytes, entity: Entity) -> tuple[str, bytes]:
    encoding, kind = encoding_of(entity.headers), entity.headers.get_content_type()
    if kind.startswith("message/") and not kind.startswith("message/global"):
        raise CannotConvert(f"a part of the type {kind} must not be encoded")  # RFC 2046 5.2
    if encoding == "base64":
        return encoding, _base64(binascii.a2b_base64(body))
    if encoding == "qp":
        return "quoted-printable", _quoted_printable(binascii.a2b_qp(body))
    if encoding not in _KEPT_ENCODINGS:
        raise CannotConvert(f"a part is encoded as {encoding[:40]!r} and has 8-bit octets all the same")
    if kind.startswith("text/") and encoding != "binary":
        return "quoted-printable", _quoted_printable(body)
    return "base64", _base64(body)


def _base64(data: bytes) -> bytes:
    return encodebytes(data).replace(b"\n", b"\r\n").removesuffix(b"\r\n")


def _quoted_printable(text: bytes) -> bytes:
    return binascii.b2a_qp(text.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")


def _with_encoding(head: bytes, entity: Entity, encoding: str) -> bytes:
    """Let the header block name the encoding of the body; one that has none and needs none stays."""
    before = encoding_of(entity.headers)
    if encoding == "7bit" and before not in ("8bit", "binary"):
        return head
    head = _ENCODING_FIELD.sub(b"", head) + f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    if entity.outermost and "mime-version" not in entity.headers:
        head += b"MIME-Version: 1.0\r\n"
    return head


def _missing_type(entity: Entity, body: bytes) -> bytes:
    """Return the field that says what the octets of a message from before MIME are, as far as can be told (RFC 1428)."""
    if not entity.outermost or "content-type" in entity.headers:
        return b""
    try:
        body.decode()
    except UnicodeDecodeError:
        return b"Content-Type: text/plain; charset=unknown-8bit\r\n"
    return b"Content-Type: text/plain; charset=utf-8\r\n"


def _convert_field(field: tuple[bytes, bytes]) -> bytes:
    raw_name, raw_value = field
    if raw_value.isascii():
        return raw_name + b":" + raw_value
    name, value = raw_name.decode("ascii", "replace").strip(), _decode(raw_value)
    word = name.lower()
    if word in _NO_WORDS:
        raise CannotConvert(f"the header {name} has 8-bit octets")
    if word in _ADDRESSES:
        text = ",\r\n ".join(format_mailbox(box, indent=len(name) + 2) for box in parse_mailboxes(value))
    elif word in _PARAMETERS:
        text = _PARAMETER.sub(_extend_parameter, value)
    else:
        text = encode_words(value, indent=len(name) + 2)
    if not text.isascii() or not text:
        raise CannotConvert(f"the header {name} cannot be written in ASCII")
    return f"{name}: {text}\r\n".encode()


def _decode(value: bytes) -> str:
    """Read an unfolded value: UTF-8 as RFC 6532 has it, else what old software means."""
    unfolded = value.replace(b"\r\n", b"").strip()
    try:
        return unfolded.decode()
    except UnicodeDecodeError:
        return unfolded.decode("latin-1")


def _extend_parameter(found: re.Match[str]) -> str:
    """Write a parameter that is not ASCII as an extended one (RFC 2231 4)."""
    name, value = found[1], found[2]
    if value.isascii():
        return f";\r\n {name}={value}"
    plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return f";\r\n {name}*=utf-8''{quote(plain, safe='')}"
