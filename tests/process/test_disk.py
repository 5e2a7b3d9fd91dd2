"""What does the server do when the disk is full, or fails?"""

import asyncio
import os
import smtplib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kit.peer import Script, running_peer
from tests.kit.process import ServerProcess
from tests.kit.tools import require_tool
from tests.kit.volume import small_volume

pytestmark = pytest.mark.slow
MESSAGE = "From: app@example.com\r\nTo: user@example.org\r\nSubject: Hello\r\n\r\n" + "A line of text.\r\n" * 2000
LINES = "A line of text.\r\n" * 60_000
"""A megabyte of them."""
SEND = {"from": "app@example.com", "to": "user@example.org", "subject": "Hello", "body": "<p>Text.</p>" * 2000}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 12 MB with 100 inodes."""
    with small_volume(tmp_path / "volume", megabytes=12) as mounted:
        yield mounted


def test_a_full_disk_is_refused_at_both_doors_and_recovers_by_itself(tmp_path: Path, volume: Path) -> None:
    with _server(tmp_path, volume, minimum_free_megabytes=0) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        assert _submit(server, key) == 250
        ballast = _fill(volume)
        accepted = 1
        while (code := _submit(server, key)) == 250:  # what was still free in the file and its journal
            accepted += 1
        assert code == 452
        status, answer = server.ask("/v1/send", key=key, body=SEND)
        assert status == 503
        assert answer["success"] is False
        ballast.unlink()
        assert _submit(server, key) == 250
        assert server.ask("/v1/send", key=key, body=SEND)[0] == 200
        ledger = server.audit()
        assert (ledger["accepted"], ledger["balanced"]) == (accepted + 2, True)
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()
        assert server.audit() == ledger


def test_nothing_is_accepted_below_the_reserve_and_it_says_why(tmp_path: Path, volume: Path) -> None:
    with _server(tmp_path, volume, minimum_free_megabytes=3) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        ballast = _fill(volume, leave=2_500_000)
        _wait_until_ready_is(server, 503)
        status, answer = server.ask("/ready")
        assert (status, answer["ready"]) == (503, False)
        assert answer["reasons"] == [f"only 2 MB are free in {volume}; limits.minimum_free_megabytes is 3"]
        assert _submit(server, key) == 452
        assert server.ask("/v1/send", key=key, body=SEND)[0] == 503
        ballast.unlink()
        _wait_until_ready_is(server, 200)
        assert _submit(server, key) == 250
        assert server.audit()["accepted"] == 1
        assert server.terminate() == 0


def test_nothing_is_accepted_when_inodes_run_out_and_it_says_why(tmp_path: Path, volume: Path) -> None:
    with _server(tmp_path, volume, minimum_free_megabytes=0, minimum_free_inodes=20) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        assert _submit(server, key) == 250
        files = _use_up_inodes(volume, leave=10)
        _wait_until_ready_is(server, 503)
        [reason] = server.ask("/ready")[1]["reasons"]
        assert reason == f"only 10 inodes are free in {volume}; limits.minimum_free_inodes is 20"
        assert _submit(server, key) == 452
        assert server.ask("/v1/send", key=key, body=SEND)[0] == 503
        for file in files:
            file.unlink()
        _wait_until_ready_is(server, 200)
        assert _submit(server, key) == 250
        assert server.audit()["accepted"] == 2
        assert server.terminate() == 0


def test_a_large_message_that_finds_no_room_is_put_off_and_takes_nobody_along(tmp_path: Path, volume: Path) -> None:
    with _server(tmp_path, volume, minimum_free_megabytes=0) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        assert _submit(server, key, MESSAGE + LINES * 20) == 452, "20 MB do not fit into 12"
        assert _submit(server, key) == 250, "the file is gone with its message"
        files = _use_up_inodes(volume)
        assert _submit(server, key, MESSAGE + LINES) == 452
        assert _submit(server, key) == 250, "a small message needs no file"
        files[0].unlink()
        assert _submit(server, key, MESSAGE + LINES) == 250
        ledger = server.audit()
        assert (ledger["accepted"], ledger["balanced"]) == (3, True)
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


async def test_deliveries_go_on_while_nothing_is_accepted(tmp_path: Path, volume: Path) -> None:
    async with running_peer(Script(dot="451 4.3.0 later")) as peer:
        url = f"smtp://127.0.0.1:{peer.port}?starttls=off"
        route: dict[str, Any] = {"route": "smarthost", "smarthost_url": url, "retry_minutes": [0.02]}
        with _server(tmp_path, volume, minimum_free_megabytes=3, **route) as server:
            key = server.setup()["project"]["secret"]
            server.start()
            assert await asyncio.to_thread(_submit, server, key) == 250
            await peer.until(lambda peer: peer.received)
            _fill(volume, leave=2_500_000)
            await asyncio.to_thread(_wait_until_ready_is, server, 503)
            assert await asyncio.to_thread(_submit, server, key) == 452
            peer.script = Script()
            await asyncio.to_thread(server.wait_for_line, "delivered")
            assert await asyncio.to_thread(server.terminate) == 0
            assert server.audit()["delivered"] == 1


def test_a_server_stops_cleanly_although_the_disk_is_full(tmp_path: Path, volume: Path) -> None:
    with _server(tmp_path, volume, minimum_free_megabytes=0) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        _fill(volume)
        while _submit(server, key) == 250:
            pass
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


def test_a_server_that_starts_on_a_full_disk_is_one_line_and_1(tmp_path: Path, volume: Path) -> None:
    server = _server(tmp_path, volume, minimum_free_megabytes=0)
    server.setup()
    _fill(volume)
    done = server.command("serve", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("plunk-relay: cannot open the database ")
    assert done.stderr.count("\n") == 1


def test_after_a_failed_sync_nothing_is_accepted_and_it_says_so(tmp_path: Path) -> None:
    """What the kernel did not write may be gone, whatever a second fsync says; so there is no second one."""
    with ServerProcess(tmp_path, delivery={"route": "capture"}) as server:
        key = server.setup()["project"]["secret"]
        server.start()
        assert _submit(server, key) == 250
        server.wait_for_line("delivered")
        with _failing(server, "fsync,fdatasync"):
            assert _submit(server, key) == 452
        assert server.wait_for_line("writes stopped")["level"] == "critical"
        status, answer = server.ask("/ready")
        assert status == 503
        assert "restart the relay when the disk is repaired" in answer["reasons"][0]
        assert _submit(server, key) == 452
        assert server.ask("/v1/send", key=key, body=SEND)[0] == 503
        assert server.terminate() == 0
        server.start()
        assert _submit(server, key) == 250
        ledger = server.audit()
        assert ledger["balanced"]
        assert ledger["accepted"] in (2, 3)  # the one that was refused may be there, as a mail can go twice


def _server(
    directory: Path, volume: Path, *, minimum_free_megabytes: int, minimum_free_inodes: int = 0, **delivery: object
) -> ServerProcess:
    return ServerProcess(
        directory,
        server={"data_dir": str(volume)},
        delivery={"route": "mx", "resolvers": ["127.0.0.1:9"], "retry_minutes": [60], **delivery},
        limits={"minimum_free_megabytes": minimum_free_megabytes, "minimum_free_inodes": minimum_free_inodes},
    )


def _submit(server: ServerProcess, key: str, message: str = MESSAGE) -> int:
    """Submit a message; return the code of the reply that decided."""
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20) as session:
        session.login("plunk", key)
        try:
            session.sendmail("app@example.com", ["user@example.org"], message)
        except smtplib.SMTPRecipientsRefused as refused:
            return next(iter(refused.recipients.values()))[0]
        except smtplib.SMTPResponseException as refused:
            return refused.smtp_code
    return 250


def _fill(volume: Path, *, leave: int = 0) -> Path:
    """Fill a file system but for some bytes; return the file that does."""
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while (room := os.statvfs(volume)).f_bavail * room.f_frsize > leave:
            file.write(bytes(room.f_frsize))
    return ballast


def _use_up_inodes(volume: Path, *, leave: int = 0) -> list[Path]:
    """Make empty files until so many inodes are left; return them."""
    files: list[Path] = []
    while os.statvfs(volume).f_favail > leave:
        files.append(volume / f"empty-{len(files)}")
        files[-1].touch()
    return files


def _wait_until_ready_is(server: ServerProcess, status: int) -> None:
    deadline = time.monotonic() + 20
    while server.ask("/ready")[0] != status:
        assert time.monotonic() < deadline, f"/ready does not become {status}"
        time.sleep(0.05)


@contextmanager
def _failing(server: ServerProcess, calls: str) -> Iterator[None]:
    """Let system calls of the server fail with EIO."""
    inject = [require_tool("strace"), "-f", "-qq", "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"]
    with subprocess.Popen([*inject, "-p", str(server.pid), "-o", "/dev/null"], stderr=subprocess.PIPE) as tracer:
        try:
            _wait_until_traced(server)
            yield
        finally:
            tracer.terminate()
            tracer.wait(timeout=20)


def _wait_until_traced(server: ServerProcess) -> None:
    deadline = time.monotonic() + 20
    while any("TracerPid:\t0\n" in path.read_text() for path in Path(f"/proc/{server.pid}/task").glob("*/status")):
        assert time.monotonic() < deadline, "strace may not trace here"
        time.sleep(0.02)
