"""What happens when mail comes in? It is judged, read, and stored for the project of each recipient's domain.

The sender becomes a contact, the message a mail with status RECEIVED, and an event `email.received` tells of it (contract
section 9). Mail from `<>` is for whoever reads bounces; here it is passed over.
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from plunk_relay.clock import format_time
from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.contents.queries import Content, insert_contents
from plunk_relay.domains.queries import Domain, find_domain_named
from plunk_relay.emails.queries import count_created_since, insert_emails
from plunk_relay.errors import MailLoop
from plunk_relay.events.queries import NewEvent, record_events
from plunk_relay.ids import new_id
from plunk_relay.inbound.queries import list_stored
from plunk_relay.log import get_logger
from plunk_relay.mail.address import domain_of, normalize_address, to_ascii_domain
from plunk_relay.mail.compose import Attachment
from plunk_relay.mail.received import ReceivedMessage, read_received
from plunk_relay.mail.verdicts import Verdicts, judge_sender
from plunk_relay.projects.actions import get_project
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("inbound")
SOURCE = "INBOUND"
_NO_SUBJECT = "(No subject)"
_SAME_MESSAGE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message for the recipients of one project."""

    project_id: str
    sender: str
    """Normalised envelope sender."""
    recipients: Sequence[str]
    message: ReceivedMessage
    verdicts: Verdicts
    authserv_id: str
    now: datetime
    milliseconds: int


async def find_receiver(relay: Relay, domain: str) -> Domain | None:
    """Return the domain, when mail to it is accepted: it is verified and receiving is switched on."""
    found = await relay.db.read(find_domain_named, to_ascii_domain(domain))
    return found if found is not None and found.verified and found.receiving else None


async def receive(
    relay: Relay, *, client_address: str | None, helo: str, sender: str, recipients: Sequence[str], message: bytes
) -> list[str]:
    """Store a message (CRLF lines) for its recipients; return the ids of the new mails after the commit.

    `client_address` is None for what this relay itself sends; `sender` is the envelope's, empty for `<>`. Recipients of
    domains that do not receive, of disabled projects and of projects beyond their monthly cap are passed over. Raises
    MailLoop, Unavailable.
    """
    started = relay.clock.monotonic()
    read = await asyncio.to_thread(read_received, message, hostname=relay.hostname)
    most = relay.settings.smtp.max_received_headers
    if read.hops > most:
        raise MailLoop(f"More than {most} hops: a mail loop")
    groups = await _group_by_project(relay, recipients) if sender else {}
    if not groups:
        return []
    verdicts = await judge_sender(
        message,
        relay.resolver,
        client_address=client_address,
        helo=helo,
        sender=sender,
        authors=read.authors,
        from_fields=read.from_fields,
        now=relay.clock.now(),
    )
    arrival = _Arrival(
        project_id="",
        sender=normalize_address(sender),
        recipients=(),
        message=read,
        verdicts=verdicts,
        authserv_id=relay.hostname,
        now=relay.clock.now(),
        milliseconds=int((relay.clock.monotonic() - started) * 1000),
    )
    arrivals = [replace(arrival, project_id=project_id, recipients=mine) for project_id, mine in groups.items()]
    stored = await relay.db.write(_store_all, arrivals)
    relay.wakes.events.set()
    _log_arrival(client_address, arrival, recipients, stored)
    return stored


async def _group_by_project(relay: Relay, recipients: Sequence[str]) -> dict[str, list[str]]:
    """Return the recipients, lower-cased and each once, of every project that receives them."""
    groups: dict[str, list[str]] = {}
    for recipient in dict.fromkeys(normalize_address(recipient) for recipient in recipients):
        domain = await find_receiver(relay, domain_of(recipient))
        if domain is not None:
            groups.setdefault(domain.project_id, []).append(recipient)
    return {project_id: mine for project_id, mine in groups.items() if await _may_receive(relay, project_id, len(mine))}


async def _may_receive(relay: Relay, project_id: str, count: int) -> bool:
    """Tell whether a project is enabled and below its cap of received mails a month, if it has one (contract 6.4)."""
    project = await get_project(relay, project_id)
    limit = project.billing_limit_inbound
    if project.disabled or limit is None:
        return not project.disabled
    month = relay.clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    used = await relay.db.read(count_created_since, project_id, month, SOURCE)
    if used + count > limit:
        log.warning("received mail dropped", project=project_id, reason="the project's monthly cap is reached", limit=limit)
        return False
    return True


