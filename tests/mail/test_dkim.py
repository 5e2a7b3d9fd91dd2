"""Who vouches for a message? Our signatures as dkimpy sees them: canonical forms, selection, verdicts."""

import base64
import hashlib
import itertools
import re
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import Relaxed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plunk_relay.mail.dkim import (
    OVERSIGNED_HEADERS,
    SIGNED_HEADERS,
    DkimKey,
    canonicalize_body,
    canonicalize_field,
    generate_ed25519_pem,
    generate_rsa_pem,
    hash_body,
    load_key,
    public_record,
    select_fields,
    sign,
    sign_pieces,
    signed_names,
    split_fields,
    verify,
)

_ED25519_PEM = generate_ed25519_pem()
DOMAIN = "acme.test"
SIGNED_AT = 1_700_000_000
MESSAGE = (
    b"Received: from app by relay.test; now\r\n"
    b"From: Ann <ann@acme.test>\r\n"
    b"To: bob@example.org\r\n"
    b"Subject: A long subject that\r\n\tgoes on\r\n"
    b"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@acme.test>\r\n"
    b"List-Unsubscribe: <https://relay.test/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"Feedback-ID: a:b:c:d\r\n"
    b"X-Mailer: none\r\n"
    b"\r\n"
    b"Hello  Bob,\r\n\r\n\tbye \r\n\r\n\r\n"
)
RFC_8463_KEY = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RFC_8463_RECORD = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
RFC_8463_MESSAGE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

_blanks = st.sampled_from([b" ", b"\t", b"  ", b" \t ", b"\r\n ", b"\r\n\t", b"\r\n \r\n "])
_words = st.binary(max_size=6).map(lambda word: word.replace(b"\r", b"").replace(b"\n", b""))
_values = st.lists(_blanks | _words, max_size=12).map(b"".join)
_names = st.sampled_from([b"From", b"from", b"Subject", b"SUBJECT", b"To", b"Received", b"List-Id", b"X-A", b"Feedback-ID"])
_fields = st.lists(st.tuples(_names, _values.map(lambda value: value + b"\r\n")), max_size=12)
_bodies = st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"  \t", b"x", b".", b"\xff\x00"]), max_size=30).map(b"".join)


@pytest.fixture(scope="module")
def rsa() -> DkimKey:
    return load_key("r1", "rsa-sha256", generate_rsa_pem())


@pytest.fixture(scope="module")
def ed25519() -> DkimKey:
    return load_key("e1", "ed25519-sha256", generate_ed25519_pem())


@given(_names, _values)
@example(b"Subject", b"")
@example(b"Subject", b" \t ")
@example(b"Subject", b" a\r\n\t b \t\r\n ")
@example(b"Subject\t", b"space before the colon")
@example(b"X-A", b"\x0b\x0c kept or not \x0b")
def test_a_field_is_canonicalised_as_dkimpy_does(name: bytes, value: bytes) -> None:
    [(their_name, their_value)] = Relaxed.canonicalize_headers([(name, value + b"\r\n")])
    assert canonicalize_field((name, value + b"\r\n")) == their_name + b":" + their_value


@given(_bodies)
@example(b"")
@example(b"\r\n")
@example(b" \r\n")
@example(b" ")
@example(b"no line end")
@example(b"blank at the very end ")
@example(b"\r\n\r\n")
@example(b"a\r\n \r\n\t\r\n")
@example(b"bare \n lf and \r cr \r\n")
def test_a_body_is_canonicalised_as_dkimpy_does(body: bytes) -> None:
    assert canonicalize_body(body) == Relaxed.canonicalize_body(body)


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b"\r\n")))
def test_any_bytes_are_canonicalised_as_dkimpy_does(body: bytes) -> None:
    assert canonicalize_body(body) == Relaxed.canonicalize_body(body)


@given(_bodies, st.lists(st.integers(0, 60), max_size=6))
@example(b"a\r\n\r\n\r\nb\r\n\r\n", [2, 4, 5, 6])
@example(b"blanks \t \r\n\r\n", [7, 9, 10])
@example(b"\r\n\r\n", [1])
@example(b"no line end \t", [5])
def test_a_body_in_pieces_has_the_same_hash(body: bytes, cuts: list[int]) -> None:
    assert hash_body(_cut(body, cuts)) == hashlib.sha256(canonicalize_body(body)).digest()


