"""Where is a message that is too large to be held? In a file without a name, or made of pieces of others."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.errors import SetupError
from plunk_relay.spool import PIECE_BYTES, ByteSource, Held, Joined, SpooledFile, prepare_spool, spool_directory

DATA = bytes(range(256)) * 4000


def _in_a_file(data: bytes) -> ByteSource:
    file = SpooledFile(None)
    for start in range(0, len(data), 100_000):
        file.append(data[start : start + 100_000])
    return file


def _joined(data: bytes) -> ByteSource:
    return Joined(data[:1000], Held(b"replaced" + data[1000:]), len(b"replaced"))


@pytest.mark.parametrize("make", [Held, _in_a_file, _joined], ids=["held", "in a file", "joined"])
@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 10), (999, 1001), (1000, 1000), (1001, None), (500_000, 900_000), (len(DATA), None)]
)
def test_bytes_are_read_between_any_places_as_often_as_needed(
    make: Callable[[bytes], ByteSource], start: int, end: int | None
) -> None:
    source = make(DATA)
    assert source.size == len(DATA)
    for _ in range(2):
        pieces = [bytes(piece) for piece in source.pieces(start, end)]
        assert b"".join(pieces) == DATA[start:end]
        assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    if isinstance(source, SpooledFile):
        source.close()


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 40))
def test_joined_bytes_are_those_of_both(head: bytes, rest: bytes, start: int, first: int, last: int) -> None:
    start = min(start, len(rest))
    whole = head + rest[start:]
    source = Joined(head, Held(rest), start)
    first, last = sorted((min(first, len(whole)), min(last, len(whole))))
    assert source.size == len(whole)
    assert b"".join(map(bytes, source.pieces(first, last))) == whole[first:last]


def test_a_file_has_no_name_and_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    file = SpooledFile(tmp_path)
    file.append(DATA)
    assert list(tmp_path.iterdir()) == []
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(0, 1)


def test_a_file_is_rewritten_from_its_own_bytes(tmp_path: Path) -> None:
    file = SpooledFile(tmp_path)
    file.append(DATA)
    file.rewrite(bytes(piece)[::-1] for piece in file.pieces())
    assert file.size == len(DATA)
    assert file.read(0, 256) == DATA[:PIECE_BYTES][::-1][:256]
    file.close()


def test_a_rewrite_that_fails_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    file = SpooledFile(tmp_path)
    file.append(DATA)
    with pytest.raises(ZeroDivisionError):
        file.rewrite(bytes(1 // 0) for _ in file.pieces())
    assert file.read(0, 256) == DATA[:256]
    file.close()


def test_the_directory_is_private_and_empty(tmp_path: Path) -> None:
    directory = spool_directory(tmp_path)
    prepare_spool(tmp_path)
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "left-over").touch()
    prepare_spool(tmp_path)
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(SetupError, match=f"^cannot prepare the directory {tmp_path}/spool: {os.strerror(17)}$"):
        prepare_spool(tmp_path)
