"""What is read from a feedback report?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.arf import COMPLAINTS, OPT_OUTS, read_feedback_report
from tests.mail.test_dsn import sample


def test_a_report_says_who_complains_about_which_mail() -> None:
    report = read_feedback_report(sample("arf-abuse"))
    assert report is not None
    assert (report.feedback_type, report.reporter) == ("abuse", "SomeGenerator/1.0")
    assert report.recipients == ("bob@example.org",)
    assert report.senders == ("b-token@bounce.acme.test", "B-TOKEN@bounce.acme.test")


def test_only_the_return_path_of_the_enclosed_mail_itself_counts() -> None:
    quoted = sample("arf-abuse").replace(b"Return-Path: <B-TOKEN@bounce.acme.test>", b"X-Other: 1")
    quoted = quoted.replace(b"\r\nHi\r\n", b"\r\nReturn-Path: <quoted@bounce.acme.test>\r\n")
    report = read_feedback_report(quoted)
    assert report is not None
    assert report.senders == ("b-token@bounce.acme.test",)


@pytest.mark.parametrize("word", ["abuse", "Fraud", "opt-out", "not-spam", "virus", "auth-failure", "other"])
def test_the_type_is_told_in_lower_case(word: str) -> None:
    report = read_feedback_report(sample("arf-abuse").replace(b"Type: abuse", b"Type: " + word.encode()))
    assert report is not None
    assert report.feedback_type == word.lower()


def test_spam_and_fraud_are_complaints_and_not_spam_is_none() -> None:
    assert {"abuse", "fraud"} == COMPLAINTS
    assert not {"not-spam", "virus", "auth-failure", "other"} & (COMPLAINTS | OPT_OUTS)


@pytest.mark.parametrize(
    "change",
    [
        (b"message/feedback-report", b"text/plain"),
        (b"Feedback-Type: abuse\r\n", b""),
        (b"part1_13d.2e68ed54_boundary--", b""),
        (b'boundary="part1_13d.2e68ed54_boundary"', b'boundary="other"'),
    ],
)
def test_a_report_without_its_essentials_is_none(change: tuple[bytes, bytes]) -> None:
    report = read_feedback_report(sample("arf-abuse").replace(*change))
    assert (report is None) == (change[0] != b"part1_13d.2e68ed54_boundary--")


@pytest.mark.parametrize("name", ["postfix", "reply", "malformed"])
def test_other_mail_is_no_feedback_report(name: str) -> None:
    assert read_feedback_report(sample(name)) is None


@given(st.binary(max_size=500), st.data())
def test_a_report_with_any_bytes_in_it_never_raises(data: bytes, draw: st.DataObject) -> None:
    original = sample("arf-abuse")
    place = draw.draw(st.integers(0, len(original)))
    read_feedback_report(original[:place] + data + original[place:])
