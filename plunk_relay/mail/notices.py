"""How does a sender hear that mail did not arrive? By a delivery status notification: for people and for programs.

A multipart/report (RFC 6522) of a text that a person understands, the message/delivery-status fields (RFC 3464) and the
headers of the original. Where an address is not ASCII, the internationalised types of RFC 6533 are used.
"""

import binascii
import hashlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Literal

from plunk_relay.mail.address import Mailbox, encode_words, format_mailbox
from plunk_relay.mail.outcome import sanitize

Action = Literal["failed", "delayed"]
DAEMON = "MAILER-DAEMON"
_MOST_HEADER_BYTES = 32768
_LONGEST_ID = 500
_WIDTH = 72


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What became of the message for one recipient, in words and in the fields of RFC 3464 2.3."""

    recipient: str
    status: str
    """RFC 3463, such as 5.1.1."""
    happened: str
    """One sentence: what we saw."""
    meaning: str
    """One sentence: why."""
    advice: str
    """What the sender can do."""
    reply: str | None = None
    """The server's own words; None: no server was asked."""
    remote_host: str | None = None
    """Who said them; None: we ourselves."""
    last_attempt: datetime | None = None
    queue_id: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification about one message; all its recipients have the same action."""

    action: Action
    reporting_host: str
    message_id: str
    """Of the notification itself, without brackets."""
    date: datetime
    sender: str
    """MAILER-DAEMON at the domain of who sent the message."""
    recipient: str
    """The envelope sender of the original."""
    subject: str
    """Of the original."""
    original_id: str
    """Message-ID of the original, without brackets."""
    original_headers: bytes
    """Its header block, CRLF lines; longer ones are cut."""
    arrived_at: datetime
    retry_until: datetime | None
    """For delays: when we give up."""
    recipients: Sequence[RecipientReport]


def notice_subject(action: Action, subject: str) -> str:
    """Return the notification's subject, decoded."""
    start = "Undelivered mail" if action == "failed" else "Delayed mail, still being tried"
    return f"{start}: {sanitize(subject)}" if subject.strip() else start


def compose_notice(notice: Notice) -> bytes:
    """Return the message with CRLF lines; its own headers are ASCII unless the recipient's address is not."""
    international = not all(report.recipient.isascii() for report in notice.recipients)
    parts = [_text_part(notice), _status_part(notice, international=international), _headers_part(notice.original_headers)]
    marker = f"=_{hashlib.sha256(b''.join([notice.message_id.encode(), *parts])).hexdigest()[:32]}"
    line = f"--{marker}\r\n".encode()
    return b"".join([_head(notice, marker), *(line + part for part in parts), f"--{marker}--\r\n".encode()])


def _head(notice: Notice, marker: str) -> bytes:
    lines = [
        f"From: {format_mailbox(Mailbox(notice.sender, 'Mail Delivery System'))}",
        f"To: {format_mailbox(Mailbox(notice.recipient))}",
        f"Subject: {_subject(notice)}",
        f"Date: {format_datetime(notice.date)}",
        f"Message-ID: <{notice.message_id}>",
        *_thread(notice.original_id),
        "Auto-Submitted: auto-replied",  # RFC 3834 5.1: nobody answers this
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{marker}"',
        "",
        "This is a delivery status notification in MIME format (RFC 3464).",
        "",
    ]
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def _subject(notice: Notice) -> str:
    subject = notice_subject(notice.action, notice.subject)
    plain = subject.isascii() and "=?" not in subject and len(subject) <= _WIDTH
    return subject if plain else encode_words(subject, indent=len("Subject: "))


def _thread(original_id: str) -> list[str]:
    usable = original_id.isascii() and original_id.isprintable() and " " not in original_id
    if not usable or not 0 < len(original_id) <= _LONGEST_ID:
        return []
    return [f"In-Reply-To: <{original_id}>", f"References: <{original_id}>"]


def _text_part(notice: Notice) -> bytes:
    text = "\r\n".join(_text_lines(notice)) + "\r\n"
    encoding, body = "7bit", text.encode("utf-8", "replace")
    if not body.isascii():
        encoding, body = "quoted-printable", binascii.b2a_qp(body, istext=True)
    return f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body


