"""What does a message say that somebody sent us? What people would read in it, whatever strangers wrote."""

from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.compose import Attachment
from plunk_relay.mail.received import ReceivedMessage, read_received

HEAD = b"From: Ann <ann@example.org>\r\nSubject: Hi\r\nMessage-ID: <1@example.org>\r\n"
MIXED = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def read(message: bytes) -> ReceivedMessage:
    return read_received(message, hostname="relay.test")


def part(head: str, body: str = "x") -> bytes:
    return f"--b\r\n{head}\r\n\r\n{body}\r\n".encode()


def test_headers_are_decoded() -> None:
    message = read(
        b"From: =?utf-8?q?=C3=84nn?= <ann@example.org>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n  and\r\n\tmore\r\n"
        b"Message-ID: <1@example.org>\r\nReply-To: Bob <bob@example.org>\r\n\r\nHi\r\n"
    )
    assert (message.author, message.subject) == ("Änn <ann@example.org>", "Grüße  and more")
    assert (message.message_id, message.reply_to) == ("1@example.org", "bob@example.org")
    assert [box.address for box in message.authors] == ["ann@example.org"]


def test_raw_utf8_in_headers_is_read() -> None:
    assert read("Subject: Grüße\r\n\r\n".encode()).subject == "Grüße"


def test_a_message_without_an_id_gets_one_of_its_bytes() -> None:
    one, other = read(b"Subject: Hi\r\n\r\n1\r\n"), read(b"Subject: Hi\r\n\r\n2\r\n")
    assert one.message_id.endswith("@relay.test")
    assert one.message_id == read(b"Subject: Hi\r\n\r\n1\r\n").message_id != other.message_id


def test_all_headers_are_kept_repeated_ones_line_by_line() -> None:
    message = read(b"Received: two\r\nReceived: one\r\nX-Odd:  a\r\n b\r\n\r\n")
    assert message.headers == {"Received": "two\none", "X-Odd": "a b"}
    assert message.hops == 2


@pytest.mark.parametrize(
    "value",
    ["relay.test; dmarc=pass", " RELAY.test 1; none", '"relay.test"; none', "(hi) relay.test; none", ";none", "relay.test."],
)
def test_a_verdict_in_our_name_is_removed(value: str) -> None:
    message = read(f"Authentication-Results: {value}\r\nX-A: 1\r\n\r\n".encode())
    assert message.headers == {"X-A": "1"}


@pytest.mark.parametrize("value", ["mx.example.org; dmarc=pass", "relay.test.example.org; none", "(relay.test) other; none"])
def test_the_verdict_of_another_is_kept(value: str) -> None:
    assert read(f"Authentication-Results: {value}\r\n\r\n".encode()).headers == {"Authentication-Results": value}


@pytest.mark.parametrize(
    ("field", "automatic"),
    [
        ("X-Nothing: 1", False),
        ("Auto-Submitted: no", False),
        ("Auto-Submitted: auto-replied", True),
        ("Auto-Submitted: auto-generated; owner-email=x", True),
        ("Precedence: bulk", True),
        ("Precedence: first-class", False),
        ("Received: by relay.test (Plunk Relay) with ESMTP id 1; x", True),
        ("Received: from x by relay.test with ESMTP id 1; x", False),
    ],
)
def test_programs_are_told_from_people(field: str, automatic: bool) -> None:
    assert read(f"{field}\r\n\r\nHi".encode()).automatic is automatic


# --- bodies


def test_plain_text_becomes_html() -> None:
    assert read(HEAD + b"\r\nHi <you>\r\n\r\nBye\r\n").html == "<p>Hi &lt;you&gt;</p>\n<p>Bye</p>"


def test_html_is_preferred_and_made_safe() -> None:
    message = EmailMessage(policy=SMTP)
    message.set_content("plain")
    message.add_alternative("<b>rich</b><script>x()</script>", subtype="html")
    assert read(message.as_bytes()).html == "<b>rich</b>"


def test_text_without_html_among_alternatives_is_shown() -> None:
    body = part("Content-Type: text/plain", "text") + part("Content-Type: text/calendar", "BEGIN:VCALENDAR") + b"--b--\r\n"
    message = read(HEAD + b"Content-Type: multipart/alternative; boundary=b\r\n\r\n" + body)
    assert message.html == "<p>text</p>"
    assert [file.content_type for file in message.attachments] == ["text/calendar"]


