"""How can an attempt end? Four values; replies are kept short and printable."""

import re
from dataclasses import dataclass, field

_LONGEST_TEXT = 500
# controls, line and paragraph separators, marks that turn the reading direction, lone surrogates (no UTF-8 has them)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_GARBLED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""No server writes these; line ends are there when lines were joined."""
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})\s*")


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: code, RFC 3463 status when it gave one, text."""

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The peer took the responsibility."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now: try again later."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Bounced:
    """Never: the peer, or the DNS, refused for good."""

    reply: Reply
    about_recipient: bool = field(default=True, compare=False)
    """False: said of the session, of the sender, or of several recipients at once: it tells of no address that it is bad."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The final dot went out and no reply came: it may be delivered."""

    text: str


Outcome = Delivered | Deferred | Bounced | Unknown


def judge_refusal(reply: Reply, *, about_recipient: bool = True) -> Deferred | Bounced:
    """5xx is for good, 4xx for now; an answer out of place is a temporary error."""
    if reply.code // 100 == 5:
        return Bounced(reply, about_recipient)
    if reply.code // 100 == 4:
        return Deferred(reply)
    return Deferred(Reply(451, "4.5.0", f"unexpected reply: {reply}"))


def read_reply(code: int, text: str) -> Reply:
    """Make a Reply of what a server sent: control characters out, length bounded, enhanced status split off.

    A refusal for good with control characters in it is none: nothing bounces because a line was garbled.
    """
    clean = sanitize(text)
    if code >= 500 and _GARBLED.search(text):
        return Reply(451, "4.5.0", f"a reply with control characters: {code} {clean}"[:_LONGEST_TEXT])
    found = _ENHANCED.match(clean)
    if found and found[1][0] == str(code)[0]:
        return Reply(code, found[1], clean[found.end() :])
    return Reply(code, None, clean)


def sanitize(text: str) -> str:
    """Return one printable line of bounded length."""
    return _UNPRINTABLE.sub(" ", text[: _LONGEST_TEXT * 2])[:_LONGEST_TEXT].strip()
