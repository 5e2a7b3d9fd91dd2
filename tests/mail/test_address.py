"""What is an address, and how is it written?"""

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import getaddresses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plunk_relay.mail.address import (
    Mailbox,
    check_address,
    decode_words,
    domain_of,
    encode_words,
    format_mailbox,
    normalize_address,
    parse_mailboxes,
    to_ascii_domain,
)

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
LONG = 60_000


def test_addresses_are_compared_trimmed_and_in_lower_case() -> None:
    assert normalize_address(" User@Example.COM\n") == "user@example.com"


@pytest.mark.parametrize(
    ("address", "domain"), [("a@Example.COM", "example.com"), ('"a@b"@c.de', "c.de"), ("nobody", "nobody")]
)
def test_the_domain_stands_after_the_last_at_sign(address: str, domain: str) -> None:
    assert domain_of(address) == domain


@pytest.mark.parametrize(
    "address",
    [
        "a@b.de",
        "first.last+tag@sub.example.com",
        "!#$%&'*+/=?^_`{|}~-@example.com",
        "a@b",
        "a@mail.test",
        "a@printer.local",
        "first.last@printer.local",
        "a@xn--bcher-kva.de",
        "jörg@example.de",
        "a@bücher.de",
        "用户@例子.广告",
        "x" * 64 + "@example.com",
    ],
)
def test_an_address_is_valid(address: str) -> None:
    assert check_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b.de",
        "a@",
        "a@@b.de",
        "a@b@c.de",
        "a..b@c.de",
        ".a@c.de",
        "a.@c.de",
        "a@-c.de",
        "a@c_d.de",
        "a@b.de.",
        "a@.de",
        '"a b"@c.de',
        "a@[127.0.0.1]",
        "<a@b.de>",
        "A <a@b.de>",
        "a@b.de, c@d.de",
        " a@b.de",
        "a@b.de ",
        "a@b.de\n",
        "a@b.de\r\nBcc: c@d.de",
        "a\x00@b.de",
        "a b@c.de",
        "x" * 65 + "@example.com",
        "a@" + "x" * 64 + ".de",
        "a@" + "b." * 126 + "de",
    ],
)
def test_an_address_is_not_valid_and_one_sentence_says_why(address: str) -> None:
    reason = check_address(address)
    assert reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("header", "boxes"),
    [
        ("a@b.de", [Mailbox("a@b.de")]),
        ("  <a@b.de> ", [Mailbox("a@b.de")]),
        ("Ann Lee   <a@b.de>", [Mailbox("a@b.de", "Ann Lee")]),
        ('"Lee, Ann" <a@b.de>', [Mailbox("a@b.de", "Lee, Ann")]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.de>", [Mailbox("j@x.de", "Jörg")]),
        ("=?utf-8?b?SsO2?=\r\n =?utf-8?b?cmc=?= <j@x.de>", [Mailbox("j@x.de", "Jörg")]),
        ("Jörg <j@x.de>", [Mailbox("j@x.de", "Jörg")]),
        ("a@b.de, C <c@d.de>", [Mailbox("a@b.de"), Mailbox("c@d.de", "C")]),
        ("a@b.de,\r\n\tc@d.de", [Mailbox("a@b.de"), Mailbox("c@d.de")]),
        ("Friends: a@b.de, c@d.de;", [Mailbox("a@b.de"), Mailbox("c@d.de")]),
        ("undisclosed-recipients:;", []),
        ('"a@ok.de" <b@other.de>', [Mailbox("b@other.de", "a@ok.de")]),
        ("nobody", []),
        ("", []),
    ],
)
def test_an_address_header_is_read(header: str, boxes: list[Mailbox]) -> None:
    assert parse_mailboxes(header) == boxes


@pytest.mark.parametrize("text", ["=?utf-8?b?!!!?=", "=?no-such-set?q?a?=", "=?utf-8?b?/w==?=", "=?utf-8?q?a", "=?"])
def test_words_that_cannot_be_decoded_do_no_harm(text: str) -> None:
    decode_words(text)
    parse_mailboxes(f"{text} <a@b.de>")


@given(ANY_TEXT)
@example("(" * 3000)
@example("a:" * 3000)
def test_any_text_is_read_as_some_list_of_addresses(header: str) -> None:
    assert all("@" in box.address for box in parse_mailboxes(header))


