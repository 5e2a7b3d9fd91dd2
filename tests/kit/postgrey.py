"""Does our mail get through greylisting? A real postgrey, which a Postfix asks about each recipient."""

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.kit.process import free_port, wait_until_listening
from tests.kit.tools import require_tool


class Postgrey:
    """Sends every new triplet away for `delay_seconds`; nobody is whitelisted."""

    def __init__(self, *, delay_seconds: int = 1) -> None:
        self.port = free_port()
        self._delay_seconds = delay_seconds
        self._life = ExitStack()

    def __enter__(self) -> "Postgrey":
        with ExitStack() as life:
            directory = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="postgrey-", dir="/tmp")))
            nobody = directory / "whitelist"
            nobody.touch()
            options = [
                f"--inet=127.0.0.1:{self.port}",
                f"--delay={self._delay_seconds}",
                f"--dbdir={directory}",
                f"--whitelist-clients={nobody}",
                f"--whitelist-recipients={nobody}",
                "--auto-whitelist-clients=0",
                "--user=root",
                "--group=root",
            ]
            process = subprocess.Popen([require_tool("postgrey"), *options], stdout=subprocess.DEVNULL)
            life.callback(_end, process)
            wait_until_listening(process, "127.0.0.1", self.port)
            self._life = life.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._life.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
