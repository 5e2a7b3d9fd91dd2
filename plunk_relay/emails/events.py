"""How is something about a mail told? As an event named `email.<what>` with the documented data (contract 18.2)."""

from datetime import datetime

from plunk_relay.emails.queries import Email
from plunk_relay.events.queries import NewEvent


def email_event(email: Email, name: str, now: datetime, **extra: object) -> NewEvent:
    """Return the event with the data that all events about a mail share, and `extra`."""
    data = {
        "subject": email.subject,
        "from": email.from_address,
        "fromName": email.from_name,
        "messageId": email.message_id,
        "emailId": email.id,
        "templateId": email.template_id,
        "campaignId": email.campaign_id,
        "sourceType": email.source_type,
        **extra,
    }
    return NewEvent(email.project_id, name, email.contact_id, email.id, data, now)