@pytest.mark.parametrize(
    "header",
    [
        "a" + " " * LONG + "x",
        "a " * LONG + '"',
        '"a\\' * LONG,
        "=?utf-8?q?x" * (LONG // 11),
        "=?a?b?=?a?b?" * (LONG // 12),
        "<" * LONG,
        "@a,:;" * (LONG // 5),
    ],
)
def test_a_long_header_is_read_in_linear_time(header: str) -> None:
    """The suite's time-out would tell: what reads such a header in quadratic time takes minutes for ten times as much."""
    parse_mailboxes(header * 10)
    decode_words(header * 10)


@given(st.text(st.characters(codec="utf-8"), max_size=8))
@example("Doe, John")
@example('quote " and \\ backslash')
@example("two  blanks")
@example("a no-break \xa0blank")
@example("=?utf-8?q?looks_encoded?=")
@example("'single' (comment) <not@an.address>")
@example("evil\r\nBcc: other@example.com")
def test_a_written_name_is_read_back(name: str) -> None:
    """Runs of blanks count as one here, because `email.policy.default` makes one of those in an encoded word."""
    written = format_mailbox(Mailbox("a@example.com", name), indent=len("From: "))
    message = message_from_bytes(f"From: {written}\r\n\r\n".encode(), policy=default)
    [address] = message["From"].addresses
    assert message.keys() == ["From"]
    assert address.addr_spec == "a@example.com"
    assert re.sub(r"\s+", " ", address.display_name) == re.sub(r"\s+", " ", _printable(name))
    [own] = parse_mailboxes(re.sub(r"\r\n(?=[ \t])", "", written))
    assert own == Mailbox("a@example.com", _printable(name) or None)


@given(ANY_TEXT)
@example("é" * 200)
@example("word " * 200)
@example("x" * 2000)
def test_a_long_name_is_read_back(name: str) -> None:
    """Of several encoded words in a name, `email.policy.default` keeps the blanks between: against RFC 2047 6.2."""
    written = format_mailbox(Mailbox("a@example.com", name), indent=len("From: "))
    [(read, address)] = getaddresses([written.replace("\r\n", "")])
    assert address == "a@example.com"
    assert str(make_header(decode_header(read))) == _printable(name)
    assert parse_mailboxes(written) == [Mailbox("a@example.com", _printable(name) or None)]


@given(ANY_TEXT, st.integers(0, 50))
def test_lines_of_encoded_words_have_76_characters_at_most(text: str, indent: int) -> None:
    first, *more = encode_words(text, indent=indent).split("\r\n")
    assert indent + len(first) <= 76
    assert all(len(line) <= 76 for line in more)
    assert decode_words("\r\n".join([first, *more])) == text


def test_no_name_can_make_a_line_too_long() -> None:
    written = format_mailbox(Mailbox("x" * 64 + "@" + ("d" * 60 + ".") * 3 + "de", "n" * 5000), indent=6)
    assert max(map(len, written.split("\r\n"))) + 6 <= 998


@pytest.mark.parametrize(
    ("mailbox", "written"),
    [
        (Mailbox("a@b.de"), "a@b.de"),
        (Mailbox("a@b.de", "Ann Lee"), "Ann Lee <a@b.de>"),
        (Mailbox("a@b.de", "Ann, Lee"), '"Ann, Lee" <a@b.de>'),
        (Mailbox("a@b.de", "Zoë"), "=?utf-8?b?Wm/Dqw==?= <a@b.de>"),
        (Mailbox("a@b.de", " \r\n "), "a@b.de"),
        (Mailbox("a@b.de\r\nBcc: c@d.de"), "a@b.deBcc: c@d.de"),
        (Mailbox("a@bücher.de", "B"), "B <a@xn--bcher-kva.de>"),
        (Mailbox("jörg@bücher.de"), "jörg@xn--bcher-kva.de"),
    ],
)
def test_a_mailbox_is_written_as_plainly_as_its_name_allows(mailbox: Mailbox, written: str) -> None:
    assert format_mailbox(mailbox) == written


@pytest.mark.parametrize(
    ("domain", "ascii_form"),
    [
        ("Example.COM.", "example.com"),
        ("BÜCHER.de", "xn--bcher-kva.de"),
        ("straße.de", "xn--strae-oqa.de"),
        ("not a domain ü", "not a domain ü"),
        ("ü" * 80 + ".de", "ü" * 80 + ".de"),
    ],
)
def test_a_domain_is_written_in_a_labels_when_it_has_them(domain: str, ascii_form: str) -> None:
    assert to_ascii_domain(domain) == ascii_form


def _printable(name: str) -> str:
    """Return a name as it may appear in a header: every run of controls is a blank."""
    runs = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in _squeeze_controls(name))
    return runs.strip()


def _squeeze_controls(name: str) -> str:
    kept: list[str] = []
    for character in name:
        control = ord(character) < 32 or ord(character) == 127
        if not (control and kept and (ord(kept[-1]) < 32 or ord(kept[-1]) == 127)):
            kept.append(character)
    return "".join(kept)
