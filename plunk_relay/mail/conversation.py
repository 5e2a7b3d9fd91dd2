"""What was said? Both sides' lines of one attempt with the milliseconds of each, without bodies and credentials."""

import asyncio

from plunk_relay.mail.outcome import sanitize

_LONGEST = 16384


class Conversation:
    """A bounded transcript; lines are `+<ms> C: ...`, `+<ms> S: ...` or `+<ms> *: ...` for what we noticed."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._start = self._now()
        self._lines: list[str] = []
        self._length = 0

    def client(self, line: str) -> None:
        """Note what we sent."""
        self._add("C", line)

    def server(self, line: str) -> None:
        """Note what the peer sent."""
        self._add("S", sanitize(line))

    def server_reply(self, line: str) -> None:
        """Note a reply that is printable and bounded already."""
        self._add("S", line)

    def remark(self, line: str) -> None:
        """Note what happened beside the lines."""
        self._add("*", sanitize(line))

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def _add(self, side: str, line: str) -> None:
        if self._length > _LONGEST:
            return
        elapsed = int((self._now() - self._start) * 1000)
        text = f"+{elapsed} {side}: {line}"
        self._length += len(text) + 1
        self._lines.append(text if self._length <= _LONGEST else "... (cut)")
