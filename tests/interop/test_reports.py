"""Do we understand what real servers report, and they us? Postfix and Exim take our mail and find out later that it fails.

What they write goes to the return path of the mail, which leads to the relay's inbound door. The other way round, what the
relay writes to a sender without an API lies in a mailbox at a Postfix, where Python's `email` reads it.
"""

import email
import json
import smtplib
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from typing import Any, cast

import pytest
from anyio.from_thread import start_blocking_portal

from tests.interop.site import SENDER, Internet, Site, running_site
from tests.kit.dns import DnsTable, running_dns
from tests.kit.enclave import EnclosedServer
from tests.kit.exim import Exim
from tests.kit.postfix import Arrival, Postfix
from tests.kit.process import free_port
from tests.kit.tools import require_tool

pytestmark = pytest.mark.slow

KINDS = ("postfix", "exim")
MESSAGE = "From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.com>\r\n\r\nHi.\r\n"


@dataclass(frozen=True, slots=True)
class World:
    """A relay, the servers it delivers to, and the one where its senders have their mailboxes."""

    site: Site
    inbound_port: int
    servers: Mapping[str, Postfix | EnclosedServer]
    senders: Postfix


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run servers that write their reports to the relay's inbound door."""
    port, inbound_port, table = free_port(), free_port(), DnsTable()
    with ExitStack() as life:
        portal = life.enter_context(start_blocking_portal())
        resolver = life.enter_context(portal.wrap_async_context_manager(running_dns(table)))
        senders = life.enter_context(Postfix("example.com", address="127.0.2.1", port=port))
        servers: dict[str, Postfix | EnclosedServer] = {
            "postfix": Postfix("postfix.test", address="127.0.2.2", port=port, bounces_to=inbound_port),
            "exim": Exim("exim.test", address="127.0.2.3", port=port, bounces_to=inbound_port),
        }
        for server in servers.values():
            life.enter_context(server)
        for domain, address in {
            "example.com": senders.address,
            **{f"{kind}.test": server.address for kind, server in servers.items()},
        }.items():
            table.set(domain, "MX", f"10 mx.{domain}.")
            table.set(f"mx.{domain}", "A", address)
        directory, internet = tmp_path_factory.mktemp("world"), Internet(table, resolver, senders)
        site = life.enter_context(running_site(internet, directory, inbound_port=inbound_port, port=port))
        yield World(site, inbound_port, servers, senders)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bounce_after_acceptance_ends_as_bounced_unsubscribed_and_suppressed(world: World, kind: str) -> None:
    recipient = f"later@{kind}.test"
    queue_id = _send_by_api(world.site, recipient)
    _wait_for_bounce(world, queue_id, "Permanent")
    shown = _show(world.site, queue_id)
    assert shown["state"] == "DELIVERED"
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["DELIVERED", "BOUNCED"]
    assert "nknown user" in shown["attempts"][1]["reply"]
    assert _ask(world.site, _MAIL_OF, queue_id) == [("BOUNCED",)]
    assert _ask(world.site, "SELECT subscribed FROM contacts WHERE email = ?", recipient) == [(0,)]
    [entry] = [entry for entry in _suppressed(world.site) if entry["email"] == recipient]
    assert entry["reason"] == "BOUNCE"


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_message_to_several_only_the_recipient_that_failed_bounces(world: World, kind: str) -> None:
    known, subject = [f"one@{kind}.test", f"two@{kind}.test"], f"several-{kind}"
    _lift(world.site, f"later@{kind}.test")
    _submit(world.site, subject, known[0], f"later@{kind}.test", known[1])
    for recipient in known:
        world.servers[kind].wait_for_mail(recipient)
    _wait_for_status(world.site, subject, {"BOUNCED": 1, "DELIVERED": 2})
    [bounced] = _ask(world.site, _STATUS_OF, subject, "BOUNCED")
    assert bounced == (f"later@{kind}.test",)
    assert [entry["email"] for entry in _suppressed(world.site) if entry["email"] in known] == []


def test_a_full_mailbox_is_transient_and_the_contact_stays(world: World) -> None:
    recipient = "full@postfix.test"
    queue_id = _send_by_api(world.site, recipient)
    _wait_for_bounce(world, queue_id, "Transient")
    assert _ask(world.site, "SELECT subscribed FROM contacts WHERE email = ?", recipient) == [(1,)]
    assert _show(world.site, queue_id)["state"] == "DELIVERED"
    assert [entry for entry in _suppressed(world.site) if entry["email"] == recipient] == []


def test_a_warning_that_mail_is_late_has_no_effect(world: World) -> None:
    recipient = "slow@postfix.test"
    queue_id = _send_by_api(world.site, recipient)
    line = world.site.relay.wait_for_line("report", queue_id=queue_id)
    assert line["effect"] == "no failure"
    assert "Action: delayed" in line["reason"]
    shown = _show(world.site, queue_id)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["DELIVERED"]
    assert _ask(world.site, _MAIL_OF, queue_id) == [("DELIVERED",)]
    assert _ask(world.site, _BOUNCES_OF, queue_id) == []


def test_a_refusal_reaches_the_mailbox_of_who_submitted_the_mail(world: World) -> None:
    recipient = "nobody@postfix.test"
    _submit(world.site, "refused", recipient, sender="refused@example.com")
    notice = _notice(world, "refused@example.com")
    assert notice["Subject"] == "Undelivered mail: refused"
    assert notice["Auto-Submitted"] == "auto-replied"
    fields = _failed_recipient(notice)
    assert (fields["Final-Recipient"], fields["Action"], fields["Status"]) == (f"rfc822; {recipient}", "failed", "5.1.1")
    assert "unknown user" in fields["Diagnostic-Code"]
    assert "Message-ID: <refused@example.com>" in _parts(notice)[2].get_payload()


