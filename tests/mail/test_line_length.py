"""What becomes of submitted lines that SMTP does not carry?"""

import contextlib
import email
from collections.abc import Iterator
from email import policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.line_length import (
    LONGEST_LINE,
    LineTooLongError,
    has_long_lines,
    has_long_lines_in,
    shorten,
    shorten_lines,
)

HEAD = b"From: app@acme.test\r\nSubject: Hello\r\n"
LONG = b"word " * 400
BASE64 = b"QUJD" * 500


@given(st.lists(st.integers(0, 1200), max_size=8), st.booleans())
def test_a_line_of_998_octets_is_short_and_one_of_999_is_long(lengths: list[int], ended: bool) -> None:
    data = b"\r\n".join(b"x" * length for length in lengths) + (b"\r\n" if ended else b"")
    assert has_long_lines(data) == any(length > LONGEST_LINE for length in lengths)


def test_short_lines_stay_as_they_are() -> None:
    message = HEAD + b"\r\n" + b"x" * LONGEST_LINE + b"\r\n"
    assert shorten_lines(message) is message


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=utf-8\r\ncontent-transfer-encoding:\r\n 7bit\r\n",
    ],
    ids=["no MIME", "8bit", "folded 7bit"],
)
@pytest.mark.parametrize("text", ["word " * 400, "ü" * 900, "x" * 5000, "a\r\n" + "b=" * 700 + "\r\n.\r\n\r\nend"])
def test_a_text_is_read_as_it_was_written(head: bytes, text: str) -> None:
    message = HEAD + head + b"\r\n" + text.encode() + b"\r\n"
    short = shorten_lines(message)
    assert not has_long_lines(short)
    assert short.startswith(HEAD)
    read = email.message_from_bytes(short, policy=policy.SMTP)
    assert read.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n") + "\n"
    assert all(len(read.get_all(name, [])) == 1 for name in ("Content-Transfer-Encoding", "MIME-Version"))


def test_only_the_part_with_the_long_line_changes() -> None:
    parts = [
        b"Content-Type: text/plain\r\n\r\nshort\r\n",
        b"Content-Type: text/html\r\n\r\n<p>" + LONG + b"</p>\r\n",
        b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + BASE64 + b"\r\n",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=41" * 600 + b"\r\n",
    ]
    message = _multipart(parts)
    short = shorten_lines(message)
    assert not has_long_lines(short)
    assert parts[0] in short
    assert [_words(part) for part in _parts(short)] == [_words(part) for part in _parts(message)]
    assert [part.get_content_type() for part in _parts(short)] == [part.get_content_type() for part in _parts(message)]


def test_a_forwarded_message_inside_is_shortened_too() -> None:
    inner = b"Subject: inner\r\n\r\n" + LONG + b"\r\n"
    short = shorten_lines(_multipart([b"Content-Type: message/rfc822\r\n\r\n" + inner]))
    assert not has_long_lines(short)
    [part] = _parts(short)
    assert _words(part.get_payload(0)) == LONG.split()


def test_text_around_the_parts_is_broken() -> None:
    short = shorten_lines(_multipart([b"\r\nshort\r\n"], around=b"x" * 3000))
    assert not has_long_lines(short)
    assert [part.get_payload() for part in _parts(short)] == ["short\r\n"]


def test_a_long_header_is_folded_at_its_blanks() -> None:
    value = b" ".join(b"<%d@acme.test>" % number for number in range(200))
    short = shorten_lines(b"References: " + value + b"\r\n" + HEAD + b"\r\nshort\r\n")
    assert not has_long_lines(short)
    assert email.message_from_bytes(short)["References"].split() == value.decode().split()


def test_a_long_header_without_blanks_is_refused() -> None:
    with pytest.raises(LineTooLongError, match="998"):
        shorten_lines(HEAD + b"X-Token: " + b"x" * 2000 + b"\r\n\r\nshort\r\n")


@given(st.binary(max_size=3000).map(lambda b: b.replace(b"\r", b" ").replace(b"\n", b"\r\n")), st.sampled_from([b"", LONG]))
def test_whatever_comes_leaves_short_or_is_refused(junk: bytes, more: bytes) -> None:
    for message in (HEAD + b"\r\n" + junk + more, junk + more, _multipart([junk + more])):
        with contextlib.suppress(LineTooLongError):
            assert not has_long_lines(shorten_lines(message))


@given(st.lists(st.integers(0, 1200), max_size=8), st.booleans(), st.integers(1, 3000))
def test_pieces_have_the_same_long_lines(lengths: list[int], ended: bool, size: int) -> None:
    data = b"\r\n".join(b"x" * length for length in lengths) + (b"\r\n" if ended else b"")
    assert has_long_lines_in(Pieces(data, size)) == has_long_lines(data)


@pytest.mark.parametrize("size", [997, 4096, 70_000])
def test_a_message_in_pieces_becomes_the_same(size: int) -> None:
    parts = [
        b"Content-Type: text/html\r\n\r\n<p>" + LONG * 50 + b"</p>\r\n",
        b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + BASE64 * 40 + b"\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=C3=BC and =\r\n more" * 9000 + b"=41" * 30000 + b"\r\n",
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n" + LONG + b"\r\n",
        b"Content-Type: text/plain\r\n\r\n" + b"line\r\n" * 3000,
    ]
    message = _multipart(parts, around=b"x" * 3000)
    short = b"".join(map(bytes, shorten(Pieces(message, size))))
    assert not has_long_lines(short)
    ours, theirs = list(email.message_from_bytes(short).walk()), list(email.message_from_bytes(message).walk())
    assert [part.get_content_type() for part in ours] == [part.get_content_type() for part in theirs]
    assert [part.get_payload(decode=True) for part in ours] == [part.get_payload(decode=True) for part in theirs]


@pytest.mark.parametrize(
    "message",
    [
        HEAD + b"X: " + b"word " * 60_000 + b"\r\n\r\n" + LONG,
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 30_000 + LONG,
    ],
    ids=["a header block", "many parts"],
)
def test_what_takes_too_much_to_look_at_is_refused(message: bytes) -> None:
    with pytest.raises(LineTooLongError):
        shorten_lines(message)


class Pieces:
    """Bytes that come in pieces of a size."""

    def __init__(self, data: bytes, piece_bytes: int) -> None:
        self._data = data
        self._piece_bytes = piece_bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield them."""
        last = len(self._data) if end is None else end
        for place in range(start, last, self._piece_bytes):
            yield self._data[place : min(place + self._piece_bytes, last)]


def _parts(message: bytes) -> list[Any]:
    return list(email.message_from_bytes(message, policy=policy.SMTP).iter_parts())


def _words(part: Any) -> list[bytes]:
    decoded: bytes = part.get_payload(decode=True)
    return decoded.split()


def _multipart(parts: list[bytes], *, around: bytes = b"") -> bytes:
    head = HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b+1"\r\n\r\n'
    body = b"".join(b"--b+1\r\n" + part + b"\r\n" for part in parts)
    return head + around + b"\r\n" + body + b"--b+1--\r\n" + around
