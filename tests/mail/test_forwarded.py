"""What does the operator get of a mail to postmaster? All of it, in a message of ours."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.forwarded import Forwarding, compose_forwarded, was_forwarded

FORWARDING = Forwarding(
    role="abuse@acme.test",
    operator="boss@example.com",
    sender="ann@example.net",
    client="mx.example.net [192.0.2.7]",
    message_id="1@relay.test",
    date=datetime(2026, 3, 1, 12, tzinfo=UTC),
)


def _compose(message: bytes) -> tuple[str, EmailMessage, bytes]:
    subject, composed = compose_forwarded(FORWARDING, message)
    parsed = message_from_bytes(composed, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return subject, parsed, composed


def test_the_original_is_enclosed_byte_for_byte() -> None:
    original = b"From: Ann <ann@example.net>\r\nSubject: Spam from you\r\n\r\nLook.\r\n.\r\n"
    subject, message, composed = _compose(original)
    assert subject == message["Subject"] == "Spam from you"
    assert message["From"].addresses[0].addr_spec == "abuse@acme.test"
    assert (message["To"], message["Reply-To"]) == ("boss@example.com", "ann@example.net")
    assert message["Auto-Submitted"] == "auto-generated"
    text, enclosed = message.iter_parts()
    assert "for abuse@acme.test, from <ann@example.net> by mx.example.net [192.0.2.7]" in text.get_content()
    assert enclosed.get_content_type() == "message/rfc822"
    assert composed.count(original) == 1


def test_an_internationalised_message_is_enclosed_as_one() -> None:
    _, message, _ = _compose("From: \u00e4nn@example.net\r\nSubject: Gr\u00fc\u00dfe\r\n\r\nHi\r\n".encode())
    assert message["Subject"] == "Gr\u00fc\u00dfe"
    assert message["Reply-To"] is None
    _, enclosed = message.iter_parts()
    assert enclosed.get_content_type() == "message/global"
    assert enclosed["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize("message", [b"", b"\r\n", b"\r\nbody only\r\n", b"no header\r\n", b"Subject:\r\n\r\n"])
def test_a_message_without_a_subject_is_forwarded_too(message: bytes) -> None:
    assert _compose(message)[0] == "(no subject)"


def test_what_was_forwarded_is_known_again() -> None:
    _, composed = compose_forwarded(FORWARDING, b"Subject: Hello\r\n\r\n")
    assert was_forwarded(composed, "relay.test")
    assert was_forwarded(b"X-Loop: other@x.test\r\nx-loop: Postmaster@Relay.test\r\n\r\n", "relay.test")
    assert not was_forwarded(composed, "other.test")
    assert not was_forwarded(b"Subject: x\r\n\r\nX-Loop: postmaster@relay.test\r\n", "relay.test")


@given(st.binary(max_size=1000))
def test_any_bytes_are_enclosed_and_the_header_stays_ours(data: bytes) -> None:
    _, composed = compose_forwarded(FORWARDING, data)
    head = composed.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert set(names) <= {
        *(b"From", b"To", b"Reply-To", b"Subject", b"Date", b"Message-ID", b"X-Loop"),
        *(b"Auto-Submitted", b"MIME-Version", b"Content-Type"),
    }


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_hostile_subject_or_author_adds_no_header(subject: str, author: str) -> None:
    _, composed = compose_forwarded(
        FORWARDING, f"Subject: {subject}\r\nFrom: {author}\r\n\r\n".encode("utf-8", "surrogatepass")
    )
    head = composed.partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r")
    assert b"\r\nX-Evil" not in head.replace(b"\r\n ", b"")
