"""What contents are stored? Bytes, a large one's in parts."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.portable import listed, unindexed
from plunk_relay.db.prepared import Prepared
from plunk_relay.db.tables import content_parts, contents, emails
from plunk_relay.spool import ByteSource

ContentKind = Literal["MIME", "HTML", "ATTACHMENTS"]


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to send: a message as submitted (MIME), a rendered body (HTML), or a JSON list (ATTACHMENTS).

    What is not held in memory is stored in parts, the first of them in the content's own row.
    """

    id: str
    project_id: str
    kind: ContentKind
    data: bytes | ByteSource

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.size


_INSERT_CONTENT = Prepared(sa.insert(contents))
_INSERT_PART = Prepared(sa.insert(content_parts))
_CONTENT = sa.select(contents.c.size, contents.c.data).where(contents.c.id == sa.bindparam("content_id"))
_PART = Prepared(
    sa.select(content_parts.c.data).where(
        content_parts.c.content_id == sa.bindparam("content_id"), content_parts.c.number == sa.bindparam("number")
    )
)


def insert_contents(tx: sa.Connection, new: Sequence[Content], *, now: datetime) -> None:
    """Store contents."""
    rows = [
        {
            "id": content.id,
            "project_id": content.project_id,
            "kind": content.kind,
            "data": content.data if isinstance(content.data, bytes) else next(iter(content.data.pieces())),
            "size": content.size,
            "created_at": now,
        }
        for content in new
    ]
    _INSERT_CONTENT.run_many(tx, rows)
    for content in new:
        if not isinstance(content.data, bytes):
            for number, data in enumerate(content.data.pieces()):
                if number:
                    _INSERT_PART.run(tx, {"content_id": content.id, "number": number, "data": data})


def load_content(tx: sa.Connection, content_id: str) -> bytes | None:
    """Return the bytes of a content, or None when it is gone."""
    pieces = list(read_content(tx, content_id))
    return b"".join(pieces) if pieces else None


def read_content(tx: sa.Connection, content_id: str) -> Iterator[bytes]:
    """Yield the bytes of a content as they are stored, a large one in parts; nothing at all when it is gone."""
    row = tx.execute(_CONTENT, {"content_id": content_id}).one_or_none()
    if row is None:
        return
    yield row.data
    missing = row.size - len(row.data)
    for number in itertools.count(1):
        if not missing or not (part := _PART.fetch(tx, {"content_id": content_id, "number": number})):
            return
        missing -= len(part[0][0])
        yield part[0][0]


def list_contents_of_contacts(tx: sa.Connection, project_id: str, contact_ids: Sequence[str]) -> list[str]:
    """Return the ids of what the mails of contacts contain."""
    return _list_contents(tx, project_id, emails.c.contact_id, contact_ids)


def list_contents_of_mails(tx: sa.Connection, project_id: str, email_ids: Sequence[str]) -> list[str]:
    """Return the ids of what mails contain."""
    return _list_contents(tx, project_id, emails.c.id, email_ids)


def _list_contents(tx: sa.Connection, project_id: str, column: sa.Column[str], ids: Sequence[str]) -> list[str]:
    mine = column.in_(listed("ids")) & (unindexed(emails.c.project_id) == project_id)
    found = tx.execute(sa.select(emails.c.content_id, emails.c.attachments_id).where(mine), {"ids": dump_json(list(ids))})
    return sorted({content_id for row in found for content_id in row if content_id is not None})


def delete_unused_contents(tx: sa.Connection, project_id: str, content_ids: Sequence[str]) -> int:
    """Remove those contents that no mail has any more; returns how many."""
    used = sa.exists().where((emails.c.content_id == contents.c.id) | (emails.c.attachments_id == contents.c.id))
    where = (contents.c.project_id == project_id) & contents.c.id.in_(listed("content_ids")) & ~used
    return tx.execute(sa.delete(contents).where(where), {"content_ids": dump_json(list(content_ids))}).rowcount
