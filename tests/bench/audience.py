"""How fast is the audience API at scale? The real server, over HTTP, on the data of `audience_data.py`.

A copy of the data is measured, so that the seeded one can be used again: lists and searches, segments with and without
history, upserts alone, an import alone, and upserts while another import runs. Every figure has its target. Requests come
one after the other over one connection, and times are the client's.
"""

import http.client
import json
import math
import os
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

from tests.bench.audience_data import COMMON_EVENT, PROJECT, RARE_EVENT, Size, custom_fields, new_address, seed
from tests.bench.measure import Meter, watch_tree
from tests.bench.peers import SENDER_DOMAIN, BenchError
from tests.kit.process import ServerProcess

_MOST_BYTES = 5_000_000
_PAUSE_SECONDS = 0.005  # between upserts beside an import
_UPSERTS_BETWEEN_LOOKS = 20
_LOOK_SECONDS = 0.1
_STUCK_SECONDS = 180.0
_BOUNDARY = "plunk-relay-bench"
_MEGABYTE = 1_000_000

_SUBSCRIBED = {"field": "subscribed", "operator": "equals", "value": True}
_PRO = {"field": "data.plan", "operator": "equals", "value": "pro"}
_RECENTLY = {"operator": "triggeredWithin", "value": 90, "unit": "days"}
_SEGMENTS: dict[str, tuple[float, Sequence[dict[str, Any]]]] = {
    "three filters": (1.0, [_SUBSCRIBED, _PRO, {"field": "data.age", "operator": "greaterThan", "value": 30}]),
    "three filters on texts and dates": (
        1.0,
        [
            {"field": "email", "operator": "contains", "value": "gmail"},
            {"field": "data.company.name", "operator": "contains", "value": "Wolf"},
            {"field": "createdAt", "operator": "within", "value": 365, "unit": "days"},
        ],
    ),
    "a frequent event": (3.0, [_SUBSCRIBED, _PRO, {"field": f"event.{COMMON_EVENT}", **_RECENTLY}]),
    "a rare event": (3.0, [{"field": f"event.{RARE_EVENT}", "operator": "triggered"}]),
    "the lack of an event": (3.0, [{"field": f"event.{COMMON_EVENT}", "operator": "notTriggered"}]),
    "opened mail": (3.0, [_SUBSCRIBED, {"field": "email.opened", **_RECENTLY}]),
}
"""Filters of segments that are counted, and the seconds a count may take."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How often each thing is done."""

    lists: int = 500
    searches: int = 5
    counts: int = 3
    upserts: int = 1000
    imported: int = 100_000
    """Rows of a file: as many as fit into one that may be uploaded."""


FULL = Effort()


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured; the target is to stay below `most`, or to reach `least`."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    def is_met(self) -> bool:
        """Tell whether the target is met; one that is not there is."""
        return (self.most is None or self.value < self.most) and (self.least is None or self.value >= self.least)


def seed_audience(directory: Path, size: Size) -> Path:
    """Make the data below `directory`, or keep what is there, and say so; return where it is."""
    seeded = seed(directory / "plunk-relay-audience", size)
    made = f"made in {seeded.seconds:.0f} s" if seeded.seconds else "there already"
    echo(f"\nAudience: {size.contacts:,} contacts, {size.events:,} events, {seeded.megabytes:,.0f} MB, {made}")
    return seeded.home


def measure_audience(seeded: Path, home: Path, effort: Effort = FULL) -> list[Figure]:
    """Measure a copy of the seeded data in `home`."""
    shutil.copytree(seeded, home)
    with ServerProcess(home, limits={"contacts_per_second": 0}) as server:
        project = server.setup(project=PROJECT, domain=f"{PROJECT}.{SENDER_DOMAIN}")["project"]
        os.sync()  # what was copied is not to be written while something is measured
        server.start()
        with (
            Meter(watch_tree("audience", server.pid)) as meter,
            closing(_Client(server.http_port, project["secret"])) as client,
        ):
            meter.start()
            parts = (_measure_lists, _measure_segments, _measure_writes)
            figures = [figure for measure in parts for figure in measure(client, effort)]
            figures.append(Figure("memory, at most", meter.stop().peak_bytes / _MEGABYTE, "MB", most=250))
        server.terminate()
    return figures


def print_figures(figures: Iterable[Figure]) -> None:
    """Print a line a figure, with its target and whether it is met."""
    echo(f"\n{'':<52}{'measured':>10}{'target':>12}")
    for figure in figures:
        target = f"< {figure.most:g}" if figure.most is not None else f">= {figure.least:,g}" if figure.least else ""
        number = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
        verdict = "" if not target else "ok" if figure.is_met() else "MISS"
        echo(f"  {figure.name:<50}{number:>10}{target:>12} {figure.unit:<7}{verdict}")


class _Client:
    """A program that uses the API over a connection that it keeps."""

    def __init__(self, port: int, secret: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_STUCK_SECONDS)
        self._headers = {"Authorization": f"Bearer {secret}"}

    def get(self, path: str, **query: object) -> Any:
        """Ask for something."""
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path, None, {})

    def post(self, path: str, body: object) -> Any:
        """Send JSON."""
        return self._ask("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def upload(self, path: str, name: str, content: bytes) -> Any:
        """Send a file in the field `file`."""
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = f"{head}Content-Type: text/csv\r\n\r\n".encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return self._ask("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        self._connection.request(method, path, body, self._headers | headers)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise BenchError(f"{method} {path} was answered with {answer.status}: {said[:300]!r}")
        return json.loads(said)


def _measure_lists(client: _Client, effort: Effort) -> Iterator[Figure]:
    chosen = random.Random(1)
    lists: dict[str, Callable[[], object]] = {
        "first page": lambda: client.get("/contacts"),
        "first page of the unsubscribed": lambda: client.get("/contacts", subscribed="false"),
        "first page by address": lambda: client.get("/contacts", sort="email"),
        "page by a prefix": lambda: client.get("/contacts", prefix=_prefix(chosen)),
        "next page": _Pages(client).turn,
    }
    for name, work in lists.items():
        yield from _percentiles(name, _time_each(work, effort.lists), most=50)
    [fields] = _time_each(lambda: client.get("/contacts/fields"), 1)
    yield Figure("fields of all contacts, for the first time", fields, "s")
    for kind, text in {"in every second": "gmail", "in few": "wolf12345", "in none": "nobody-at-all"}.items():
        durations = _time_each(lambda text=text: client.get("/contacts", search=text), effort.searches)  # type: ignore[misc]  # bound now
        yield Figure(f"search for a part of addresses, {kind}", max(durations), "s", most=1)


def _prefix(chosen: random.Random) -> str:
    """Return the beginning of an address, from one letter to nearly the whole."""
    return new_address(chosen.randrange(1_000_000), chosen)[: chosen.randint(1, 14)]


class _Pages:
    """The list of contacts, page by page."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._cursor = client.get("/contacts")["cursor"]

    def turn(self) -> None:
        """Read the next page."""
        self._cursor = self._client.get("/contacts", cursor=self._cursor)["cursor"]


def _measure_segments(client: _Client, effort: Effort) -> Iterator[Figure]:
    for name, (most, filters) in _SEGMENTS.items():
        condition = {"logic": "AND", "groups": [{"filters": filters}]}
        began = time.perf_counter()
        segment = client.post("/segments", {"name": name, "condition": condition})
        seconds = [time.perf_counter() - began]
        seconds += _time_each(lambda path=f"/segments/{segment['id']}/refresh": client.post(path, {}), effort.counts)  # type: ignore[misc]  # bound now
        yield Figure(f"count of {name} ({segment['memberCount']:,})", max(seconds), "s", most=most)


def _measure_writes(client: _Client, effort: Effort) -> Iterator[Figure]:
    upserts = _Upserts(client)
    yield from _percentiles("upsert", _time_each(upserts.send, effort.upserts), most=5)
    alone = _Import(client, effort.imported, seed=1)
    while not alone.is_over():
        time.sleep(_LOOK_SECONDS)
    yield Figure("import alone", effort.imported / alone.seconds, "rows/s", least=10_000)
    beside = _Import(client, effort.imported, seed=2)
    durations: list[float] = []
    while not beside.is_over():
        durations += _time_each(upserts.send, _UPSERTS_BETWEEN_LOOKS, pause_seconds=_PAUSE_SECONDS)
    yield from _percentiles(f"upsert beside an import ({len(durations)})", durations, most=5)
    yield Figure("import beside upserts", effort.imported / beside.seconds, "rows/s")


class _Upserts:
    """Contacts that are sent one by one: every other one is there already."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._chosen = random.Random(2)
        self._known = [contact["email"] for contact in client.get("/contacts", search="wolf", limit=100)["data"]]

    def send(self) -> None:
        """Send one."""
        chosen = self._chosen
        email = chosen.choice(self._known) if chosen.random() < 0.5 else f"{chosen.getrandbits(60):x}@example.net"
        self._client.post("/contacts", {"email": email, "data": {"score": chosen.randrange(1000)}})


class _Import:
    """A file of new contacts that is being imported."""

    def __init__(self, client: _Client, rows: int, *, seed: int) -> None:
        content = _make_file(rows, random.Random(seed))
        self._client = client
        self._rows = rows
        self._began = time.perf_counter()
        self._job = client.upload("/contacts/import", "contacts.csv", content)["jobId"]
        self.seconds = 0.0
        """From the request until it was seen that the import is over."""

    def is_over(self) -> bool:
        """Look whether it is; raises BenchError when it failed, or takes too long."""
        job = self._client.get(f"/contacts/import/{self._job}")
        self.seconds = time.perf_counter() - self._began
        if job["state"] == "failed" or self.seconds > _STUCK_SECONDS:
            raise BenchError(f"the import is {job['state']} after {self.seconds:.0f} s: {job.get('failedReason')}")
        if job["state"] == "completed" and job["result"]["successCount"] != self._rows:
            raise BenchError(f"the import of {self._rows} rows gave {job['result']}")
        return bool(job["state"] == "completed")


def _make_file(rows: int, chosen: random.Random) -> bytes:
    lines = [f"{new_address(chosen.randrange(10**7), chosen)},{_cells(chosen)}" for _ in range(rows)]
    content = "\n".join(["email,plan,age,city", *lines]).encode()
    if len(content) > _MOST_BYTES:
        raise BenchError(f"a file of {rows} rows has {len(content)} bytes, more than may be uploaded")
    return content


def _cells(chosen: random.Random) -> str:
    fields = custom_fields(chosen)
    return f"{fields.get('plan', '')},{fields.get('age', '')},{fields.get('city', '')}"


def _percentiles(name: str, durations: Sequence[float], *, most: float) -> Iterator[Figure]:
    """Tell the median and the 99th percentile in milliseconds; the target is the latter's."""
    ordered = sorted(duration * 1000 for duration in durations)
    yield Figure(f"{name}, p50", ordered[len(ordered) // 2], "ms")
    yield Figure(f"{name}, p99", ordered[math.ceil(len(ordered) * 0.99) - 1], "ms", most=most)


def _time_each(work: Callable[[], object], times: int, *, pause_seconds: float = 0.0) -> list[float]:
    """Do something again and again; return the seconds of each."""
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        durations.append(time.perf_counter() - began)
        time.sleep(pause_seconds)
    return durations
