"""Do the mail servers that most of the world runs take our mail? Postfix, Exim, OpenSMTPD, and one that greylists.

All listen on the same port of different loopback addresses, as they would on port 25 of different hosts.
"""

import json
import smtplib
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from plunk_relay.mail.dkim import verify
from tests.interop.site import SENDER, Internet, Site, running_site, unwrap
from tests.kit.enclave import EnclosedServer
from tests.kit.exim import Exim
from tests.kit.opensmtpd import OpenSmtpd
from tests.kit.postfix import Arrival, Postfix
from tests.kit.postgrey import Postgrey
from tests.kit.process import free_port

pytestmark = pytest.mark.slow

KINDS = ("postfix", "postfix-clear", "exim", "opensmtpd")
TLS = {"postfix": "TLSv1.3 unverified", "postfix-clear": "none", "exim": "TLSv1.3 unverified", "opensmtpd": "none"}
HEAD = "From: {sender}\r\nTo: {recipient}\r\nSubject: First\r\n"
IDENTITY = "Date: Mon, 02 Mar 2026 10:00:00 +0100\r\nMessage-ID: <{recipient}>\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Peers:
    """A relay, and the servers it delivers to, by kind; each is the exchanger of `<kind>.test`."""

    site: Site
    servers: Mapping[str, Postfix | EnclosedServer]


@pytest.fixture(scope="module")
def peers(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """Run one server of each kind and a relay that tries again after three seconds."""
    port = free_port()
    with ExitStack() as life:
        grey = life.enter_context(Postgrey(delay_seconds=1))
        servers: dict[str, Postfix | EnclosedServer] = {
            "postfix": Postfix("postfix.test", address="127.0.1.1", port=port),
            "postfix-clear": Postfix("postfix-clear.test", address="127.0.1.2", port=port, tls=False),
            "exim": Exim("exim.test", address="127.0.1.3", port=port),
            "opensmtpd": OpenSmtpd("opensmtpd.test", address="127.0.1.4", port=port),
            "grey": Postfix("grey.test", address="127.0.1.5", port=port, policy=grey.port),
        }
        for kind, server in servers.items():
            life.enter_context(server)
            internet.dns.set(f"{kind}.test", "MX", f"10 mx.{kind}.test.")
            internet.dns.set(f"mx.{kind}.test", "A", server.address)
        directory = tmp_path_factory.mktemp("peers")
        yield Peers(life.enter_context(running_site(internet, directory, port=port, retry_minutes=[0.05])), servers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_arrives_byte_for_byte_with_both_signatures(peers: Peers, kind: str) -> None:
    recipient = f"whole@{kind}.test"
    body = "\r\n.a dot\r\n..\r\n" + ("Grüße, " * 100 + "\r\n") * 60 + "x" * 997 + "\r\n \r\n"
    submitted = _send(peers.site, body, recipient)
    arrival = _arrival(peers, kind, recipient)
    assert unwrap(arrival) == submitted
    published = {f"{name}.".encode(): value.encode() for name, value in peers.site.keys.items()}
    assert verify(arrival.message, find_txt=published.get) == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_tls_is_used_where_it_works_and_a_handshake_that_fails_is_retried_in_clear(peers: Peers, kind: str) -> None:
    recipient = f"tls@{kind}.test"
    _send(peers.site, "Hi.\r\n", recipient)
    shown = _wait_for(peers.site, recipient, "DELIVERED")
    assert [(attempt["outcome"], attempt["tls"]) for attempt in shown["attempts"]] == [("DELIVERED", TLS[kind])]
    assert peers.site.relay.wait_for_line("delivered", queue_id=shown["id"])["tls"] == TLS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_recipients_of_one_message_each_have_their_own_outcome(peers: Peers, kind: str) -> None:
    known = [f"one@{kind}.test", f"two@{kind}.test"]
    _send(peers.site, "Hi.\r\n", known[0], f"nobody@{kind}.test", known[1])
    bounced = _wait_for(peers.site, f"nobody@{kind}.test", "BOUNCED")
    assert bounced["last_reply"].startswith("550")
    for recipient in known:
        _arrival(peers, kind, recipient)
        conversation = "\n".join(_wait_for(peers.site, recipient, "DELIVERED")["attempts"][0]["conversation"])
        assert conversation.count("MAIL FROM") == 1
        assert conversation.count("RCPT TO") == 3


@pytest.mark.parametrize("kind", KINDS)
def test_many_mails_at_once_all_arrive_once(peers: Peers, kind: str) -> None:
    recipients = [f"many{number}@{kind}.test" for number in range(40)]
    for recipient in recipients:
        _send(peers.site, "Hi.\r\n", recipient)
    for recipient in recipients:
        _arrival(peers, kind, recipient)


def test_greylisting_is_waited_out(peers: Peers) -> None:
    recipient = "patience@grey.test"
    _send(peers.site, "Hi.\r\n", recipient)
    shown = _wait_for(peers.site, recipient, "DELIVERED")
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["DEFERRED", "DELIVERED"]
    assert "reylist" in shown["attempts"][0]["reply"]
    assert len({attempt["host"] for attempt in shown["attempts"]}) == 1
    _arrival(peers, "grey", recipient)


def _send(site: Site, body: str, *recipients: str) -> bytes:
    """Submit a message to some recipients; return its bytes."""
    message = ((HEAD + IDENTITY).format(sender=SENDER, recipient=recipients[0]) + body).encode()
    with smtplib.SMTP("127.0.0.1", site.relay.smtp_port, timeout=30) as session:
        session.starttls(context=ssl.create_default_context(cafile=site.tls.certificate))
        session.login("plunk", site.secret)
        session.sendmail(SENDER, list(recipients), message, mail_options=["BODY=8BITMIME"])
    return message


def _arrival(peers: Peers, kind: str, recipient: str) -> Arrival:
    return peers.servers[kind].wait_for_mail(recipient)


def _wait_for(site: Site, recipient: str, state: str) -> dict[str, Any]:
    """Return the delivery to a recipient with its attempts once it is in a state."""
    deadline = time.monotonic() + 60
    while (entry := _entry(site, recipient))["state"] != state:
        assert time.monotonic() < deadline, entry
        time.sleep(0.05)
    shown: dict[str, Any] = json.loads(site.relay.command("queue", "show", entry["id"], "--json").stdout)
    return shown


def _entry(site: Site, recipient: str) -> dict[str, Any]:
    return next(entry for entry in site.relay.queue() if entry["recipient"] == recipient)
