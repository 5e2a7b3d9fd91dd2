"""What would a template say to somebody? Rendered and finished as for sending; nothing is stored and nothing is sent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plunk_relay.contacts.merge import merge_data
from plunk_relay.contacts.queries import Contact, find_contact
from plunk_relay.errors import ContactNotFound
from plunk_relay.ids import new_id
from plunk_relay.mail.footer import finish_html
from plunk_relay.mail.html import html_to_text
from plunk_relay.mail.html_faults import find_html_faults
from plunk_relay.mail.template import ContactUrls, Rendered, contact_urls, merge_scope, render_watched, to_subject
from plunk_relay.projects.actions import get_project
from plunk_relay.projects.queries import Project
from plunk_relay.relay import Relay
from plunk_relay.templates.actions import get_template
from plunk_relay.templates.queries import Template

EXAMPLE_CONTACT_ID = "00000000-0000-4000-8000-000000000000"
EXAMPLE_ADDRESS = "ann@example.com"
_CLASSES = {"MARKETING": "marketing", "HEADLESS": "headless", "TRANSACTIONAL": "transactional"}
_LONGEST_SUBJECT = 78
_MOST_NAMES = 50
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Preview:
    """A mail as it would be sent; each warning is a sentence."""

    subject: str
    html: str
    text: str
    warnings: tuple[str, ...]


async def preview_template(
    relay: Relay, project_id: str, template_id: str, *, data: Mapping[str, Any] | None, contact_id: str | None
) -> Preview:
    """Return what the template says with this data to the contact, else to an example of one.

    Raises TemplateNotFound, ContactNotFound, and BadRequest for a `locale` that is no text.
    """
    template = await get_template(relay, project_id, template_id)
    contact = await _get_contact(relay, project_id, contact_id) if contact_id is not None else None
    merged = merge_data(contact.data if contact else None, data)
    locale = (merged or {}).get("locale")
    project = await get_project(relay, project_id)
    draft = _Draft(
        template=template,
        project=project,
        contact=contact,
        data=data,
        language=locale if isinstance(locale, str) else project.language,
        urls=contact_urls(relay.settings.server.public_url, contact.id if contact else EXAMPLE_CONTACT_ID, new_id()),
        own_url=relay.settings.server.public_url,
    )
    return await asyncio.to_thread(draft.render)


async def _get_contact(relay: Relay, project_id: str, contact_id: str) -> Contact:
    contact = await relay.db.read(find_contact, project_id, contact_id)
    if contact is None:
        raise ContactNotFound.of("Contact", contact_id)
    return contact


@dataclass(frozen=True, slots=True)
class _Draft:
    """A preview in the making; for a thread: a template within the limits may take 0.2 s."""

    template: Template
    project: Project
    contact: Contact | None
    data: Mapping[str, Any] | None
    language: str
    """Of the footer."""
    urls: ContactUrls
    own_url: str

    def render(self) -> Preview:
        scope = merge_scope(
            contact_id=self.contact.id if self.contact else EXAMPLE_CONTACT_ID,
            email=self.contact.email if self.contact else EXAMPLE_ADDRESS,
            stored=self.contact.data if self.contact else None,
            subscribed=self.contact.subscribed if self.contact else True,
            request=self.data,
            urls=self.urls,
        )
        subject, body = render_watched(self.template.subject, scope), render_watched(self.template.body, scope)
        html = finish_html(
            body.text,
            mail_class=_CLASSES[self.template.type],
            project_name=self.project.name,
            language=self.language,
            unsubscribe_url=self.urls.unsubscribe,
        )
        line = to_subject(subject.text)
        text = html_to_text(html)
        warnings = [
            *_rendering_warnings(subject, body),
            *_subject_warnings(line),
            *(["The body is empty"] if not text else []),
            *self._opt_out_warnings(html),
            *find_html_faults(html, own_url=self.own_url),
        ]
        return Preview(line, html, text, tuple(warnings))

    def _opt_out_warnings(self, html: str) -> list[str]:
        """Marketing mail has its footer; of headless mail the author sees to it."""
        pages = [url.partition("?")[0] for url in (self.urls.unsubscribe, self.urls.manage)]
        if self.template.type != "HEADLESS" or any(page in html for page in pages):
            return []
        return ["A HEADLESS template gets no footer, and this one has no link to unsubscribe: {{unsubscribeUrl}}"]


def _rendering_warnings(subject: Rendered, body: Rendered) -> list[str]:
    warnings = [
        f"The {field} runs into a limit: its tags stay as they are, and plain placeholders alone are filled in"
        for field, rendered in (("subject", subject), ("body", body))
        if rendered.failed
    ]
    names = list(dict.fromkeys((*subject.unset, *body.unset)))
    warnings += [f"No value: {{{{{name[:_LONGEST_NAME]}}}}}" for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        warnings.append(f"No value: {len(names) - _MOST_NAMES} more variables")
    return warnings


def _subject_warnings(subject: str) -> list[str]:
    if not subject.strip():
        return ["The subject is empty"]
    if len(subject) > _LONGEST_SUBJECT:
        return [f"The subject has {len(subject)} characters: most mail programs show fewer than {_LONGEST_SUBJECT}"]
    return []
