"""Which rows does an uploaded CSV file have? Read piece by piece, never held as a whole (RFC 4180, leniently).

The delimiter is the comma, or the semicolon or tabulator when it is with them that the header names the column `email`.
Rows are numbered as a spreadsheet shows them: the header is 1, blank lines count, a line break inside quotes does not.
What is not a row of a contact is told beside its number.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from plunk_relay.contacts.merge import RESERVED_FIELDS
from plunk_relay.jobs.batches import Refused
from plunk_relay.jobs.cells import Cell, read_cell, read_subscribed
from plunk_relay.jobs.encodings import Encoding, find_encoding
from plunk_relay.mail.address import check_address, normalize_address

MOST_COLUMNS = 1000
LONGEST_ROW = 65_536
"""Characters of a row."""
_LONGEST_ADDRESS = 320
_DELIMITERS = (",", ";", "\t")
_EMAIL, _SUBSCRIBED, _LOCALE = "email", "subscribed", "locale"
_NO_FIELDS = {name.lower() for name in RESERVED_FIELDS} - {_EMAIL, _SUBSCRIBED}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file: of a contact, or with an `error` that says why it is none."""

    number: int
    email: str
    """Normalised; with an error: as it stands there."""
    data: Mapping[str, Cell] = field(default_factory=dict)
    """What the other columns say; by the names of the header, in lower case."""
    subscribed: bool | None = None
    error: str | None = None


class CsvFile:
    """An uploaded file, open at its first row; raises Refused when there is no column `email`."""

    def __init__(self, data: bytes) -> None:
        self.encoding = find_encoding(data)
        self.size = len(data)
        self._delimiter = _find_delimiter(data, self.encoding)
        self._raw, self._text = self.encoding.open(data)  # closed together, when nobody has the text any more
        self._records = _number(csv.reader(_without_nul(self._text), delimiter=self._delimiter))
        self._columns = ["" if name in _NO_FIELDS else name for name in _read_header(self._records)]

    @property
    def position(self) -> int:
        """How many bytes were read so far."""
        return self._raw.tell()

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are not blank."""
        for number, cells in self._records:
            if cells is None or sum(map(len, cells)) > LONGEST_ROW:
                yield Row(number, "", error=f"The row has more than {LONGEST_ROW} characters: is a closing quote missing?")
            elif not _is_blank(cells):
                yield self._read(number, cells)

    def _read(self, number: int, cells: Sequence[str]) -> Row:
        texts = {name: text for name, cell in zip(self._columns, cells, strict=False) if name and (text := cell.strip())}
        given = texts.pop(_EMAIL, "")
        error = _explain_address(given)
        if error is not None:
            return Row(number, given[:_LONGEST_ADDRESS], error=error)
        subscribed = read_subscribed(texts.pop(_SUBSCRIBED, ""))
        data: dict[str, Cell] = {name: text if name == _LOCALE else read_cell(text) for name, text in texts.items()}
        return Row(number, normalize_address(given), data, subscribed)


def _without_nul(text: Iterator[str]) -> Iterator[str]:
    """Leave out what no database keeps in a text."""
    return (line.replace("\0", "") for line in text)


def _number(records: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | None]]:
    """Yield records with their numbers; None is one that the reader gives up because a cell does not end."""
    number = 0
    while True:
        number += 1
        try:
            yield number, next(records)
        except StopIteration:
            return
        except csv.Error:
            yield number, None


def _is_blank(cells: Sequence[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _find_delimiter(data: bytes, encoding: Encoding) -> str:
    for delimiter in _DELIMITERS:
        _, text = encoding.open(data)
        names = _names(_find_header(_number(csv.reader(_without_nul(text), delimiter=delimiter))))
        if _EMAIL in names:
            return delimiter
    return _DELIMITERS[0]


def _find_header(records: Iterator[tuple[int, list[str] | None]]) -> Sequence[str]:
    """Return the first record that is not blank; nothing when there is none that can be read."""
    return next((cells or () for _, cells in records if cells is None or not _is_blank(cells)), ())


def _names(header: Sequence[str]) -> list[str]:
    return [cell.strip("\ufeff").strip().lower() for cell in header]


def _read_header(records: Iterator[tuple[int, list[str] | None]]) -> list[str]:
    header = _find_header(records)
    if not header:
        raise Refused("The file has no rows: the first one names the columns, and one of them must be `email`.")
    names = _names(header)
    if len(names) > MOST_COLUMNS:
        raise Refused(f"The file has {len(names)} columns; {MOST_COLUMNS} are the most.")
    if _EMAIL not in names:
        shown = ", ".join(name for name in names if name)[:200]
        raise Refused(f"The first row names no column `email`; it names: {shown or 'nothing'}.")
    return names


def _explain_address(text: str) -> str | None:
    if not text:
        return "The e-mail address is missing."
    if len(text) > _LONGEST_ADDRESS or "." not in text.rpartition("@")[2] or check_address(text) is not None:
        return "This is no e-mail address."
    return None
