"""What does delivery store beside the queue? The mails' statuses."""

from typing import Any

import sqlalchemy as sa

from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import emails

_STATUS = Prepared(
    sa.update(emails)
    .where(emails.c.id == sa.bindparam("row_id"), (emails.c.status == "PENDING") | (emails.c.status == "SENDING"))
    .values(
        status=sa.bindparam("new_status"),
        error=sa.bindparam("new_error"),
        sent_at=sa.bindparam("sent"),
        delivered_at=sa.bindparam("delivered"),
        bounced_at=sa.bindparam("bounced"),
        updated_at=sa.bindparam("now"),
    )
)


def update_statuses(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Move mails on from PENDING or SENDING; a mail that was opened meanwhile keeps its better status."""
    _STATUS.run_many(tx, rows)