def _text_lines(notice: Notice) -> list[str]:
    count = len(notice.recipients)
    whom = "this recipient" if count == 1 else f"these {count} recipients"
    if notice.action == "failed":
        opening = f"your message could not be delivered to {whom}. It will not be tried again."
    else:
        opening = (
            f"your message could not be delivered to {whom} yet. It is not lost: you need not send it again. "
            f"It is being tried until {_moment(notice.retry_until)}; if it cannot be delivered by then, you are told."
        )
    lines = [f"This is the mail system of {notice.reporting_host}.", "", *_wrap(opening[0].upper() + opening[1:]), ""]
    lines += [*_item("Subject", notice.subject or "(none)"), *_item("Sent", _moment(notice.arrived_at)), ""]
    for report in notice.recipients:
        lines += [*_recipient_lines(report), ""]
    return lines[:-1]


def _recipient_lines(report: RecipientReport) -> list[str]:
    lines = [f"<{sanitize(report.recipient)}>", *_item("What happened", report.happened)]
    if report.reply:
        lines += _item("The server said" if report.remote_host else "In detail", report.reply)
    lines += [*_item("What it means", report.meaning), *_item("What to do", report.advice)]
    return lines + (_item("Queue id", report.queue_id) if report.queue_id else [])


def _item(label: str, text: str) -> list[str]:
    return _wrap(f"{label}: {sanitize(text)}", indent="  ", later="    ")


def _wrap(text: str, *, indent: str = "", later: str = "") -> list[str]:
    writer = textwrap.TextWrapper(
        _WIDTH, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )
    return writer.wrap(text)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%d %B %Y, %H:%M} UTC"


def _status_part(notice: Notice, *, international: bool) -> bytes:
    fields = [f"Reporting-MTA: dns; {notice.reporting_host}", f"Arrival-Date: {format_datetime(notice.arrived_at)}", ""]
    for report in notice.recipients:
        fields += [*_recipient_fields(notice, report), ""]
    text = "\r\n".join(fields) + "\r\n"
    if international:
        head = "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        return (head + text).encode("utf-8", "replace")
    return b"Content-Type: message/delivery-status\r\n\r\n" + text.encode("ascii", "replace")


def _recipient_fields(notice: Notice, report: RecipientReport) -> list[str]:
    address = sanitize(report.recipient)
    fields = [
        f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}",
        f"Action: {notice.action}",
        f"Status: {report.status}",
    ]
    if report.remote_host:
        fields.append(f"Remote-MTA: dns; {sanitize(report.remote_host)}")
    if report.reply:
        kind = "smtp" if report.remote_host else "x-plunk-relay"
        fields += _wrap(f"Diagnostic-Code: {kind}; {sanitize(report.reply)}", later="  ")
    if report.last_attempt is not None:
        fields.append(f"Last-Attempt-Date: {format_datetime(report.last_attempt)}")
    if notice.action == "delayed" and notice.retry_until is not None:
        fields.append(f"Will-Retry-Until: {format_datetime(notice.retry_until)}")
    return fields


def _headers_part(block: bytes) -> bytes:
    """Write the original's headers; UTF-8 in them makes them message/global-headers (RFC 6533 5), other bytes are lost."""
    kept = _cut(block)
    if kept.isascii():
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + kept
    try:
        kept.decode()
    except UnicodeDecodeError:
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + kept.decode("ascii", "replace").encode("ascii", "replace")
    return b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + kept


def _cut(block: bytes) -> bytes:
    """Return whole lines up to the bound, ended by CRLF; the blank line is not part of it."""
    kept = block.partition(b"\r\n\r\n")[0]
    if len(kept) > _MOST_HEADER_BYTES:
        kept = kept[: kept.rfind(b"\r\n", 0, _MOST_HEADER_BYTES)] if b"\r\n" in kept[:_MOST_HEADER_BYTES] else b""
    return kept + b"\r\n"
