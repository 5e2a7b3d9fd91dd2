"""Does DNSSEC really tell? A real unbound on loopback that serves and validates zones which the test signs with ldns."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.kit.process import free_port
from tests.kit.tools import require_tool

_STARTING_SECONDS = 10.0
_HEAD = """\
$ORIGIN {name}.
$TTL 300
@ IN SOA ns.{name}. hostmaster.{name}. 1 3600 600 86400 300
@ IN NS ns.{name}.
ns IN A 127.0.0.1
"""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone file, and the key that the resolver believes it by."""

    name: str
    file: Path
    anchor: str | None
    """A DNSKEY record; None: the zone is not signed as far as anybody knows."""


def plain_zone(directory: Path, name: str, *records: str) -> Zone:
    """Write a zone that is not signed; records are lines of a zone file."""
    file = directory / f"{name}.zone"
    file.write_text(_HEAD.format(name=name) + "".join(f"{record}\n" for record in records))
    return Zone(name, file, None)


def signed_zone(directory: Path, name: str, *records: str) -> Zone:
    """Write a zone and sign it."""
    plain = plain_zone(directory, name, *records)
    key = _run(directory, "ldns-keygen", "-a", "ECDSAP256SHA256", "-k", name)
    _run(directory, "ldns-signzone", "-f", f"{name}.signed", plain.file.name, key)
    return Zone(name, directory / f"{name}.signed", (directory / f"{key}.key").read_text().split(";")[0].strip())


def with_stranger_s_key(directory: Path, zone: Zone) -> Zone:
    """Return the zone with an anchor that did not sign it: nothing in it can be validated."""
    key = _run(directory, "ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone.name)
    return Zone(zone.name, zone.file, (directory / f"{key}.key").read_text().split(";")[0].strip())


class Unbound:
    """The resolver; `server` is what `delivery.resolvers` takes."""

    def __init__(self, directory: Path, zones: Sequence[Zone]) -> None:
        self._config = directory / "unbound.conf"
        self._port = free_port()
        self.server = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        anchors = directory / "anchors"
        anchors.write_text("".join(f"{zone.anchor}\n" for zone in zones if zone.anchor))
        lines = [
            "server:",
            f"  interface: 127.0.0.1@{self._port}",
            "  access-control: 127.0.0.0/8 allow",
            "  do-daemonize: no",
            "  use-syslog: no",
            '  chroot: ""',
            '  username: ""',
            f'  pidfile: "{directory / "unbound.pid"}"',
            '  module-config: "validator iterator"',
            f'  trust-anchor-file: "{anchors}"',
            "  num-threads: 1",
            "remote-control:",
            "  control-enable: no",
        ]
        for zone in zones:
            lines += ["auth-zone:", f'  name: "{zone.name}"', f'  zonefile: "{zone.file}"']
            lines += ["  for-downstream: no", "  for-upstream: yes", "  fallback-enabled: no"]
        self._config.write_text("\n".join([*lines, ""]))

    def __enter__(self) -> "Unbound":
        self._process = subprocess.Popen([require_tool("unbound"), "-d", "-c", str(self._config)])
        deadline = time.monotonic() + _STARTING_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError("unbound did not start")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)

    def _answers(self) -> bool:
        try:
            dns.query.udp(dns.message.make_query("localhost", "A"), "127.0.0.1", timeout=0.2, port=self._port)
        except (dns.exception.Timeout, OSError):
            return False
        return True


def _run(directory: Path, program: str, *arguments: str) -> str:
    line = [require_tool(program), *arguments]
    return subprocess.run(line, cwd=directory, capture_output=True, text=True, check=True).stdout.strip()
