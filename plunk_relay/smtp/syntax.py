"""What does a command say? Paths and parameters of MAIL and RCPT (RFC 5321 4.1.1, 4.1.2)."""

import re
from dataclasses import dataclass

from plunk_relay.mail.address import check_address
from plunk_relay.smtp.replies import BAD_SYNTAX, SmtpReply

_PATH = re.compile(r'\s*<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(?:\s+(.*))?\Z', re.DOTALL)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?\Z")
_LONGEST_PATH = 254
_LONGEST_NUMBER = 20  # RFC 1870 5


@dataclass(frozen=True, slots=True)
class Path:
    """An address with its parameters, names in upper case."""

    address: str
    parameters: dict[str, str]


def parse_path(
    argument: str, keyword: str, *, null_allowed: bool = False, postmaster_allowed: bool = False
) -> Path | SmtpReply:
    """Read `FROM:<address> parameters`; return the refusal when it cannot be read.

    `postmaster_allowed`: the name alone is an address (RFC 5321 4.5.1).
    """
    name, colon, rest = argument.partition(":")
    found = _PATH.match(rest) if colon and name.strip().upper() == keyword else None
    if found is None:
        return SmtpReply(501, "5.5.4", f"Syntax: {keyword}:<address>")
    address = found[1].strip()
    parameters = _parse_parameters(found[2] or "")
    if parameters is None:
        return BAD_SYNTAX
    if not address:
        return Path("", parameters) if null_allowed else SmtpReply(501, "5.1.3", "An empty address is not allowed here")
    if postmaster_allowed and address.lower() == "postmaster":
        return Path(address, parameters)
    refusal = _check(address, keyword)
    return refusal or Path(address, parameters)


def _check(address: str, keyword: str) -> SmtpReply | None:
    status = "5.1.7" if keyword == "FROM" else "5.1.3"
    if address.startswith("@") and ":" in address:
        return SmtpReply(553, status, "Source routes are not accepted")
    if len(address.encode("utf-8", "replace")) > _LONGEST_PATH:
        return SmtpReply(553, status, "The address is too long")
    reason = check_address(address)
    return SmtpReply(553, status, f"Bad address: {reason}") if reason else None


def _parse_parameters(text: str) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for word in text.split():
        found = _PARAMETER.match(word)
        if found is None or found[1].upper() in parameters:
            return None
        parameters[found[1].upper()] = found[2] or ""
    return parameters


def check_mail_parameters(parameters: dict[str, str], most_bytes: int, *, requiretls: bool = False) -> SmtpReply | None:
    """Refuse parameters we do not know, or a size we do not take; REQUIRETLS counts only where it was offered."""
    for name, value in parameters.items():
        if name == "SIZE":
            if not value.isdigit() or len(value) > _LONGEST_NUMBER:
                return SmtpReply(501, "5.5.4", "SIZE must be a number of at most 20 digits")
            if int(value) > most_bytes:
                return SmtpReply(552, "5.3.4", f"The message is larger than {most_bytes} bytes")
        elif name == "BODY":
            if value.upper() not in ("7BIT", "8BITMIME"):
                return SmtpReply(501, "5.5.4", "BODY must be 7BIT or 8BITMIME")
        elif name == "REQUIRETLS" and requiretls:
            if value:
                return SmtpReply(501, "5.5.4", "REQUIRETLS takes no value")
        elif name not in ("SMTPUTF8", "AUTH"):
            return SmtpReply(555, "5.5.4", f"The parameter {name} is not supported")
    return None
