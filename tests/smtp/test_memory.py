"""What does a large message cost while it is taken? Measured on a server of its own, at the moment of its 250."""

import smtplib
from pathlib import Path

import pytest

from tests.kit.process import ServerProcess

_MEGABYTE = 1_000_000
_MESSAGE_BYTES = 25 * _MEGABYTE
_MOST_BYTES = 4 * _MESSAGE_BYTES
"""One copy of ours, two of SQLite's while it binds and writes the row, its page cache, and some room."""
_RESET_HIGH_WATER_MARK = "5"  # proc(5), clear_refs


@pytest.mark.slow
def test_a_large_message_is_held_once_while_it_is_stored(tmp_path: Path) -> None:
    silent = {"route": "smarthost", "smarthost_url": "smtp://127.0.0.1:9?starttls=off"}  # delivery is not what is measured
    with ServerProcess(tmp_path, delivery=silent) as server:
        secret = server.setup()["project"]["secret"]
        server.start()
        with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="client.test", timeout=60) as client:
            client.login("plunk", secret)
            _send(client, 1000)
            Path(f"/proc/{server.pid}/clear_refs").write_text(_RESET_HIGH_WATER_MARK)
            before = _read_bytes(server.pid, "VmRSS")
            _send(client, _MESSAGE_BYTES)
            peak = _read_bytes(server.pid, "VmHWM")
    assert peak - before < _MOST_BYTES


def _send(client: smtplib.SMTP, size: int) -> None:
    client.mail("app@example.com")
    client.rcpt("ann@example.net")
    assert client.docmd("DATA")[0] == 354
    client.send(b"From: app@example.com\r\n\r\n")
    client.send((b"x" * 76 + b"\r\n") * (size // 78))
    client.send(b".\r\n")
    code, text = client.getreply()
    assert code == 250, text


def _read_bytes(pid: int, name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
