"""What is a peer asked to do, and how fast does it? Mail from smtp-source over SMTP, requests from wrk over HTTP.

Accepted: until smtp-source has the last 250. Delivered: from the start of smtp-source until the sink has counted every mail.
CPU: until the peer has nothing left to do, so that work put off is not work saved. Recipients are distinct.
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Cost
from tests.bench.peers import SENDER_DOMAIN, BenchError, Peer, find_program
from tests.bench.relay import RelayPeer

_LOOK_SECONDS = 0.005
_LAST_REQUESTS_SECONDS = 0.2  # those that wrk did not wait for
_STUCK_SECONDS = 60.0
_SLOWEST_PER_SECOND = 20.0
_WRK_SCRIPT = Path(__file__).with_name("send.lua")
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class SmtpLoad:
    """Mails to submit; `length` is the body's, and `reused` sessions carry many mails each."""

    name: str
    title: str
    length: int
    reused: bool


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """Requests to POST /v1/send; without `delivered` the mails stay in the queue and only acceptance is measured."""

    name: str
    title: str
    delivered: bool


SMTP_LOADS = (
    SmtpLoad("4k", "4 KB, sessions reused", 4096, reused=True),
    SmtpLoad("4k-new", "4 KB, a connection per message", 4096, reused=False),
    SmtpLoad("50k", "50 KB, sessions reused", 51200, reused=True),
    SmtpLoad("50k-new", "50 KB, a connection per message", 51200, reused=False),
)
HTTP_LOADS = (
    HttpLoad("http", "POST /v1/send, accepted, signed and delivered", delivered=True),
    HttpLoad("http-accept", "POST /v1/send, accepted and kept in the queue", delivered=False),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one load at one peer."""

    load: str
    peer: str
    mails: int
    accepted_per_second: float
    delivered_per_second: float | None
    """None where nothing is delivered."""
    cpu_us_per_mail: float
    peak_megabytes: float
    cpu_source: str


def submit(peer: Peer, load: SmtpLoad, *, mails: int, sessions: int, tag: str) -> Result:
    """Submit mails with smtp-source and wait until the peer is done; `tag` makes the recipients new ones."""
    command = [find_program("smtp-source"), "-4", "-N", "-s", str(sessions), "-m", str(mails), "-l", str(load.length)]
    command += ["-M", "client.test", "-f", f"bench@{SENDER_DOMAIN}", "-t", f"{tag}@example.org"]
    command += [*(["-d"] if load.reused else []), f"127.0.0.1:{peer.port}"]
    goal = peer.sink.count() + mails
    peer.meter.start()
    watch = _Watch(peer, most_seconds=_STUCK_SECONDS + mails / _SLOWEST_PER_SECOND)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as source:
        try:
            accepted, delivered = watch.wait_for(
                lambda: _has_ended(source, "smtp-source"), lambda: peer.sink.count() >= goal
            )
        finally:
            source.kill()
    watch.wait_for(lambda: peer.waiting() == 0)
    cost = peer.meter.stop()
    if peer.sink.count() != goal:
        raise BenchError(f"{peer.name} delivered {peer.sink.count() - goal} mails more than it was given")
    return _result(load.name, peer, mails, cost, accepted=mails / accepted, delivered=mails / delivered)


def request(relay: RelayPeer, load: HttpLoad, *, seconds: int, sessions: int, tag: str) -> Result:
    """Send requests with wrk over connections that are kept, then wait for the deliveries where there are any."""
    command = [find_program("wrk"), "-t1", f"-c{sessions}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_WRK_SCRIPT)]
    command += [f"http://127.0.0.1:{relay.http_port}/v1/send", "--", relay.secret, f"bench@{SENDER_DOMAIN}", tag]
    taken_before, sunk_before = relay.accepted(), relay.sink.count()
    relay.meter.start()
    watch = _Watch(relay, most_seconds=_STUCK_SECONDS + 10 * seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as wrk:
        try:
            watch.wait_for(lambda: _has_ended(wrk, "wrk"))
        finally:
            wrk.kill()
        rate = _read_wrk(wrk)
    time.sleep(_LAST_REQUESTS_SECONDS)
    mails = relay.accepted() - taken_before
    delivered = None
    if load.delivered:
        [seconds_until_delivered] = watch.wait_for(lambda: relay.sink.count() - sunk_before >= mails)
        watch.wait_for(lambda: relay.waiting() == 0)
        delivered = mails / seconds_until_delivered
    cost = relay.meter.stop()
    return _result(load.name, relay, mails, cost, accepted=rate, delivered=delivered)


def _result(load: str, peer: Peer, mails: int, cost: Cost, *, accepted: float, delivered: float | None) -> Result:
    cpu_us = cost.cpu_seconds / mails * 1_000_000
    return Result(load, peer.name, mails, accepted, delivered, cpu_us, cost.peak_bytes / _MEGABYTE, peer.meter.tree.source)


class _Watch:
    """Looks until conditions are true, counting the seconds since it was made."""

    def __init__(self, peer: Peer, *, most_seconds: float) -> None:
        self._peer = peer
        self._most_seconds = most_seconds
        self._began = time.monotonic()

    def wait_for(self, *conditions: Callable[[], bool]) -> list[float]:
        """Return when each condition became true."""
        seconds: dict[int, float] = {}
        while len(seconds) < len(conditions):
            for index, condition in enumerate(conditions):
                if index not in seconds and condition():
                    seconds[index] = time.monotonic() - self._began
            if time.monotonic() - self._began > self._most_seconds:
                raise BenchError(f"{self._peer.name} was not done after {self._most_seconds:.0f} s")
            self._peer.meter.sample()
            time.sleep(_LOOK_SECONDS)
        return [seconds[index] for index in range(len(conditions))]


def _has_ended(client: subprocess.Popen[str], name: str) -> bool:
    """Tell whether a client is through; raises BenchError when it failed."""
    if client.poll():
        _, said = client.communicate()
        raise BenchError(f"{name} failed: {said.strip()[-500:]}")
    return client.returncode == 0


def _read_wrk(wrk: subprocess.Popen[str]) -> float:
    """Return the answers a second; raises BenchError when one was no success."""
    said, complaints = wrk.communicate()
    try:
        summary = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise BenchError(f"wrk did not run {_WRK_SCRIPT.name}: {complaints.strip()[-500:] or said[-500:]}") from error
    if summary["failed"]:
        raise BenchError(f"{summary['failed']} of {summary['requests']} requests to /v1/send failed")
    return float(summary["requests"] / summary["seconds"])
