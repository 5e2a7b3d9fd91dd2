"""Where is a message that is too large to be held in memory? In a file without a name, read again piece by piece.

The file lies in `<data_dir>/spool`, on the disk whose free space is watched. The kernel drops it with its last
descriptor, however the process ends; where a file system knows no nameless files, the directory is emptied at the start.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from plunk_relay.errors import SetupError

PIECE_BYTES = 262144
"""Bytes handled at once."""
Buffer = bytes | bytearray | memoryview


class ByteSource(Protocol):
    """Bytes that can be read piece by piece, as often as needed."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """Yield the bytes between two places, a few at a time."""
        ...


class Held:
    """Bytes in memory, read as if they were not."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._view)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """Yield views of them."""
        last = self.size if end is None else end
        for place in range(start, last, PIECE_BYTES):
            yield self._view[place : min(place + PIECE_BYTES, last)]


class Joined:
    """Some bytes, and what follows a place in another source."""

    def __init__(self, head: bytes, rest: ByteSource, start: int) -> None:
        self._head, self._rest, self._start = head, rest, start

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._head) + self._rest.size - self._start

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """Yield the head, then the rest."""
        last, length = (self.size if end is None else end), len(self._head)
        if start < min(length, last):
            yield self._head[start:last]
        if last > length:
            shift = self._start - length
            yield from self._rest.pieces(max(start, length) + shift, last + shift)


class SpooledFile:
    """Bytes in a nameless file. Its methods may wait for the disk: large amounts belong in a thread."""

    def __init__(self, directory: Path | None) -> None:
        """Make the file; raises OSError when the disk is full."""
        self._directory = directory
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  closed by close()
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    def append(self, data: Buffer) -> None:
        """Write all of `data` at the end; raises OSError when the disk is full."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view[:PIECE_BYTES], self._size)
            view = view[written:]
            self._size += written

    def read(self, start: int, count: int) -> bytes:
        """Return up to so many bytes from a place on."""
        return os.pread(self._file.fileno(), count, start)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """Yield the bytes between two places, a few at a time."""
        last = self._size if end is None else end
        while start < last and (data := self.read(start, min(PIECE_BYTES, last - start))):
            yield data
            start += len(data)

    def rewrite(self, pieces: Iterable[Buffer]) -> None:
        """Replace the bytes by others, which may be made of them; raises OSError when the disk is full."""
        fresh = SpooledFile(self._directory)
        try:
            for piece in pieces:
                fresh.append(piece)
        except BaseException:
            fresh.close()
            raise
        self._file.close()
        self._file, self._size = fresh._file, fresh._size

    def close(self) -> None:
        """Give the disk space back; may be called again."""
        self._file.close()


def spool_directory(data_dir: Path) -> Path:
    """Return where spooled files lie."""
    return data_dir / "spool"


def prepare_spool(data_dir: Path) -> None:
    """Make the directory (mode 700) and empty it; raises SetupError when it cannot be made."""
    directory = spool_directory(data_dir)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        for left_over in directory.iterdir():
            left_over.unlink()
    except OSError as error:
        raise SetupError(f"cannot prepare the directory {directory}: {error.strerror}") from error
