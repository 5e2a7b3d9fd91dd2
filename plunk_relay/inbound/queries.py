"""Which received mails are stored already?"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.tables import contacts, emails


def list_stored(
    tx: sa.Connection, project_id: str, *, message_id: str, sender: str, recipients: Sequence[str], since: datetime
) -> set[str]:
    """Return those recipients for whom this message of this sender was stored since a moment."""
    join = emails.join(contacts, contacts.c.id == emails.c.contact_id)
    where = (
        (emails.c.message_id == message_id)
        & (emails.c.project_id == project_id)
        & (emails.c.source_type == "INBOUND")
        & (emails.c.created_at >= since)
        & emails.c.from_address.in_(recipients)
        & (contacts.c.email == sender)
    )
    return set(tx.execute(sa.select(emails.c.from_address).select_from(join).where(where)).scalars())
