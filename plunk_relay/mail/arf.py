"""Who complains about which mail? A feedback report (ARF, RFC 5965) that a mailbox provider sends for its users.

What it says is not to be believed by itself: anybody can write one. It counts only for a delivery whose return address,
with its MAC, is the address the report came to or stands in the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from plunk_relay.mail.outcome import sanitize
from plunk_relay.mail.parts import Part, read_fields, read_part, walk

_ORIGINAL_TYPES = ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers", "text/rfc822")
_MOST_ADDRESSES = 100
COMPLAINTS = frozenset({"abuse", "fraud"})
"""Feedback types by which a recipient calls a mail unwanted (RFC 5965 7.3)."""
OPT_OUTS = frozenset({"opt-out", "opt-out-list"})
"""Those by which a recipient wants no more of this list, without calling it abuse."""


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """What a report says; addresses are as written, without brackets."""

    feedback_type: str
    """Lower case, such as `abuse`, `not-spam`, `virus`."""
    reporter: str | None
    """The program that wrote it; None: it does not say."""
    recipients: tuple[str, ...]
    """Original-Rcpt-To: who complains."""
    senders: tuple[str, ...]
    """Original-Mail-From, and the Return-Path of the enclosed mail."""


def read_feedback_report(message: bytes) -> FeedbackReport | None:
    """Read a message; None: it is no feedback report. Never raises."""
    parts = list(walk(read_part(message)))
    report = next((part for part in parts if part.content_type == "message/feedback-report"), None)
    if report is None:
        return None
    fields = read_fields(report.body)
    feedback_type = next(iter(_values(fields, "feedback-type")), "").lower()
    if not feedback_type:
        return None
    return FeedbackReport(
        feedback_type=sanitize(feedback_type),
        reporter=sanitize(next(iter(_values(fields, "user-agent")), "")) or None,
        recipients=_addresses(fields, "original-rcpt-to"),
        senders=tuple(dict.fromkeys([*_addresses(fields, "original-mail-from"), *_return_paths(parts)])),
    )


def _return_paths(parts: Sequence[Part]) -> tuple[str, ...]:
    original = next((part for part in parts if part.content_type in _ORIGINAL_TYPES), None)
    return _addresses(read_part(original.body).fields, "return-path") if original is not None else ()


def _values(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value.strip() for known, value in fields if known == name and value.strip()]


def _addresses(fields: Sequence[tuple[str, str]], name: str) -> tuple[str, ...]:
    """Return the addresses of a field that may be repeated; some write the type in front, as in `rfc822; a@b`."""
    found = (value.rpartition(";")[2].strip().strip("<>").strip() for value in _values(fields, name))
    return tuple(dict.fromkeys(address for address in found if "@" in address))[:_MOST_ADDRESSES]
