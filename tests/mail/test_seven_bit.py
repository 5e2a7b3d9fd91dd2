"""What becomes of a message on its way to a server that takes ASCII only? The reader sees the same."""

import email
import email.policy
from email.message import EmailMessage

import pytest

from plunk_relay.mail.seven_bit import CannotConvert, to_seven_bit

TEXT = "Grüße aus Köln"
HEAD = "From: app@acme.test\r\nTo: ann@example.org\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"


def test_a_message_in_ascii_stays_as_it_is() -> None:
    message = f"{HEAD}Content-Transfer-Encoding: 8bit\r\n\r\nHi\r\n".encode()
    assert to_seven_bit(message) is message


@pytest.mark.parametrize("encoding", ["Content-Transfer-Encoding: 8bit\r\n", "content-transfer-encoding:\r\n 8BIT\r\n", ""])
def test_a_text_becomes_quoted_printable(encoding: str) -> None:
    converted = _converted(f"{HEAD}Content-Type: text/plain; charset=utf-8\r\n{encoding}\r\n{TEXT}\r\n.\r\n")
    assert converted.get_all("content-transfer-encoding") == ["quoted-printable"]
    assert converted.get_content() == f"{TEXT}\r\n.\r\n"
    assert converted["subject"] == "Hello"


def test_lines_are_short_enough_and_end_in_crlf() -> None:
    out = to_seven_bit(f"{HEAD}Content-Type: text/plain; charset=utf-8\r\n\r\n{TEXT * 200}\r\n".encode())
    assert b"\n" not in out.replace(b"\r\n", b"")
    assert max(map(len, out.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(("body", "charset"), [(TEXT.encode(), "utf-8"), (TEXT.encode("latin-1"), "unknown-8bit")])
def test_a_message_from_before_mime_says_what_it_is_as_far_as_can_be_told(body: bytes, charset: str) -> None:
    converted = email.message_from_bytes(to_seven_bit(b"Subject: x\r\n\r\n" + body + b"\r\n"))
    assert converted["MIME-Version"] == "1.0"
    assert (converted.get_content_type(), converted.get_content_charset()) == ("text/plain", charset)
    assert converted.get_payload(decode=True) == body + b"\r\n"


def test_the_structure_stays_and_only_what_must_is_encoded() -> None:
    converted = _converted(
        f"{HEAD}Content-Type: multipart/mixed; boundary=m\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble é\r\n"
        "--m\r\nContent-Type: multipart/alternative; boundary=a\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        f"--a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{TEXT}\r\n"
        f"--a\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>{TEXT}</p>\r\n--a--\r\n"
        "--m\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nplain\r\n"
        "--m\r\nContent-Type: image/x-raw\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\x00é\r\n\r\n--m--\r\nepilogue é\r\n"
    )
    kinds = [part.get_content_type() for part in converted.walk()]
    assert kinds == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/plain", "image/x-raw"]
    encodings = [part["content-transfer-encoding"] for part in converted.walk()]
    assert encodings == ["7bit", "7bit", "quoted-printable", "quoted-printable", "7bit", "base64"]
    _, _, plain, html, ascii_only, image = converted.walk()
    assert _bytes(plain) == TEXT.encode()
    assert _bytes(html) == f"<p>{TEXT}</p>".encode()
    assert _bytes(ascii_only) == b"plain"
    assert _bytes(image) == "\x00é\r\n".encode()


def test_a_binary_text_keeps_its_line_ends() -> None:
    converted = _converted(
        f"{HEAD}Content-Type: text/csv; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\né,1\nü,2\n\r\n"
    )
    assert converted["content-transfer-encoding"] == "base64"
    assert _bytes(converted) == "é,1\nü,2\n\r\n".encode()


def test_a_forwarded_message_is_converted_inside() -> None:
    converted = _converted(
        f"{HEAD}Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        f"Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{TEXT}\r\n"
    )
    [inner] = converted.iter_parts() if converted.is_multipart() else []
    assert isinstance(inner, EmailMessage)
    assert (inner["subject"], inner.get_content()) == ("Grüße", f"{TEXT}\r\n")


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("Subject: Grüße", "subject", "Grüße"),
        ("X-Note: a long note: " + "ü " * 100, "x-note", "a long note: " + ("ü " * 100).strip()),
        ("To: Jörg Ö <j@example.org>,\r\n ann@example.org", "to", "Jörg Ö <j@example.org>, ann@example.org"),
        ("Reply-To: app@bücher.example", "reply-to", "app@xn--bcher-kva.example"),
        ('Content-Disposition: attachment; filename="Zeug \\"é\\".pdf"; size=3', "content-disposition", None),
    ],
)
def test_headers_are_written_in_ascii_and_read_the_same(field: str, name: str, value: str | None) -> None:
    converted = _converted(f"{field}\r\nMIME-Version: 1.0\r\n\r\nHi\r\n")
    if value is None:
        assert converted.get_filename() == 'Zeug "é".pdf'
        assert converted[name].params["size"] == "3"
    else:
        assert converted[name] == value
    assert converted.get_payload() == "Hi\r\n"


def test_a_header_in_latin_1_is_read_as_such() -> None:
    out = to_seven_bit(b"Subject: Gr\xfc\xdfe\r\n\r\nHi\r\n")
    assert email.message_from_bytes(out, policy=email.policy.default)["subject"] == "Grüße"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n{TEXT}\r\n--s--\r\n", "multipart/signed"),
        (f"Content-Type: multipart/encrypted; boundary=s\r\n\r\n--s\r\n\r\n{TEXT}\r\n--s--\r\n", "multipart/encrypted"),
        (f"Content-Type: message/partial\r\n\r\n{TEXT}\r\n", "message/partial"),
        (f"Content-Transfer-Encoding: x-uuencode\r\n\r\n{TEXT}\r\n", "x-uuencode"),
        ("From: jörg@acme.test\r\n\r\nHi\r\n", "header From"),
        ("Message-ID: <é@acme.test>\r\n\r\nHi\r\n", "header Message-ID"),
        ("To: é: no addresses;\r\n\r\nHi\r\n", "header To"),
        ("É: x\r\n\r\nHi\r\n", "cannot be encoded"),
    ],
)
def test_what_must_not_be_changed_is_told(message: str, reason: str) -> None:
    with pytest.raises(CannotConvert, match=reason):
        to_seven_bit(message.encode())


def test_broken_encodings_are_mended() -> None:
    quoted = _converted(
        f"{HEAD}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9 é\r\n"
    )
    assert quoted.get_content() == "é é\r\n"
    encoded = _converted(
        f"{HEAD}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nSGk=é\r\n"
    )
    assert encoded.get_content() == "Hi"


def _converted(message: str) -> EmailMessage:
    out = to_seven_bit(message.encode())
    assert out.isascii()
    parsed = email.message_from_bytes(out, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def _bytes(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload
