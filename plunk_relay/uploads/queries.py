"""What uploads are stored? What is known of each file; its bytes are in the store."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.tables import uploads


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a project; `key` is its path in the store."""

    id: str
    project_id: str
    key: str
    filename: str
    content_type: str
    size: int
    created_at: datetime


_NAMES = tuple(Upload.__dataclass_fields__)
_SELECT = sa.select(*(uploads.c[name] for name in _NAMES))


def insert_upload(tx: sa.Connection, upload: Upload) -> None:
    """Store what is known of a file."""
    tx.execute(sa.insert(uploads), {name: getattr(upload, name) for name in _NAMES})


def find_any_upload(tx: sa.Connection, key: str) -> Upload | None:
    """Look an upload up by its unguessable key alone: for the links in mails."""
    row = tx.execute(_SELECT.where(uploads.c.key == key)).one_or_none()
    return Upload(*row) if row else None
