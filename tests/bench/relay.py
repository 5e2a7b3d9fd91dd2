"""How is Plunk Relay run for a measurement? As `plunk-relay serve`, with the settings of an application host's relay.

Both signatures (RSA-2048 and Ed25519), a smarthost without TLS, loopback trusted because smtp-source knows no AUTH, no rate
limits; every other setting at its default, durability included. Its log goes to a file, as Postfix's does.
"""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Meter, watch_tree
from tests.bench.peers import SENDER_DOMAIN, BenchError, Peer, Sink
from tests.kit.process import ServerProcess

_PROJECT = "bench"
_ACCEPTED = "SELECT count(*) FROM emails"
_WAITING = "SELECT count(*) FROM deliveries WHERE state = 'QUEUED'"
_NO_GREETING_SECONDS = 600


@dataclass(frozen=True, slots=True)
class RelayPeer(Peer):
    """The relay, and what only the relay has: HTTP."""

    http_port: int
    secret: str
    directory: Path

    def accepted(self) -> int:
        """Count all mails ever taken."""
        return _count(self.directory, _ACCEPTED)


@contextmanager
def running_relay(home: Path, sink: Sink, *, name: str = "relay") -> Iterator[RelayPeer]:
    """Run a relay that delivers to the sink."""
    home.mkdir()
    with ServerProcess(home, **settings_of_relay(sink)) as server:
        secret = start_relay(server)
        with Meter(watch_tree(name, server.pid)) as meter:
            yield RelayPeer(
                name=name,
                port=server.smtp_port,
                sink=sink,
                meter=meter,
                waiting=lambda: _count(home, _WAITING),
                http_port=server.http_port,
                secret=secret,
                directory=home,
            )
            server.terminate()


def settings_of_relay(sink: Sink) -> dict[str, dict[str, Any]]:
    """Return the settings of a relay that delivers to the sink, by section."""
    return {
        "smtp": {"trusted": [{"network": "127.0.0.0/8", "project": _PROJECT}]},
        "delivery": {
            "route": "smarthost",
            "smarthost_url": f"smtp://127.0.0.1:{sink.port}?starttls=off",
            "connect_seconds": _NO_GREETING_SECONDS,
            "reply_seconds": _NO_GREETING_SECONDS,
        },
    }


def start_relay(server: ServerProcess) -> str:
    """Make the project and the sender's domain, start, and return the project's secret key."""
    try:
        made = server.setup(project=_PROJECT, domain=SENDER_DOMAIN)
        server.start()
    except (subprocess.CalledProcessError, AssertionError) as error:
        said = error.stderr[-1000:] if isinstance(error, subprocess.CalledProcessError) else ""
        raise BenchError(f"plunk-relay does not start: {error} {said}") from error
    return str(made["project"]["secret"])


def _count(home: Path, query: str) -> int:
    """Ask the database beside the running relay, which is not to spend CPU time on being measured."""
    with closing(sqlite3.connect(f"file:{home}/data/relay.db?mode=ro", uri=True, timeout=10)) as db:
        return int(db.execute(query).fetchone()[0])
