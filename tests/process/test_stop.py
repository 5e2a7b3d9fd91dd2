"""How does the server end? Asked to, in two phases and with 0; by a fault of its own, at once and not with 0."""

import asyncio
import signal
import smtplib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.peer import Script, running_peer
from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow
MESSAGE = b"From: app@example.com\r\nTo: user@example.org\r\nSubject: Hello\r\n\r\nText.\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Return a server that is not started, with a project."""
    with ServerProcess(tmp_path, delivery={"route": "capture"}) as made:
        made.setup()
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_stop_ends_with_0(server: ServerProcess, number: signal.Signals) -> None:
    server.start()
    server.send_signal(number)
    assert server.wait() == 0
    assert [line["event"] for line in server.lines()][-2:] == ["stopping", "stopped"]
    assert "Traceback" not in server.log.read_text()
    assert not (server.directory / "data" / "admin.sock").exists()


def test_a_server_that_is_asked_at_once_ends_with_0(server: ServerProcess) -> None:
    """The signals are heeded before it says that it is ready."""
    for _ in range(3):
        server.start()
        assert server.terminate() == 0


async def test_mail_in_hand_is_finished_before_the_end(tmp_path: Path) -> None:
    async with running_peer(Script(dot="wait + 250 2.0.0 taken")) as peer:
        with _sending_to(tmp_path, peer.port) as server:
            await asyncio.to_thread(_submit, server)
            await peer.until(lambda peer: peer.received)
            server.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for_line, "stopping")
            peer.let_go()
            assert await asyncio.to_thread(server.wait) == 0
            assert [line["recipient"] for line in server.lines() if line["event"] == "delivered"] == ["user@example.org"]
            ledger = await asyncio.to_thread(server.audit)
            assert (ledger["delivered"], ledger["queued"], ledger["balanced"]) == (1, 0, True)


async def test_mail_that_is_not_finished_within_the_grace_stays_in_the_queue(tmp_path: Path) -> None:
    async with running_peer(Script(mail="hang")) as peer:
        with _sending_to(tmp_path, peer.port, grace_seconds=0.2) as server:
            await asyncio.to_thread(_submit, server)
            await peer.until(lambda peer: any(command.startswith("MAIL") for command in peer.commands))
            assert await asyncio.to_thread(server.terminate) == 0
            ledger = await asyncio.to_thread(server.audit)
            assert (ledger["queued"], ledger["balanced"]) == (1, True)
            assert [line["attempts_made"] for line in await asyncio.to_thread(server.queue)] == [0]


def test_a_session_that_is_sending_a_message_may_finish_it(server: ServerProcess) -> None:
    server.start()
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20) as session:
        session.login("plunk", server.setup()["project"]["secret"])
        session.mail("app@example.com")
        session.rcpt("user@example.org")
        session.putcmd("DATA")
        assert session.getreply()[0] == 354
        server.send_signal(signal.SIGTERM)
        server.wait_for_line("stopping")
        session.send(MESSAGE + b".\r\n")
        assert session.getreply()[0] == 250
        assert session.getreply()[0] == 421
    assert server.wait() == 0
    assert server.audit()["accepted"] == 1


def test_doors_take_nothing_new_while_mail_in_hand_is_finished(server: ServerProcess) -> None:
    server.start()
    idle = smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20)
    busy = smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20)
    busy.login("plunk", server.setup()["project"]["secret"])
    busy.mail("app@example.com")
    busy.rcpt("user@example.org")
    busy.putcmd("DATA")
    busy.getreply()
    server.send_signal(signal.SIGTERM)
    server.wait_for_line("stopping")
    assert idle.getreply()[0] == 421
    with pytest.raises(OSError, match="refused"):
        smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20)
    busy.close()
    idle.close()
    assert server.wait() == 0


def test_a_service_that_dies_ends_the_process_with_its_traceback(server: ServerProcess) -> None:
    server.start()
    with closing(sqlite3.connect(server.directory / "data" / "relay.db")) as file:
        file.execute("ALTER TABLE deliveries RENAME TO gone")  # the deliverer looks for work every second
    assert server.wait() not in (0, 2)  # 2: systemd would not start it again
    log = server.log.read_text()
    assert "Traceback" in log
    assert "no such table" in log


def _sending_to(directory: Path, port: int, *, grace_seconds: float = 20) -> ServerProcess:
    """Start a server whose mail goes to a port."""
    server = ServerProcess(
        directory,
        server={"grace_seconds": grace_seconds},
        delivery={"route": "smarthost", "smarthost_url": f"smtp://127.0.0.1:{port}?starttls=off"},
    )
    server.setup()
    server.start()
    return server


def _submit(server: ServerProcess) -> None:
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20) as session:
        session.login("plunk", server.setup()["project"]["secret"])
        session.sendmail("app@example.com", ["user@example.org"], MESSAGE)
