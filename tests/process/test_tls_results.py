"""Is what was counted about TLS kept when the server stops?"""

import asyncio
import smtplib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.dns import running_dns
from tests.kit.outbox import usual_dns
from tests.kit.peer import running_peer
from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow
MESSAGE = b"From: app@example.com\r\nTo: ann@example.org\r\nSubject: Hello\r\n\r\nText.\r\n"


async def test_sessions_up_to_the_end_are_counted(tmp_path: Path) -> None:
    async with running_peer() as peer, running_dns(usual_dns()) as resolver:
        delivery = {
            "route": "mx",
            "port": peer.port,
            "resolvers": [resolver],
            "allow_networks": ["127.0.0.0/8"],
            "tls_report_from": "tls@example.com",
        }
        with ServerProcess(tmp_path, delivery=delivery) as server:
            secret = (await asyncio.to_thread(server.setup))["project"]["secret"]
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(_submit, server.smtp_port, secret)
            await peer.until(lambda peer: peer.taken)
            assert await asyncio.to_thread(server.terminate) == 0
        with closing(sqlite3.connect(tmp_path / "data" / "relay.db")) as db:
            found = db.execute("SELECT domain, kind, result, sessions FROM tls_results").fetchall()
        assert found == [("example.org", "no-policy-found", "starttls-not-supported", 1)]


def _submit(port: int, secret: str) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.login("plunk", secret)
        client.sendmail("app@example.com", ["ann@example.org"], MESSAGE)
