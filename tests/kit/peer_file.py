"""What does a `.peer` file say? The far end's side of a delivery, written down by anybody who knows SMTP.

The kinds of lines are told in tests/delivery/peers/README.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, get_args

from tests.kit.dns import DnsTable, Fault
from tests.kit.notation import UnknownName, expand

_LINE = re.compile(r"(Rule|Set|DNS|Mail|Body|Connection|S|S-raw|C|Has|Lacks|Expect|Reply|Later):(?: (.*))?\Z")
_WORDS = ("close", "reset", "wait")
_FIRST = ("Set", "DNS", "Mail", "Body")
_TALK = ("S", "S-raw", "C", "Has", "Lacks", *_WORDS)
_RULE = re.compile(r"(.+) -> (.+)\Z")
_SPAN = re.compile(r"(\d+) (seconds|minutes|hours|days)\Z")
_RECORD = re.compile(r"(\S+) ([A-Z]+) (.+)\Z")
_EXPECTED = re.compile(r"(\S+) ([A-Z]+)(?: ([A-Z]+))?( maybe)?\Z")
_NEVER_TWICE = "never-twice"


class PeerFileError(AssertionError):
    """The file cannot be read, or the relay did not keep to it; names file and line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file that is not about the setting of the stage."""

    kind: str
    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Mail:
    """One message that the relay is given."""

    recipients: tuple[str, ...]
    never_twice: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One connection of the relay: where, and what is said."""

    address: str
    number: int
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Round:
    """What happens when the relay looks at its queue once, after a while."""

    after: timedelta
    calls: list[Call] = field(default_factory=list)
    checks: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expected:
    """What must have become of the mail to a recipient, who may be named by the local part alone."""

    name: str
    state: str
    status: str | None
    """None: any."""
    maybe: bool
    """An attempt may have delivered it without the relay's knowing."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.state, self.status, "maybe" if self.maybe else "")))


@dataclass(frozen=True, slots=True)
class PeerFile:
    """A story: the rule it shows, its stage, and its rounds."""

    name: str
    rule: str
    outcome: Sequence[Expected]
    settings: Mapping[str, Any]
    records: Sequence[tuple[str, str, str]]
    body: str
    mails: Sequence[Mail]
    rounds: Sequence[Round]

    def fill(self, table: DnsTable) -> None:
        """Write the file's DNS into a table."""
        values: dict[tuple[str, str], list[str]] = {}
        for name, kind, value in self.records:
            if value in get_args(Fault):
                table.fail(name, kind, value)  # type: ignore[arg-type]  # one of the faults
            else:
                values.setdefault((name, kind), []).append(value)
        for (name, kind), found in values.items():
            table.set(name, kind, *found)


def read_peer_file(text: str, *, name: str) -> PeerFile:
    """Read a file; raises PeerFileError for a line that cannot be read."""
    reader = _Reader(name)
    for number, raw in enumerate(text.splitlines(), 1):
        if raw.strip() and not raw.startswith("#"):
            reader.take(_read_line(raw, name, number))
    return reader.finish()


def read_expected(text: str, place: str) -> Expected:
    """Read `ann QUEUED`, `ann BOUNCED FAILED`, `ann QUEUED maybe`."""
    found = _EXPECTED.match(text)
    if found is None:
        raise PeerFileError(f"{place}: cannot read the outcome `{text}`")
    return Expected(found[1], found[2], found[3], bool(found[4]))


def _read_line(raw: str, name: str, number: int) -> Line:
    if raw in _WORDS:
        return Line(raw, "", number)
    found = _LINE.match(raw)
    if found is None:
        raise PeerFileError(f"{name}:{number}: cannot read `{raw}`")
    try:
        return Line(found[1], expand(found[2] or "", {}), number)
    except UnknownName as error:
        raise PeerFileError(f"{name}:{number}: {error}") from None


class _Reader:
    """Puts lines where they belong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rule = ""
        self._outcome: list[Expected] = []
        self._settings: list[str] = []
        self._records: list[tuple[str, str, str]] = []
        self._body: list[str] = []
        self._mails: list[Mail] = []
        self._rounds = [Round(timedelta(0))]

    def take(self, line: Line) -> None:
        if (line.kind == "Rule") == bool(self._rule):
            raise self._error(line, "the first line, and no other, is `Rule: ... -> ann DELIVERED`")
        if line.kind == "Rule":
            self._take_rule(line)
        elif line.kind in _FIRST:
            self._take_stage(line)
        elif line.kind in _TALK:
            self._take_talk(line)
        else:
            self._take_turn(line)

    def finish(self) -> PeerFile:
        mails = self._mails or [Mail(("ann@example.org",), never_twice=False)]
        settings = tomllib.loads("\n".join(self._settings))
        body = "\r\n".join(self._body or ["Hi"])
        return PeerFile(self._name, self._rule, self._outcome, settings, self._records, body, mails, self._rounds)

    def _take_rule(self, line: Line) -> None:
        found = _RULE.match(line.text)
        if found is None:
            raise self._error(line, "a rule ends with its outcome: `-> ann DELIVERED, bob BOUNCED`")
        self._rule = found[1]
        self._outcome = [read_expected(part.strip(), self._place(line)) for part in found[2].split(",")]

    def _take_stage(self, line: Line) -> None:
        if self._rounds[0].calls or self._rounds[0].checks:
            raise self._error(line, "this must stand before the first connection")
        if line.kind == "Set":
            self._settings.append(line.text)
        elif line.kind == "Body":
            self._body.append(line.text)
        elif line.kind == "Mail":
            words = line.text.split(" ")
            recipients = tuple(word for word in words if word != _NEVER_TWICE)
            self._mails.append(Mail(recipients, never_twice=_NEVER_TWICE in words))
        else:
            found = _RECORD.match(line.text)
            if found is None:
                raise self._error(line, "write a name, a type and a value, or one of the faults")
            self._records.append((found[1], found[2], found[3]))

    def _take_talk(self, line: Line) -> None:
        calls = self._rounds[-1].calls
        if not calls or self._rounds[-1].checks:
            raise self._error(line, "nothing is said without a connection")
        if calls[-1].lines and calls[-1].lines[-1].kind in _WORDS:
            raise self._error(line, "nothing is said after `close`, `reset` or `wait`")
        calls[-1].lines.append(line)

    def _take_turn(self, line: Line) -> None:
        if line.kind == "Later":
            found = _SPAN.match(line.text)
            if found is None:
                raise self._error(line, "write a number and seconds, minutes, hours or days")
            self._rounds.append(Round(timedelta(**{found[2]: int(found[1])})))
        elif line.kind == "Connection":
            if self._rounds[-1].checks:
                raise self._error(line, "after `Expect` and `Reply` time must pass: `Later: 2 minutes`")
            self._rounds[-1].calls.append(Call(line.text or "127.0.0.1", line.number))
        else:
            self._rounds[-1].checks.append(line)

    def _place(self, line: Line) -> str:
        return f"{self._name}:{line.number}"

    def _error(self, line: Line, reason: str) -> PeerFileError:
        return PeerFileError(f"{self._place(line)}: cannot take `{line.kind}` here: {reason}")
