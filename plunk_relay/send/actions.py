"""What happens when a mail is sent? Resolve sender and template, check every recipient, render, queue in one unit."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from plunk_relay.contacts.actions import ContactChange
from plunk_relay.contacts.merge import merge_data
from plunk_relay.contacts.queries import Contact, find_contacts_by_email
from plunk_relay.contents.queries import Content
from plunk_relay.domains.actions import check_sender
from plunk_relay.domains.queries import list_domains
from plunk_relay.emails.actions import ContactMovedError, NewMail, QueuedMail, queue_mails
from plunk_relay.emails.queries import count_created_since
from plunk_relay.errors import (
    BadRequest,
    BillingLimitReached,
    FieldError,
    TemplateNotFound,
    Unavailable,
    ValidationFailed,
)
from plunk_relay.ids import new_id
from plunk_relay.log import get_logger
from plunk_relay.mail.address import Mailbox, domain_of, normalize_address
from plunk_relay.mail.template import contact_urls, has_placeholders, merge_scope, render, render_subject
from plunk_relay.projects.actions import get_project
from plunk_relay.relay import Relay
from plunk_relay.send.request import SHORTEST_LIFETIME_SECONDS, AddressObject, AttachmentBody, SendRequest
from plunk_relay.templates.queries import Template, find_template, template_exists
from plunk_relay.web.endpoint import KeyHold
from plunk_relay.web.meta import list_reasons
from plunk_relay.web.queries import settle_key

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("send")
_RENDER_TRIES = 3


@dataclass(frozen=True, slots=True)
class Message:
    """A request resolved: what every recipient's mail has in common."""

    project_id: str
    sender: Mailbox
    subject: str
    body: str
    reply_to: str | None
    mail_class: str
    template: Template | None
    request: SendRequest
    tag: str | None = None
    never_twice: bool = False
    tls_wish: str | None = None

    @property
    def needs_contact(self) -> bool:
        """Whether the text depends on the contact."""
        return has_placeholders(self.subject) or has_placeholders(self.body)


async def send_message(
    relay: Relay,
    project_id: str,
    request: SendRequest,
    *,
    hold: KeyHold | None = None,
    tag: str | None = None,
    never_twice: bool = False,
    tls_wish: str | None = None,
) -> list[QueuedMail]:
    """Queue one mail a recipient; all or nothing, and the Idempotency-Key that `hold` holds is settled with them.

    Raises ValidationFailed, TemplateNotFound, Forbidden (sender), BadRequest (marketing mail to the unsubscribed),
    BillingLimitReached, Unavailable.
    """
    await _refuse_when_full(relay)
    _check_attachments(relay, request)
    choose_lifetime(relay, request.expires_in)  # raises early
    message = replace(await _resolve(relay, project_id, request), tag=tag, never_twice=never_twice, tls_wish=tls_wish)
    await check_billing(relay, project_id, len(request.to))
    for _ in range(_RENDER_TRIES):
        contacts = await _find_contacts(relay, message)
        try:
            return await _queue(relay, message, contacts, hold)
        except ContactMovedError:
            continue
    raise Unavailable("The contact changed while the mail was rendered; try again.")


async def _refuse_when_full(relay: Relay) -> None:
    reasons = await list_reasons(relay)
    if reasons:
        log.warning("mail refused", reasons=reasons)
        raise Unavailable("The relay cannot accept mail at the moment.")


def _check_attachments(relay: Relay, request: SendRequest) -> None:
    files = request.attachments or []
    limits = relay.settings.limits
    faults: list[FieldError] = []
    if len(files) > limits.attachment_count:
        faults.append(FieldError("attachments", f"At most {limits.attachment_count} attachments are allowed", "custom"))
    if sum(len(file.content) for file in files) > limits.attachment_megabytes * 1024 * 1024 * 4 / 3:
        text = f"Attachments may have {limits.attachment_megabytes:g} MB together"
        faults.append(FieldError("attachments", text, "custom"))
    faults += [
        FieldError(f"attachments.{index}.contentId", "An inline attachment needs a contentId", "custom")
        for index, file in enumerate(files)
        if file.disposition == "inline" and not file.content_id
    ]
    if faults:
        raise ValidationFailed(faults)


async def _resolve(relay: Relay, project_id: str, request: SendRequest) -> Message:
    template = await _load_template(relay, project_id, request.template)
    subject = request.subject or (template.subject if template else None)
    body = request.body or (template.body if template else None)
    if subject is None or body is None:
        text = "Subject and body are required unless a template is given"
        raise ValidationFailed([FieldError("template", text, "custom")])
    sender = await _find_sender(relay, project_id, request, template)
    await check_sender(relay, project_id, sender.address)
    classes = {"MARKETING": "marketing", "HEADLESS": "headless"}
    return Message(
        project_id=project_id,
        sender=sender,
        subject=subject,
        body=body,
        reply_to=request.reply or (template.reply_to if template else None),
        mail_class=classes.get(template.type, "transactional") if template else "transactional",
        template=template,
        request=request,
    )


