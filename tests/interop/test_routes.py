"""Which way does mail leave, as a real Postfix sees it? To the exchanger, or through a smarthost that wants AUTH."""

import base64
import json
import smtplib
import ssl
import time
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

import pytest

from tests.interop.site import INBOX, SENDER, Internet, Site, check_signatures, running_site, unwrap

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smarthost_site(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a relay that hands all mail to Postfix's submission port."""
    postfix = internet.postfix
    login = f"{postfix.username}:{quote(postfix.password)}"
    url = f"smtp://{login}@127.0.0.1:{postfix.submission_port}?starttls=required"
    directory = tmp_path_factory.mktemp("smarthost")
    with running_site(internet, directory, route="smarthost", smarthost_url=url) as running:
        yield running


def test_the_exchanger_is_found_by_dns_and_spoken_to_over_tls(internet: Internet, site: Site) -> None:
    recipient = f"by-mx@{INBOX}"
    _send(site, recipient)
    arrival = internet.postfix.wait_for_mail(recipient)
    assert b"Received: from relay.test" in arrival.trace
    assert b"with ESMTPS id" in arrival.trace
    attempt = _attempt(site, recipient)
    assert attempt["host"] == f"mx.{INBOX}[127.0.0.1]:{internet.postfix.smtp_port}"
    assert attempt["tls"] == "TLSv1.3 unverified"


def test_a_smarthost_takes_the_same_bytes_after_starttls_and_auth(internet: Internet, smarthost_site: Site) -> None:
    recipient = f"by-smarthost@{INBOX}"
    submitted = _send(smarthost_site, recipient)
    arrival = internet.postfix.wait_for_mail(recipient)
    assert b"with ESMTPSA id" in arrival.trace
    assert f"(Authenticated sender: {internet.postfix.username})".encode() in arrival.trace
    assert unwrap(arrival) == submitted
    check_signatures(smarthost_site, arrival)


def test_the_password_of_the_smarthost_is_shown_nowhere(internet: Internet, smarthost_site: Site) -> None:
    recipient, postfix = f"secretly@{INBOX}", internet.postfix
    _send(smarthost_site, recipient)
    _attempt(smarthost_site, recipient)
    relay = smarthost_site.relay
    ids = [entry["id"] for entry in json.loads(relay.command("queue", "list", "--json").stdout)]
    shown = "".join(relay.command("queue", "show", queue_id, "--json").stdout for queue_id in ids) + relay.log.read_text()
    response = base64.b64encode(f"\0{postfix.username}\0{postfix.password}".encode()).decode()
    assert "AUTH" in shown
    assert [secret for secret in (postfix.password, quote(postfix.password), response) if secret in shown] == []


def _send(site: Site, recipient: str) -> bytes:
    """Submit a message; return its bytes."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, recipient, "First"
    message["Date"], message["Message-ID"] = "Mon, 02 Mar 2026 10:00:00 +0100", f"<{recipient}>"
    message.set_content("It works.\n")
    submitted = message.as_bytes().replace(b"\n", b"\r\n")
    with smtplib.SMTP("127.0.0.1", site.relay.smtp_port, timeout=30) as session:
        session.starttls(context=ssl.create_default_context(cafile=site.tls.certificate))
        session.login("plunk", site.secret)
        session.sendmail(SENDER, [recipient], submitted)
    return submitted


def _attempt(site: Site, recipient: str) -> dict[str, Any]:
    """Return the one attempt to deliver to a recipient, waiting for its end."""
    deadline = time.monotonic() + 30
    while (entry := _entry(site, recipient))["state"] != "DELIVERED":
        assert time.monotonic() < deadline, entry
    shown = json.loads(site.relay.command("queue", "show", entry["id"], "--json").stdout)
    attempts: list[dict[str, Any]] = shown["attempts"]
    assert len(attempts) == 1
    return attempts[0]


def _entry(site: Site, recipient: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = json.loads(site.relay.command("queue", "list", "--json").stdout)
    return next(entry for entry in entries if entry["recipient"] == recipient)
