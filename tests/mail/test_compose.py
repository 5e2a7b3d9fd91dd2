"""Which bytes are a message? What the standard library reads back is what went in."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from plunk_relay.mail.address import Mailbox
from plunk_relay.mail.compose import Attachment, MailClass, Outgoing, compose, default_headers

MAIL = Outgoing(
    message_id="id-1@acme.test",
    date=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    sender=Mailbox("news@acme.test", "Acme"),
    recipient=Mailbox("ann@example.org", "Ann"),
    reply_to=None,
    subject="Hello",
    html="<p>Hello <b>Ann</b></p>",
    headers={},
    attachments=[],
    defaults={},
)
FILE = Attachment("a.bin", b"\x00\xffdata", "application/pdf")
IMAGE = Attachment("logo.png", b"\x89PNG", "image/png", disposition="inline", content_id="logo")
PAIR = {"List-Unsubscribe": "<http://relay.test/unsubscribe/c?e=m>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=150)
ANY_NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
LONG_TEXT = st.builds(lambda text, times: text * times, ANY_TEXT, st.integers(1, 40))
_files = st.builds(
    Attachment,
    filename=ANY_TEXT,
    content=st.binary(max_size=100),
    content_type=ANY_TEXT | st.sampled_from(["image/png", "text/plain; charset=utf-8", "message/rfc822", "multipart/mixed"]),
    disposition=st.sampled_from(["attachment", "inline"]),
    content_id=st.none() | ANY_TEXT,
)
_mails = st.builds(
    Outgoing,
    message_id=st.just("id-1@acme.test"),
    date=st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # bounds are naive
    sender=st.builds(Mailbox, st.just("news@acme.test"), st.none() | LONG_TEXT),
    recipient=st.builds(Mailbox, st.just("ann@example.org"), st.none() | LONG_TEXT),
    reply_to=st.none() | st.just("help@acme.test"),
    subject=LONG_TEXT,
    html=LONG_TEXT | st.builds(lambda text: f"<p>{text}</p>", LONG_TEXT),
    headers=st.dictionaries(ANY_TEXT | st.sampled_from(["X-A", "x-a", "Bcc", "To", "List-ID"]), LONG_TEXT, max_size=4),
    attachments=st.lists(_files, max_size=3),
    defaults=st.just(PAIR) | st.just({}),
)
_slow_data = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@_slow_data
@given(_mails)
@example(replace(MAIL, html="x" * 1500, subject="s" * 990, headers={"X-" + "n" * 70: "v" * 950}))
@example(replace(MAIL, attachments=[replace(IMAGE, content_id="c" * 2000, content_type="image/png; name=" + "n" * 2000)]))
def test_lines_end_in_crlf_and_have_998_octets_at_most(mail: Outgoing) -> None:
    message = compose(mail)
    assert b"\n" not in message.replace(b"\r\n", b"")
    assert b"\r" not in message.replace(b"\r\n", b"")
    assert b"\x00" not in message
    assert message.endswith(b"\r\n")
    assert max(map(len, message.split(b"\r\n"))) <= 998


@_slow_data
@given(_mails)
def test_no_field_can_add_a_header(mail: Outgoing) -> None:
    own = ["from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding"]
    allowed = {*own, "reply-to", *(name.lower() for name in [*mail.headers, *mail.defaults])}
    message = _read(mail)
    names = [name.lower() for name in message]
    assert set(names) <= allowed
    assert all(names.count(name) <= 1 for name in own)
    assert all(set(part.keys()) <= _PART_HEADERS for part in list(message.walk())[1:])
    assert message.defects == []


@_slow_data
@given(_mails)
def test_the_same_mail_gives_the_same_bytes(mail: Outgoing) -> None:
    assert compose(mail) == compose(replace(mail))


def test_another_mail_has_another_boundary() -> None:
    assert _read(MAIL).get_boundary() != _read(replace(MAIL, message_id="id-2@acme.test")).get_boundary()


@given(LONG_TEXT)
@example("=?utf-8?q?only_looks_encoded?=")
@example("word " * 100)
@example("many" + " " * 2000 + "blanks")
@example("x" * 3000)
@example("ü" * 500)
@example("a\r\nBcc: b@c.de")
@example("\ttab\tbed")
def test_a_subject_is_read_back(subject: str) -> None:
    assert _read(replace(MAIL, subject=subject))["Subject"] == _one_line(subject)


@given(ANY_NAME, ANY_NAME)
def test_names_are_read_back(sender: str, recipient: str) -> None:
    mail = replace(MAIL, sender=Mailbox("news@acme.test", sender), recipient=Mailbox("ann@example.org", recipient))
    message = _read(mail)
    assert message["From"].addresses[0].display_name.split() == sender.split()
    assert message["To"].addresses[0].display_name.split() == recipient.split()
    assert message["From"].addresses[0].addr_spec == "news@acme.test"
    assert message["To"].addresses[0].addr_spec == "ann@example.org"


@_slow_data
@given(LONG_TEXT)
@example('quotes " and \\ in it.pdf')
@example("=?utf-8?q?looks?=.txt")
@example("日本語" * 100 + ".png")
@example("x" * 400)
@example("a%41*'b.txt")
@example("../../etc/passwd")
@example("")
def test_a_filename_is_read_back(filename: str) -> None:
    [part] = _read(replace(MAIL, attachments=[replace(FILE, filename=filename)])).iter_attachments()
    expected = re.sub(r"[\x00-\x08\x0a-\x1f\x7f]+", "", filename) or "attachment"
    assert part["Content-Disposition"].params["filename"] == expected


@given(st.binary(max_size=3000))
def test_a_file_is_read_back(content: bytes) -> None:
    [part] = _read(replace(MAIL, attachments=[replace(FILE, content=content)])).iter_attachments()
    assert part.get_payload(decode=True) == content
    assert part.get_content_type() == "application/pdf"
    assert part.get_content_disposition() == "attachment"


@given(LONG_TEXT)
@example("<p>" + "x" * 5000 + "</p>")
@example("<p>dots\r\n.\r\n..\r\nFrom here</p>")
@example("<p>bare\rcarriage and \x00 null</p>")
@example("<p>trailing blanks  \n\t\n</p>")
@example("<p>é</p>")
def test_html_is_read_back(html: str) -> None:
    part = _read(replace(MAIL, html=html)).get_body(("html",))
    assert part is not None
    assert _ended(part.get_content()) == _ended(html)


def test_html_comes_with_its_text() -> None:
    message = _read(replace(MAIL, html="<h1>Hi Zoë</h1><p>see <a href='https://x.test/a'>this</a></p>"))
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert _text(message, "plain") == "Hi Zoë\n\nsee this (https://x.test/a)\n"
    assert all(part.get_content_charset() == "utf-8" for part in message.iter_parts())


def test_html_without_text_goes_alone() -> None:
    message = _read(replace(MAIL, html="<img src='https://x.test/pixel.gif'>"))
    assert message.get_content_type() == "text/html"


@pytest.mark.parametrize(
    ("files", "structure"),
    [
        ([], ["multipart/alternative", "text/plain", "text/html"]),
        ([FILE], ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"]),
        ([IMAGE], ["multipart/related", "multipart/alternative", "text/plain", "text/html", "image/png"]),
        (
            [FILE, IMAGE, FILE],
            [
                "multipart/mixed",
                "multipart/related",
                "multipart/alternative",
                "text/plain",
                "text/html",
                "image/png",
                "application/pdf",
                "application/pdf",
            ],
        ),
    ],
)
def test_inline_files_are_related_to_the_html_and_others_are_beside_it(
    files: list[Attachment], structure: list[str]
) -> None:
    message = _read(replace(MAIL, attachments=files))
    assert [part.get_content_type() for part in message.walk()] == structure


@pytest.mark.parametrize(
    ("content_id", "filename", "header"),
    [
        ("logo", "a.png", "<logo>"),
        ("logo@acme.test", "a.png", "<logo@acme.test>"),
        (None, "a.png", "<a.png>"),
        ("<logo>\r\nBcc: x", "a.png", "<logoBcc:x>"),
    ],
)
def test_html_finds_an_inline_file_by_its_content_id(content_id: str | None, filename: str, header: str) -> None:
    message = _read(replace(MAIL, attachments=[replace(IMAGE, content_id=content_id, filename=filename)]))
    [part] = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert part["Content-ID"] == header
    assert part.get_content_disposition() == "inline"


@pytest.mark.parametrize(
    ("given_type", "sent"),
    [
        ("image/png", "image/png"),
        ("text/csv; charset=latin-1", "text/csv"),
        ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
        ("png", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("image/png\r\nBcc: x@y.de", "application/octet-stream"),
        ("multipart/mixed; boundary=x", "application/octet-stream"),
        ("message/rfc822", "application/octet-stream"),
        ("text/plain; name=" + "x" * 2000, "application/octet-stream"),
    ],
)
def test_a_file_of_no_sendable_type_is_unknown_bytes(given_type: str, sent: str) -> None:
    [part] = _read(replace(MAIL, attachments=[replace(FILE, content_type=given_type)])).iter_attachments()
    assert part.get_content_type() == sent
    assert part.get_payload(decode=True) == FILE.content


@given(LONG_TEXT)
@example("<https://x.test/" + "a" * 300 + ">, <mailto:u@x.test>")
@example("x" * 2000)
def test_a_callers_header_is_read_back(value: str) -> None:
    if "=?" not in value:
        assert _read(replace(MAIL, headers={"X-Anything": value}))["X-Anything"] == _one_line(value)


def test_a_header_that_the_caller_encoded_stays_as_it_is() -> None:
    assert b"X-Title: =?utf-8?q?=C3=BC?=\r\n" in compose(replace(MAIL, headers={"X-Title": "=?utf-8?q?=C3=BC?="}))


def test_a_callers_header_replaces_the_default_in_any_case_and_keeps_its_spelling() -> None:
    mail = replace(MAIL, defaults={"Precedence": "bulk", "Auto-Submitted": "auto-generated"}, headers={"precedence": "list"})
    names = list(_read(mail).items())
    assert ("precedence", "list") in names
    assert ("Auto-Submitted", "auto-generated") in names
    assert "Precedence" not in dict(names)


@pytest.mark.parametrize("name", ["List-Unsubscribe", "list-unsubscribe-post"])
def test_the_list_unsubscribe_pair_is_one_claim(name: str) -> None:
    mail = replace(MAIL, defaults=PAIR, headers={name: "<https://own.test>"})
    assert [(key, value) for key, value in _read(mail).items() if key.lower().startswith("list-")] == [
        (name, "<https://own.test>")
    ]


def test_defaults_are_sent_when_the_caller_says_nothing() -> None:
    message = _read(replace(MAIL, defaults=PAIR))
    assert {name: message[name] for name in PAIR} == PAIR


@pytest.mark.parametrize("name", ["X-Plunk-Recipient-Override", "x-plunk-tag", "X-PLUNK-"])
def test_our_own_options_never_leave(name: str) -> None:
    assert b"plunk" not in compose(replace(MAIL, headers={name: "someone@else.test"})).lower()


@pytest.mark.parametrize(
    "name", ["From", "TO", "cc", "Bcc", "Sender", "Date", "Message-ID", "Content-Type", "DKIM-Signature", "Return-Path"]
)
def test_a_caller_cannot_set_what_the_mail_itself_says(name: str) -> None:
    assert compose(replace(MAIL, headers={name: "other@else.test"})) == compose(MAIL)


@pytest.mark.parametrize("name", ["", "two words", "colon:", "new\r\nline", "umläut", "x" * 77])
def test_what_is_no_header_name_is_passed_over(name: str) -> None:
    assert compose(replace(MAIL, headers={name: "value"})) == compose(MAIL)


@pytest.mark.parametrize(
    ("reply_to", "headers", "shown"),
    [
        (None, {}, None),
        ("help@acme.test", {}, "help@acme.test"),
        ("help@acme.test", {"reply-to": "other@acme.test"}, "other@acme.test"),
    ],
)
def test_replies_go_where_the_mail_says(reply_to: str | None, headers: dict[str, str], shown: str | None) -> None:
    message = _read(replace(MAIL, reply_to=reply_to, headers=headers))
    assert message.get_all("Reply-To", []) == ([shown] if shown else [])


def test_domains_are_written_in_a_labels() -> None:
    mail = replace(MAIL, sender=Mailbox("a@bücher.de", "B"), message_id="1@bücher.de", reply_to="r@bücher.de")
    head = compose(mail).partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert head.count(b"@xn--bcher-kva.de") == 3


def test_date_and_message_id_are_those_of_the_mail() -> None:
    message = _read(MAIL)
    assert message["Date"].datetime == MAIL.date
    assert message["Message-ID"] == "<id-1@acme.test>"
    assert message["MIME-Version"] == "1.0"


def test_halves_of_characters_do_not_stop_a_mail() -> None:
    text = "half \ud800 of one"
    mail = replace(MAIL, subject=text, html=text, headers={"X-A": text}, attachments=[replace(FILE, filename=text)])
    assert _read(mail)["Subject"] == "half ? of one"


@pytest.mark.parametrize(
    ("mail_class", "campaign", "html", "pair", "bulk"),
    [
        ("transactional", False, "", False, False),
        ("transactional", False, "<a href='https://x.test/unsubscribe/contact-1?e=1'>", True, False),
        ("transactional", False, "<a href='https://x.test/manage/contact-1'>", True, False),
        ("transactional", False, "<a href='https://x.test/unsubscribe/contact-2'>", False, False),
        ("transactional", True, "", False, True),
        ("headless", False, "", False, False),
        ("headless", False, "/unsubscribe/contact-1", True, False),
        ("headless", True, "", False, True),
        ("marketing", False, "", True, True),
        ("marketing", True, "", True, True),
    ],
)
def test_which_mail_says_that_it_is_bulk_and_how_to_leave(
    *, mail_class: MailClass, campaign: bool, html: str, pair: bool, bulk: bool
) -> None:
    headers = default_headers(
        mail_class=mail_class,
        campaign=campaign,
        html=html,
        contact_id="contact-1",
        email_id="mail-1",
        api_url="http://relay.test",
        feedback_id="campaign-1:marketing:acme",
    )
    counted = {"Feedback-ID": "campaign-1:marketing:acme"}
    leaving = {
        "List-Unsubscribe": "<http://relay.test/unsubscribe/contact-1?e=mail-1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    automatic = {"Precedence": "bulk", "Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
    assert headers == counted | (leaving if pair else {}) | (automatic if bulk else {})


_PART_HEADERS = {"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID"}


def _read(mail: Outgoing) -> EmailMessage:
    return message_from_bytes(compose(mail), policy=default)


def _text(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    return _ended(part.get_content())


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f]+", " ", text).strip()


def _ended(text: str) -> str:
    """Return a text with plain line ends; the last line is ended too."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines if lines.endswith("\n") else lines + "\n"