@given(st.lists(st.integers(0, 400), max_size=6))
def test_a_message_in_pieces_gets_the_same_signature(cuts: list[int]) -> None:
    keys = [load_key("ed", "ed25519-sha256", _ED25519_PEM)]
    signed = sign_pieces(_cut(MESSAGE, cuts), domain=DOMAIN, keys=keys, timestamp=SIGNED_AT)
    assert signed == sign(MESSAGE, domain=DOMAIN, keys=keys, timestamp=SIGNED_AT)


@given(_fields)
def test_a_header_block_is_split_and_selected_as_dkimpy_does(fields: list[tuple[bytes, bytes]]) -> None:
    head = b"".join(name + b":" + value for name, value in fields)
    theirs, _ = dkim.rfc822_parse(head + b"\r\n")
    ours = split_fields(head)
    assert ours == [tuple(field) for field in theirs]
    names = signed_names(ours)
    assert select_fields(ours, names) == [tuple(field) for field in dkim.select_headers(theirs, names)]


def test_what_dkimpy_would_sign_is_signed_and_the_headers_of_bulk_senders_too() -> None:
    assert frozenset(dkim.DKIM.SHOULD) <= SIGNED_HEADERS
    assert SIGNED_HEADERS - frozenset(dkim.DKIM.SHOULD) == {b"list-unsubscribe-post", b"feedback-id", b"auto-submitted"}
    assert SIGNED_HEADERS.isdisjoint(dkim.DKIM.SHOULD_NOT)


@given(_fields)
def test_from_and_subject_are_named_once_more_than_they_occur(fields: list[tuple[bytes, bytes]]) -> None:
    names = signed_names(fields)
    present = [name.lower() for name, _ in fields]
    assert all(names.count(name) == present.count(name) + 1 for name in OVERSIGNED_HEADERS)
    assert all(names.count(name) == present.count(name) for name in SIGNED_HEADERS if name not in OVERSIGNED_HEADERS)
    assert set(names) <= SIGNED_HEADERS


def test_both_signatures_verify(rsa: DkimKey, ed25519: DkimKey) -> None:
    signed = _sign(MESSAGE, rsa, ed25519)
    assert signed.endswith(MESSAGE)
    assert verify(signed, find_txt=_records(rsa, ed25519)) == [True, True]


def test_a_signature_says_what_it_covers_and_how(rsa: DkimKey) -> None:
    tags = _tags(_sign(MESSAGE, rsa))
    assert {name: tags[name] for name in ("v", "a", "c", "d", "s", "t")} == {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": DOMAIN,
        "s": "r1",
        "t": str(SIGNED_AT),
    }
    assert tags["h"] == ("from:to:subject:date:message-id:list-unsubscribe:list-unsubscribe-post:feedback-id:from:subject")


def test_the_whole_body_is_signed(rsa: DkimKey) -> None:
    assert "l" not in _tags(_sign(MESSAGE, rsa))


