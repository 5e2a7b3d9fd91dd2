"""What must change in a message that an application submitted? Very little (RFC 6409): its MIME and headers are kept.

Bcc and our own `X-Plunk-*` options are taken out, Date and Message-ID added when missing, a Received line put in front;
every other byte stays. Only the header block is parsed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from plunk_relay.mail.address import Mailbox, decode_words, parse_mailboxes

_REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path"})


class MalformedMessage(ValueError):
    """The header block cannot be understood; the text says which line."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A message ready to be kept, and what we need to know of it."""

    message: bytes
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
    header_bytes: int


def prepare_submitted(raw: bytes, *, received: bytes, message_id: str, date: datetime) -> Submitted:
    """Read the headers of `raw` (CRLF lines) and return it ready; raises MalformedMessage.

    `received` is a whole Received field with its CRLF; `message_id` (without brackets) is used when there is none.
    """
    end = _find_body(raw)
    fields = _split(raw[:end])
    values: dict[bytes, list[str]] = {}
    for name, field in fields:
        values.setdefault(name, []).append(_unfold(field))
    own_id = next((v.strip().strip("<>") for v in values.get(b"message-id", []) if v.strip()), None)
    added = b"" if b"date" in values else f"Date: {format_datetime(date)}\r\n".encode()
    added += b"" if own_id else f"Message-ID: <{message_id}>\r\n".encode()
    return Submitted(
        message=b"".join([received, _kept(raw, end, fields), added, raw[end:] or b"\r\n"]),
        message_id=own_id or message_id,
        senders=[box for value in values.get(b"from", []) for box in parse_mailboxes(value)],
        from_fields=len(values.get(b"from", [])),
        subject=decode_words(_first(values, b"subject")).strip(),
        reply_to=next((box.address for box in parse_mailboxes(_first(values, b"reply-to"))), None),
        recipient_names=_recipient_names(values),
        options={
            name.decode("ascii", "replace")[8:]: found[0].strip()
            for name, found in values.items()
            if name.startswith(b"x-plunk-")
        },
        received_count=len(values.get(b"received", [])),
        header_bytes=end,
    )


def _find_body(raw: bytes) -> int:
    """Return where the empty line between headers and body begins; the end when there is no body."""
    if raw.startswith(b"\r\n"):
        return 0
    place = raw.find(b"\r\n\r\n")
    return len(raw) if place < 0 else place + 2


def _split(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return (lower-cased name, whole field with its line ends)."""
    fields: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(head.split(b"\r\n"), 1):
        if not line:
            continue
        if line[:1] in (b" ", b"\t") and fields:
            name, field = fields[-1]
            fields[-1] = (name, field + line + b"\r\n")
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not name or not all(32 < octet < 127 for octet in name.rstrip()):
            raise MalformedMessage(f"line {number} of the message is not a header field")
        fields.append((name.rstrip().lower(), line + b"\r\n"))
    return fields


def _unfold(field: bytes) -> str:
    value = field.partition(b":")[2].replace(b"\r\n", b"")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _first(values: Mapping[bytes, list[str]], name: bytes) -> str:
    return values.get(name, [""])[0]


def _kept(raw: bytes, end: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    if not any(_is_removed(name) for name, _ in fields):
        return raw[:end] if raw[:end].endswith(b"\r\n") or end == 0 else raw[:end] + b"\r\n"
    return b"".join(field for name, field in fields if not _is_removed(name))


def _is_removed(name: bytes) -> bool:
    return name in _REMOVED or name.startswith(b"x-plunk-")


def _recipient_names(values: Mapping[bytes, list[str]]) -> dict[str, str]:
    boxes = [box for name in (b"to", b"cc") for value in values.get(name, []) for box in parse_mailboxes(value)]
    return {box.address.lower(): box.name for box in boxes if box.name}
