"""Does a guesser get new tries by waiting for a crash? Failed logins are counted beyond kill -9."""

import smtplib
from pathlib import Path

import pytest

from tests.kit.process import ServerProcess
from tests.kit.smtp import sasl_plain

pytestmark = pytest.mark.slow


def test_failed_logins_outlive_a_kill(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, delivery={"route": "capture"}) as server:
        secret = server.setup()["project"]["secret"]
        server.start()
        assert [_log_in(server, "sk_wrong") for _ in range(11)] == [535] * 10 + [454]
        server.kill()
        server.start()
        assert _log_in(server, secret) == 454, "the right password is not even looked at"
        assert _log_in(server, secret, source="127.0.1.1") == 235
        assert _log_in(server, secret, source="127.0.0.2") == 235, "its neighbour has not failed, and its network not enough"


def test_the_failures_of_a_network_outlive_a_kill(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, delivery={"route": "capture"}) as server:
        secret = server.setup()["project"]["secret"]
        server.start()
        for host in range(1, 6):
            assert [_log_in(server, "sk_wrong", source=f"127.0.0.{host}") for _ in range(10)] == [535] * 10
        server.kill()
        server.start()
        assert _log_in(server, secret, source="127.0.0.99") == 454
        assert _log_in(server, secret, source="127.0.1.1") == 235


def _log_in(server: ServerProcess, password: str, *, source: str = "127.0.0.1") -> int:
    """Return the code of a login in a session of its own."""
    with smtplib.SMTP("127.0.0.1", server.smtp_port, "client.test", timeout=20, source_address=(source, 0)) as client:
        client.ehlo()
        return client.docmd("AUTH", f"PLAIN {sasl_plain('plunk', password)}")[0]
