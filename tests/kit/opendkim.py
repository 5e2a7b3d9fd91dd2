"""Does the verifier that most receivers run believe our signatures? A real opendkim, as a milter on a unix socket."""

import subprocess
import time
from pathlib import Path

from tests.kit.tools import require_tool

_STARTING_SECONDS = 10.0
_NOBODY = "192.0.2.1"  # who is internal is not verified; loopback, the default, is where the tests' mail comes from


class Opendkim:
    """Verifies, never signs; keys come from the DNS server at `resolver` (`IP:PORT`)."""

    def __init__(self, directory: Path, *, resolver: str, host_name: str) -> None:
        self.socket = directory / "opendkim.sock"
        self._config = directory / "opendkim.conf"
        unbound = directory / "unbound.conf"
        unbound.write_text(_unbound(resolver))
        settings = {
            "Mode": "v",
            "Background": "no",
            "Socket": f"local:{self.socket}",
            "UMask": "000",  # the MTA's own user must reach the socket
            "ResolverConfiguration": str(unbound),
            "AuthservID": host_name,
            "AlwaysAddARHeader": "yes",
            "InternalHosts": _NOBODY,
        }
        self._config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Opendkim":
        line = [require_tool("opendkim"), "-f", "-x", str(self._config)]
        self._process = subprocess.Popen(line)
        deadline = time.monotonic() + _STARTING_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError("opendkim did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.kill()  # it keeps nothing, and takes seconds to notice a SIGTERM
            self._process.wait(timeout=10)


def _unbound(resolver: str) -> str:
    """Write the configuration of the resolver inside opendkim: every question goes to the test's server."""
    host, port = resolver.rsplit(":", 1)
    return f'server:\n  do-not-query-localhost: no\nforward-zone:\n  name: "."\n  forward-addr: {host}@{port}\n'
