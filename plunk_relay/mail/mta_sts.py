"""What does a domain promise about the TLS of its exchangers? MTA-STS records and policies (RFC 8461)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from plunk_relay.mail.address import to_ascii_domain

LONGEST_POLICY_BYTES = 65536
_LONGEST_SECONDS = 31557600  # RFC 8461 3.2: about a year
_MOST_EXCHANGERS = 1000
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\Z")
Mode = Literal["enforce", "testing", "none"]


class InvalidPolicy(ValueError):
    """A policy cannot be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy file."""

    mode: Mode
    max_age: int
    """Seconds that it stays in force after it was fetched."""
    mx: tuple[str, ...]
    """Host names and `*.suffix` patterns, lower-case A-labels."""

    def matches(self, host: str) -> bool:
        """Tell whether an exchanger is one of the domain's; a wildcard stands for exactly one label (RFC 8461 4.1)."""
        name = host.lower().rstrip(".")
        parent = name.partition(".")[2]
        return any(pattern == name or (pattern.startswith("*.") and pattern[2:] == parent) for pattern in self.mx)

    @property
    def lines(self) -> list[str]:
        """The policy as reports show it (RFC 8460 4.4)."""
        return ["version: STSv1", f"mode: {self.mode}", *(f"mx: {one}" for one in self.mx), f"max_age: {self.max_age}"]


def find_policy_id(records: Sequence[str]) -> str | None:
    """Return the id of the one `v=STSv1` record among the TXT records of `_mta-sts.<domain>` (RFC 8461 3.1)."""
    ours = [record for record in records if re.match(r"v=STSv1[ \t]*;", record)]
    if len(ours) != 1:
        return None
    for field in ours[0].split(";")[1:]:
        name, _, value = field.partition("=")
        if name.strip() == "id":
            return value.strip() if _ID.match(value.strip()) else None
    return None


def read_policy(text: str) -> StsPolicy:
    """Read a policy file; raises InvalidPolicy. Of a key that comes twice the first one counts, but for `mx`."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise InvalidPolicy(f"{line.strip()[:40]!r} is no `key: value` line")
        values.setdefault(name.strip(), []).append(value.strip())
    if values.get("version", [""])[0] != "STSv1":
        raise InvalidPolicy("the version is not STSv1")
    mode, age = values.get("mode", [""])[0], values.get("max_age", [""])[0]
    if mode not in ("enforce", "testing", "none"):
        raise InvalidPolicy("the mode is not enforce, testing or none")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise InvalidPolicy("max_age is not a number of at most ten digits")
    mx = tuple(_read_pattern(pattern) for pattern in values.get("mx", ())[:_MOST_EXCHANGERS])
    if not mx and mode != "none":
        raise InvalidPolicy("there is no mx")
    return StsPolicy(cast("Mode", mode), min(int(age), _LONGEST_SECONDS), mx)


def _read_pattern(text: str) -> str:
    star = "*." if text.startswith("*.") else ""
    pattern = star + to_ascii_domain(text.removeprefix(star))
    if len(pattern) > 255 or not _PATTERN.match(pattern):
        raise InvalidPolicy(f"mx {text[:40]!r} is no host name")
    return pattern
