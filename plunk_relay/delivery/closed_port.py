"""Is port 25 closed? Many networks close it, at once or for good, and then no server at all can be reached directly.

It looks closed when mail to several different providers in a row found no host that took a connection (refused, or no
answer at all), and no session with anybody came about in between. "Several" is three with a large provider among them, whose
exchangers are never all away, else ten: mistyped domains often lead to addresses where nothing listens. Before it counts,
`Traffic` asks the DNS anew and connects to the smarthost: when these do not answer either, the network itself is down.
"""

import asyncio

_WITH_A_LARGE_ONE = 3
_OF_SMALL_ONES = 10


class ClosedPortWatch:
    """Remembers who could not be reached since a session last came about."""

    def __init__(self) -> None:
        self._large: set[str] = set()
        self._small: set[str] = set()

    def note_session(self) -> None:
        """Somebody answered."""
        if self._large or self._small:
            self._large.clear()
            self._small.clear()

    def note_silence(self, provider: str, *, listed: bool) -> bool:
        """No host of a provider could be connected to; True when the port looks closed."""
        (self._large if listed else self._small).add(provider)
        count = len(self._large) + len(self._small)
        return count >= (_WITH_A_LARGE_ONE if self._large else _OF_SMALL_ONES)


async def is_listening(address: str, port: int, timeout_seconds: float) -> bool:
    """Tell whether a server takes a connection."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
