"""How do changed pages reach the disk early? In stretches as long as the disk takes them at once, with rests between."""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plunk_relay.db import writeback
from plunk_relay.db.writeback import Writeback

SIZE = 300 << 20
SHORT, LONG = 256 << 10, 64 << 20


class Disk:
    """A kernel whose every write takes as long as it is told, on a clock of its own."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.stretches: list[tuple[int, int]] = []
        self.rested = 0.0
        self._seconds = seconds
        self._now = 0.0

    def write(self, _file: int, start: int, length: int, _flags: int) -> int:
        """Write a stretch."""
        self.stretches.append((start, length))
        self._now += self._seconds(start, length)
        return 0

    def now(self) -> float:
        """Tell the time."""
        return self._now

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        self.rested += seconds
        self._now += seconds


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Writeback]:
    """Make a file that is long and empty."""
    path = tmp_path / "long"
    path.touch()
    os.truncate(path, SIZE)
    opened = Writeback(path)
    yield opened
    opened.close()


def _use(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Disk:
    monkeypatch.setattr(writeback, "_sync_file_range", disk.write)
    monkeypatch.setattr(writeback, "_stopwatch", disk.now)
    monkeypatch.setattr(time, "sleep", disk.rest)
    return disk


def _assert_whole(disk: Disk) -> None:
    end = 0
    for start, length in disk.stretches:
        assert start == end
        end += length
    assert end >= SIZE


def test_what_is_written_early_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"page" * 100_000)
    file = Writeback(path)
    try:
        file.sweep(rest=0.0)
        file.finish()
        assert path.read_bytes() == b"page" * 100_000
    finally:
        file.close()


def test_a_clean_file_is_swept_in_few_stretches(file: Writeback, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _use(monkeypatch, Disk(lambda _start, _length: 0.0001))
    file.sweep(rest=1.0)
    _assert_whole(disk)
    assert max(length for _, length in disk.stretches) == LONG
    assert len(disk.stretches) < 15
    assert disk.rested == 0.0, "nobody was kept waiting"


def test_a_file_full_of_changes_is_swept_in_short_stretches(file: Writeback, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _use(monkeypatch, Disk(lambda _start, length: length / 200e6))
    file.sweep(rest=0.5)
    _assert_whole(disk)
    assert {length for _, length in disk.stretches} == {SHORT}
    assert disk.rested == pytest.approx(0.5 * len(disk.stretches) * SHORT / 200e6)


def test_stretches_are_short_only_where_there_is_much_to_write(file: Writeback, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = 20 << 20, 280 << 20
    disk = _use(
        monkeypatch, Disk(lambda start, length: 0.0001 + max(min(start + length, last) - max(start, first), 0) / 200e6)
    )
    file.sweep(rest=0.0)
    _assert_whole(disk)
    assert disk.stretches[-1][1] > 8 * SHORT
    assert {length for start, length in disk.stretches if start in range(200 << 20, last - SHORT)} == {SHORT}
    assert disk.rested == 0.0


def test_a_disk_that_fails_is_an_error(file: Writeback, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> int:
        ctypes.set_errno(5)
        return -1

    monkeypatch.setattr(writeback, "_sync_file_range", fail)
    with pytest.raises(OSError, match="cannot write pages of the database early") as failure:
        file.sweep(rest=0.0)
    assert failure.value.errno == 5


def test_a_system_that_cannot_write_stretches_leaves_it_to_the_end(file: Writeback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "_sync_file_range", None)
    file.sweep(rest=1.0)
    file.finish()
