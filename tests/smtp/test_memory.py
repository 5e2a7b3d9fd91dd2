"""What does a large message cost while it is taken, and while it is delivered? Measured on a server of its own."""

import asyncio
import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.peer import Script, running_peer
from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow
_MEGABYTE = 1_000_000
_MESSAGE_BYTES = 25 * _MEGABYTE
_MOST_BYTES = 30 * _MEGABYTE
_MOST_BYTES_OF_DELIVERY = 60 * _MEGABYTE
_MOST_BYTES_OF_FOUR = 120 * _MEGABYTE
_RESET_HIGH_WATER_MARK = "5"  # proc(5), clear_refs
_SHORT_LINES = b"x" * 76 + b"\r\n"
_LONG_LINES = b"word " * 400 + b"\r\n"


@contextmanager
def _measured(server: ServerProcess, secret: str) -> Iterator[list[int]]:
    """Put how much the server's peak rose into the list; small mail has gone through it before."""
    with _logged_in(server, secret) as client:
        for _ in range(20):
            _send(client, 4000)
    Path(f"/proc/{server.pid}/clear_refs").write_text(_RESET_HIGH_WATER_MARK)
    before = _read_bytes(server.pid, "VmRSS")
    growth: list[int] = []
    yield growth
    growth.append(_read_bytes(server.pid, "VmHWM") - before)


@pytest.mark.parametrize("line", [_SHORT_LINES, _LONG_LINES], ids=["short lines", "lines to be encoded"])
def test_a_message_of_25_megabytes_costs_less_than_30(tmp_path: Path, line: bytes) -> None:
    with _server(tmp_path) as (server, secret), _measured(server, secret) as growth, _logged_in(server, secret) as client:
        _send(client, _MESSAGE_BYTES, line)
    assert growth[0] < _MOST_BYTES


def test_four_large_messages_one_after_the_other_cost_no_more_than_one(tmp_path: Path) -> None:
    with _server(tmp_path) as (server, secret), _measured(server, secret) as growth, _logged_in(server, secret) as client:
        for _ in range(4):
            _send(client, _MESSAGE_BYTES)
    assert growth[0] < _MOST_BYTES


def test_four_large_messages_at_once_cost_less_than_120_megabytes(tmp_path: Path) -> None:
    with _server(tmp_path) as (server, secret), _measured(server, secret) as growth, ThreadPoolExecutor(4) as pool:

        def send_one(_number: int) -> None:
            with _logged_in(server, secret) as client:
                _send(client, _MESSAGE_BYTES)

        list(pool.map(send_one, range(4)))
    assert growth[0] < _MOST_BYTES_OF_FOUR


async def test_a_large_message_is_delivered_for_less_than_60_megabytes(tmp_path: Path) -> None:
    async with running_peer(Script(keywords=("PIPELINING", "8BITMIME"))) as peer:
        url = f"smtp://127.0.0.1:{peer.port}?starttls=off"
        growth = await asyncio.to_thread(_deliver_three, tmp_path, url)
        assert [len(one.message) > _MESSAGE_BYTES for one in peer.taken[-3:]] == [True] * 3
    assert growth < _MOST_BYTES_OF_DELIVERY


def _deliver_three(directory: Path, smarthost_url: str) -> int:
    """Let three large messages be delivered, one after the other; return how much the server's peak rose."""
    route = {"route": "smarthost", "smarthost_url": smarthost_url}
    with _server(directory, **route) as (server, secret), _measured(server, secret) as growth:
        for _ in range(3):
            with _logged_in(server, secret) as client:
                queue_id = _send(client, _MESSAGE_BYTES)
            server.wait_for_line("delivered", queue_id=queue_id)
    return growth[0]


@contextmanager
def _server(directory: Path, **delivery: object) -> Iterator[tuple[ServerProcess, str]]:
    """Run a server; it has no resolver that answers, so that without a smarthost it keeps what it takes."""
    settings = {"retry_minutes": [60], "resolvers": ["127.0.0.1:9"], **delivery}
    with ServerProcess(directory, delivery=settings) as server:
        secret = server.setup()["project"]["secret"]
        server.start()
        yield server, secret
        assert server.audit()["balanced"]


@contextmanager
def _logged_in(server: ServerProcess, secret: str) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="client.test", timeout=60) as client:
        client.login("plunk", secret)
        yield client


def _send(client: smtplib.SMTP, size: int, line: bytes = _SHORT_LINES) -> str:
    """Submit a message; return its queue id."""
    client.mail("app@example.com")
    client.rcpt("ann@example.net")
    assert client.docmd("DATA")[0] == 354
    client.send(b"From: app@example.com\r\n\r\n")
    client.send(line * (size // len(line)))
    client.send(b".\r\n")
    code, text = client.getreply()
    assert code == 250, text
    return text.decode().rpartition(" ")[2]


def _read_bytes(pid: int, name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
