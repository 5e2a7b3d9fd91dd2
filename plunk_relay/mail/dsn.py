"""What does a bounce say? Which recipients failed for good, and in whose words.

First the standard: the fields of message/delivery-status (RFC 3464) and its internationalised form (RFC 6533). What follows
no standard is left to flufl.bounce, which may raise on odd input and so is asked behind a guard, about bounded text. An
automatic reply (RFC 3834) is no bounce, and neither is a report that mail is delayed, relayed or delivered.
"""

import email
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flufl.bounce import all_failures

from plunk_relay.mail.address import decode_words, parse_mailboxes, to_ascii_domain
from plunk_relay.mail.outcome import Reply, read_reply, sanitize
from plunk_relay.mail.parts import Part, read_fields, read_part, walk

logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL + 1)  # it logs every detector it tries, and its own faults

Source = Literal["standard", "text", "unreadable"]
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_MOST_RECIPIENTS = 1000
_MOST_FOUND = 20
_LONGEST_FIELDS = 8192
_MOST_TEXT = 65536
_LONGEST_LINE = 1000
_MOST_BOUNDARIES = 10
_REASON_LINES = 12
_STATUS = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CODE = re.compile(r"\s*([245]\d\d)(?:[ -]|\Z)")
_REPLY = re.compile(r"\b([45]\d\d)[ -](?=#?[45]\.\d|\w)")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_ENCLOSED = re.compile(rb"^content-type:[ \t]*message/", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(r"\([^()]*\)")
_AUTOMATIC_SUBJECT = re.compile(
    r"\s*(?:automatic reply|auto[ -]?reply|autoreply|auto:|auto response|out of (?:the )?office|abwesenheit|"
    r"automatische antwort|r\u00e9ponse automatique|respuesta autom\u00e1tica|risposta automatica)",
    re.IGNORECASE,
)
_DAEMONS = ("mailer-daemon", "postmaster", "mail-daemon", "mailerdaemon")


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What a report says of one recipient."""

    addresses: tuple[str, ...]
    """What the recipient may be called, as first given or as finally tried: compared by `same_mailbox`; may be empty."""
    failed: bool
    """Given up. False: delayed, relayed, delivered or expanded."""
    reply: Reply
    """The reason, as if a server had said it to us; 4xx: temporary, though it was given up."""
    fields: str
    """What the report says of it, line by line."""
    remote_host: str | None = None
    """The server that gave the reason to the one that wrote the report (RFC 3464 2.3.5); None: it does not say."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A bounce, or another report about a delivery."""

    source: Source
    """The fields of the standard, found in the text, or a bounce that cannot be understood (it has no recipients)."""
    reporter: str | None
    """The server that wrote it; None: it does not say."""
    recipients: tuple[ReportedRecipient, ...]
    summary: str = ""
    """The beginning of one that cannot be understood."""


def read_delivery_report(message: bytes) -> DeliveryReport | None:
    """Read a message that came to a bounce address; None: it is no bounce. Never raises."""
    root = read_part(message)
    parts = list(walk(root))
    status = next((part for part in parts if part.content_type in _STATUS_TYPES), None)
    report = _read_status(status) if status is not None else None
    lines = _plain_lines(parts)
    if report is not None and report.recipients:
        return replace(report, recipients=tuple(_give_reason(one, lines) for one in report.recipients))
    if _is_automatic_reply(root):
        return None
    found = _read_text(message, root, lines)
    if found is None and (status is not None or _is_from_daemon(root)):
        return _unreadable(root, lines)
    return found


def same_mailbox(one: str, other: str) -> bool:
    """Tell whether two ways to write an address mean one mailbox: to us, case does not matter."""
    return _canonical(one) == _canonical(other)


def _canonical(address: str) -> str:
    local, _, domain = address.strip().lower().rpartition("@")
    return f"{local}@{to_ascii_domain(domain)}"


# --- RFC 3464


def _read_status(part: Part) -> DeliveryReport | None:
    """Read the groups of fields: about the message, then one about each recipient (RFC 3464 2.1)."""
    reporter: str | None = None
    recipients: list[ReportedRecipient] = []
    for group in re.split(rb"\n(?:[ \t]*\r?\n)+", part.body.replace(b"\r\n", b"\n")):
        fields = read_fields(group)
        named = dict(reversed(fields))
        reporter = reporter or _host(named.get("reporting-mta", ""))
        if {"final-recipient", "original-recipient", "action"} & named.keys() and len(recipients) < _MOST_RECIPIENTS:
            recipients.append(_read_recipient(named, fields))
    return DeliveryReport("standard", reporter, tuple(recipients))


def _read_recipient(named: dict[str, str], fields: Sequence[tuple[str, str]]) -> ReportedRecipient:
    written = [named[name] for name in ("original-recipient", "final-recipient", "x-actual-recipient") if name in named]
    reply = _read_reason(named.get("status", ""), named.get("diagnostic-code", ""))
    action = named.get("action", "").strip().lower()
    # OpenSMTPD writes `error`; a field that is missing is made up for by the status
    failed = action.startswith(("fail", "error")) or (not action and _first_digit(named.get("status", "")) == "5")
    addresses, remote = tuple(dict.fromkeys(_read_addresses(written))), _host(named.get("remote-mta", ""))
    return ReportedRecipient(addresses, failed, reply, _show(fields), remote)


def _read_addresses(written: Sequence[str]) -> Iterator[str]:
    """Yield each `type; address` as it is written and with its encoding undone (RFC 3461 4, RFC 6533 3)."""
    for value in written:
        kind, separator, address = value.partition(";")
        plain = _COMMENT.sub("", address if separator else kind).strip().strip("<>").strip()
        if "@" not in plain and "+40" not in plain and "\\x{" not in plain:
            continue
        yield plain
        if kind.strip().lower() == "utf-8" or "\\x{" in plain:
            yield _UNITEXT.sub(_embedded_character, plain)
        elif "+" in plain:
            yield _XTEXT.sub(lambda found: chr(int(found[1], 16)), plain)


def _embedded_character(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    return chr(point) if point < 0xD800 or 0xDFFF < point < 0x110000 else found[0]


def _read_reason(status: str, diagnostic: str) -> Reply:
    """Make a reply of Status and Diagnostic-Code: the class is that of Status, the rest what the last server said."""
    kind, separator, text = diagnostic.partition(";")
    words = (text if separator else kind).strip()
    code, stated = _CODE.match(words), _STATUS.search(status)
    digit = stated[1] if stated else (code[1][0] if code else "5")
    digit = "4" if digit == "4" else "5"
    number = int(code[1]) if code and code[1][0] == digit else int(f"{digit}50")
    reply = read_reply(number, _without_repeats(words[code.end() :], code[1]) if code else words)
    if stated is None or stated[1] != digit or (reply.enhanced and not _is_general(reply.enhanced)):
        return reply
    return reply if reply.enhanced and _is_general(stated[0]) else Reply(number, stated[0], reply.text)


def _give_reason(one: ReportedRecipient, lines: Sequence[str]) -> ReportedRecipient:
    """Take the reason from the text where the fields have none: so Exim writes of what it found out itself."""
    if not one.failed or one.reply.text or not (one.reply.enhanced is None or _is_general(one.reply.enhanced)):
        return one
    for address in one.addresses:
        words = _reason_below(address, lines).partition(address)[2].lstrip("> ")
        if words:
            return replace(one, reply=Reply(one.reply.code, one.reply.enhanced, sanitize(words)))
    return one


def _is_general(enhanced: str) -> bool:
    return enhanced.split(".")[1] == "0"


def _without_repeats(text: str, code: str) -> str:
    """Take out the code that begins every further line of a long reply."""
    return re.sub(rf"\s{code}[- ](?:[245]\.\d{{1,3}}\.\d{{1,3}}\s)?", " ", text)


def _first_digit(status: str) -> str:
    return status.strip()[:1]


def _host(value: str) -> str | None:
    """Return the name of `dns; name`."""
    name = _COMMENT.sub("", value.rpartition(";")[2]).strip()
    return sanitize(name)[:255] or None


def _show(fields: Sequence[tuple[str, str]]) -> str:
    lines = [f"{name.title()}: {sanitize(value)}" for name, value in fields]
    return "\n".join(lines)[:_LONGEST_FIELDS]


# --- no standard


def _is_automatic_reply(root: Part) -> bool:
    """Tell an out-of-office message and its kind (RFC 3834 5); Exim's bounces call themselves automatic, too."""
    if root.get("x-failed-recipients") or _is_from_daemon(root):
        return False
    automatic = root.get("auto-submitted").strip().lower()
    return (
        automatic.startswith("auto-replied")
        or any(root.get(name) for name in ("x-autoreply", "x-autorespond", "x-autoresponder"))
        or root.get("precedence").strip().lower() in ("auto_reply", "auto-reply")
        or _AUTOMATIC_SUBJECT.match(decode_words(root.get("subject")[:_LONGEST_LINE])) is not None
    )


def _is_from_daemon(root: Part) -> bool:
    sender = root.get("from").lower()[:_LONGEST_LINE]
    return any(f"{name}@" in sender or f"<{name}>" in sender or sender.strip() == name for name in _DAEMONS)


def _unreadable(root: Part, lines: Sequence[str]) -> DeliveryReport:
    beginning = [f"Subject: {root.get('subject')}", *(line for line in lines if line)]
    summary = "\n".join(sanitize(line) for line in beginning[:_REASON_LINES])
    return DeliveryReport("unreadable", _reporter(root), (), summary)


def _reporter(root: Part) -> str | None:
    boxes = parse_mailboxes(root.get("from")[:_LONGEST_LINE])
    return sanitize(boxes[0].address.rpartition("@")[2]) or None if boxes else None


def _plain_lines(parts: Sequence[Part]) -> list[str]:
    """Return the lines of the plain text, trimmed and bounded."""
    text = b"\n".join(part.body for part in parts if part.content_type == "text/plain")[:_MOST_TEXT]
    return [line.strip()[:_LONGEST_LINE] for line in text.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")]


def _read_text(message: bytes, root: Part, lines: Sequence[str]) -> DeliveryReport | None:
    """Find the recipients that flufl.bounce sees, each with the words that stand below its address."""
    delayed, failed = _scan(message)
    recipients = [_found_recipient(address, lines, failed=False) for address in delayed]
    recipients += [_found_recipient(address, lines, failed=True) for address in failed]
    return DeliveryReport("text", _reporter(root), tuple(recipients)) if recipients else None


def _scan(message: bytes) -> tuple[list[str], list[str]]:
    """Ask flufl.bounce for (delayed, failed) addresses; nothing when it cannot cope."""
    text = _ENCLOSED.split(message[:_MOST_TEXT], maxsplit=1)[0]  # a report that somebody forwards is none
    if text.count(b"boundary") > _MOST_BOUNDARIES:
        return [], []
    bounded = b"\n".join(line[:_LONGEST_LINE] for line in text.replace(b"\r\n", b"\n").split(b"\n"))
    try:
        delayed, failed = all_failures(email.message_from_bytes(bounded))
        return _clean(delayed), _clean(failed)
    except Exception:  # noqa: BLE001  its detectors were made for the mail of their day; odd input may raise anything
        return [], []


def _clean(found: Iterable[bytes]) -> list[str]:
    addresses = sorted(address.decode("ascii", "replace").strip() for address in found)
    return [address for address in addresses if "@" in address][:_MOST_FOUND]


def _found_recipient(address: str, lines: Sequence[str], *, failed: bool) -> ReportedRecipient:
    reason = _reason_below(address, lines)
    return ReportedRecipient((address,), failed, _read_words(reason), sanitize(f"{address}: {reason}"))


def _reason_below(address: str, lines: Sequence[str]) -> str:
    """Return the rest of the paragraph that begins where the address is named."""
    wanted = address.lower()
    start = next((number for number, line in enumerate(lines) if wanted in line.lower()), None)
    if start is None:
        return ""
    words: list[str] = []
    for line in lines[start : start + _REASON_LINES]:
        if not line and len(words) > 1:
            break
        words.append(line)
    return " ".join(word for word in words if word)


def _read_words(text: str) -> Reply:
    """Find a server's reply in words of people; without one the words themselves are the reason."""
    code = _REPLY.search(text)
    if code is None:
        return read_reply(550, text)
    return read_reply(int(code[1]), text[code.end() :])
