"""How fast is the audience API at scale? The real server, over HTTP, on the data of `audience_data.py`.

A copy of the data is measured, so that the seeded one can be used again: lists and searches, segments with and without
history, upserts alone, an import alone, and upserts while an import runs. Every figure has its target. Requests come one
after the other over one connection; times are those of a client.
"""

import http.client
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from click import echo

from tests.bench.audience_data import COMMON_EVENT, PROJECT, RARE_EVENT, Size, address, seed
from tests.bench.measure import Meter, watch_tree
from tests.bench.peers import SENDER_DOMAIN, BenchError
from tests.kit.process import ServerProcess

_LISTS = 500
_SEARCHES = 5
_COUNTS = 5
_UPSERTS = 1000
_IMPORTED = 100_000
_MOST_BYTES = 5_000_000
_PAUSE_SECONDS = 0.005  # between upserts beside an import
_LOOK_SECONDS = 0.2
_STUCK_SECONDS = 120.0
_BOUNDARY = "plunk-relay-bench"
_MEGABYTE = 1_000_000

_THREE_FILTERS = [
    {"field": "subscribed", "operator": "equals", "value": True},
    {"field": "data.plan", "operator": "equals", "value": "pro"},
    {"field": "data.age", "operator": "greaterThan", "value": 30},
]
_RECENT = {"operator": "triggeredWithin", "value": 90, "unit": "days"}
_SEGMENTS: dict[str, tuple[float, Sequence[dict[str, Any]]]] = {
    "segment of three filters": (1.0, _THREE_FILTERS),
    "segment of three filters, with a text and a date": (
        1.0,
        [
            {"field": "email", "operator": "contains", "value": "gmail"},
            {"field": "data.company.name", "operator": "contains", "value": "Ltd"},
            {"field": "createdAt", "operator": "within", "value": 365, "unit": "days"},
        ],
    ),
    "segment with a frequent event": (3.0, [_THREE_FILTERS[1], {"field": f"event.{COMMON_EVENT}", **_RECENT}]),
    "segment with a rare event": (3.0, [{"field": f"event.{RARE_EVENT}", "operator": "triggered"}]),
    "segment without an event": (3.0, [{"field": f"event.{COMMON_EVENT}", "operator": "notTriggered"}]),
    "segment with opened mail": (3.0, [_THREE_FILTERS[0], {"field": "email.opened", **_RECENT}]),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured; `most` and `least` are the target, None where there is none."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    def is_met(self) -> bool:
        """Tell whether the target is reached."""
        return (self.most is None or self.value < self.most) and (self.least is None or self.value >= self.least)


def seed_audience(directory: Path, size: Size) -> Path:
    """Make the data in `directory`, or keep what is there; say what it is; return where it is."""
    seeded = seed(directory / "plunk-relay-audience", size)
    made = f"made in {seeded.seconds:.0f} s" if seeded.seconds else "there already"
    echo(f"\nAudience: {size.contacts:,} contacts, {size.events:,} events, {seeded.megabytes:,.0f} MB, {made}: {seeded.home}")
    return seeded.home


def measure_audience(seeded: Path, home: Path, size: Size) -> list[Figure]:
    """Measure a copy of the seeded data in `home`."""
    shutil.copytree(seeded, home)
    with ServerProcess(home) as server:
        secret = server.setup(project=PROJECT, domain=f"{PROJECT}.{SENDER_DOMAIN}")["project"]["secret"]
        os_sync()
        server.start()
        with Meter(watch_tree("audience", server.pid)) as meter, closing(Client(server.http_port, secret)) as client:
            meter.start()
            figures = [*_measure_lists(client), *_measure_segments(client), *_measure_upserts(client, size)]
            figures += _measure_imports(client, server, secret, size)
            figures.append(Figure("memory, at most", meter.stop().peak_bytes / _MEGABYTE, "MB", most=250))
        server.terminate()
    return figures


def print_figures(figures: Iterable[Figure]) -> None:
    """Print a line a figure, with its target and whether it is met."""
    echo(f"\n{'Audience API':<52}{'measured':>12}{'target':>14}")
    for figure in figures:
        target = f"< {figure.most:g}" if figure.most is not None else f">= {figure.least:,g}" if figure.least else ""
        verdict = ("ok" if figure.is_met() else "MISS") if target else ""
        number = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
        echo(f"  {figure.name:<50}{number:>12}{target:>14} {figure.unit:<7}{verdict}")
