"""What is read out of a submitted message, and what is changed in it? Only its header block counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.mail.address import Mailbox
from plunk_relay.mail.submitted import MalformedMessage, Submitted, measure_headers, prepare_submitted

RECEIVED = b"Received: by relay.test; now\r\n"
DATE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COMPLETE = b"Date: Sun, 01 Mar 2026 11:00:00 +0000\r\nMessage-ID: <own@acme.test>\r\n"

_name = st.sampled_from(["X-A", "Subject", "To", "Received", "Comments", "x-b"])
_kept_field = st.builds(
    lambda name, value: f"{name}: {value}\r\n".encode("latin-1"),
    _name,
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30).map(
        lambda text: text.replace("~", "\r\n\t~")  # some are folded
    ),
)
_removed_field = st.sampled_from(
    [b"Bcc: a@b.test\r\n", b"X-Plunk-Tag: a\r\n b\r\n", b"return-path: <>\r\n", b"BCC:\r\n\t\r\n"]
)


@settings(deadline=None)
@given(st.lists(st.tuples(_kept_field, st.lists(_removed_field, max_size=2))), st.binary(max_size=60))
def test_every_byte_stays_but_for_the_removed_fields(fields: list[tuple[bytes, list[bytes]]], body: bytes) -> None:
    sent = COMPLETE + b"".join(kept + b"".join(removed) for kept, removed in fields) + b"\r\n" + body
    expected = RECEIVED + COMPLETE + b"".join(kept for kept, _ in fields) + b"\r\n" + body
    assert prepare(sent).message == expected


def test_a_message_without_a_body_gets_its_empty_line() -> None:
    assert prepare(COMPLETE).message == RECEIVED + COMPLETE + b"\r\n"


def test_a_message_without_headers_gets_some() -> None:
    message = prepare(b"\r\nonly a body\r\n").message
    assert message.startswith(RECEIVED + b"Date: ")
    assert message.endswith(b"\r\n\r\nonly a body\r\n")


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (b"", 0),
        (b"\r\nbody\r\n", 0),
        (b"A: b\r\n", 6),
        (b"A: b\r\n\r\n", 6),
        (b"A: b\r\nC: d\r\n\r\nE: f\r\n\r\n", 12),
    ],
)
def test_the_header_block_ends_at_the_first_empty_line(raw: bytes, size: int) -> None:
    assert measure_headers(bytearray(raw)) == size


@pytest.mark.parametrize(
    ("head", "place"),
    [
        (b"no colon\r\n", "line 1 "),
        (b"A: b\r\n: no name\r\n", "line 2 "),
        (b" folded into nothing\r\n", "line 1 "),
        (b"A: b\r\n c\r\nspace in name: d\r\n", "line 3 "),
        (b"N\xc3\xa4me: d\r\n", "line 1 "),
        (b"From me@acme.test Sun Mar  1 12:00:00 2026\r\n", "line 1 "),
    ],
)
def test_what_is_not_a_header_field_is_named_by_its_line(head: bytes, place: str) -> None:
    with pytest.raises(MalformedMessage, match=place):
        prepare(head + b"\r\n")


@pytest.mark.parametrize(
    ("value", "senders"),
    [
        ("app@acme.test", [Mailbox("app@acme.test")]),
        ("Acme Team <app@acme.test>", [Mailbox("app@acme.test", "Acme Team")]),
        ('"Doe, Jane" <jane@acme.test>', [Mailbox("jane@acme.test", "Doe, Jane")]),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?= <app@acme.test>", [Mailbox("app@acme.test", "Grüße")]),
        ("Grüße <app@acme.test>", [Mailbox("app@acme.test", "Grüße")]),
        ("a@acme.test, B <b@rival.test>", [Mailbox("a@acme.test"), Mailbox("b@rival.test", "B")]),
        ("A\r\n <a@acme.test>", [Mailbox("a@acme.test", "A")]),
        ("=?utf-8?b?eA0KQmNjOiB5?= <a@acme.test>", [Mailbox("a@acme.test", "x Bcc: y")]),
        ("=?utf-7?q?+2AA-?= <a@acme.test>", [Mailbox("a@acme.test", "?")]),
        ("Nobody:;", []),
        ("(" * 980, []),
        ("", []),
    ],
)
def test_authors_are_read(value: str, senders: list[Mailbox]) -> None:
    assert prepare(f"From: {value}\r\n\r\n".encode()).senders == senders


def test_every_from_field_is_seen() -> None:
    submitted = prepare(b"From: a@acme.test\r\nFROM: b@rival.test\r\n\r\n")
    assert submitted.from_fields == 2
    assert [sender.address for sender in submitted.senders] == ["a@acme.test", "b@rival.test"]


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ("Hello", "Hello"),
        ("  Hello\r\n\tthere ", "Hello there"),
        ("=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
        ("=?unknown?q?x?=", "=?unknown?q?x?="),
        ("=?utf-8?q?a=0D=0Ab=00c?=", "a b c"),
        ("=?unicode-escape?q?=5Cud800?=", "?"),
        ("", ""),
    ],
)
def test_the_subject_is_one_line_of_whole_characters(value: str, subject: str) -> None:
    assert prepare(f"Subject: {value}\r\n\r\n".encode()).subject == subject


def test_bytes_that_are_not_utf8_are_read_as_latin1() -> None:
    assert prepare(b"Subject: Gr\xfc\xdfe\r\n\r\n").subject == "Grüße"


def test_names_of_recipients_come_from_to_and_cc() -> None:
    head = b"To: Ann <ANN@example.net>, bob@example.net\r\nCc: Carl <carl@example.net>\r\nBcc: Eve <eve@example.net>\r\n\r\n"
    assert prepare(head).recipient_names == {"ann@example.net": "Ann", "carl@example.net": "Carl"}


def test_options_are_the_first_of_each_name() -> None:
    head = b"X-Plunk-Tag: a\r\n b\r\nx-plunk-TAG: c\r\nX-Plunk-Track:off\r\nX-Plunkett: d\r\n\r\n"
    assert prepare(head).options == {"tag": "a b", "track": "off"}


def test_hops_are_counted_without_ours() -> None:
    assert prepare(b"Received: a\r\nRECEIVED: b\r\nX-Received: c\r\n\r\n").received_count == 2


def prepare(raw: bytes) -> Submitted[bytes]:
    return prepare_submitted(bytearray(raw), received=RECEIVED, message_id="made@relay.test", date=DATE)
