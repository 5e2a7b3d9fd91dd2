"""How is mail for the postmaster passed on? Whole, inside a message of our own.

The stranger's message is an attachment (message/rfc822), so that neither its author's DMARC policy nor a broken header of
his stands in the way; a mark in the outer header shows a message that went in a circle.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from plunk_relay.mail.address import Mailbox, encode_words, format_mailbox, parse_mailboxes
from plunk_relay.mail.outcome import sanitize
from plunk_relay.mail.parts import Part, read_part

_MARK = "x-loop"
_LONGEST_SUBJECT = 200
_LONGEST_FROM = 1000


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A message that came for a role such as postmaster, and where it goes."""

    role: str
    """The address it came to; mail to the operator is sent from it."""
    operator: str
    sender: str
    """Envelope sender, empty for `<>`."""
    client: str
    """Who brought it: name and address, for people."""
    message_id: str
    """Of the new message, without brackets."""
    date: datetime


def compose_forwarded(forwarding: Forwarding, message: bytes) -> tuple[str, bytes]:
    """Return the subject and the new message (CRLF lines)."""
    original = read_part(message)
    subject = subject_of(original)
    marker = f"=_{hashlib.sha256(forwarding.message_id.encode() + message[:65536]).hexdigest()[:32]}"
    body = b"".join(
        [
            _head(forwarding, original, subject, marker),
            f"--{marker}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".encode(),
            _explanation(forwarding),
            f"--{marker}\r\n{_enclosure(message)}Content-Disposition: inline\r\n\r\n".encode(),
            message,
            f"\r\n--{marker}--\r\n".encode(),
        ]
    )
    return subject, body


def was_forwarded(head: bytes, hostname: str) -> bool:
    """Tell whether a message, by its header block, is one that we have passed on ourselves."""
    mark = _mark(hostname)
    return any(name == _MARK and value.strip().lower() == mark for name, value in read_part(head).fields)


def subject_of(part: Part) -> str:
    """Return the subject in one line, `(no subject)` when there is none."""
    return sanitize(part.get("subject"))[:_LONGEST_SUBJECT] or "(no subject)"


def _head(forwarding: Forwarding, original: Part, subject: str, marker: str) -> bytes:
    authors = [box for box in parse_mailboxes(original.get("from")[:_LONGEST_FROM]) if box.address.isascii()]
    hostname = forwarding.message_id.rpartition("@")[2]
    lines = [
        f"From: {format_mailbox(Mailbox(forwarding.role, 'Plunk Relay'), indent=6)}",
        f"To: {format_mailbox(Mailbox(forwarding.operator))}",
        *(f"Reply-To: {format_mailbox(Mailbox(box.address))}" for box in authors[:1]),
        f"Subject: {subject if subject.isascii() else encode_words(subject, indent=9)}",
        f"Date: {format_datetime(forwarding.date)}",
        f"Message-ID: <{forwarding.message_id}>",
        f"X-Loop: {_mark(hostname)}",
        "Auto-Submitted: auto-generated",  # RFC 3834: nobody answers this by a machine
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{marker}"',
    ]
    return ("\r\n".join([*lines, "", ""])).encode("utf-8", "replace")


def _explanation(forwarding: Forwarding) -> bytes:
    sender = f"<{sanitize(forwarding.sender)}>"
    text = f"This mail came for {forwarding.role}, from {sender} by {sanitize(forwarding.client)}.\r\n"
    return text.encode("utf-8", "replace")


def _enclosure(message: bytes) -> str:
    """Write the type of the attachment: with UTF-8 in its header it is message/global (RFC 6532 3.7)."""
    head = message.partition(b"\r\n\r\n")[0]
    kind = "message/rfc822" if head.isascii() else "message/global"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {'7bit' if message.isascii() else '8bit'}\r\n"


def _mark(hostname: str) -> str:
    return f"postmaster@{hostname}".lower()
