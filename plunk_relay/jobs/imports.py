"""How does a CSV file become contacts? Row by row in its order, merged like any upsert (contract section 13).

What is wrong with a row follows from the file alone, so that only counts of contacts are kept with the job: after a
restart the rows that were done are read again for their errors, and nothing else.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.jobs.batches import MOST_ERRORS, Batch, Cursor, Refused, Step, percent
from plunk_relay.jobs.csv_file import CsvFile, Row
from plunk_relay.jobs.pace import Pace

if TYPE_CHECKING:
    import sqlalchemy as sa

BEGINNING: Cursor = {"row": 0, "created": 0, "updated": 0}
_ROWS = 60  # of 3 ms
_ROWS_BESIDE_OTHERS = 10  # a unit of half a millisecond: nobody who writes at the same time waits for longer
_BATCH_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that are imported together."""

    changes: tuple[ContactChange, ...]
    last: int
    """Number of its last row."""
    percent: int


class ImportRun:
    """A file being imported into a project."""

    def __init__(self, project_id: str, file: CsvFile, pace: Pace) -> None:
        self._project_id = project_id
        self._file = file
        self._pace = pace
        self._rows = file.rows()
        self._total = 0
        self._errors: list[dict[str, Any]] = []
        self._failed = 0

    async def prepare(self, cursor: Cursor) -> Batch | None:
        """Read the next rows, in a thread; raises Refused when there are none at all."""
        while (piece := await asyncio.to_thread(self._read_piece, cursor["row"])) is not None:
            if piece.last > cursor["row"]:
                return Batch(partial(self._store, cursor, piece))
            await asyncio.sleep(0)
        if not self._total:
            raise Refused("The file names columns, but has no rows.")
        return None

    def result(self, cursor: Cursor) -> dict[str, Any]:
        """Return counts and errors; those of the file are complete when all rows were read."""
        created, updated = cursor["created"], cursor["updated"]
        return {
            "totalRows": self._total,
            "successCount": created + updated,
            "createdCount": created,
            "updatedCount": updated,
            "failureCount": self._failed,
            "errors": self._errors,
            "encoding": self._file.encoding.name,
        }

    def _read_piece(self, done: int) -> _Piece | None:
        """Read some rows, so few that neither the interpreter nor the writer is held up; `done` is the last one imported."""
        changes, last, start = [], 0, self._file.position
        for row in islice(self._rows, _ROWS_BESIDE_OTHERS if self._pace.gives_way else _ROWS):
            last = row.number
            self._total += 1
            if row.error is None and last > done:
                changes.append(ContactChange(row.email, row.data, row.subscribed))
            elif row.error is not None:
                self._note_error(row)
            if self._file.position - start > _BATCH_BYTES:
                break
        return _Piece(tuple(changes), last, percent(self._file.position, self._file.size)) if last else None

    def _note_error(self, row: Row) -> None:
        self._failed += 1
        if len(self._errors) < MOST_ERRORS:
            self._errors.append({"row": row.number, "email": row.email, "error": row.error})

    def _store(self, cursor: Cursor, piece: _Piece, tx: "sa.Connection", now: datetime) -> Step:
        stored = upsert_contacts(tx, [(self._project_id, change) for change in piece.changes], now=now)
        created = sum(is_new for _, is_new in stored)
        counts = {"created": cursor["created"] + created, "updated": cursor["updated"] + len(stored) - created}
        return Step({"row": piece.last, **counts}, piece.percent)
