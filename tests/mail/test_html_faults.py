"""What will mail programs show otherwise than it is meant? Each fault is one sentence; what is right is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.html import list_tags
from plunk_relay.mail.html_faults import LARGEST_HTML, find_html_faults

OWN = "http://relay.test"
PIECES = ["<", ">", "</", "<a href='", "<img src=", " alt", "'", '"', "=", " ", "http:", "//", "<!--", "-->", "&#", "9", "x"]


@pytest.mark.parametrize(
    ("html", "faults"),
    [
        ("", []),
        ("plain text", []),
        ('<a href="https://a.test">a</a><a href="mailto:a@b.test">m</a><a href="tel:+1">t</a>', []),
        ('<a href="http://relay.test/unsubscribe/1">out</a>', []),
        ('<a href="#top">up</a><a name="top"></a>', []),
        ('<img src="https://a.test/a.png" alt=""><img src="cid:logo" alt="Logo">', []),
        ('<!-- <a href="http://a.test"><img src="x"> -->', []),
        ('<style><a href="http://a.test"></style>', []),
        ("<a href>a</a><a href=''>b</a><a href='#'>c</a>", ["3 links without an address: #"]),
        ("<a href='http://a.test/?b&amp;c'>a</a>", ["1 link to an address without https://: http://a.test/?b&c"]),
        ("<a href=HTTP://A.test>a</a>", ["1 link to an address without https://: HTTP://A.test"]),
        (
            "<a href='http://relay.test.evil.test/'>a</a>",
            ["1 link to an address without https://: http://relay.test.evil.test/"],
        ),
        ("<a href='/shop'>a</a>", ["1 link to an address that is not complete, which leads nowhere in a mail: /shop"]),
        ("<a href='a.test'>a</a>", ["1 link to an address that is not complete, which leads nowhere in a mail: a.test"]),
        (
            "<img alt=x src=http://a.test/a.png>",
            ["1 image from an address without https://, which mail programs may not load: http://a.test/a.png"],
        ),
        ("<img alt=x src=a.png>", ["1 image from an address that is not complete, which cannot be loaded: a.png"]),
        (
            "<img alt=x src=data:image/gif;base64,R0>",
            ["1 image inside the HTML itself, which Gmail does not show: data:image/gif;base64,R0"],
        ),
        (
            "<img src=https://a.test/1><img src=https://a.test/2 alt>",
            ["1 image without a text (alt) for readers who do not load images: https://a.test/1"],
        ),
    ],
)
def test_each_fault_is_a_sentence(html: str, faults: list[str]) -> None:
    assert find_html_faults(html, own_url=OWN) == faults


def test_some_of_many_are_named() -> None:
    html = "".join(f"<a href='http://{name}.test'>x</a>" for name in "aabcde")
    assert find_html_faults(html, own_url=OWN) == [
        "6 links to an address without https://: http://a.test, http://b.test, http://c.test"
    ]


def test_long_address_is_cut() -> None:
    [fault] = find_html_faults(f"<a href='http://{'a' * 500}'>x</a>", own_url=OWN)
    assert len(fault) < 200


@pytest.mark.parametrize(("length", "told"), [(LARGEST_HTML, False), (LARGEST_HTML + 1, True)])
def test_html_that_gmail_cuts_off_is_told_by_its_bytes(length: int, told: bool) -> None:
    html = "é" * (length // 2) + "x" * (length % 2)
    assert bool(find_html_faults(html, own_url=OWN)) == told


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_markup_can_be_looked_at(html: str) -> None:
    assert all("\n" not in fault for fault in find_html_faults(html, own_url=OWN))


def test_tags_are_listed_up_to_a_number() -> None:
    assert list_tags("<A HREF='&lt;x'><b><a>", ("a",), most=5) == [("a", {"href": "<x"}), ("a", {})]
    assert len(list_tags("<a>" * 9, ("a",), most=5)) == 5