async def _load_template(relay: Relay, project_id: str, template_id: str | None) -> Template | None:
    if template_id is None:
        return None
    template = await relay.db.read(find_template, project_id, template_id.lower())
    if template is None:
        raise TemplateNotFound.of("Template", template_id)
    return template


async def _find_sender(relay: Relay, project_id: str, request: SendRequest, template: Template | None) -> Mailbox:
    """Take address and name, each from the request, else the template; the last resort is `_default_sender`."""
    name = request.sender_name or (template.from_name if template else None)
    if request.sender is not None:
        return Mailbox(request.sender.email, name)
    if template is not None:
        return Mailbox(template.from_address, name)
    return Mailbox(await _default_sender(relay, project_id), name)


async def _default_sender(relay: Relay, project_id: str) -> str:
    """Return no-reply@ the project's first verified domain."""
    verified = [domain for domain in await relay.db.read(list_domains, project_id) if domain.verified]
    if not verified:
        text = "A sender is required: this project has no verified domain for a default one"
        fault = {"field": "from", "message": text, "code": "required"}
        raise ValidationFailed([FieldError(**fault)], text, details={"errors": [fault]})
    return f"no-reply@{verified[-1].domain}"


def choose_lifetime(relay: Relay, seconds: int | None, *, field: str = "expiresIn") -> timedelta:
    """Return how long a mail may be tried; raises ValidationFailed, which names `field`, for a wish out of bounds."""
    longest = timedelta(hours=relay.settings.delivery.lifetime_hours)
    if seconds is None:
        return longest
    most = int(longest.total_seconds())
    if not SHORTEST_LIFETIME_SECONDS <= seconds <= most:
        text = f"Must be whole seconds from {SHORTEST_LIFETIME_SECONDS} to {most}"
        code = "too_small" if seconds < SHORTEST_LIFETIME_SECONDS else "too_big"
        raise ValidationFailed([FieldError(field, text, code)])
    return timedelta(seconds=seconds)


async def check_billing(relay: Relay, project_id: str, recipients: int) -> None:
    """Raise BillingLimitReached when so many mails more would pass the project's monthly cap, if it has one."""
    project = await get_project(relay, project_id)
    limit = project.billing_limit_transactional
    if limit is None:
        return
    now = relay.clock.now()
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    used = await relay.db.read(count_created_since, project_id, month, "TRANSACTIONAL")
    if used + recipients > limit:
        rest = (month + timedelta(days=32)).replace(day=1) - now
        text = f"The project's limit of {limit} transactional mails a month is reached."
        raise BillingLimitReached(text, retry_after_seconds=int(rest.total_seconds()) + 1)


async def _find_contacts(relay: Relay, message: Message) -> Mapping[str, Contact]:
    """Read the contacts only when the text or the checks depend on them."""
    if not message.needs_contact and message.mail_class != "marketing":
        return {}
    addresses = list(dict.fromkeys(normalize_address(recipient.email) for recipient in message.request.to))
    contacts = await relay.db.read(find_contacts_by_email, message.project_id, addresses)
    if message.mail_class == "marketing":
        _check_subscriptions(message, addresses, contacts)
    return contacts


def _check_subscriptions(message: Message, addresses: Sequence[str], contacts: Mapping[str, Contact]) -> None:
    wanted = message.request.subscribed
    for address in addresses:
        contact = contacts.get(address)
        subscribed = wanted if wanted is not None else contact is not None and contact.subscribed
        if not subscribed:
            raise BadRequest(f"{address} is not subscribed: a marketing template cannot be sent to it.")


async def _queue(relay: Relay, message: Message, contacts: Mapping[str, Contact], hold: KeyHold | None) -> list[QueuedMail]:
    now = relay.clock.now()
    contents: list[Content] = []
    attachments_id = _add_attachments(message, contents)
    shared_id = None if message.needs_contact else _add_body(message, message.body, contents)
    drafts = _draft_all(relay, message, contacts, now)
    texts = await asyncio.to_thread(_render_all, drafts) if message.needs_contact else _render_all(drafts)
    mails = [
        draft.mail(subject, shared_id or _add_body(message, body, contents), attachments_id)
        for draft, (subject, body) in zip(drafts, texts, strict=True)
    ]
    queued = await relay.db.write(_write, message, contents, mails, hold, now)
    relay.wakes.deliveries.set()
    for mail, done in zip(mails, queued, strict=True):
        log.info(
            "accepted",
            queue_id=done.delivery_id,
            project=message.project_id,
            sender=mail.sender,
            recipient=mail.recipient,
        )
    return queued


