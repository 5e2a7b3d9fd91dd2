"""What does a delivery status notification look like? One that every reader understands, whatever the original held."""

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.dsn import read_delivery_report
from plunk_relay.mail.notices import Notice, RecipientReport, compose_notice

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOB = RecipientReport(
    "bob@example.org",
    status="5.1.1",
    happened="mx.example.org refused it for good.",
    meaning="Nobody has this address.",
    advice="Check the address.",
    reply="550 5.1.1 no such user",
    remote_host="mx.example.org",
    last_attempt=NOON,
    queue_id="queue-1",
)
NOTICE = Notice(
    action="failed",
    reporting_host="relay.test",
    message_id="notice@acme.test",
    date=NOON,
    sender="MAILER-DAEMON@acme.test",
    recipient="app@acme.test",
    subject="Hello",
    original_id="1@acme.test",
    original_headers=b"From: app@acme.test\r\nSubject: Hello\r\n\r\nsecret body",
    arrived_at=NOON,
    retry_until=None,
    recipients=(BOB,),
)


def _read(notice: Notice) -> EmailMessage:
    return message_from_bytes(compose_notice(notice), policy=default)


def _parts(notice: Notice) -> list[EmailMessage]:
    return cast("list[EmailMessage]", _read(notice).get_payload())


def test_every_line_ends_properly_and_is_short_enough() -> None:
    message = compose_notice(replace(NOTICE, subject="long " * 300, recipients=(BOB,) * 50))
    assert message.count(b"\n") == message.count(b"\r\n") == message.count(b"\r")
    assert max(map(len, message.split(b"\r\n"))) <= 998


def test_it_is_made_of_three_parts_without_a_defect() -> None:
    message = _read(NOTICE)
    assert [part.get_content_type() for part in _parts(NOTICE)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert [defect for part in message.walk() for defect in part.defects] == []


def test_the_body_of_the_original_stays_out() -> None:
    assert b"secret body" not in compose_notice(NOTICE)


def test_the_notice_is_ascii_when_everything_in_it_is() -> None:
    assert compose_notice(NOTICE).isascii()


@pytest.mark.parametrize("subject", ["Grüße", "=?utf-8?q?x?=", "x" * 200, "", "a\r\nBcc: x@evil.test"])
def test_the_subject_of_the_original_is_quoted_and_adds_no_header(subject: str) -> None:
    message = _read(replace(NOTICE, subject=subject))
    assert message["Subject"].startswith("Undelivered mail")
    assert " ".join(subject.split()) in " ".join(message["Subject"].split())
    assert message["Bcc"] is None


@pytest.mark.parametrize("original_id", ["", "a b@acme.test", "x" * 600, "ü@acme.test", "a@b>\r\nBcc: <x@evil.test"])
def test_an_id_that_is_none_is_not_referred_to(original_id: str) -> None:
    message = _read(replace(NOTICE, original_id=original_id))
    assert (message["References"], message["In-Reply-To"], message["Bcc"]) == (None, None, None)


def test_what_the_server_said_adds_no_field_and_no_recipient() -> None:
    rude = replace(BOB, reply="550 no\r\n\r\nFinal-Recipient: rfc822; ann@example.org\r\nAction: failed")
    [_, recipient] = cast("list[EmailMessage]", _parts(replace(NOTICE, recipients=(rude,)))[1].get_payload())
    assert recipient["Final-Recipient"] == "rfc822; bob@example.org"
    assert recipient.get_all("Action") == ["failed"]


@pytest.mark.parametrize("said", ["550 \x1b[31mred", "550 turned \u202earound", "550 \x00", "550 " + "x" * 5000])
def test_what_the_server_said_is_shown_in_short_printable_lines(said: str) -> None:
    message = compose_notice(replace(NOTICE, recipients=(replace(BOB, reply=said),)))
    text = _parts(replace(NOTICE, recipients=(replace(BOB, reply=said),)))[0].get_content()
    assert not set("\x00\x1b\u202e") & set(text + message.decode())
    assert max(map(len, message.split(b"\r\n"))) <= 998


def test_headers_of_the_original_in_utf8_are_returned_as_such() -> None:
    part = _parts(replace(NOTICE, original_headers="Subject: Grüße\r\n\r\n".encode()))[2]
    assert part.get_content_type() == "message/global-headers"
    assert "Subject: Grüße".encode() in compose_notice(replace(NOTICE, original_headers="Subject: Grüße\r\n\r\n".encode()))


def test_headers_of_the_original_in_no_known_charset_lose_those_letters() -> None:
    message = compose_notice(replace(NOTICE, original_headers=b"Subject: Gr\xfc\xdfe\r\n\r\n"))
    assert b"Subject: Gr??e" in message
    assert message.isascii()


def test_long_headers_of_the_original_are_cut_at_a_line() -> None:
    block = b"".join(b"X-Number: %d %b\r\n" % (number, b"x" * 900) for number in range(100))
    returned = str(_parts(replace(NOTICE, original_headers=block))[2].get_payload()).split("\n")
    assert 20 < len(returned) < 40
    assert all(len(line.strip()) > 900 for line in returned if line.strip())


def test_international_recipients_are_written_in_utf8() -> None:
    message = compose_notice(replace(NOTICE, recipients=(BOB, replace(BOB, recipient="jürgen@bücher.example"))))
    assert b"Content-Type: message/global-delivery-status" in message
    assert "Final-Recipient: utf-8; jürgen@bücher.example".encode() in message
    assert b"Final-Recipient: rfc822; bob@example.org" in message


def test_a_local_failure_names_no_server() -> None:
    local = replace(BOB, remote_host=None, reply="550 5.1.2 the domain does not exist")
    [_, recipient] = cast("list[EmailMessage]", _parts(replace(NOTICE, recipients=(local,)))[1].get_payload())
    assert recipient["Remote-MTA"] is None
    assert recipient["Diagnostic-Code"] == "x-plunk-relay; 550 5.1.2 the domain does not exist"


def test_a_reply_in_other_letters_stays_readable_by_old_programs() -> None:
    polite = replace(BOB, reply="550 5.1.1 Empfänger unbekannt")
    status = compose_notice(replace(NOTICE, recipients=(polite,))).partition(b"message/delivery-status")[2]
    assert status.partition(b"--=_")[0].isascii()


@given(
    subject=st.text(max_size=80),
    reply=st.text(max_size=200),
    recipient=st.text(max_size=60),
    headers=st.binary(max_size=200),
)
def test_whatever_the_original_held_the_report_can_be_read(subject: str, reply: str, recipient: str, headers: bytes) -> None:
    odd = replace(BOB, recipient=f"x{recipient}@example.org", reply=reply)
    message = compose_notice(replace(NOTICE, subject=subject, recipients=(odd,), original_headers=headers))
    report = read_delivery_report(message)
    assert report is not None
    assert [one.failed for one in report.recipients] == [True]
