"""How does mail from other servers come in during a test? To the real inbound door, with reports as servers write them."""

import asyncio
import smtplib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from plunk_relay.db.tables import domains
from plunk_relay.mail.verp import MAC_PURPOSE, ReturnKind, make_return_address
from plunk_relay.relay import Relay
from plunk_relay.smtp.inbound import inbound_doors
from plunk_relay.smtp.listener import Door
from tests.kit.relay import Tenant
from tests.kit.smtp import PATIENCE_SECONDS, open_door
from tests.kit.store import change, rows

ORIGINAL = "From: app@acme.test\nTo: bob@example.org\nSubject: Hello\n\nHi\n"


@asynccontextmanager
async def running_inbound(relay: Relay) -> AsyncIterator[Door]:
    """Open the inbound door at the port of the settings."""
    [door] = inbound_doors(relay)
    async with open_door(door):
        yield door


async def publish_return_path(relay: Relay, tenant: Tenant) -> None:
    """Let the MX record of the tenant's bounce host count as found."""
    [row] = await rows(relay, domains, domain=tenant.domain)
    await change(relay, domains, row["id"], records={"return-path": "Success"})
    relay.memory.forget("identities")


def return_address(relay: Relay, delivery_id: str, *, kind: ReturnKind = "bounce", domain: str = "acme.test") -> str:
    """Return an address of ours for a delivery."""
    return make_return_address(kind, delivery_id, domain=domain, key=relay.secrets.mac_key(MAC_PURPOSE))


async def bring(door: Door, recipient: str | Sequence[str], message: bytes, *, sender: str = "") -> tuple[int, str]:
    """Hand a message in, as another server does; return the reply to the final dot, or to what was refused before."""
    recipients = [recipient] if isinstance(recipient, str) else list(recipient)

    def talk() -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", door.port, local_hostname="mx.example.org", timeout=PATIENCE_SECONDS) as client:
            client.ehlo()
            code, text = client.mail(sender)
            for to in recipients:
                if code < 400:
                    code, text = client.rcpt(to)
            if code < 400:
                code, text = client.data(message)
            return code, text.decode()

    return await asyncio.to_thread(talk)


def delivery_report(
    *recipients: str,
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "smtp; 550 5.1.1 no such user",
    reporter: str = "mx.example.org",
    remote: str | None = None,
) -> bytes:
    """Return a DSN (RFC 3464) about recipients that all had the same fate; `remote` is the server that gave the reason."""
    told_by = f"Remote-MTA: dns; {remote}\n" if remote else ""
    groups = "\n".join(
        f"Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\n{told_by}Diagnostic-Code: {diagnostic}\n"
        for recipient in recipients
    )
    return _report("delivery-status", "message/delivery-status", f"Reporting-MTA: dns; {reporter}\n\n{groups}", ORIGINAL)


def feedback_report(
    recipient: str | None = "bob@example.org", *, kind: str = "abuse", return_path: str | None = None, mail_from: str = ""
) -> bytes:
    """Return a complaint (RFC 5965) about a mail, which it encloses."""
    fields = [f"Feedback-Type: {kind}", "User-Agent: Feedback/1.0", "Version: 1"]
    fields += [f"Original-Rcpt-To: <{recipient}>"] if recipient else []
    fields += [f"Original-Mail-From: <{mail_from}>"] if mail_from else []
    original = f"Return-Path: <{return_path}>\n{ORIGINAL}" if return_path else ORIGINAL
    return _report("feedback-report", "message/feedback-report", "\n".join([*fields, ""]), original)


def _report(kind: str, content_type: str, fields: str, original: str) -> bytes:
    parts = [
        "Content-Type: text/plain\n\nSomething happened.\n",
        f"Content-Type: {content_type}\n\n{fields}",
        f"Content-Type: message/rfc822\n\n{original}",
    ]
    head = [
        "From: MAILER-DAEMON@mx.example.org",
        "Subject: Report",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f"Content-Type: multipart/report; report-type={kind}; boundary=x",
        "",
    ]
    text = "\n".join([*head, *(f"--x\n{part}" for part in parts), "--x--", ""])
    return text.replace("\n", "\r\n").encode()
