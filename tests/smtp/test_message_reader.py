"""Where does a message end? At CRLF.CRLF, however the network cuts it, in memory or in a file; and never anywhere else."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plunk_relay.smtp.data import SPOOLED_BYTES, MessageReader, check_line_ends
from plunk_relay.smtp.replies import CANNOT_STORE, SmtpReply
from tests.kit.smtp import read_whole

_PIECES = [b"\r\n.\r\n", b"\r\n", b".", b"\r", b"\n", b"\r\n..", b"a", b"NOOP\r\n", b"\x00"]
_wire = st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join)
_cuts = st.lists(st.integers(0, 60), max_size=12)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some bytes: what is left for the next command, or None while the message has no end."""

    left: bytes | None
    too_large: bool
    message: bytes | None


@settings(deadline=None)
@given(_wire, _cuts, st.integers(0, 20), st.booleans())
@example(b"aaa\r\n.\r\n", [7], 5, False)  # the end begins where the limit is
@example(b"....\r\n.\r\n", [1, 2, 3], 5, False)  # stuffed dots do not count
@example(b"a\r\n..\r\n..b\r\n.\r\n", [6, 7, 8, 9, 10, 11], 20, True)  # stuffed dots across the moves
def test_neither_the_cuts_of_the_network_nor_a_file_change_anything(
    wire: bytes, cuts: list[int], most: int, spooled: bool
) -> None:
    assert read(wire, cuts, most, spooled=spooled) == expect(wire, most)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n..b\r\n.\r\n", b"a\r\n.\r\n.b\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
    ],
)
def test_dots_are_unstuffed(wire: bytes, message: bytes) -> None:
    assert read(wire, [], 100).message == message


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\x00.\r\n", b"\r\n. \r\n"]
)
def test_nothing_else_is_an_end(end: bytes) -> None:
    assert read(b"a" + end, [], 100).left is None


@pytest.mark.parametrize("message", [b"a\nb\r\n", b"a\rb\r\n", b"\n", b"\r", b"a\r\r\n", b"a\n\r\n", b"a\x00b\r\n", b"\n\r"])
def test_unclean_line_ends_are_refused(message: bytes) -> None:
    reply = check_line_ends(bytearray(message))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.6.0")


@pytest.mark.parametrize("message", [b"", b"a\r\n", b"\r\n\r\n", b"\xff\xfe\r\n", b"no end"])
def test_clean_line_ends_pass(message: bytes) -> None:
    assert check_line_ends(bytearray(message)) is None


def test_what_is_too_large_is_not_kept() -> None:
    reader = MessageReader(1000)
    for _ in range(1000):
        reader.feed(bytearray(b"x" * 1000))
    assert reader.too_large
    assert not reader.overflows


def test_a_message_that_cannot_be_spooled_is_put_off_and_read_to_its_end(tmp_path: Path) -> None:
    reader, buffer = MessageReader(10_000_000, tmp_path / "missing"), bytearray(b"x" * SPOOLED_BYTES + b"\r\n")
    assert not reader.feed(buffer)
    reader.spool()
    buffer += b"more\r\n.\r\nNOOP\r\n"
    assert reader.feed(buffer)
    assert (reader.take(), bytes(buffer)) == (CANNOT_STORE, b"NOOP\r\n")


def test_a_small_message_costs_no_file() -> None:
    reader = MessageReader(10_000_000)
    reader.feed(bytearray(b"x" * (SPOOLED_BYTES - 2)))
    assert not reader.overflows
    reader.feed(bytearray(b"x"))
    assert reader.overflows


def read(wire: bytes, cuts: list[int], most: int, *, spooled: bool = False) -> Outcome:
    """Feed the bytes cut at some places, as a session does; `spooled` moves them to a file at each cut."""
    reader, buffer = MessageReader(most), bytearray()
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    chunks = [wire[start:end] for start, end in itertools.pairwise(places)]
    for number, chunk in enumerate(chunks):
        buffer += chunk
        if reader.feed(buffer):
            taken = reader.take()
            left = bytes(buffer) + b"".join(chunks[number + 1 :])
            message = None if isinstance(taken, SmtpReply) else read_whole(taken)
            reader.close()
            return Outcome(left, reader.too_large, message)
        if spooled:
            reader.spool()
    reader.close()
    return Outcome(None, False, None)


def expect(wire: bytes, most: int) -> Outcome:
    """Say what RFC 5321 4.5.2 and RFC 1870 6 say, of the whole at once."""
    held, end, left = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    if not end:
        return Outcome(None, False, None)
    lines = (held + b"\r\n").removeprefix(b"\r\n").split(b"\r\n") if held else [b""]
    message = b"\r\n".join(line.removeprefix(b".") for line in lines)
    too_large = len(message) > most
    refused = too_large or check_line_ends(bytearray(message)) is not None
    return Outcome(left, too_large, None if refused else message)
