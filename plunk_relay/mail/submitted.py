"""What must change in a message that an application submitted? Very little (RFC 6409): its MIME and headers are kept.

Bcc and our own `X-Plunk-*` options are taken out, Date and Message-ID added when missing, a Received line put in front;
every other byte stays, unless a line is too long for SMTP. Only the header block is parsed; the body is copied once, and
that of a large message not at all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Generic, TypeVar

from plunk_relay.mail.address import Mailbox, decode_words, parse_mailboxes
from plunk_relay.mail.line_length import LineTooLongError, has_long_lines, shorten_lines
from plunk_relay.spool import ByteSource, Held, Joined

M = TypeVar("M")

_REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_NEEDED = (b"date", b"message-id")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


class MalformedMessage(ValueError):
    """The header block cannot be understood; the text says which line."""


@dataclass(frozen=True, slots=True)
class Submitted(Generic[M]):
    """A message ready to be kept, as `bytes` or as a `ByteSource`, and what we need to know of it."""

    message: M
    message_id: str
    senders: Sequence[Mailbox]
    """Every mailbox of every From field; RFC 5322 3.6 wants exactly one field."""
    from_fields: int
    subject: str
    reply_to: str | None
    recipient_names: Mapping[str, str]
    """Display names of To and Cc by lower-cased address."""
    options: Mapping[str, str]
    """Values of `X-Plunk-<Name>` by lower-cased name, such as `tag`."""
    received_count: int
    tls_optional: bool
    """It says `TLS-Required: No` (RFC 8689 5)."""


def measure_headers(raw: bytes | bytearray) -> int:
    """Return how many bytes the header block has; cheap, to be asked before it is parsed."""
    if raw.startswith(b"\r\n"):
        return 0
    place = raw.find(b"\r\n\r\n")
    return len(raw) if place < 0 else place + 2


def prepare_submitted(raw: bytearray, *, received: bytes, message_id: str, date: datetime) -> Submitted[bytes]:
    """Read the headers of `raw` (CRLF lines) and return it ready; raises MalformedMessage.

    `received` is a whole Received field with its CRLF; `message_id` (without brackets) is used when there is none.
    """
    raw = _with_short_lines(raw)
    end = measure_headers(raw)
    body = memoryview(raw)[end:] if end < len(raw) else b"\r\n"
    return _prepare(bytes(raw[:end]), lambda head: b"".join([head, body]), received, message_id, date)


def prepare_large(
    source: ByteSource, head: bytes, *, received: bytes, message_id: str, date: datetime
) -> Submitted[ByteSource]:
    """Do the same for a message that is not held; `head` is its header block. Its lines must be short enough."""

    def join(ready: bytes) -> ByteSource:
        return Joined(ready, source, len(head)) if len(head) < source.size else Held(ready + b"\r\n")

    return _prepare(head, join, received, message_id, date)


def _prepare(head: bytes, join: Callable[[bytes], M], received: bytes, message_id: str, date: datetime) -> Submitted[M]:
    """Read a header block and change it; `join` makes a message of it."""
    fields = _split(head)
    values: dict[bytes, list[str]] = {}
    for name, field in fields:
        values.setdefault(name, []).append(_unfold(field))
    missing = frozenset(name for name in _NEEDED if not any(value.strip() for value in values.get(name, [])))
    own_id = next((v.strip().strip("<>") for v in values.get(b"message-id", []) if v.strip()), message_id)
    added = f"Date: {format_datetime(date)}\r\n".encode() if b"date" in missing else b""
    added += f"Message-ID: <{message_id}>\r\n".encode() if b"message-id" in missing else b""
    kept = b"".join(field for name, field in fields if not (name in missing or _is_removed(name)))
    return Submitted(
        message=join(received + kept + added),
        message_id=own_id,
        senders=[box for value in values.get(b"from", []) for box in _read_mailboxes(value)],
        from_fields=len(values.get(b"from", [])),
        subject=_as_line(decode_words(_first(values, b"subject"))),
        reply_to=next((box.address for box in _read_mailboxes(_first(values, b"reply-to"))), None),
        recipient_names=_recipient_names(values),
        options={
            name.decode("ascii", "replace")[8:]: found[0].strip()
            for name, found in values.items()
            if name.startswith(b"x-plunk-")
        },
        received_count=len(values.get(b"received", [])),
        tls_optional=[value.strip().lower() for value in values.get(b"tls-required", [])] == ["no"],
    )


def _with_short_lines(raw: bytearray) -> bytearray:
    try:
        return bytearray(shorten_lines(bytes(raw))) if has_long_lines(raw) else raw
    except LineTooLongError as error:
        raise MalformedMessage(str(error)) from None


def _split(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return (lower-cased name, whole field with its line ends)."""
    fields: list[tuple[bytes, list[bytes]]] = []
    for number, line in enumerate(head.removesuffix(b"\r\n").split(b"\r\n") if head else (), 1):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1].append(line)
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not name or not all(32 < octet < 127 for octet in name.rstrip()):
            raise MalformedMessage(f"line {number} of the message is not a header field")
        fields.append((name.rstrip().lower(), [line]))
    return [(name, b"\r\n".join([*lines, b""])) for name, lines in fields]


def _unfold(field: bytes) -> str:
    value = field.partition(b":")[2].replace(b"\r\n", b"")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _first(values: Mapping[bytes, list[str]], name: bytes) -> str:
    return values.get(name, [""])[0]


def _read_mailboxes(value: str) -> list[Mailbox]:
    """Read an address header; one with thousands of comments or groups inside each other has no address for us."""
    try:
        boxes = parse_mailboxes(value)
    except RecursionError:
        return []
    return [Mailbox(box.address, _as_line(box.name or "") or None) for box in boxes]


def _as_line(text: str) -> str:
    """Return decoded text without what encoded words can smuggle in: line breaks, other controls, half characters."""
    return _CONTROLS.sub(" ", text).encode("utf-8", "replace").decode().strip()


def _is_removed(name: bytes) -> bool:
    return name in _REMOVED or name.startswith(b"x-plunk-")


def _recipient_names(values: Mapping[bytes, list[str]]) -> dict[str, str]:
    boxes = [box for name in (b"to", b"cc") for value in values.get(name, []) for box in _read_mailboxes(value)]
    return {box.address.lower(): box.name for box in boxes if box.name}
