"""How is a conversation in SMTP written down as a test? As a `.dialog` file, by anybody who knows SMTP.

The kinds of lines are told in tests/smtp/dialogs/README.
"""

import re
import ssl
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.kit.notation import UnknownName, expand, fits, unescape
from tests.kit.smtp import Wire, wire_to

_LINE = re.compile(r"(C|S|C-raw|Set|Door|Stored):(?: (.*))?\Z")
_STATUS = re.compile(r"\d{3}[ -]([245])\.\d{1,3}\.\d{1,3} ")
_WITHOUT_STATUS = ("220", "334", "354")


class DialogError(AssertionError):
    """The file cannot be read, or the server did not keep to it; names file and line and shows the conversation."""


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the conversation: who (C, C-raw, S, Stored), what, and where it stands in the file."""

    who: str
    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Dialog:
    """A conversation with the settings it needs."""

    name: str
    settings: Mapping[str, Any]
    door: str
    steps: Sequence[Step]


def read_dialog(text: str, variables: Mapping[str, str], *, name: str) -> Dialog:
    """Read a dialog; raises DialogError for a line of no kind."""
    steps: list[Step] = []
    settings: list[str] = []
    door = "submission"
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None or (found[1] in ("Set", "Door") and steps):
            raise DialogError(f"{name}:{number}: cannot read `{line}`")
        value = _expand(found[2] or "", variables, f"{name}:{number}")
        if found[1] == "Set":
            settings.append(value)
        elif found[1] == "Door":
            door = value
        else:
            steps.append(Step(found[1], value, number))
    return Dialog(name, tomllib.loads("\n".join(settings)), door, steps)


async def play(
    dialog: Dialog, port: int, *, tls: ssl.SSLContext, count_stored: Callable[[], Awaitable[int]], source: str = "127.0.0.1"
) -> None:
    """Speak a dialog with the server at a port; raises DialogError where it differs."""
    implicit = tls if dialog.door == "submissions" else None
    async with wire_to(port, tls=implicit, source=source) as wire:
        await _Player(dialog, wire, tls, count_stored).play()


@dataclass(slots=True)
class _Player:
    dialog: Dialog
    wire: Wire
    tls: ssl.SSLContext
    count_stored: Callable[[], Awaitable[int]]
    transcript: list[str] = field(default_factory=list)
    greeted: bool = False
    in_reply: bool = False
    after_helo: bool = False
    unsent: bytearray = field(default_factory=bytearray)

    async def play(self) -> None:
        """Take the steps one by one, then say QUIT."""
        for step in self.dialog.steps:
            await self._take(step)
        await self._send_unsent()
        last = self.dialog.steps[-1]
        if (last.who, last.text) not in (("S", "<CLOSED>"), ("C", "<CLOSE>")):
            for who, text in (("C", "QUIT"), ("S", "221 2.0.0 *"), ("S", "<CLOSED>")):
                await self._take(Step(who, text, last.number + 1))

    async def _take(self, step: Step) -> None:
        if step.who == "C" and step.text not in ("<TLS>", "<CLOSE>"):
            self.transcript.append(f"C: {step.text}")
            self.after_helo = step.text[:4].upper() in ("HELO", "EHLO")
            self.unsent += step.text.encode() + b"\r\n"
            return
        await self._send_unsent()
        if step.who == "C-raw":
            self.transcript.append(f"C-raw: {step.text}")
            await self.wire.send(unescape(step.text))
        elif step.text == "<TLS>":
            await self.wire.start_tls(self.tls)
        elif step.text == "<CLOSE>":
            self.wire.writer.write_eof()
        elif step.who == "Stored":
            stored = await self.count_stored()
            if stored != int(step.text):
                raise self._error(step, f"{stored} mails are stored")
        else:
            await self._expect(step)

    async def _send_unsent(self) -> None:
        if self.unsent:
            await self.wire.send(bytes(self.unsent))
            self.unsent.clear()

    async def _expect(self, step: Step) -> None:
        line = await self._hear(step)
        if step.text == "<CLOSED>":
            if line is not None:
                raise self._error(step, f"the server said `{line}`")
            return
        while line is not None and line[3:4] == "-" and step.text[3:4] != "-" and not self.in_reply:
            line = await self._hear(step)
        if line is None or not fits(step.text, line):
            raise self._error(step, "the server closed the connection" if line is None else f"the server said `{line}`")
        self.in_reply = line[3:4] == "-"

    async def _hear(self, step: Step) -> str | None:
        try:
            line = await self.wire.line()
        except TimeoutError:
            raise self._error(step, "the server said nothing") from None
        if line is None:
            return None
        self.transcript.append(f"S: {line}")
        if self.greeted and not self.after_helo and line[:3] not in _WITHOUT_STATUS:
            status = _STATUS.match(line)
            if status is None or status[1] != line[0]:
                raise self._error(step, f"a reply without an enhanced status code of its class: `{line}`")
        self.greeted = True
        return line

    def _error(self, step: Step, reason: str) -> DialogError:
        place = f"{self.dialog.name}:{step.number}"
        return DialogError("\n".join([f"{place}: expected `{step.who}: {step.text}`, but {reason}", *self.transcript]))


def _expand(text: str, variables: Mapping[str, str], place: str) -> str:
    try:
        return expand(text, variables)
    except UnknownName as error:
        raise DialogError(f"{place}: {error}") from None
