"""What does a server say that cannot start? One line that names the cause, and nothing of ours is harmed."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.process import ServerProcess
from tests.kit.tools import require_tool

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("door", ["http", "submission"])
def test_a_busy_port_is_one_line_and_1(tmp_path: Path, door: str) -> None:
    server = ServerProcess(tmp_path)
    port = server.http_port if door == "http" else server.smtp_port
    with _listening(port):
        done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"plunk-relay: cannot listen on 127.0.0.1:{port} ({door}): Address already in use")
    assert done.stderr.count("\n") == 1


def test_an_address_of_another_machine_is_one_line_and_1(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, smtp={"host": "192.0.2.1"})
    done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"plunk-relay: cannot listen on 192.0.2.1:{server.smtp_port} (submission): ")
    assert done.stderr.count("\n") == 1


def test_a_second_server_is_one_line_and_1_and_the_first_runs_on(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as first:
        first.start()
        done = first.command("serve", check=False)
        assert done.returncode == 1
        assert done.stderr == f"plunk-relay: another plunk-relay server is using the data directory {tmp_path}/data\n"
        assert json.loads(first.get("/ready"))["ready"] is True
        assert first.audit()["balanced"] is True  # its socket was left alone
        assert first.terminate() == 0


@pytest.mark.parametrize("command", ["serve", "migrate", "audit"])
def test_a_data_directory_that_cannot_be_written_is_one_line_and_1(tmp_path: Path, command: str) -> None:
    server = ServerProcess(tmp_path)
    server.setup()
    data = tmp_path / "data"
    data.chmod(0o500)
    try:
        done = server.command(command, check=False, under=_as_somebody())
    finally:
        data.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr == f"plunk-relay: the data directory {data} is not writable by this user\n"


def test_a_database_that_cannot_be_written_is_one_line_and_1(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.setup()
    database = tmp_path / "data" / "relay.db"
    database.chmod(0o400)
    done = server.command("serve", check=False, under=_as_somebody())
    assert done.returncode == 1
    assert done.stderr == f"plunk-relay: cannot open the database {database}: attempt to write a readonly database\n"


def test_a_data_directory_that_cannot_be_made_is_one_line_and_1(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o500)
    server = ServerProcess(tmp_path, server={"data_dir": str(parent / "data")})
    done = server.command("serve", check=False, under=_as_somebody())
    assert done.returncode == 1
    assert done.stderr == f"plunk-relay: cannot make the data directory {parent}/data: Permission denied\n"


def test_a_data_directory_whose_path_is_too_long_for_a_socket_is_one_line_and_1(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, server={"data_dir": str(tmp_path / ("long" * 30))})
    done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"plunk-relay: cannot make the admin socket {tmp_path}/long")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["[smtp]\nhostnme = 'x'", "[smtp"])
def test_a_bad_configuration_is_one_line_and_2(tmp_path: Path, text: str) -> None:
    server = ServerProcess(tmp_path)
    server.config.write_text(text)
    done = server.command("serve", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"plunk-relay: {server.config}")
    assert done.stderr.count("\n") == 1


def test_a_certificate_that_cannot_be_read_is_one_line_and_1(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, smtp={"tls_certificate": "/absent.pem", "tls_key": "/absent.key"})
    done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("plunk-relay: cannot read the certificate /absent.pem with /absent.key: ")
    assert done.stderr.count("\n") == 1


def test_a_trusted_network_of_an_unknown_project_is_one_line_and_1(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, smtp={"trusted": [{"network": "127.0.0.1", "project": "other"}]})
    done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr == "plunk-relay: setting `smtp.trusted`: Project not found: other\n"


def test_systemd_is_told_when_the_server_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, ServerProcess(tmp_path) as server:
        systemd.bind(str(address))
        systemd.settimeout(20)
        server.start(NOTIFY_SOCKET=str(address))
        assert systemd.recv(100) == b"READY=1"
        assert json.loads(server.get("/ready"))["ready"] is True
        assert server.terminate() == 0
        assert systemd.recv(100) == b"STOPPING=1"


def _as_somebody() -> list[str]:
    """Return what runs a command as one whom file modes hold back: root has to drop that power."""
    if os.geteuid() != 0:
        return []
    powers = "-dac_override,-dac_read_search"
    return [require_tool("setpriv"), f"--bounding-set={powers}", f"--inh-caps={powers}"]


@contextmanager
def _listening(port: int) -> Iterator[None]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield
