"""How do pages that were copied reach the disk? Early and a few at a time, before anybody has to wait until they are there.

An fsync of thousands of pages keeps the disk busy for 50 ms and more, and each commit in that time waits in the same queue.
A sweep has the system write a stretch of the file, waits until it is done, and rests: between two stretches the disk is
free for a commit. It changes nothing about what is safe: SQLite's own fsync comes afterwards, and finds little left.
"""

import ctypes
import os
import time
from pathlib import Path

from plunk_relay.clock import SystemClock

_WRITE_AND_WAIT = 1 | 2 | 4  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER
_SHORTEST_BYTES = 256 << 10
_LONGEST_BYTES = 64 << 20
_CLEAN_SECONDS = 0.0003
"""A stretch that took less had hardly anything to write: the next one is longer."""
_LONG_SECONDS = 0.001
"""A stretch that took more kept commits waiting: the next one is shorter."""
_stopwatch = SystemClock().monotonic
_sync_file_range = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)  # Linux has it
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class Writeback:
    """A file whose changed pages are to be written. Its methods raise OSError when the disk fails.

    To close a file anywhere gives back all locks that the process has on it (fcntl(2)): so this is closed after SQLite.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def sweep(self, *, rest: float) -> None:
        """Write what is changed, stretch by stretch; behind each, rest for `rest` times as long as it took."""
        if _sync_file_range is None:
            return
        start, stretch, size = 0, _SHORTEST_BYTES, os.fstat(self._file).st_size
        while start < size:
            began = _stopwatch()
            if _sync_file_range(self._file, start, stretch, _WRITE_AND_WAIT):
                raise OSError(ctypes.get_errno(), "cannot write pages of the database early")
            took = _stopwatch() - began
            start += stretch
            if took > _LONG_SECONDS:
                stretch = max(stretch // 2, _SHORTEST_BYTES)
            elif took < _CLEAN_SECONDS:
                stretch = min(stretch * 2, _LONGEST_BYTES)
            if rest and took > _CLEAN_SECONDS:
                time.sleep(took * rest)

    def finish(self) -> None:
        """Write what is changed, all at once, with the length of the file."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