def test_the_same_message_gets_the_same_signatures(rsa: DkimKey, ed25519: DkimKey) -> None:
    assert _sign(MESSAGE, rsa, ed25519) == _sign(MESSAGE, rsa, ed25519)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ann@acme.test>\r\nTo", b"eve@acme.test>\r\nTo"),
        (b"To: bob", b"To: rob"),
        (b"A long subject", b"A short subject"),
        (b"12:00:00", b"12:00:01"),
        (b"<1@acme.test>", b"<2@acme.test>"),
        (b"https://relay.test/u", b"https://evil.test/u"),
        (b"List-Unsubscribe-Post:", b"X-Was-Post:"),
        (b"a:b:c:d", b"a:b:c:e"),
        (b"To: bob@example.org\r\n", b""),
        (b"Hello", b"Hullo"),
        (b"bye \r\n", b"bye \r\nps: send money\r\n"),
        (b"\r\n\tbye", b"\tbye"),
        (b"Received:", b"From: Eve <eve@evil.test>\r\nReceived:"),
        (b"X-Mailer:", b"From: Eve <eve@evil.test>\r\nX-Mailer:"),
        (b"Received:", b"Subject: another\r\nReceived:"),
        (b"X-Mailer:", b"Subject: another\r\nX-Mailer:"),
    ],
)
def test_a_changed_message_does_not_verify(old: bytes, new: bytes, rsa: DkimKey, ed25519: DkimKey) -> None:
    changed = _sign(MESSAGE, rsa, ed25519).replace(old, new, 1)
    assert verify(changed, find_txt=_records(rsa, ed25519)) == [False, False]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Received: from", b"Received: by a hop\r\nReceived: from"),
        (b"X-Mailer: none", b"X-Mailer: some"),
        (b"Subject: A", b"SUBJECT:    A"),
        (b"that\r\n\tgoes", b"that goes"),
        (b"Hello  Bob", b"Hello \t Bob"),
        (b"bye \r\n\r\n\r\n", b"bye\r\n"),
    ],
)
def test_what_relays_may_change_does_not_break_it(old: bytes, new: bytes, rsa: DkimKey, ed25519: DkimKey) -> None:
    changed = _sign(MESSAGE, rsa, ed25519).replace(old, new, 1)
    assert changed != _sign(MESSAGE, rsa, ed25519)
    assert verify(changed, find_txt=_records(rsa, ed25519)) == [True, True]


@pytest.mark.parametrize(
    "message",
    [
        b"From: a@acme.test\r\n\r\n",
        b"From: a@acme.test\r\n\r\nno line end",
        b"From: a@acme.test\r\n\r\n\r\n\r\n",
        "From: jörg@acme.test\r\nSubject: Grüße\r\n\r\nschön\r\n".encode(),
        b"From: a@acme.test\r\nSubject: latin \xfc\r\n\r\n8-bit \xff\xfe\r\n",
        b"From: a@acme.test\r\nFrom: b@acme.test\r\nSubject: one\r\nSubject: two\r\n\r\nx\r\n",
        b"From: a@acme.test\r\nSubject: " + b"x" * 900 + b"\r\n " + b"y" * 900 + b"\r\n\r\nx\r\n",
        b"From: a@acme.test\r\n" + b"To: b@acme.test,\r\n" + b" c@acme.test,\r\n" * 3000 + b" d@acme.test\r\n\r\nx\r\n",
        b"From: a@acme.test\r\n" + b"Resent-To: b@acme.test\r\n" * 500 + b"\r\nx\r\n",
        b"From:a@acme.test\r\nSubject:\r\nTo:\t\r\n\r\n\t\r\n \r\nx",
    ],
)
def test_unusual_messages_are_signed_validly(message: bytes, rsa: DkimKey, ed25519: DkimKey) -> None:
    signed = _sign(message, rsa, ed25519)
    assert verify(signed, find_txt=_records(rsa, ed25519)) == [True, True]
    signatures = signed.removesuffix(message)
    assert max(map(len, signatures.split(b"\r\n"))) <= 78
    assert signatures.isascii()


