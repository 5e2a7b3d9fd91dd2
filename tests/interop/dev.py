"""How is a running `plunk-relay dev` used in a test? Through what it prints: its key and its curl line."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.process import free_port
from tests.kit.tools import require_tool


@dataclass(frozen=True, slots=True)
class DevServer:
    """A relay in dev mode and the directory it was started in."""

    directory: Path
    http_port: int
    smtp_port: int
    said: str
    """What it printed before it was ready."""

    @property
    def secret(self) -> str:
        """The printed secret key."""
        return _find(r"Secret key +(sk_\w+)", self.said)

    @property
    def curl_line(self) -> str:
        """The printed command that sends a mail."""
        return _find(r"^(curl (?:.*\\\n)*.*)", self.said)


@contextmanager
def running_dev(
    make_command: Callable[[str], Sequence[str]],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    starting_seconds: float = 30.0,
) -> Iterator[DevServer]:
    """Run the command that `make_command` makes with options for free ports; end it as Ctrl-C does."""
    http_port, smtp_port = free_port(), free_port()
    inbound = f"--inbound 127.0.0.1:{free_port()}"
    command = make_command(f"--http 127.0.0.1:{http_port} --smtp 127.0.0.1:{smtp_port} {inbound}")
    with tempfile.NamedTemporaryFile() as output:
        log = Path(output.name)
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + starting_seconds
            while '"ready"' not in (said := log.read_text()):
                assert process.poll() is None, f"it ended: {said[-3000:]}"
                assert time.monotonic() < deadline, f"it is not ready: {said[-3000:]}"
                time.sleep(0.05)
            yield DevServer(directory, http_port, smtp_port, said)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
        assert '"stopped"' in log.read_text()


def run_shell(script: str, directory: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run shell commands that must all succeed; return what they printed."""
    command = [require_tool("bash"), "-euc", script]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, text
    return found[1]