def test_a_bounce_that_comes_later_reaches_that_mailbox_too(world: World) -> None:
    _lift(world.site, "later@postfix.test")
    _submit(world.site, "told", "later@postfix.test", sender="told@example.com")
    fields = _failed_recipient(_notice(world, "told@example.com"))
    assert (fields["Final-Recipient"], fields["Status"]) == ("rfc822; later@postfix.test", "5.1.1")


def test_swaks_speaks_tls_with_the_inbound_door_and_finds_no_open_relay(world: World) -> None:
    server = ["--server", f"127.0.0.1:{world.inbound_port}", "--tls", "--from", "a@example.net", "--to", "b@example.org"]
    done = subprocess.run(
        [require_tool("swaks"), *server], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert "=== TLS started with cipher TLSv1" in done.stdout, done.stdout + done.stderr
    assert "<~* 550 5.7.1 " in done.stdout
    assert " ~> DATA" not in done.stdout
    assert done.returncode == 24  # no recipient was taken
    assert "AUTH" not in done.stdout


_STATUS_OF = (
    "SELECT deliveries.recipient FROM deliveries JOIN emails ON emails.id = email_id WHERE subject = ? AND status = ?"
)
_MAIL_OF = "SELECT status FROM emails JOIN deliveries ON emails.id = email_id WHERE deliveries.id = ?"
_BOUNCES_OF = (
    "SELECT events.data FROM events JOIN deliveries ON events.email_id = deliveries.email_id"
    " WHERE events.name = 'email.bounce' AND deliveries.id = ?"
)


def _send_by_api(site: Site, recipient: str) -> str:
    """Send a mail to a subscribed contact that no list holds; return the queue id."""
    _lift(site, recipient)
    mail = {"to": recipient, "from": SENDER, "subject": "Hello", "body": "<p>Hi</p>", "subscribed": True}
    status, answer = site.relay.ask("/v1/send", key=site.secret, body=mail)
    assert status == 200, answer
    [found] = _ask(site, "SELECT id FROM deliveries WHERE email_id = ?", answer["data"]["emails"][0]["email"])
    return str(found[0])


def _submit(site: Site, subject: str, *recipients: str, sender: str = SENDER) -> None:
    """Submit one message by SMTP."""
    message = MESSAGE.format(sender=sender, recipient=recipients[0], subject=subject)
    with smtplib.SMTP("127.0.0.1", site.relay.smtp_port, timeout=30) as session:
        session.starttls(context=ssl.create_default_context(cafile=site.tls.certificate))
        session.login("plunk", site.secret)
        session.sendmail(sender, list(recipients), message)


def _show(site: Site, queue_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(site.relay.command("queue", "show", queue_id, "--json").stdout)
    return shown


def _suppressed(site: Site) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(
        site.relay.command("suppressions", "list", "--project", "shop", "--json").stdout
    )
    return listed


def _lift(site: Site, recipient: str) -> None:
    """Let mail go to an address that has bounced in another test."""
    site.relay.command("suppressions", "remove", "--project", "shop", recipient, check=False)


def _ask(site: Site, sql: str, *values: str) -> list[tuple[Any, ...]]:
    """Read rows of the running relay's database."""
    with closing(sqlite3.connect(f"file:{site.relay.directory}/data/relay.db?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()


def _wait_for_bounce(world: World, queue_id: str, bounce_type: str) -> None:
    """Return when an `email.bounce` of a delivery is there, which has this type."""
    deadline = time.monotonic() + 30
    while not (found := _ask(world.site, _BOUNCES_OF, queue_id)):
        assert time.monotonic() < deadline, f"no bounce of {queue_id}: {_logs(world)}"
        time.sleep(0.05)
    assert json.loads(found[0][0])["bounceType"] == bounce_type


def _logs(world: World) -> str:
    return "\n".join(server.log[-3000:] for server in world.servers.values())


def _wait_for_status(site: Site, subject: str, wanted: dict[str, int]) -> None:
    """Return when so many mails with a subject have each status."""
    deadline = time.monotonic() + 30
    count = "SELECT status, count(*) FROM emails WHERE subject = ? GROUP BY status"
    while (found := dict(_ask(site, count, subject))) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _notice(world: World, address: str) -> EmailMessage:
    """Return what came to the mailbox of a sender."""
    arrival: Arrival = world.senders.wait_for_mail(address)
    assert b"Return-Path: <>" in arrival.trace
    return email.message_from_bytes(arrival.message, policy=policy.default)


def _parts(notice: EmailMessage) -> list[EmailMessage]:
    return cast("list[EmailMessage]", notice.get_payload())


def _failed_recipient(notice: EmailMessage) -> EmailMessage:
    """Return the fields about the only recipient of a report."""
    assert (notice.get_content_type(), notice.get_param("report-type")) == ("multipart/report", "delivery-status")
    text, status, original = _parts(notice)
    assert (text.get_content_type(), status.get_content_type()) == ("text/plain", "message/delivery-status")
    assert original.get_content_type() == "text/rfc822-headers"
    message, recipient = cast("list[EmailMessage]", status.get_payload())
    assert message["Reporting-MTA"] == "dns; relay.test"
    return recipient
