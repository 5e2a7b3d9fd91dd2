"""How is the real server started in a test? As a process of its own, on free ports, killed or stopped by the test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from plunk_relay import __version__
from plunk_relay.app import FEATURES
from plunk_relay.web.meta import health, ready
from plunk_relay.web.openapi import build_document
from tests.kit.cli import Done, run_cli
from tests.kit.http import SchemaCheck

_STARTING_SECONDS = 20.0


def free_port() -> int:
    """Return a port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    """Return when a program that was started listens; fail when it ends or takes too long."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            assert process.poll() is None, f"{process.args!r} ended at once"
            assert time.monotonic() < deadline, f"{process.args!r} does not listen"
            time.sleep(0.02)
        else:
            return


class ServerProcess:
    """`plunk-relay serve` with a configuration in a directory of its own."""

    def __init__(self, directory: Path, **sections: dict[str, Any]) -> None:
        self.directory = directory
        self.http_port, self.smtp_port = free_port(), free_port()
        self.config = directory / "relay.toml"
        self.log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        values: dict[str, dict[str, Any]] = {
            "server": {"data_dir": str(directory / "data"), "log_format": "json", "grace_seconds": 5},
            "http": {"port": self.http_port},
            "smtp": {
                "hostname": "relay.test",
                "host": "127.0.0.1",
                "submission_port": self.smtp_port,
                "submissions_port": 0,
                "inbound_port": 0,
                "auth_without_tls": True,
            },
            "limits": {"api_requests_per_minute": 0, "send_per_second": 0},
        }
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        self.config.write_text(_toml(values))

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str, check: bool = True, under: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a `plunk-relay` command with this configuration; `under` is a program that runs it."""
        line = [*under, sys.executable, "-m", "plunk_relay", *arguments, "--config", str(self.config)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=check)

    def setup(self, *, project: str = "acme", domain: str = "example.com") -> dict[str, Any]:
        """Make a user, a project and a trusted domain; return what `setup --json` prints."""
        arguments = ["setup", "--email", "op@example.com", "--password", "password", "--project", project]
        made: dict[str, Any] = self._run(*arguments, "--domain", domain, "--trust", "--json").json()
        return made

    def audit(self) -> dict[str, Any]:
        """Return the ledger."""
        ledger: dict[str, Any] = json.loads(self._run("audit", "--json").out)
        return ledger

    def queue(self) -> list[dict[str, Any]]:
        """Return the deliveries, newest first."""
        listed: list[dict[str, Any]] = self._run("queue", "list", "--json").json()
        return listed

    def _run(self, *arguments: str) -> Done:
        """Run a command in this process, in a thread: the test may have a loop of its own."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run_cli, *arguments, "--config", self.config).result()

    def start(self, *, under: Sequence[str] = (), **environment: str) -> None:
        """Start and wait until it is ready; `under` is a program that runs it, such as `strace -D`."""
        with self.log.open("ab") as log:
            place = log.tell()
            line = [*under, sys.executable, "-m", "plunk_relay", "serve", "--config", str(self.config)]
            self._process = subprocess.Popen(line, stderr=log, stdout=log, env={**os.environ, **environment})
        deadline = time.monotonic() + _STARTING_SECONDS
        while b'"ready"' not in self.log.read_bytes()[place:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far, a line an entry; what is no JSON is left out."""
        found = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [json.loads(line) for line in found]

    def wait_for_line(self, event: str, **values: Any) -> dict[str, Any]:
        """Return the first line of the log with this event and these values, waiting for it."""
        deadline = time.monotonic() + _STARTING_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines():
                if line.get("event") == event and values.items() <= line.items():
                    return line
            time.sleep(0.02)
        raise AssertionError(f"the log does not say `{event}`: {self.log.read_text()[-2000:]}")

    def wait(self) -> int:
        """Wait until it has ended by itself; return the exit status."""
        assert self._process is not None
        return self._process.wait(timeout=30)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """End it with SIGTERM; return the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        return self._process.wait(timeout=30)

    def get(self, path: str) -> bytes:
        """Fetch a path over HTTP."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def ask(self, path: str, *, key: str | None = None, body: object = None) -> tuple[int, dict[str, Any]]:
        """Ask the API, with POST when there is a body; return the status and the JSON of the answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return self._checked(request, answer)
        except urllib.error.HTTPError as error:
            with error:
                return self._checked(request, error)

    def _checked(
        self, request: urllib.request.Request, answer: HTTPResponse | urllib.error.HTTPError
    ) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of an answer that is as the document says."""
        text = answer.read()
        status, kind = answer.status or 0, answer.headers.get("content-type")
        _schema_check().check_answer(request.get_method(), request.selector.partition("?")[0], status, kind, text)
        body: dict[str, Any] = json.loads(text)
        return status, body

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


@cache
def _schema_check() -> SchemaCheck:
    document = build_document([*FEATURES, health, ready], version=__version__, server_url="http://relay.test")
    return SchemaCheck(document)


def _toml(values: dict[str, dict[str, Any]]) -> str:
    """Write settings; a list of tables becomes `[[section.key]]`."""
    lines: list[str] = []
    for section, keys in values.items():
        tables = {
            key: value for key, value in keys.items() if isinstance(value, list) and value and isinstance(value[0], dict)
        }
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items() if key not in tables]
        for key, entries in tables.items():
            for entry in entries:
                lines += [f"[[{section}.{key}]]", *(f"{name} = {json.dumps(value)}" for name, value in entry.items())]
    return "\n".join(lines) + "\n"
