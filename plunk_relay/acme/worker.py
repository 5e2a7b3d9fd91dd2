"""When is a certificate asked for? When there is none, and when two thirds of its life are over; after a failure later."""

import asyncio
from datetime import datetime, timedelta

from plunk_relay.acme.actions import acme_files, explain, is_due, obtain, wanted_names
from plunk_relay.acme.files import Validity
from plunk_relay.clock import format_time
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.workers import poll

log = get_logger("acme")
_EVERY_SECONDS = 60
WAITS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440))
"""Between tries that fail, the last one again and again: authorities allow few failures an hour and name."""


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Keep a certificate until `stop`; nothing is done unless `acme.email` is set."""
    if relay.settings.acme.email is not None:
        await poll(Keeper(relay).run_once, wake=asyncio.Event(), stop=stop, every_seconds=_EVERY_SECONDS)


class Keeper:
    """Remembers the tries that failed."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._files = acme_files(relay.settings)
        self._names = wanted_names(relay)
        self._failures = 0
        self._not_before: datetime | None = None

    async def run_once(self) -> bool:
        """Get a certificate if one is due; False: there is nothing to do at once."""
        now = self._relay.clock.now()
        waiting = self._not_before is not None and now < self._not_before
        if waiting or self._relay.stopping.is_set() or not is_due(self._files.read_validity(), self._names, now):
            return False
        try:
            await asyncio.to_thread(obtain, self._relay)
        except Exception as error:  # noqa: BLE001  a foreign server through a foreign library: the doors stay open
            self._note_failure(error)
        else:
            self._note_success()
        return False

    def _note_failure(self, error: Exception) -> None:
        if self._relay.stopping.is_set():
            return
        wait = WAITS[min(self._failures, len(WAITS) - 1)]
        self._failures += 1
        self._not_before = self._relay.clock.now() + wait
        log.warning(
            "no certificate",
            names=self._names,
            reason=explain(error),
            again_minutes=wait.total_seconds() / 60,
            present_one_until=_ending(self._files.read_validity()),
        )

    def _note_success(self) -> None:
        self._failures, self._not_before = 0, None
        log.info("certificate", names=self._names, until=_ending(self._files.read_validity()))


def _ending(validity: Validity | None) -> str | None:
    return format_time(validity.ends) if validity else None
