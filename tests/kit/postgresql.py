"""Does a statement mean the same to PostgreSQL? A cluster of the test's own: in a directory, on a unix socket, no port.

Debian keeps the programs out of the PATH, and they do not run as root: then they run as the user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json, load_json
from tests.kit.tools import miss, require_tool

_PROGRAMS = Path("/usr/lib/postgresql")
_LANGUAGE = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
_SETTINGS = "-c listen_addresses= -c fsync=off -c synchronous_commit=off -c full_page_writes=off"


class PostgreSQL:
    """An empty database in UTF-8, sorted by a language's rules as most are; `engine` reads and writes it."""

    def __enter__(self) -> "PostgreSQL":
        self._programs = _find_programs()
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._directory = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))  # a unix socket has a short name
        if os.geteuid() == 0:
            shutil.chown(self._directory, self._user)
        data = str(self._directory / "data")
        self._run("initdb", "-D", data, "-U", "relay", "-A", "trust", "-E", "UTF8", "--no-sync", *_LANGUAGE)
        options = f"{_SETTINGS} -c unix_socket_directories={self._directory}"
        self._run("pg_ctl", "-D", data, "-l", str(self._directory / "log"), "-o", options, "-w", "start")
        place = sa.URL.create("postgresql+psycopg", "relay", database="postgres", query={"host": str(self._directory)})
        self.engine = sa.create_engine(place, json_serializer=dump_json, json_deserializer=load_json)
        return self

    def __exit__(self, *_error: object) -> None:
        self.engine.dispose()
        self._run("pg_ctl", "-D", str(self._directory / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._directory)

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user if os.geteuid() == 0 else None
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would stay open in the server
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {self._log()}"

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text()[-3000:] if log.exists() else "no log"


def _find_programs() -> Path:
    """Return where the newest version's programs are; skip the test when there is none, or fail it in CI."""
    require_tool("pg_ctlcluster")
    versions = sorted(_PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        miss("the PostgreSQL server is not installed")
    return versions[-1].parent
