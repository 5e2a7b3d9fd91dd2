"""How does a mail server run whose paths and users are built in, on a machine where it is not installed?

Debian lets one mail server be installed at a time, so `.ci/run` unpacks the others below build/peers. Each runs in a
mount namespace of its own, where /etc/passwd knows its users and its fixed directories are empty ones in memory; the
machine sees nothing of it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kit.postfix import Arrival, read_arrival
from tests.kit.process import wait_until_listening
from tests.kit.tools import miss, repository, require_tool

_ARRIVING_SECONDS = 30.0
_FIRST_UID = 65100


class EnclosedServer:
    """A mail server in the foreground, in a directory and namespace of its own; `with` starts and ends it.

    `users` are added to passwd and group; `in_memory` are directories that are empty in the namespace, `bound` maps
    paths of the unpacked package over those of the machine.
    """

    users: Sequence[str] = ()
    in_memory: Sequence[str] = ()
    made: Sequence[str] = ()
    """Directories to make there, before the server starts."""
    bound: Sequence[str] = ()

    def __init__(self, domain: str, *, address: str, port: int) -> None:
        self.host_name, self.domain = f"mx.{domain}", domain
        self.address, self.smtp_port = address, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EnclosedServer":
        if os.geteuid() != 0:
            pytest.skip("a mail server can only be started by root")
        self.directory = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))
        self.directory.chmod(0o755)
        try:
            self._write_users()
            (self.directory / "mail").mkdir()
            self.own(self.directory / "mail")
            line = [require_tool("unshare"), "--mount", "sh", "-ec", self._script(self.prepare())]
            with (self.directory / "out").open("wb") as out:
                self._process = subprocess.Popen(line, stdout=out, stderr=out, start_new_session=True)
            wait_until_listening(self._process, self.address, self.smtp_port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
        shutil.rmtree(self.directory)

    def prepare(self) -> list[str]:
        """Write the configuration; return the command line."""
        raise NotImplementedError

    def own(self, path: Path) -> None:
        """Give a path to the server's first user."""
        os.chown(path, _FIRST_UID, _FIRST_UID)

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.directory / "out").read_text("utf-8", "replace")

    def mails_to(self, recipient: str) -> list[Arrival]:
        """Return what has arrived for an address."""
        contents = [path.read_bytes() for path in sorted((self.directory / "mail").rglob("new/*"))]
        marks = [f"Delivered-To: {recipient}\n".encode(), f"Envelope-to: {recipient}\n".encode()]
        return [read_arrival(content) for content in contents if any(mark in content for mark in marks)]

    def wait_for_mail(self, recipient: str) -> Arrival:
        """Return the one mail to an address, waiting for it."""
        deadline = time.monotonic() + _ARRIVING_SECONDS
        while not (found := self.mails_to(recipient)):
            assert time.monotonic() < deadline, f"no mail to {recipient} arrived; the server says: {self.log[-3000:]}"
            time.sleep(0.02)
        assert len(found) == 1
        return found[0]

    def _write_users(self) -> None:
        for name, form in (("passwd", "{user}:x:{id}:{id}::/nonexistent:/bin/false"), ("group", "{user}:x:{id}:")):
            lines = [form.format(user=user, id=_FIRST_UID + index) for index, user in enumerate(self.users)]
            known = Path("/etc", name).read_text()
            (self.directory / name).write_text("\n".join([known.rstrip("\n"), *lines, ""]))

    def _script(self, command: Sequence[str]) -> str:
        steps = ["mount --make-rprivate /"]
        steps += [f"mount --bind {self.directory}/{name} /etc/{name}" for name in ("passwd", "group")]
        steps += [f"mount -t tmpfs none {path}" for path in self.in_memory]
        steps += [f"mount --bind {unpacked(path)} {path}" for path in self.bound]
        steps += [f"mkdir -p -m 711 {path}" for path in self.made]
        return "; ".join([*steps, f"exec {' '.join(command)}"])


def unpacked(path: str) -> Path:
    """Return where a file of an unpacked package is; skip the test when it is not there, or fail it in CI."""
    found = repository() / "build" / "peers" / path.lstrip("/")
    if not found.exists():
        miss(f"{path} is not unpacked below build/peers; .ci/run does it")
    return found