def _log_arrival(client_address: str | None, arrival: _Arrival, recipients: Sequence[str], stored: Sequence[str]) -> None:
    verdicts = arrival.verdicts
    log.info(
        "received",
        emails=list(stored),
        address=client_address,
        sender=arrival.sender,
        recipients=len(recipients),
        message_id=arrival.message.message_id,
        spf=verdicts.spf,
        dkim=verdicts.dkim_result,
        dmarc=verdicts.dmarc,
    )


def _store_all(tx: "sa.Connection", arrivals: Sequence[_Arrival]) -> list[str]:
    return [email_id for arrival in arrivals for email_id in _store(tx, arrival)]


def _store(tx: "sa.Connection", arrival: _Arrival) -> list[str]:
    """Write contact, contents, a mail and an event a recipient; what came already, as its reply got lost, is not stored."""
    message, project_id = arrival.message, arrival.project_id
    known = list_stored(
        tx,
        project_id,
        message_id=message.message_id,
        sender=arrival.sender,
        recipients=arrival.recipients,
        since=arrival.now - _SAME_MESSAGE,
    )
    fresh = [recipient for recipient in arrival.recipients if recipient not in known]
    if not fresh:
        return []
    contact, _ = upsert_contact(tx, project_id, ContactChange(arrival.sender, subscribed_if_new=True), now=arrival.now)
    contents = _contents(project_id, message)
    insert_contents(tx, contents, now=arrival.now)
    ids = {content.kind: content.id for content in contents}
    mails = [_email_row(arrival, recipient, contact.id, ids.get("HTML"), ids.get("ATTACHMENTS")) for recipient in fresh]
    insert_emails(tx, mails)
    record_events(tx, [_event(arrival, mail) for mail in mails])
    return [mail["id"] for mail in mails]


def _contents(project_id: str, message: ReceivedMessage) -> list[Content]:
    contents = []
    if message.html:
        contents.append(Content(new_id(), project_id, "HTML", message.html.encode()))
    if message.attachments:
        data = orjson.dumps([_attachment_row(file) for file in message.attachments])
        contents.append(Content(new_id(), project_id, "ATTACHMENTS", data))
    return contents


def _attachment_row(file: Attachment) -> dict[str, Any]:
    """Write a file as those of sent mail are written."""
    return {
        "filename": file.filename,
        "content": base64.b64encode(file.content).decode(),
        "contentType": file.content_type,
        "disposition": file.disposition,
        "contentId": file.content_id,
    }


def _email_row(
    arrival: _Arrival, recipient: str, contact_id: str, content_id: str | None, attachments_id: str | None
) -> dict[str, Any]:
    message = arrival.message
    return {
        "id": new_id(),
        "project_id": arrival.project_id,
        "contact_id": contact_id,
        "recipient": recipient,
        "subject": message.subject or _NO_SUBJECT,
        "from_address": recipient,  # contract section 9: the address that received it
        "reply_to": message.reply_to,
        "headers": _headers(arrival),
        "content_id": content_id,
        "attachments_id": attachments_id,
        "message_id": message.message_id,
        "mail_class": "transactional",
        "source_type": SOURCE,
        "status": "RECEIVED",
        "delivered_at": arrival.now,
        "opens": 0,
        "clicks": 0,
        "created_at": arrival.now,
        "updated_at": arrival.now,
    }


def _headers(arrival: _Arrival) -> dict[str, str]:
    """Return the message's headers with our verdict on top of those of others."""
    name = "Authentication-Results"
    others = {key: value for key, value in arrival.message.headers.items() if key.lower() != name.lower()}
    theirs = [value for key, value in arrival.message.headers.items() if key.lower() == name.lower()]
    return {name: "\n".join([arrival.verdicts.header(arrival.authserv_id), *theirs])} | others


def _event(arrival: _Arrival, mail: dict[str, Any]) -> NewEvent:
    """Make the event; spam and virus are not judged here, so these verdicts are left out."""
    message, verdicts = arrival.message, arrival.verdicts
    data: dict[str, Any] = {
        "messageId": message.message_id,
        "from": arrival.sender,
        "fromHeader": message.author or arrival.sender,
        "to": mail["recipient"],
        "subject": mail["subject"],
        "timestamp": format_time(arrival.now),
        "recipients": list(arrival.recipients),
        "hasContent": bool(message.html),
        "body": message.html,
        "spfVerdict": verdicts.spf_word,
        "dkimVerdict": verdicts.dkim_word,
        "dmarcVerdict": verdicts.dmarc_word,
        "processingTimeMillis": arrival.milliseconds,
    }
    if message.automatic:
        data["autoSubmitted"] = True  # what would answer must not (RFC 3834 2)
    return NewEvent(arrival.project_id, "email.received", mail["contact_id"], mail["id"], data, arrival.now)
