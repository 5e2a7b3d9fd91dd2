"""Who issues certificates in a test? A real ACME server, Let's Encrypt's pebble, that looks at our HTTP door to check."""

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.authority import Authority
from tests.kit.process import free_port, wait_until_listening
from tests.kit.tools import require_tool


@dataclass(frozen=True, slots=True)
class Pebble:
    """The server; it makes new roots at each start."""

    directory_url: str
    ca_file: Path
    """The authority of its own HTTPS."""
    root: str
    """PEM; the authority of what it issues."""
    log: Path

    @property
    def settings(self) -> dict[str, Any]:
        """The `acme` section of a relay that asks it."""
        return {"email": "op@example.com", "directory_url": self.directory_url, "ca_file": str(self.ca_file)}

    @property
    def trust(self) -> ssl.SSLContext:
        """The context of a client that trusts what it issues, and nothing else."""
        return ssl.create_default_context(cadata=self.root)

    @property
    def issued(self) -> int:
        """How many certificates it has issued."""
        return self.log.read_text().count("Issued certificate serial")


@contextmanager
def running_pebble(directory: Path, *, http_port: int, dns: str, reuse: int = 0, idle_seconds: int = 0) -> Iterator[Pebble]:
    """Run it; names are looked up at `dns` and asked at `http_port`, `reuse` % of the proofs hold for the next order.

    It takes any time up to `idle_seconds` before it looks.
    """
    directory.mkdir(exist_ok=True)
    authority = Authority(directory, "pebble")
    https = authority.issue("127.0.0.1").files
    port, management = free_port(), free_port()
    values = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(https.certificate),
        "privateKey": str(https.key),
        "httpPort": http_port,
        "tlsPort": free_port(),
    }
    config, log = directory / "pebble.json", directory / "pebble.log"
    config.write_text(json.dumps({"pebble": values}))
    moods = {"PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": str(reuse)}
    moods |= {"PEBBLE_VA_SLEEPTIME": str(idle_seconds)} if idle_seconds else {"PEBBLE_VA_NOSLEEP": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [require_tool("pebble"), "-config", str(config), "-dnsserver", dns],
            stdout=output,
            stderr=output,
            env={**os.environ, **moods},
        )
    try:
        wait_until_listening(process, "127.0.0.1", management)
        wait_until_listening(process, "127.0.0.1", port)
        root = _fetch(f"https://127.0.0.1:{management}/roots/0", authority.ca_file)
        yield Pebble(f"https://127.0.0.1:{port}/dir", authority.ca_file, root, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _fetch(url: str, ca_file: Path) -> str:
    with urllib.request.urlopen(url, timeout=10, context=ssl.create_default_context(cafile=ca_file)) as answer:
        return str(answer.read().decode())
