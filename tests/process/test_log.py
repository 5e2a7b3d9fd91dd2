"""What stands in the log? One line a mail event, with its queue id, and never a body, a password or a key."""

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow
BODY = "What is said here is for one reader"
PASSWORD = "a wrong password of somebody"


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[tuple[ServerProcess, dict[str, Any]]]:
    """Send by both doors, well and badly, and stop; return the server and what `setup` printed."""
    with ServerProcess(tmp_path, server={"log_level": "debug"}, delivery={"route": "capture"}) as server:
        made = server.setup()
        key = made["project"]["secret"]
        server.start()
        mail = {"from": "app@example.com", "to": "http@example.org", "subject": "Hello", "body": BODY}
        assert server.ask("/v1/send", key=key, body=mail)[0] == 200
        assert server.ask("/v1/send", key=key, body={**mail, "from": "app@elsewhere.test"})[0] == 403
        assert server.ask("/v1/send", key="sk_" + PASSWORD.replace(" ", ""), body=mail)[0] == 401
        with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=20) as session:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                session.login("plunk", PASSWORD)
            session.login("plunk", key)
            session.sendmail("app@example.com", ["smtp@example.org"], f"From: app@example.com\r\n\r\n{BODY}\r\n")
        for recipient in ("http@example.org", "smtp@example.org"):
            server.wait_for_line("delivered", recipient=recipient)
        assert server.terminate() == 0
        yield server, made


def test_bodies_keys_and_passwords_are_not_in_the_log(sent: tuple[ServerProcess, dict[str, Any]]) -> None:
    server, made = sent
    log = server.log.read_text()
    kept = (server.directory / "data" / "secret.key").read_text().strip()
    for secret in (BODY, PASSWORD, PASSWORD.replace(" ", ""), made["project"]["secret"], made["project"]["public"], kept):
        assert secret not in log
        assert secret[:20] not in log


def test_every_mail_event_is_one_line_with_its_queue_id(sent: tuple[ServerProcess, dict[str, Any]]) -> None:
    server, _ = sent
    by_recipient = {entry["recipient"]: entry["id"] for entry in server.queue()}
    for recipient, queue_id in by_recipient.items():
        told = [line["event"] for line in server.lines() if line.get("queue_id") == queue_id]
        assert told == ["accepted", "delivered"], recipient
    assert len(by_recipient) == 2


def test_every_line_is_json_with_time_and_level(sent: tuple[ServerProcess, dict[str, Any]]) -> None:
    server, _ = sent
    for line in server.log.read_text().splitlines():
        assert {"event", "level", "timestamp", "part"} <= set(json.loads(line))