def _draft_all(relay: Relay, message: Message, contacts: Mapping[str, Contact], now: datetime) -> "list[_Draft]":
    new_ids: dict[str, str] = {}
    drafts = []
    for recipient in message.request.to:
        address = normalize_address(recipient.email)
        contact = contacts.get(address)
        contact_id = contact.id if contact else new_ids.setdefault(address, new_id())
        drafts.append(_Draft(relay, message, recipient, contact, contact_id, new_id(), now))
    return drafts


def _render_all(drafts: "Sequence[_Draft]") -> list[tuple[str, str]]:
    """Render subject and body of each; for a thread: a template within the limits may take 0.2 s."""
    return [draft.render() for draft in drafts]


def _write(
    tx: "sa.Connection",
    message: Message,
    contents: Sequence[Content],
    mails: Sequence[NewMail],
    hold: KeyHold | None,
    now: datetime,
) -> list[QueuedMail]:
    template = message.template
    if template is not None and not template_exists(tx, template.project_id, template.id):  # deleted since it was read
        raise TemplateNotFound.of("Template", template.id)
    queued = queue_mails(tx, contents, mails, now=now)
    if hold is not None:
        settle_key(tx, hold, 200)
    return queued


def _add_body(message: Message, body: str, contents: list[Content]) -> str:
    content = Content(new_id(), message.project_id, "HTML", body.encode("utf-8", "replace"))
    contents.append(content)
    return content.id


def _add_attachments(message: Message, contents: list[Content]) -> str | None:
    files = message.request.attachments
    if not files:
        return None
    data = orjson.dumps([_attachment_row(file) for file in files])
    contents.append(Content(new_id(), message.project_id, "ATTACHMENTS", data))
    return contents[-1].id


def _attachment_row(file: AttachmentBody) -> dict[str, Any]:
    return file.model_dump(by_alias=True)


@dataclass(frozen=True, slots=True)
class _Draft:
    """One recipient's mail in the making."""

    relay: Relay
    message: Message
    recipient: AddressObject
    contact: Contact | None
    contact_id: str
    email_id: str
    now: datetime

    @property
    def stored_data(self) -> dict[str, Any]:
        """What the contact keeps of this request: the data, and the recipient's name."""
        data: dict[str, Any] = dict(self.message.request.data or {})
        return data | {"name": self.recipient.name} if self.recipient.name else data

    def render(self) -> tuple[str, str]:
        """Return subject and body; one Liquid pass over the merged scope."""
        message = self.message
        merge_data(None, {k: v for k, v in self.stored_data.items() if k == "locale"})  # refuses a bad locale early
        if not message.needs_contact:
            return message.subject, message.body
        stored = self.contact.data if self.contact else None
        subscribed = message.request.subscribed
        scope = merge_scope(
            contact_id=self.contact_id,
            email=normalize_address(self.recipient.email),
            stored=stored,
            subscribed=(self.contact.subscribed if self.contact else False) if subscribed is None else subscribed,
            request=self.stored_data,
            urls=contact_urls(self.relay.settings.server.public_url, self.contact_id, self.email_id),
        )
        return render_subject(message.subject, scope), render(message.body, scope)

    def mail(self, subject: str, content_id: str, attachments_id: str | None) -> NewMail:
        """Return the mail to queue."""
        message, request = self.message, self.message.request
        lifetime = choose_lifetime(self.relay, request.expires_in)
        return NewMail(
            email_id=self.email_id,
            delivery_id=new_id(),
            project_id=message.project_id,
            contact=ContactChange(
                normalize_address(self.recipient.email),
                data=self.stored_data or None,
                subscribed=request.subscribed,
                subscribed_if_new=False,
                new_id=self.contact_id,
            ),
            rendered_for=self.contact_id if message.needs_contact else None,
            recipient=self.recipient.email,
            to_name=self.recipient.name,
            subject=subject,
            from_address=message.sender.address,
            from_name=message.sender.name,
            reply_to=message.reply_to,
            headers=request.headers,
            content_id=content_id,
            attachments_id=attachments_id,
            message_id=f"{self.email_id}@{domain_of(message.sender.address)}",
            mail_class=message.mail_class,
            source_type="TRANSACTIONAL",
            sender=message.sender.address,
            expires_at=self.now + lifetime,
            template_id=message.template.id if message.template else None,
            tag=message.tag,
            tracked=request.tracking,
            never_twice=message.never_twice,
            tls_wish=message.tls_wish,
        )