def test_several_bodies_are_shown_one_after_the_other() -> None:
    body = part("Content-Type: text/plain", "one") + part("Content-Type: text/html", "<i>two</i>") + b"--b--\r\n"
    assert read(MIXED + body).html == "<p>one</p>\n<i>two</i>"


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("utf-8", "Grüße".encode(), "Grüße"),
        ("iso-8859-1", "Grüße".encode("latin-1"), "Grüße"),
        ("windows-1252", b"\x93Hi\x94", "“Hi”"),
        ("unheard-of", "Grüße".encode(), "Grüße"),
        ("utf-8", b"Gr\xfc\xdfe", "Grüße"),
        ("punycode", b"abc", "abc"),
        ("base64", b"abc", "abc"),
        ("utf-7", b"+2AA-x", "?x"),
    ],
)
def test_text_is_read_in_its_charset_or_else_in_the_likeliest(charset: str, raw: bytes, text: str) -> None:
    message = HEAD + f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode() + raw + b"\r\n"
    assert read(message).html.replace("\ufffd", "?") == f"<p>{text}</p>"


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [("base64", b"SGk="), ("BASE64 ", b"SG k\r\n"), ("quoted-printable", b"=48i"), ("7bit", b"Hi"), ("made-up", b"Hi")],
)
def test_transfer_encodings_are_undone(encoding: str, raw: bytes) -> None:
    assert read(HEAD + f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + raw).html == "<p>Hi</p>"


# --- attachments


def test_attachments_are_kept_with_name_type_and_bytes() -> None:
    message = EmailMessage(policy=SMTP)
    message.set_content("see the file")
    message.add_attachment(bytes(range(256)), maintype="image", subtype="png", filename="Grüße.png")
    read_back = read(message.as_bytes())
    assert read_back.attachments == [Attachment("Grüße.png", bytes(range(256)), "image/png", "attachment", None)]
    assert read_back.html == "<p>see the file</p>"


def test_a_picture_of_the_body_is_inline() -> None:
    body = (
        part("Content-Type: text/html", "<p>x</p>")
        + part("Content-Type: image/gif\r\nContent-ID: <logo>", "GIF")
        + b"--b--\r\n"
    )
    [file] = read(HEAD + b"Content-Type: multipart/related; boundary=b\r\n\r\n" + body).attachments
    assert (file.disposition, file.content_id, file.filename) == ("inline", "logo", "attachment")


def test_a_forwarded_message_is_one_attachment() -> None:
    inner = "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\ninner\r\n--c--"
    message = read(MIXED + part("Content-Type: message/rfc822", inner) + b"--b--\r\n")
    assert [(file.filename, file.content) for file in message.attachments] == [("message.eml", inner.encode())]
    assert message.html == ""


def test_a_text_file_is_an_attachment_not_the_body() -> None:
    head = 'Content-Type: text/plain; name="notes.txt"\r\nContent-Disposition: attachment'
    message = read(MIXED + part("Content-Type: text/plain", "body") + part(head, "notes") + b"--b--\r\n")
    assert (message.html, [file.filename for file in message.attachments]) == ("<p>body</p>", ["notes.txt"])


# --- hostile


def test_a_message_that_breaks_off_is_read_as_far_as_it_goes() -> None:
    assert read(MIXED + part("Content-Type: text/plain", "so far")).html == "<p>so far</p>"


def test_parts_inside_parts_are_followed_to_a_bound() -> None:
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(2000))
    message = read(head + b"\r\ndeep\r\n")
    assert message.html == ""
    assert len(message.attachments) == 1


def test_the_number_of_parts_is_bounded() -> None:
    message = read(MIXED + part("Content-Type: image/gif") * 5000 + b"--b--\r\n")
    assert len(message.attachments) == 200


def test_the_length_of_the_body_is_bounded() -> None:
    html = read(HEAD + b"\r\n" + b"0123456789\r\n" * 500_000).html
    assert 1_500_000 < len(html) < 2_100_000
    assert html.endswith("</p>")


@given(st.binary(max_size=400))
def test_no_bytes_are_too_odd(tail: bytes) -> None:
    read(tail)
    read(MIXED + b"--b\r\nContent-Type: " + tail)
    read(b"Subject: =?" + tail + b"?=\r\n\r\n")
