"""How does an entry of the queue look to an operator?"""

from typing import Any

from plunk_relay.emails.queries import Attempt
from plunk_relay.emails.queue_admin.queries import Entry
from plunk_relay.mail.classify import explain


def show(entry: Entry) -> dict[str, Any]:
    """Return a delivery as JSON values."""
    return {
        "id": entry.id,
        "email": entry.email_id,
        "project": entry.project_id,
        "state": entry.state,
        "status": entry.status,
        "sender": entry.sender,
        "recipient": entry.recipient,
        "subject": entry.subject,
        "attempts_made": entry.attempts,
        "maybe_delivered": entry.unknown_outcomes > 0,
        "last_reply": entry.last_reply,
        "due": entry.due_at if entry.state == "QUEUED" else None,
        "created": entry.created_at,
        "finished": entry.finished_at,
    }


def show_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt with its conversation, and what its reply means by the rules of today."""
    found = explain(attempt.rule, permanent=attempt.outcome == "BOUNCED") if attempt.rule else None
    return {
        "number": attempt.number,
        "started": attempt.started_at,
        "milliseconds": attempt.milliseconds,
        "host": attempt.host,
        "tls": attempt.tls,
        "outcome": attempt.outcome,
        "reply": attempt.reply,
        "class": attempt.reply_class,
        "rule": attempt.rule,
        "meaning": found.meaning if found else None,
        "action": found.action if found else None,
        "conversation": attempt.conversation.split("\n") if attempt.conversation else [],
    }
