"""How does a file come onto the disk? Whole or not at all: written under another name first, and on disk when it is told."""

import asyncio
import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from plunk_relay.errors import SetupError, StoreFailed, Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_UNFINISHED = ".unfinished"


class DiskStore:
    """Files below a directory; served by this relay at `base_url`. Keys are ours: nothing in them leads out of it."""

    def __init__(self, directory: Path, base_url: str) -> None:
        self._directory = directory
        self._base_url = base_url.rstrip("/")

    def prepare(self) -> None:
        """Make the directory (mode 700) and drop what a kill left unfinished; raises SetupError."""
        unfinished = self._directory / _UNFINISHED
        try:
            unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left_over in unfinished.iterdir():
                left_over.unlink()
        except OSError as error:
            what = f"setting `uploads.directory`: cannot prepare {self._directory}: {error.strerror}"
            raise SetupError(what) from error

    def url(self, key: str) -> str:
        """Return where everybody finds a file."""
        return f"{self._base_url}/{key}"

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store a file; raises Unavailable when the disk is full, StoreFailed when it fails."""
        try:
            await asyncio.to_thread(self._write, key, data)
        except OSError as error:
            if error.errno in _FULL:
                raise Unavailable("The relay cannot store files at the moment: its disk is full.") from error
            raise StoreFailed(f"The file cannot be stored: {error.strerror}.") from error

    async def remove(self, key: str) -> None:
        """Take a file away again; one that is not there is no error."""
        with suppress(OSError):
            await asyncio.to_thread((self._directory / key).unlink)

    async def read(self, key: str) -> bytes | None:
        """Return a file, None when it is not there; raises StoreFailed when the disk fails."""
        try:
            return await asyncio.to_thread((self._directory / key).read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreFailed(f"The file cannot be read: {error.strerror}.") from error

    def _write(self, key: str, data: bytes) -> None:
        place = self._directory / key
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._directory / _UNFINISHED / secrets.token_hex(8)
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(place)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync_up(place.parent, self._directory)


def _sync_up(directory: Path, top: Path) -> None:
    """Bring the names of a directory onto the disk, and of those above it up to the top: they may be new."""
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if directory == top:
            return
        directory = directory.parent
