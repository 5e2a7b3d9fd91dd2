"""Which filters are there, and do they give what LiquidJS gives?"""

from typing import Any

import pytest

from plunk_relay.mail.template import check_template, render

SCOPE: dict[str, Any] = {
    "name": "ann LEE",
    "n": 7,
    "half": 2.5,
    "digits": "12",
    "yes": True,
    "none": None,
    "html": "<p>a &amp; <b>b</b></p>",
    "l": [3, 1, 2, 1],
    "mixed": ["b", 10, None, "a", 9, True],
    "rows": [{"k": 2, "t": "b", "on": True}, {"k": 1, "t": "a", "on": False}, {"t": "c"}],
    "o": {"a": [1, None, "x"]},
    "moment": "2026-03-01T12:30:45Z",
}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("name | upcase", "ANN LEE"),
        ("name | downcase", "ann lee"),
        ("name | capitalize", "Ann lee"),
        ("name | append: '!'", "ann LEE!"),
        ("name | prepend: 'Hi '", "Hi ann LEE"),
        ("name | remove: 'n'", "a LEE"),
        ("name | remove_first: 'n'", "an LEE"),
        ("name | remove_last: 'E'", "ann LE"),
        ("name | replace: 'n', 'm'", "amm LEE"),
        ("name | replace_first: 'n', 'm'", "amn LEE"),
        ("name | replace_last: 'E', 'A'", "ann LEA"),
        ("name | slice: 0", "a"),
        ("name | slice: -3, 2", "LE"),
        ("name | size", "7"),
        ("name | split: ' ' | join: '-'", "ann-LEE"),
        ("name | split: '' | size", "7"),
        ("name | truncate: 6", "ann..."),
        ("name | truncate: 5, '~'", "ann ~"),
        ("name | truncatewords: 1", "ann..."),
        ("'  a b ' | strip", "a b"),
        ("'  a ' | lstrip | append: '|'", "a |"),
        ("'  a ' | rstrip | append: '|'", "  a|"),
        ("'a\n\nb' | strip_newlines", "ab"),
        ("'a\nb' | newline_to_br", "a<br />\nb"),
        ("' a \n b ' | normalize_whitespace", " a b "),
        ("'a b  c' | number_of_words", "3"),
        ("html | strip_html", "a &amp; b"),
        ("'<script>x</script>a<!-- y -->b<style>z</style> 1 < 2' | strip_html", "ab 1 < 2"),
        ("'<a> & \"b\"' | escape", "&lt;a&gt; &amp; &quot;b&quot;"),
        ("'&lt; & <' | escape_once", "&lt; &amp; &lt;"),
        ("'<a> & \"b\"' | xml_escape", "&lt;a&gt; &amp; &#34;b&#34;"),
        ("'a b&c' | url_encode", "a+b%26c"),
        ("'a+b%26c' | url_decode", "a b&c"),
        ("'a b/c?' | cgi_escape", "a+b%2Fc%3F"),
        ("'http://x/a b' | uri_escape", "http://x/a%20b"),
        ("'Grüße, Welt! 2' | slugify", "grüße-welt-2"),
        ("'ä' | base64_encode", "w6Q="),
        ("'w6Q=' | base64_decode", "ä"),
        ("yes | append: 1", "true1"),
        ("none | append: none", ""),
        ("half | append: '!'", "2.5!"),
        ("4 | times: 1.0 | append: '!'", "4!"),
        ("nosuch | append: 'x'", "x"),
        ("name | append: yes", "ann LEEtrue"),
        ("l | upcase", "3121"),
        ("o | downcase", '{"a":[1,null,"x"]}'),
    ],
)
def test_texts(expression: str, text: str) -> None:
    assert _show(expression) == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("n | plus: 3", "10"),
        ("n | minus: 10", "-3"),
        ("n | times: 2", "14"),
        ("n | divided_by: 2", "3.5"),
        ("n | divided_by: 7", "1"),
        ("n | divided_by: 2, true", "3"),
        ("n | divided_by: 0", "Infinity"),
        ("0 | divided_by: 0", "NaN"),
        ("n | modulo: 4", "3"),
        ("-7 | modulo: 4", "-3"),
        ("n | modulo: 0", "NaN"),
        ("half | round", "3"),
        ("-2.5 | round", "-2"),
        ("2.345 | round: 1", "2.3"),
        ("2.5 | round: 400", "2.5"),
        ("1234 | round: -2", "1200"),
        ("half | ceil", "3"),
        ("half | floor", "2"),
        ("-3 | abs", "3"),
        ("n | at_least: 9", "9"),
        ("n | at_most: 5", "5"),
        ("digits | plus: 1", "13"),
        ("'2.5' | times: 2", "5"),
        ("'1e3' | plus: 0", "1000"),
        ("name | plus: 1", "1"),
        ("none | plus: 1", "1"),
        ("nosuch | minus: 1", "-1"),
        ("1.5 | plus: 0.5", "2"),
        ("half | to_integer", "2"),
        ("n | divided_by: 0 | round | ceil", "Infinity"),
    ],
)
def test_numbers(expression: str, text: str) -> None:
    assert _show(expression) == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("l | join: ', '", "3, 1, 2, 1"),
        ("l | join", "3 1 2 1"),
        ("mixed | join: ','", "b,10,,a,9,true"),
        ("l | sort | join", "1 1 2 3"),
        ("mixed | sort | join: ','", "true,9,10,a,b,"),
        ("rows | sort: 'k' | map: 't' | join", "a b c"),
        ("'b,A,a,C' | split: ',' | sort_natural | join", "A a b C"),
        ("rows | sort_natural: 't' | map: 't' | join", "a b c"),
        ("l | reverse | join", "1 2 1 3"),
        ("l | uniq | join", "3 1 2"),
        ("rows | concat: rows | uniq | size", "3"),
        ("rows | map: 'k' | join: ','", "2,1,"),
        ("rows | map: 'k' | compact | join: ','", "2,1"),
        ("rows | compact: 'k' | size", "2"),
        ("rows | where: 'on' | map: 't' | join", "b"),
        ("rows | where: 'k', 1 | map: 't' | join", "a"),
        ("rows | reject: 'on' | map: 't' | join", "a c"),
        ("rows | reject: 'k', 1 | map: 't' | join", "b c"),
        ("rows | find: 'k', 1 | json", '{"k":1,"t":"a","on":false}'),
        ("rows | find: 'k', 9", ""),
        ("rows | find_index: 't', 'c'", "2"),
        ("rows | has: 'k', 2", "true"),
        ("rows | has: 'k', 9", "false"),
        ("l | sum", "7"),
        ("rows | sum: 'k'", "3"),
        ("l | first", "3"),
        ("l | last", "1"),
        ("l | size", "4"),
        ("l | pop | join", "3 1 2"),
        ("l | shift | join", "1 2 1"),
        ("l | slice: 1, 2 | join", "1 2"),
        ("l | concat: mixed | size", "10"),
        ("l | concat: nosuch | size", "4"),
        ("nosuch | join", ""),
        ("name | join: ','", "ann LEE"),
        ("(1..3) | join", "1 2 3"),
        ("l | array_to_sentence_string", "3, 1, 2, and 1"),
        ("l | slice: 0, 2 | array_to_sentence_string: 'or'", "3 or 1"),
        ("l | slice: 0, 1 | array_to_sentence_string", "3"),
        ("nosuch | array_to_sentence_string", ""),
        ("o | json", '{"a":[1,null,"x"]}'),
        ("l | json", "[3,1,2,1]"),
        ("name | json", '"ann LEE"'),
        ("none | json", "null"),
        ("yes | inspect", "true"),
    ],
)
def test_lists_and_objects(expression: str, text: str) -> None:
    assert _show(expression) == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("moment | date: '%Y-%m-%d'", "2026-03-01"),
        ("moment | date: '%-d %B %Y, %H:%M'", "1 March 2026, 12:30"),
        ("'1 January 2026' | date: '%a'", "Thu"),
        ("'no date' | date: '%Y'", "no date"),
        ("nosuch | date: '%Y'", ""),
        ("none | date: '%Y'", ""),
        ("'2026-03-01 ' | append: digits | append: ':00' | date: '%H'", "12"),
    ],
)
def test_dates(expression: str, text: str) -> None:
    assert _show(expression) == text


def test_the_present_year_can_be_written() -> None:
    assert len(_show("'now' | date: '%Y'")) == 4


@pytest.mark.parametrize("form", ["%Y" * 100, "%1000000Y" * 10])
def test_a_long_date_format_is_no_format(form: str) -> None:
    assert len(render("{{ moment | date: form }}", {**SCOPE, "form": form})) < 3000


def _show(expression: str) -> str:
    source = "{{ " + expression + " }}"
    check_template(source)
    return render(source, SCOPE)
