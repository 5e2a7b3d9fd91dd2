"""Which HTML of strangers may be shown? Nothing that runs, calls home by itself, or takes the memory of the server."""

import pytest

from plunk_relay.mail.safe_html import clean_html, text_to_html


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("<p>Hi <b>you</b></p>", "<p>Hi <b>you</b></p>"),
        ("<script>alert(1)</script>Hi", "Hi"),
        ("<style>p{}</style>Hi", "Hi"),
        ('<p onclick="x()">Hi</p>', "<p>Hi</p>"),
        ('<a href="javascript:x()">Hi</a>', '<a rel="noopener noreferrer">Hi</a>'),
        ('<a href="JaVa\tScript:x()">Hi</a>', '<a rel="noopener noreferrer">Hi</a>'),
        ('<a href="https://a.test/">Hi</a>', '<a href="https://a.test/" rel="noopener noreferrer">Hi</a>'),
        ('<a href="mailto:a@b.test">Hi</a>', '<a href="mailto:a@b.test" rel="noopener noreferrer">Hi</a>'),
        (
            '<a href="ftp://a.test/">Hi</a><a href="tel:1">Ho</a>',
            '<a rel="noopener noreferrer">Hi</a>' + '<a rel="noopener noreferrer">Ho</a>',
        ),
        ('<a href="/admin">Hi</a>', '<a rel="noopener noreferrer">Hi</a>'),
        ('<img src="https://a.test/x.png" alt="X" width="1" height="2">',) * 2,
        ('<img src="data:image/png;base64,AA" onerror="x()">', "<img>"),
        ("<iframe src=https://a.test></iframe><form><input></form>Hi", "Hi"),
        ("<svg><script>x()</script></svg>Hi", "Hi"),
        ("<math><mtext><table><mglyph><style><img src=x onerror=x()>", ""),
        ("<noscript><p title='</noscript><img src=x onerror=x()>'>", "&lt;p title='<img>'&gt;"),
        ('<p style="color: red; position: fixed; top: 0">Hi</p>', '<p style="color:red">Hi</p>'),
        ('<p style="background-image: url(https://a.test/)">Hi</p>', '<p style="">Hi</p>'),
        ("<!-- hidden -->Hi", "Hi"),
        ("1 < 2 & 3", "1 &lt; 2 &amp; 3"),
        ("<b>open", "<b>open</b>"),
        ("", ""),
    ],
)
def test_only_what_is_harmless_is_left(dirty: str, clean: str) -> None:
    assert clean_html(dirty) == clean


def test_a_newsletter_keeps_its_layout() -> None:
    cell = '<td width="50%" valign="top"><font color="#333" face="Arial"><b>Offer</b> <a href="https://a.test/">buy</a></font></td>'
    html = f"<table>{f'<tr>{cell * 2}</tr>' * 300}</table>"
    assert clean_html(html).count("<td") == 600


@pytest.mark.parametrize(
    "bomb",
    [
        "<p>" + "".join(f"<b x={n}>" for n in range(3000)) + "<p>x" * 3000,
        "<p>" + "".join(f'<b x="{n}>">' for n in range(3000)) + "<p>x" * 3000,
        "<p>" + "".join(f"<FONT\tx='{n}'>" for n in range(3000)) + "<p>x" * 3000,
        "<div>" * 100_000 + "x" * 3000,
        "<table><td>" * 50_000 + "x" * 3000,
    ],
    ids=["formatting", "brackets in quotes", "upper case", "depth", "tables"],
)
def test_markup_that_would_explode_is_shown_as_text(bomb: str) -> None:
    shown = clean_html(bomb)
    assert shown.startswith("<p>")
    assert shown.count("x") >= 3000
    assert shown.count("<") < 10_000


def test_plain_text_becomes_paragraphs() -> None:
    assert (
        text_to_html("One <b>\r\ntwo\r\n\r\n\r\nthree & four\r\n") == "<p>One &lt;b&gt;<br>two</p>\n<p>three &amp; four</p>"
    )


@pytest.mark.parametrize("text", ["", "\r\n", " \n \n"])
def test_no_text_is_no_html(text: str) -> None:
    assert text_to_html(text) == ""
