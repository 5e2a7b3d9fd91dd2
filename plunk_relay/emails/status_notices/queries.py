"""What does a notice about a delivery need to know?"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.tables import contents, deliveries, emails


@dataclass(frozen=True, slots=True)
class Notified:
    """A delivery as far as a notice about it needs to know."""

    project_id: str
    notify: bool
    sender: str
    recipient: str
    created_at: datetime
    expires_at: datetime
    subject: str
    message_id: str
    content_id: str | None
    """None: nothing was submitted as a message, or it is gone."""


def find_notified(tx: sa.Connection, delivery_id: str) -> Notified | None:
    """Look up who is to be told about a delivery."""
    names = ("project_id", "notify", "sender", "recipient", "created_at", "expires_at")
    join = deliveries.join(emails, emails.c.id == deliveries.c.email_id).outerjoin(
        contents, (contents.c.id == emails.c.content_id) & (contents.c.kind == "MIME")
    )
    columns = [*(deliveries.c[name] for name in names), emails.c.subject, emails.c.message_id, contents.c.id]
    row = tx.execute(sa.select(*columns).select_from(join).where(deliveries.c.id == delivery_id)).one_or_none()
    return Notified(*row) if row else None


def load_content_start(tx: sa.Connection, content_id: str, *, most: int = 65536) -> bytes | None:
    """Return the first bytes of a content: its headers; None when it is gone."""
    start = sa.select(sa.func.substr(contents.c.data, 1, most, type_=sa.LargeBinary)).where(contents.c.id == content_id)
    return tx.execute(start).scalar_one_or_none()
