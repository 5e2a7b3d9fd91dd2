"""What does HTML say as plain text, when is it a whole document, and where does a footer go?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.html import add_footer, html_to_text, wrap_fragment

SIZE = 300_000
PIECES = ["<", ">", "</", "<a href='", "'", '"', "=", " ", "p", "<b", "<!--", "-->", "<script", "&amp;", "&#", "9", "x"]
MARKUP = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("no markup", "no markup"),
        ("Tom &amp; Jerry &copy;", "Tom & Jerry ©"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("<p>one<p>two", "one\n\ntwo"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<div>one</div><div>two</div>", "one\n\ntwo"),
        ("<h1>Title</h1>body", "Title\n\nbody"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\n\nc"),
        ("<b>bold</b><i>italic</i> rest", "bolditalic rest"),
        ("  much \n\t space  <p>  here </p>", "much space\n\nhere"),
        ("<p>a</p>\n\n\n<p>b</p>", "a\n\nb"),
        ("1 < 2 and 3 > 2 <b>yes</b>", "1 < 2 and 3 > 2 yes"),
        ("&lt;p&gt; is a tag<br>", "<p> is a tag"),
        ("<P>UPPER</P><Br>case", "UPPER\n\ncase"),
        ("<p title='a > b'>attribute</p>", "attribute"),
        ("<p>zero &#0; huge &#99999999999; none &nosuch;</p>", "zero \ufffd huge \ufffd none &nosuch;"),
    ],
)
def test_html_is_read_as_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    "html",
    [
        "<style>p { color: red }</style>",
        "<script>if (a < b) alert('</p>')</script>",
        "<!-- a comment <p>with markup</p> -->",
        "<title>Title</title>",
        "<template><p>later</p></template>",
        "<!doctype html>",
        "<?xml version='1.0'?>",
        "<SCRIPT>upper()</script >",
        "</>",
        "<style>never closed",
        "<!-- never closed",
        "<a href='never closed",
    ],
)
def test_what_a_reader_does_not_see_is_left_out(html: str) -> None:
    assert html_to_text(f"seen{html}") == "seen"


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("<a href='https://x.test/a?b=1&amp;c=2'>here</a>", "here (https://x.test/a?b=1&c=2)"),
        ('<a class="b" HREF="http://x.test">here</a>', "here (http://x.test)"),
        ("<a href=https://x.test>here</a>", "here (https://x.test)"),
        ("<a href='https://x.test'><b>he</b>re</a>", "here (https://x.test)"),
        ("<a href='https://x.test'><img alt='Logo' src=a></a>", "Logo (https://x.test)"),
        ("<a href='https://x.test'>https://x.test</a>", "https://x.test"),
        ("<a href='mailto:a@b.de'>write us</a>", "write us (a@b.de)"),
        ("<a href='mailto:a@b.de'>a@b.de</a>", "a@b.de"),
        ("<a href='#top'>up</a>", "up"),
        ("<a href='javascript:alert(1)'>up</a>", "up"),
        ("<a name='x'>anchor</a>", "anchor"),
        ("<a>nowhere</a>", "nowhere"),
        ("<a href='https://x.test'>open", "open (https://x.test)"),
        (
            "<a href='https://x.test/1'>one <a href='https://x.test/2'>two</a>",
            "one (https://x.test/1)two (https://x.test/2)",
        ),
    ],
)
def test_a_link_says_where_it_leads_unless_its_text_does(link: str, text: str) -> None:
    assert html_to_text(link) == text


def test_an_image_says_its_alternative_text() -> None:
    assert html_to_text("<p><img src='a.png' alt='A  red\ncar'><img src='b.png'></p>") == "A red car"


@given(MARKUP)
def test_any_markup_is_read(html: str) -> None:
    text = html_to_text(html)
    assert text == text.strip()


@pytest.mark.parametrize(
    "unit",
    [
        "<font size={n}><p>",
        "<b><p>",
        "<a href='http://x.test'><div>",
        "<span>",
        "</i>",
        "<",
        "<a",
        '<a b="',
        "<!--",
        "<script>",
        "<style></style",
        "<table><tr><td>",
        "&#1",
        " data-",
        "<p id",
        "<p data-a ",
    ],
)
def test_huge_markup_is_read_in_linear_time_and_memory(unit: str) -> None:
    """The suite's time-out would tell: a tree of the first of these has 10,000,000 nodes."""
    html = "".join(unit.replace("{n}", str(number)) for number in range(SIZE // len(unit)))
    html_to_text(html)
    wrap_fragment(html)


@pytest.mark.parametrize(
    "fragment",
    [
        "",
        "plain text",
        "<p>Hello <b>Ann</b>, <a href='https://x.test'>look</a></p>",
        "<p style='text-align:center'>centred</p>",
        "<h1>Title</h1><ul><li>one</li></ul><blockquote>two</blockquote><hr>",
        "<p>set id = 5 and class = b</p>",
    ],
)
def test_a_plain_fragment_becomes_a_whole_document(fragment: str) -> None:
    document = wrap_fragment(fragment)
    assert document.startswith("<!doctype html>")
    assert fragment in document
    assert document.rstrip().endswith("</html>")
    assert html_to_text(document) == html_to_text(fragment)


@pytest.mark.parametrize(
    "html",
    [
        "<!DOCTYPE html><p>x</p>",
        "<html><body>x</body></html>",
        "<div>x</div>",
        "<table><tr><td>x</td></tr></table>",
        "<section>x</section>",
        "<p class='lead'>x</p>",
        "<p align=left\nid=a>x</p>",
        "<p data-part='x'>x</p>",
        "<p aria-hidden = 'true'>x</p>",
        "<p role='note'>x</p>",
        "<style>@media print {}</style><p>x</p>",
        "<link rel='stylesheet' href='x'>",
        "<img src='cid:logo'>",
        "<video src='x'></video>",
        "<TABLE></TABLE>",
    ],
)
def test_html_with_markup_of_its_own_stays_untouched(html: str) -> None:
    assert wrap_fragment(html) == html


def test_a_document_is_not_wrapped_again() -> None:
    document = wrap_fragment("<p>x</p>")
    assert wrap_fragment(document) == document


@pytest.mark.parametrize(
    ("html", "result"),
    [
        ("<p>x</p>", "<p>x</p>[F]"),
        ("<body>x</body></html>", "<body>x[F]</body></html>"),
        ("<BODY>x</BODY >", "<BODY>x[F]</BODY >"),
        ("x</body>y</body>", "x[F]</body>y</body>"),
        ("İİİİİİİİ</body>", "İİİİİİİİ[F]</body>"),
        ("", "[F]"),
    ],
)
def test_a_footer_goes_before_the_first_end_of_the_body(html: str, result: str) -> None:
    assert add_footer(html, "[F]") == result
