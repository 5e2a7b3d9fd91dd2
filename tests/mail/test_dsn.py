"""What is read from a bounce? Samples of the formats that servers write are in reports/; each row says what they mean."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.classify import classify
from plunk_relay.mail.dsn import DeliveryReport, read_delivery_report, same_mailbox
from plunk_relay.mail.outcome import Reply
from plunk_relay.mail.parts import MOST_BYTES

_REPORTS = Path(__file__).parent / "reports"


def sample(name: str) -> bytes:
    return (_REPORTS / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")


def read(name: str) -> DeliveryReport:
    report = read_delivery_report(sample(name))
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("name", "reporter", "code", "status", "rule_is_about_the_address"),
    [
        ("postfix", "mx.example.org", 550, "5.1.1", True),
        ("postfix-expired", "mx.example.org", 450, "4.4.1", False),
        ("exim", "mx.example.org", 550, "5.7.1", False),
        ("exim-local", "mx.example.org", 550, "5.0.0", True),
        ("exchange", "EX01.mail.example.org", 550, "5.1.10", True),
        ("gmail", "googlemail.com", 550, "5.1.1", True),
        ("sendmail", "mx.example.org", 550, "5.1.1", True),
        ("opensmtpd", "mx.example.org", 550, "5.1.1", True),
        ("one-group", "mx.example.org", 550, "5.1.1", True),
    ],
)
def test_a_report_of_the_standard_names_recipient_and_reason(
    name: str, reporter: str, code: int, status: str, rule_is_about_the_address: bool
) -> None:
    report = read(name)
    assert (report.source, report.reporter) == ("standard", reporter)
    [recipient] = report.recipients
    assert recipient.failed
    assert recipient.addresses == ("bob@example.org",)
    assert (recipient.reply.code, recipient.reply.enhanced) == (code, status)
    assert classify(recipient.reply, None).address_is_bad is rule_is_about_the_address


@pytest.mark.parametrize("name", ["postfix", "gmail", "sendmail", "exim"])
def test_a_report_may_name_the_server_that_gave_the_reason(name: str) -> None:
    remote = read(name).recipients[0].remote_host
    assert remote is not None
    assert remote.rstrip(".") == "store.example.org"
    assert read("exim-local").recipients[0].remote_host is None


@pytest.mark.parametrize(
    ("name", "code", "said", "rule_is_about_the_address"),
    [
        ("exim-plain", 550, "User unknown", True),
        ("qmail", 550, "no mailbox here by that name", True),
        ("qmail-full", 550, "over the allowed quota", False),
    ],
)
def test_a_report_in_words_names_recipient_and_reason(
    name: str, code: int, said: str, rule_is_about_the_address: bool
) -> None:
    report = read(name)
    assert (report.source, report.reporter) == ("text", "mx.example.org")
    [recipient] = report.recipients
    assert recipient.failed
    assert recipient.addresses == ("bob@example.org",)
    assert recipient.reply.code == code
    assert said in recipient.reply.text
    assert classify(recipient.reply, None).address_is_bad is rule_is_about_the_address


def test_a_delayed_recipient_has_not_failed() -> None:
    [recipient] = read("postfix-delayed").recipients
    assert not recipient.failed


def test_only_what_failed_counts_of_several_recipients() -> None:
    report = read("multi-recipient")
    assert report.reporter == "mx.example.org"
    failed = {recipient.addresses[0]: str(recipient.reply) for recipient in report.recipients if recipient.failed}
    assert failed == {"bob@example.org": "550 5.1.1 unknown user", "eve@example.org": "552 5.2.2 Mailbox full"}


def test_an_internationalised_address_is_read_in_every_spelling() -> None:
    [recipient] = read("rfc6533").recipients
    assert "b\u00fccher@example.org" in recipient.addresses
    assert recipient.failed


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("Original-Recipient: utf-8; b\\x{FC}cher@example.org", "b\u00fccher@example.org"),
        ("Original-Recipient: utf-8; \\x{1F600}@example.org", "\U0001f600@example.org"),
        ("Original-Recipient: utf-8; \\x{D800}@example.org", "\\x{D800}@example.org"),
        ("Original-Recipient: rfc822; bob+2Bnews@example.org", "bob+news@example.org"),
        ("Original-Recipient: rfc822; bob+news@example.org", "bob+news@example.org"),
        ("Final-Recipient: <bob@example.org>", "bob@example.org"),
        ("Final-Recipient: RFC822 ; bob@example.org (Bob)", "bob@example.org"),
    ],
)
def test_an_address_is_decoded(field: str, address: str) -> None:
    assert address in _status(field, "Action: failed", "Status: 5.1.1")[0]


@pytest.mark.parametrize(
    ("status", "diagnostic", "reply"),
    [
        ("5.1.1", "smtp; 550 5.1.1 no such user", Reply(550, "5.1.1", "no such user")),
        ("5.0.0", "smtp; 550 5.1.1 no such user", Reply(550, "5.1.1", "no such user")),
        ("5.1.1", "smtp; 550 5.0.0 no such user", Reply(550, "5.1.1", "no such user")),
        ("5.1.1", "smtp; 550 no such user", Reply(550, "5.1.1", "no such user")),
        ("5.1.1", "x-unix; unknown user", Reply(550, "5.1.1", "unknown user")),
        ("5.1.1", "", Reply(550, "5.1.1", "")),
        ("", "smtp; 552 5.2.2 full", Reply(552, "5.2.2", "full")),
        ("", "smtp; 452 4.2.2 full", Reply(452, "4.2.2", "full")),
        ("4.4.7", "smtp; 550 5.1.1 no such user", Reply(450, "4.4.7", "5.1.1 no such user")),
        ("5.4.7", "smtp; 451 4.7.1 greylisted", Reply(550, "5.4.7", "4.7.1 greylisted")),
        ("2.0.0", "", Reply(550, None, "")),
        ("nonsense", "nonsense", Reply(550, None, "nonsense")),
    ],
)
def test_status_and_diagnosis_make_one_reply(status: str, diagnostic: str, reply: Reply) -> None:
    fields = ["Final-Recipient: rfc822; bob@example.org", "Action: failed", f"Status: {status}"]
    assert _status(*fields, f"Diagnostic-Code: {diagnostic}")[1] == reply


@pytest.mark.parametrize("name", ["out-of-office", "out-of-office-old", "reply", "forwarded-report"])
def test_what_a_person_or_an_autoresponder_writes_is_no_bounce(name: str) -> None:
    assert read_delivery_report(sample(name)) is None


def test_a_bounce_that_cannot_be_read_is_still_a_bounce() -> None:
    report = read("malformed")
    assert (report.source, report.recipients) == ("unreadable", ())
    assert report.summary.startswith("Subject: Returned mail")


def test_a_report_larger_than_what_is_looked_at_is_read_from_its_beginning() -> None:
    large = sample("postfix").replace(b"\r\nHi\r\n", b"\r\n" + b"x" * 70 + b"\r\n" * 2_000_000)
    report = read_delivery_report(large)
    assert report is not None
    assert report.recipients == read("postfix").recipients


def test_nothing_is_looked_for_beyond_that_beginning() -> None:
    late = sample("postfix").replace(b"This is the mail system", b"x" * 70 + b"\r\n" * MOST_BYTES)
    report = read_delivery_report(late)
    assert report is not None
    assert (report.source, report.recipients) == ("unreadable", ())


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: multipart/report; boundary*=undefined''abc\r\n\r\n",
        b"Content-Type: multipart/report; boundary*=idna''%ff%fe\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 300,
        b"X-Failed-Recipients: " + b"(" * 5000 + b"\r\n\r\n",
        b"From: " + b"(" * 5000 + b"\r\n\r\nfailed addresses follow:\r\n" + b"a@b " * 200,
        b"Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n=",
        b"\r\n",
        b"",
    ],
)
def test_hostile_structure_never_raises(head: bytes) -> None:
    read_delivery_report(head)


@given(st.binary(max_size=2000))
def test_any_bytes_never_raise(data: bytes) -> None:
    read_delivery_report(data)


@given(st.binary(max_size=500), st.sampled_from(["postfix", "exim-plain", "qmail", "rfc6533", "multi-recipient"]), st.data())
def test_a_report_with_any_bytes_in_it_never_raises(data: bytes, name: str, draw: st.DataObject) -> None:
    original = sample(name)
    place = draw.draw(st.integers(0, len(original)))
    read_delivery_report(original[:place] + data + original[place:])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Bob@Example.org", "bob@example.ORG", True),
        ("bob@b\u00fccher.example", "bob@xn--bcher-kva.example", True),
        ("bob@example.org.", "bob@example.org", True),
        ("bob@example.org", "bob@example.net", False),
        ("bob@example.org", "rob@example.org", False),
    ],
)
def test_spellings_of_one_mailbox_are_the_same(one: str, other: str, same: bool) -> None:
    assert same_mailbox(one, other) is same


def _status(*fields: str) -> tuple[tuple[str, ...], Reply]:
    body = "\r\n".join(["Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.test", "", *fields, ""])
    report = read_delivery_report(body.encode())
    assert report is not None
    [recipient] = report.recipients
    return recipient.addresses, recipient.reply
