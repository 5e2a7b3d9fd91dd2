"""What does a message say that somebody sent us? Its headers, a body that is safe to show, and its attachments.

Strangers write what is read here: depth and number of parts are bounded, every part is cut out once, and nothing raises.
RFC 5322, 2045-2047, 2183, 2231.
"""

import binascii
import codecs
import hashlib
import quopri
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from itertools import chain, islice

from plunk_relay.mail.address import Mailbox, decode_words, parse_mailboxes
from plunk_relay.mail.compose import Attachment
from plunk_relay.mail.dkim import split_fields
from plunk_relay.mail.safe_html import clean_html, text_to_html

_DEEPEST = 10
_MOST_PARTS = 200
_LONGEST_LINE = 2000
_LONGEST_ID = 500
_LARGEST_HEAD = 65536
_LONGEST_BODY = 2_000_000
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
"""Codecs of Python that no mail may ask for: some take quadratic time."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_COMMENT_OR_BLANK = re.compile(r"\s+|\([^()]*\)")
_SERVICE_ID = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s;()]+)')
_AUTOMATIC_PRECEDENCE = frozenset({"bulk", "junk", "list", "auto_reply"})


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as far as its recipient is told of it."""

    message_id: str
    """Without brackets; made from the bytes where the message has none."""
    subject: str
    """Decoded, one line; may be empty."""
    author: str
    """The From field, decoded, one line; may be empty."""
    authors: Sequence[Mailbox]
    """Every mailbox of every From field."""
    from_fields: int
    reply_to: str | None
    headers: Mapping[str, str]
    """Values by name as first written; of a field that occurs again one value a line. Forged verdicts are left out."""
    hops: int
    """Received fields."""
    automatic: bool
    """Written by a program (RFC 3834), for a list, or already once by this relay: not to be answered."""
    html: str
    """The body, safe to show; empty when there is none."""
    attachments: Sequence[Attachment]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something is in the message."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A piece of the body."""

    is_html: bool
    text: str


def read_received(message: bytes, *, hostname: str) -> ReceivedMessage:
    """Read a message (CRLF lines); `hostname` is ours: nobody else may speak in its name. For a thread."""
    head, _ = _split_entity(message, _Place(0, len(message)))
    fields = [(name.decode("ascii", "replace").strip(), _decode_value(value)) for name, value in split_fields(head)]
    trusted = [(name, value) for name, value in fields if not _is_forged_verdict(name, value, hostname)]
    texts, attachments = _read_body(message)
    found = {name.lower(): value for name, value in reversed(fields)}
    authors = [value for name, value in fields if name.lower() == "from"]
    own_id = found.get("message-id", "").strip().strip("<>").strip()[:_LONGEST_ID]
    reply_to = _mailboxes(found.get("reply-to", ""))
    return ReceivedMessage(
        message_id=own_id or f"{hashlib.sha256(message).hexdigest()[:40]}@{hostname}",
        subject=_line(found.get("subject", "")),
        author=_line(authors[0]) if authors else "",
        authors=[box for value in authors for box in _mailboxes(value)],
        from_fields=len(authors),
        reply_to=reply_to[0].address if reply_to else None,
        headers=_collect(trusted),
        hops=sum(name.lower() == "received" for name, _ in fields),
        automatic=_is_automatic(fields, found, hostname),
        html=_join(texts),
        attachments=attachments,
    )


def is_own_trace(value: str, hostname: str) -> bool:
    """Tell whether a Received field is one that this relay puts into submitted mail."""
    return value.strip().lower().startswith(f"by {hostname.lower()} (plunk relay)")


def _decode_value(value: bytes) -> str:
    """Unfold a field's value; raw UTF-8 as RFC 6532 allows it, other bytes as Latin-1."""
    unfolded = value.replace(b"\r\n", b"").strip()
    try:
        return unfolded.decode()
    except UnicodeDecodeError:
        return unfolded.decode("latin-1")


def _line(value: str) -> str:
    return _CONTROLS.sub(" ", decode_words(value)).encode("utf-8", "replace").decode().strip()[:_LONGEST_LINE]


def _mailboxes(value: str) -> list[Mailbox]:
    return parse_mailboxes(value)[:100] if value else []