@settings(max_examples=60, deadline=None)
@given(_fields, _bodies)
def test_any_message_is_signed_validly(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    key = _rfc_8463_key()
    message = b"".join([b"From: a@acme.test\r\n", *(name + b":" + value for name, value in fields), b"\r\n", body])
    assert verify(_sign(message, key), find_txt=_records(key)) == [True]


def test_without_a_published_key_nothing_verifies(rsa: DkimKey) -> None:
    assert verify(_sign(MESSAGE, rsa), find_txt=lambda name: None) == [False]


def test_another_key_does_not_verify(rsa: DkimKey, ed25519: DkimKey) -> None:
    other = load_key("e1", "ed25519-sha256", generate_ed25519_pem())
    assert verify(_sign(MESSAGE, rsa, ed25519), find_txt=_records(rsa, other)) == [True, False]


def test_the_topmost_signature_is_told_first(rsa: DkimKey, ed25519: DkimKey) -> None:
    assert verify(_sign(MESSAGE, rsa, ed25519), find_txt=_records(ed25519)) == [False, True]


def test_a_message_without_a_signature_has_no_verdict() -> None:
    assert verify(MESSAGE, find_txt=lambda name: None) == []


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature:\r\n",
        b"DKIM-Signature: v=1\r\n",
        b"DKIM-Signature: v=1; a=none; b=A; bh=A; d=acme.test; h=from; s=e1\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; b=A===; bh=A===; d=acme.test; h=from; s=e1\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; b=AAAA; bh====A; d=acme.test; h=from; s=e1\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; b=AAAA; bh=AAAA; d=acme.test; h=from; s=e1; t=x\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; b=AAAA; bh=AAAA; d=\xff; h=from; s=\xff; c=odd/odd\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; b=AAAA; bh=AAAA; d=acme.test; h=\xff; s=e1; i=\r\n",
        b"DKIM-Signature: \xff\xfe=;;;==\r\n",
        b"no header field at all\r\nDKIM-Signature: v=1\r\n",
    ],
)
@pytest.mark.parametrize("record", [None, b"", b"v=DKIM1; k=rsa; p=AAAA", b"v=DKIM1; k=ed25519; p=AAAA", b"\xff;;="])
def test_a_malformed_signature_or_key_does_not_verify(field: bytes, record: bytes | None) -> None:
    verdicts = verify(field + MESSAGE, find_txt=lambda name: record)
    assert verdicts == [False]


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_mutilated_signature_does_not_verify(where: int, junk: bytes) -> None:
    key = _rfc_8463_key()
    signed = _sign(MESSAGE, key)
    start, end = len(b"DKIM-Signature: "), signed.index(b"\tb=")
    place = start + where % (end - start)
    changed = signed[:place] + junk + signed[place + 1 :]
    unclear = _canonical_head(changed) == _canonical_head(signed) and (b"\n" in junk or b"\r" in junk)  # a bare line end
    allowed = [[True]] if _canonical_head(changed) == _canonical_head(signed) else [[False], []]
    assert unclear or verify(changed, find_txt=_records(key))[:1] in allowed


def test_the_published_record_is_that_of_rfc_8463() -> None:
    assert public_record(_rfc_8463_key()) == RFC_8463_RECORD


def test_the_example_of_rfc_8463_verifies() -> None:
    assert verify(RFC_8463_MESSAGE, find_txt=lambda name: RFC_8463_RECORD.encode()) == [True]
    assert verify(RFC_8463_MESSAGE.replace(b"dinner", b"supper"), find_txt=lambda name: RFC_8463_RECORD.encode()) == [False]


def test_an_rsa_record_is_read_by_dkimpy(rsa: DkimKey) -> None:
    _, bits, kind, _ = dkim.evaluate_pk("r1", public_record(rsa))
    assert (bits, kind) == (2048, b"rsa")


@pytest.mark.parametrize(("algorithm", "other"), [("rsa-sha256", "ed25519"), ("ed25519-sha256", "rsa")])
def test_a_key_of_the_other_algorithm_is_refused(algorithm: str, other: str) -> None:
    pem = generate_ed25519_pem() if other == "ed25519" else generate_rsa_pem(1024)
    with pytest.raises(ValueError, match="s1 is not for"):
        load_key("s1", "rsa-sha256" if algorithm == "rsa-sha256" else "ed25519-sha256", pem)


def test_text_that_holds_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="PEM"):
        load_key("s1", "rsa-sha256", "not a key")


def _sign(message: bytes, *keys: DkimKey) -> bytes:
    return sign(message, domain=DOMAIN, keys=keys, timestamp=SIGNED_AT) + message


def _records(*keys: DkimKey) -> Callable[[bytes], bytes | None]:
    published = {f"{key.selector}._domainkey.{DOMAIN}.".encode(): public_record(key).encode() for key in keys}
    return published.get


def _tags(signed: bytes) -> dict[str, str]:
    """Return the tags of the topmost signature without its folds."""
    field = re.sub(r"\s+", "", signed.partition(b"\r\nReceived:")[0].decode()).removeprefix("DKIM-Signature:")
    return dict(tag.split("=", 1) for tag in field.split(";"))


def _canonical_head(message: bytes) -> list[bytes]:
    return [canonicalize_field(field) for field in split_fields(message.partition(b"\r\n\r\n")[0] + b"\r\n")]


def _rfc_8463_key() -> DkimKey:
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(RFC_8463_KEY))
    return DkimKey("brisbane", "ed25519-sha256", key)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]
