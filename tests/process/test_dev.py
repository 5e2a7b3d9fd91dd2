"""Is `plunk-relay dev` a working relay in one command, whose printed lines work as they are?"""

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.process import free_port
from tests.kit.tools import require_tool

pytestmark = pytest.mark.slow
_PATIENCE_SECONDS = 20


class Dev:
    """One run of dev mode."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.http, self.smtp = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._out, self._err = directory / "out", directory / "err"
        self.inbound = f"127.0.0.1:{free_port()}"
        line = [sys.executable, "-m", "plunk_relay", "dev", "--http", self.http, "--smtp", self.smtp]
        line += ["--inbound", self.inbound]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*line, "--data", str(directory / "data")], stdout=out, stderr=err, env={**os.environ, **environment}
            )

    def wait_until_ready(self) -> str:
        """Return what was printed."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while '"ready"' not in self._err.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it did not start: {self._err.read_text()}")
            time.sleep(0.02)
        return self._out.read_text()

    def stop(self) -> int:
        """Stop as Ctrl-C does; return the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait(_PATIENCE_SECONDS)

    def get(self, path: str) -> str:
        """Fetch a page."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            page: str = answer.read().decode()
            return page

    def wait_for(self, path: str, text: str) -> str:
        """Fetch a page until a text is on it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while text not in (page := self.get(path)):
            assert time.monotonic() < deadline, page
            time.sleep(0.05)
        return page


def test_the_printed_curl_line_sends_a_mail_that_is_kept_and_shown(tmp_path: Path) -> None:
    with _running(tmp_path) as (dev, printed):
        line = printed[printed.index("curl -X POST") :]
        curl = line.replace("curl ", f"{require_tool('curl')} --silent --show-error ", 1)
        done = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout)["success"] is True
        page = dev.wait_for("/dev/mail", "you@example.net")
        [shown] = re.findall(r'href="(/dev/mail/[0-9a-f-]+)"', page)
        message = dev.get(shown)
        assert "It works." in message
        assert "DKIM-Signature: " in message


def test_the_printed_smtp_login_sends_a_mail(tmp_path: Path) -> None:
    with _running(tmp_path) as (dev, printed):
        [password] = re.findall(r"Secret key +(sk_[0-9a-f]{64})\n", printed)
        assert f"SMTP        {dev.smtp}  user: plunk" in printed
        with smtplib.SMTP(dev.smtp, timeout=20) as session:
            session.login("plunk", password)
            session.sendmail("hello@example.com", ["smtp@example.net"], "From: hello@example.com\r\n\r\nText.\r\n")
        assert "smtp@example.net" in dev.wait_for("/dev/mail", "smtp@example.net")


def test_mail_of_other_servers_is_taken_at_the_printed_address(tmp_path: Path) -> None:
    with _running(tmp_path) as (dev, printed):
        assert f"Inbound     {dev.inbound}  " in printed
        with smtplib.SMTP(dev.inbound, timeout=20) as session:
            session.sendmail("ann@example.net", ["abuse@example.com"], "From: ann@example.net\r\n\r\nText.\r\n")
        assert "dev@example.com" in dev.wait_for("/dev/mail", "abuse@example.com")


def test_a_second_start_prints_the_same_keys_and_still_has_the_mail(tmp_path: Path) -> None:
    with _running(tmp_path) as (dev, printed):
        [key] = re.findall(r"sk_[0-9a-f]{64}(?=\n)", printed)
        body = {"from": "hello@example.com", "to": "kept@example.net", "subject": "Hello", "body": "Text"}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        sent = urllib.request.Request(f"http://{dev.http}/v1/send", json.dumps(body).encode(), headers)
        urllib.request.urlopen(sent, timeout=10).close()
        dev.wait_for("/dev/mail", "kept@example.net")
    with _running(tmp_path) as (dev, again):
        assert _keys(again) == _keys(printed)
        assert "kept@example.net" in dev.get("/dev/mail")


def test_dev_mode_reads_no_configuration_of_the_system_and_sends_nothing(tmp_path: Path) -> None:
    config = tmp_path / "real.toml"
    config.write_text(f"[server]\ndata_dir = '{tmp_path}/real'\n[delivery]\nroute = 'mx'\n")
    with _running(tmp_path, PLUNK_RELAY_CONFIG=str(config), PLUNK_RELAY_DELIVERY__ROUTE="mx") as (_, printed):
        assert "Mail is kept here and never sent." in printed
        process = subprocess.run(
            [sys.executable, "-m", "plunk_relay", "audit"],
            env={**os.environ, "PLUNK_RELAY_SERVER__DATA_DIR": str(tmp_path / "data")},
            capture_output=True,
            check=False,
        )
        assert process.returncode == 0
    assert not (tmp_path / "real").exists()


@contextmanager
def _running(directory: Path, **environment: str) -> Iterator[tuple[Dev, str]]:
    dev = Dev(directory, **environment)
    try:
        yield dev, dev.wait_until_ready()
        assert dev.stop() == 0
    finally:
        dev.stop()


def _keys(printed: str) -> set[str]:
    return set(re.findall(r"[sp]k_[0-9a-f]{64}", printed))
