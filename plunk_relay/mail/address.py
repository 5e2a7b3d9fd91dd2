"""What is an address, and how is it written? RFC 5321 and 5322 addresses, RFC 2047 names, RFC 5891 domains."""

import binascii
import re
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import getaddresses

import idna
from email_validator import EmailNotValidError, validate_email

_PLAIN = re.compile(
    r"(?=.{3,254}\Z)(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}\Z"
)
_SIMPLE_MAILBOX = re.compile(
    r"[ \t]*([A-Za-z0-9][A-Za-z0-9 _-]*)?<([A-Za-z0-9._+-]+@[A-Za-z0-9.-]+)>[ \t]*\Z"
    r"|[ \t]*([A-Za-z0-9._+-]+@[A-Za-z0-9.-]+)[ \t]*\Z"
)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*\Z")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_LINE = 76  # of a line with encoded words (RFC 2047 2)
_WORD_FRAME = len("=?utf-8?b??=")
_LONGEST_BARE_NAME = 200  # a longer one is encoded, which folds it
_MOST_DECODING = 5_000_000  # `decode_header` reads the rest of the text again for each `=?`: 30 ms


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with an optional display name."""

    address: str
    name: str | None = None


def normalize_address(text: str) -> str:
    """Return the form in which addresses are stored and compared: trimmed, lower case."""
    return text.strip().lower()


def domain_of(address: str) -> str:
    """Return the lower-cased domain: what stands after the last `@`."""
    return address.rpartition("@")[2].lower()


def check_address(text: str) -> str | None:
    """Return None for a valid address, else one sentence that says what is wrong.

    RFC 5321 dot-atom addresses with or without RFC 6531 characters; DNS is not asked and local names are allowed.
    """
    if _PLAIN.match(text) and "--" not in text:
        return None
    try:
        validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=True,
            test_environment=True,
            globally_deliverable=False,
            strict=True,
        )
    except EmailNotValidError as error:
        return str(error)
    return None


def parse_mailboxes(header_value: str) -> list[Mailbox]:
    """Read an address header (RFC 5322 3.4): lists and groups, names decoded; what has no address is left out."""
    simple = _SIMPLE_MAILBOX.match(header_value)
    if simple is not None:
        return [Mailbox(simple[2] or simple[3], (simple[1] or "").rstrip() or None)]
    unfolded = _CONTROLS.sub(" ", header_value)
    try:
        found = getaddresses([unfolded])
    except RecursionError:  # hundreds of comments or groups inside each other
        return []
    return [Mailbox(address, decode_words(name) or None) for name, address in found if "@" in address]


def decode_words(text: str) -> str:
    """Decode RFC 2047 encoded words; text that cannot be decoded stays as it is."""
    if "=?" not in text or len(text) * text.count("=?") > _MOST_DECODING:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (MessageError, LookupError, UnicodeError, binascii.Error, ValueError):  # of the charset, too
        return text


def format_mailbox(mailbox: Mailbox, *, indent: int = 0) -> str:
    """Write `name <address>`: the name bare, quoted or encoded as it needs; line breaks in it are dropped.

    `indent` characters stand before it on its line; the domain is written in A-labels.
    """
    address = _CONTROLS.sub("", mailbox.address)
    if not address.isascii():
        local, _, domain = address.rpartition("@")
        address = f"{local}@{to_ascii_domain(domain)}"
    name = _CONTROLS.sub(" ", mailbox.name or "").strip()
    if not name:
        return address
    if not name.isascii() or "=?" in name or len(name) > _LONGEST_BARE_NAME:
        words = encode_words(name, indent=indent)
        last = words.rpartition("\r\n")[2]
        return f"{words} <{address}>" if indent + len(last) + len(address) + 3 <= _LINE else f"{words}\r\n <{address}>"
    if _ATOMS.match(name) and "  " not in name:
        return f"{name} <{address}>"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>'


def encode_words(text: str, *, indent: int = 0) -> str:
    """Encode text as RFC 2047 words in UTF-8 base64, folded: a line break and a space between words.

    `indent` characters stand before the first word on its line.
    """
    words, current = [], b""
    room = _word_bytes(indent)
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(current) + len(encoded) > room:
            words.append(current)
            current, room = b"", _word_bytes(1)
        current += encoded
    words.append(current)
    return "\r\n ".join(f"=?utf-8?b?{binascii.b2a_base64(word, newline=False).decode()}?=" for word in words)


def _word_bytes(indent: int) -> int:
    """Return how many bytes an encoded word may hold after `indent` characters; at least a character's four."""
    return max((_LINE - indent - _WORD_FRAME) // 4 * 3, 4)


def to_ascii_domain(domain: str) -> str:
    """Return the A-label form, lower case; a name that has none is returned as it is."""
    lowered = domain.lower().rstrip(".")
    if lowered.isascii():
        return lowered
    try:
        return idna.encode(lowered, uts46=True).decode()
    except idna.IDNAError:
        return lowered
