"""Killed at any moment, nothing that was answered 250 is lost, and the ledger balances.

The server it delivers to answers slowly, so that each kill finds mails between the final dot and its reply. Sizes can be
raised: PLUNK_TEST_MESSAGES=5000 PLUNK_TEST_KILLS=50 PLUNK_TEST_SLOW_MS=60.
"""

import os
import random
import smtplib
import socketserver
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.kit.process import ServerProcess

MESSAGES = int(os.environ.get("PLUNK_TEST_MESSAGES", "800"))
KILLS = int(os.environ.get("PLUNK_TEST_KILLS", "6"))
SLOW_SECONDS = int(os.environ.get("PLUNK_TEST_SLOW_MS", "20")) / 1000
SESSIONS = 8
CONNECTIONS = 10  # delivery.per_destination
SENT_NOT_RECORDED = 3  # a connection goes on while the result of its last mails is being stored
_SETTLE_SECONDS = 120.0


class Sink(socketserver.ThreadingTCPServer):
    """A server that takes every mail, counts its Message-IDs, and answers when it likes."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SinkSession)
        self.received: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over connections that broke off: that is what the test does to them."""


class _SinkSession(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        self._say("220 sink")
        for line in self.rfile:
            command = line.strip().upper()
            if command.startswith(b"EHLO"):
                self._say("250-sink\r\n250-PIPELINING\r\n250 8BITMIME")
            elif command == b"DATA":
                self._say("354 go")
                self._take()
                time.sleep(SLOW_SECONDS * random.random())
                self._say("250 2.0.0 taken")
            elif command == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 2.0.0 ok")

    def _take(self) -> None:
        for line in self.rfile:
            if line == b".\r\n":
                return
            if line.lower().startswith(b"message-id:"):
                with self.server.lock:
                    self.server.received[line.split(b":", 1)[1].strip().decode()] += 1

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@contextmanager
def running_sink() -> Iterator[Sink]:
    """Run a sink in a thread."""
    sink = Sink()
    thread = threading.Thread(target=sink.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        sink.server_close()
        thread.join()


class Client(threading.Thread):
    """Submits mails over sessions of its own, coming back after each kill; notes which were answered 250."""

    def __init__(self, port: int, password: str, numbers: range) -> None:
        super().__init__(daemon=True)
        self._port, self._password, self._numbers = port, password, numbers
        self.accepted: list[str] = []

    def run(self) -> None:
        """Submit every number once; one that broke off is not tried again."""
        session: smtplib.SMTP | None = None
        for number in self._numbers:
            message_id = f"<{number}@client.test>"
            while session is None:
                session = self._connect()
            try:
                session.send_message(_message(message_id))
                self.accepted.append(message_id)
            except (OSError, smtplib.SMTPException):
                session.close()
                session = None
        if session is not None:
            session.close()

    def _connect(self) -> smtplib.SMTP | None:
        try:
            session = smtplib.SMTP("127.0.0.1", self._port, timeout=20)
            session.login("plunk", self._password)
        except (OSError, smtplib.SMTPException):
            time.sleep(0.05)
            return None
        return session


def _message(message_id: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "app@example.com", "user@example.org"
    message["Subject"], message["Message-ID"] = "Hello", message_id
    message.set_content("A line of text.\n" * 20)
    return message


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_mail_answered_250_arrives_although_the_server_is_killed_again_and_again(tmp_path: Path) -> None:
    with running_sink() as sink:
        route = {"route": "smarthost", "smarthost_url": f"smtp://127.0.0.1:{sink.port}?starttls=off"}
        with ServerProcess(tmp_path, delivery={**route, "retry_minutes": [0.02]}) as server:
            password = server.setup()["project"]["secret"]
            server.start()
            share = MESSAGES // SESSIONS
            clients = [Client(server.smtp_port, password, range(n * share, (n + 1) * share)) for n in range(SESSIONS)]
            for client in clients:
                client.start()
            in_flight = _kill_at_random(server, sink)
            for client in clients:
                client.join()
            accepted = {message_id for client in clients for message_id in client.accepted}
            _wait_until_settled(server)
            assert accepted <= set(sink.received), "a mail answered 250 was lost"
            twice = {message_id for message_id, count in sink.received.items() if count > 1}
            assert sum(count - 1 for count in sink.received.values()) <= in_flight
            assert twice <= _maybe_delivered(server), "a mail went twice and was not marked"
            ledger = server.audit()
            assert ledger["balanced"]
            assert ledger["queued"] == 0
            assert ledger["accepted"] == ledger["delivered"] >= len(accepted)
            assert server.terminate() == 0


def _maybe_delivered(server: ServerProcess) -> set[str]:
    """Return the Message-IDs of the mails that are marked as possibly delivered before."""
    with closing(sqlite3.connect(server.directory / "data" / "relay.db")) as db:
        marked = db.execute(
            "SELECT message_id FROM emails JOIN deliveries ON email_id = emails.id WHERE unknown_outcomes > 0"
        )
        return {f"<{message_id}>" for (message_id,) in marked}


def _kill_at_random(server: ServerProcess, sink: Sink) -> int:
    """Kill and restart while mails are delivered, with a look at the ledger each time.

    Return the most mails that can have been on their way at the kills.
    """
    in_flight = 0
    for number in range(KILLS):
        goal = MESSAGES * (number + random.random()) / (KILLS + 1)
        deadline = time.monotonic() + 60
        while len(sink.received) < goal and time.monotonic() < deadline:
            time.sleep(0.005)
        server.kill()
        in_flight += CONNECTIONS * SENT_NOT_RECORDED
        server.start()
        assert server.audit()["balanced"]
    return in_flight


def _wait_until_settled(server: ServerProcess) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while server.audit()["queued"] and time.monotonic() < deadline:
        time.sleep(0.2)