def _collect(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    names: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(names.setdefault(name.lower(), name), []).append(value)
    return {name: "\n".join(found) for name, found in values.items()}


def _is_forged_verdict(name: str, value: str, hostname: str) -> bool:
    """Tell an Authentication-Results field that claims to be ours (RFC 8601 5)."""
    if name.lower() != "authentication-results":
        return False
    place = 0
    while blank := _COMMENT_OR_BLANK.match(value, place):
        place = blank.end()
    found = _SERVICE_ID.match(value, place)
    return found is None or (found[1] or found[2] or "").replace("\\", "").lower().rstrip(".") == hostname.lower()


def _is_automatic(fields: Sequence[tuple[str, str]], found: Mapping[str, str], hostname: str) -> bool:
    own = any(name.lower() == "received" and is_own_trace(value, hostname) for name, value in fields)
    automatic = found.get("auto-submitted", "no").partition(";")[0].strip().lower() not in ("", "no")
    return own or automatic or found.get("precedence", "").strip().lower() in _AUTOMATIC_PRECEDENCE


# --- the body


def _read_body(message: bytes) -> tuple[list[_Text], list[Attachment]]:
    texts: list[_Text] = []
    attachments: list[Attachment] = []
    for leaf in islice(_leaves(message, _Place(0, len(message)), _DEEPEST), _MOST_PARTS):
        if isinstance(leaf, _Text):
            texts.append(leaf)
        else:
            attachments.append(leaf)
    return texts, attachments


def _leaves(message: bytes, entity: _Place, depth: int) -> Iterator[_Text | Attachment]:
    """Yield pieces of the body and attachments in order; of alternatives the HTML, else the last one."""
    raw_head, body = _split_entity(message, entity)
    head = BytesHeaderParser().parsebytes(raw_head[:_LARGEST_HEAD])
    kind = head.get_content_type()
    boundary = _parameter(head, "boundary") if kind.startswith("multipart/") and depth else None
    if not boundary:
        leaf = _read_leaf(head, kind, message[body.start : body.end])
        if leaf is not None:
            yield leaf
        return
    children = [list(_leaves(message, part, depth - 1)) for part in _split_parts(message, body, boundary)]
    yield from _choose(children) if kind == "multipart/alternative" else chain.from_iterable(children)


def _choose(children: Sequence[Sequence[_Text | Attachment]]) -> Iterator[_Text | Attachment]:
    """Of alternatives take the last one with HTML, else with text; the files of all of them stay."""
    with_text = [child for child in children if any(isinstance(leaf, _Text) for leaf in child)]
    with_html = [child for child in with_text if any(isinstance(leaf, _Text) and leaf.is_html for leaf in child)]
    chosen = (with_html or with_text or [[]])[-1]
    for child in children:
        yield from child if child is chosen else (leaf for leaf in child if isinstance(leaf, Attachment))


def _split_entity(message: bytes, entity: _Place) -> tuple[bytes, _Place]:
    """Part the header block, with its last line end, from the place of the body."""
    if message.startswith(b"\r\n", entity.start):
        return b"", _Place(min(entity.start + 2, entity.end), entity.end)
    blank = message.find(b"\r\n\r\n", entity.start, entity.end)
    if blank < 0:
        return message[entity.start : entity.end], _Place(entity.end, entity.end)
    return message[entity.start : blank + 2], _Place(blank + 4, entity.end)


def _split_parts(message: bytes, body: _Place, boundary: str) -> Iterator[_Place]:
    """Cut a multipart body at its boundary lines (RFC 2046 5.1.1), whose line end before belongs to them."""
    marker = re.escape(b"--" + boundary.encode("utf-8", "replace"))
    line = re.compile(rb"(?<=\r\n)" + marker + rb"(--)?[ \t]*(?:\r\n|\Z)")
    start: int | None = None
    for count, found in enumerate(line.finditer(message, body.start, body.end)):
        if start is not None:
            yield _Place(start, max(start, found.start() - 2))
        if found[1] or count >= _MOST_PARTS:
            return
        start = found.end()
    if start is not None:  # the end is missing: what there is counts
        yield _Place(start, body.end)


def _read_leaf(head: Message, kind: str, body: bytes) -> _Text | Attachment | None:
    disposition = str(head.get_content_disposition() or "")
    filename = _line(_parameter(head, "filename", "content-disposition") or _parameter(head, "name") or "")
    content = _decode_body(str(head.get("Content-Transfer-Encoding", "")), body)
    if kind in ("text/plain", "text/html") and disposition != "attachment" and not filename:
        return _Text(kind == "text/html", _decode_text(content, _parameter(head, "charset")))
    if not content and not filename:
        return None
    content_id = str(head.get("Content-ID", "")).strip().strip("<>") or None
    inline = content_id is not None and disposition != "attachment"
    name = filename or ("message.eml" if kind == "message/rfc822" else "attachment")
    return Attachment(name, content, kind, "inline" if inline else "attachment", content_id)


def _parameter(head: Message, name: str, header: str = "content-type") -> str | None:
    """Return a parameter, RFC 2231 and encoded words undone; None when it is absent or cannot be decoded."""
    try:
        value = head.get_param(name, header=header)
        if isinstance(value, tuple):
            return value[2].encode("latin-1").decode(value[0] or "us-ascii", "replace")
        return decode_words(value) if value else None
    except (ValueError, LookupError, TypeError):
        return None


def _decode_body(encoding: str, body: bytes) -> bytes:
    match encoding.strip().lower():
        case "base64":
            clean = _NOT_BASE64.sub(b"", body)
            return binascii.a2b_base64(clean[: len(clean) - (len(clean) % 4 == 1)] + b"=" * (-len(clean) % 4 % 3))
        case "quoted-printable":
            return quopri.decodestring(body)
    return body


def _decode_text(content: bytes, charset: str | None) -> str:
    for name in (charset or "utf-8", "utf-8"):
        try:
            if codecs.lookup(name).name not in _NO_CHARSETS:
                return content.decode(name).encode("utf-8", "replace").decode()
        except (LookupError, ValueError):
            continue
    return content.decode("latin-1")


def _join(texts: Sequence[_Text]) -> str:
    """Put the pieces together and clean them once: many small ones are no more work than one."""
    pieces = [one.text if one.is_html else text_to_html(one.text) for one in texts]
    whole = "\n".join(piece for piece in pieces if piece)
    too_long = len(whole) > _LONGEST_BODY  # cutting may cut a tag
    return clean_html(whole[:_LONGEST_BODY]) if too_long or any(one.is_html for one in texts) else whole
