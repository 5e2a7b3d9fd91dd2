"""What may a template cost? Steps and memory are counted; beyond the bounds it is rendered by placeholders alone.

Without these bounds each of the refused templates would run for hours or fill the memory of the machine.
"""

from typing import Any

import pytest

from plunk_relay.mail.template import render

LONG = "a" * 1_000_000
SCOPE: dict[str, Any] = {
    "ten": 10,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "list": list(range(1000)),
    "long": LONG,
    "other": LONG[:-1] + "b",
    "big": [{"k": LONG}, {"k": LONG}],
    "open": "<!--<script<style<a" * 20_000,
    "name": "Ann",
}
MANY_BIG = "{% assign l = big | concat: big | concat: big | concat: big | concat: big | concat: big %}"
RAN, FELL_BACK = "ran", "{% if true %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in list %}{{ i }}{{ name | upcase }}{% if i > 5 %}x{% endif %}{% endfor %}",
        "{% for i in (1..100) %}{% for j in (1..100) %}{{ j }}{% endfor %}{% endfor %}",
        "{% for i in (1..10000) limit: 3 %}x{% endfor %}",
        "{% for i in list %}{% assign s = s | append: 'row ' %}{% endfor %}{{ s | size }}",
        "{{ long | upcase | size }}",
        "{% if long contains 'b' %}{% endif %}{% if long == other %}{% endif %}",
        "{{ list | sort | uniq | reverse | join: ', ' }}",
        "{{ 'order ...123456 and (10000..20000)' }} ...99999",
        "{{ open | strip_html | size }}",
        "{{ name | split: '' | join: '-' }}",
    ],
)
def test_what_mails_need_is_within_the_bounds(source: str) -> None:
    assert _render(source).startswith(RAN)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in (1..49999) %}{{ nosuch }}{% endfor %}",
        "{% for i in (1..9999) %}{{ nosuch }}{% endfor %}" * 50,
        "{% for i in list %}{% for j in list %}{% for k in list %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for i in list %}" + "{{ nosuch }}" * 500 + "{% endfor %}",
        "{% for i in list %}" + "{% if 1 == 2 or 1 == 3 or 1 == 4 or 1 == 5 or 1 == 6 %}{% endif %}" * 20 + "{% endfor %}",
        "{% for i in list %}{% case 1 %}{% when " + "2, " * 100 + "3 %}{% endcase %}{% endfor %}",
        "{% for i in list %}{{ a" + ".b" * 100 + " }}{% endfor %}",
        "{% for i in list %}{{ i" + " | plus: 1" * 150 + " }}{% endfor %}",
        "{% tablerow i in (1..49999) %}{{ nosuch }}{% endtablerow %}",
        "{% for i in list %}{% for j in list %}{% assign a = j %}{% endfor %}{% endfor %}",
        "{% for i in list %}{% for j in list %}{% comment %}{% endcomment %}{% endfor %}{% endfor %}",
        "{% for i in (1..5000) %}{{ '1 May 2026' | date: '%Y' }}{% endfor %}",
        "{% for i in (1..49999) %}{% liquid\nassign a = i\n%}{% endfor %}",
    ],
)
def test_steps_are_counted(source: str) -> None:
    assert _render(source).startswith(FELL_BACK)


@pytest.mark.parametrize(
    "source",
    [
        "{{ (1..billion) | size }}",
        "{{ (1..million) | reverse | size }}",
        "{% for i in (ten..billion) limit: 1 offset: 999999 %}{% endfor %}",
        "{% for i in (1..billion) reversed limit: 1 %}{% endfor %}",
        "{% for i in (1..million) limit: 1 %}{% endfor %}",
        "{% for i in list %}{% for j in (1..40000) limit: 1 offset: 39999 %}{% endfor %}{% endfor %}",
        "{% if (1..billion) contains 'x' %}{% endif %}",
        "{% assign n = billion | times: billion %}{% for i in (1..n) %}{% endfor %}",
    ],
)
def test_ranges_are_bounded_however_they_are_made(source: str) -> None:
    assert _render(source).startswith(FELL_BACK)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'aaaaaaaaaa'" + " | replace: 'a', 'aaaaaaaaaa'" * 9 + " | size }}",
        "{{ long | replace: 'a', long | size }}",
        "{{ long | replace: '', long | size }}",
        "{{ list | join: long | size }}",
        "{{ long | split: '' | join: long | size }}",
        "{{ long" + " | append: long" * 30 + " | size }}",
        "{% assign s = 'a' %}" + "{% assign s = s | append: s %}" * 40,
        "{% assign s = 'a' %}" + "{% assign s = s | prepend: s | append: s %}" * 40,
        "{% capture s %}a{% endcapture %}" + "{% capture s %}{{ s }}{{ s }}{% endcapture %}" * 40,
        "{% assign l = big | concat: big %}" + "{% assign l = l | concat: l %}" * 40,
        MANY_BIG + "{{ l }}",
        MANY_BIG + "{{ l | join: ',' | size }}",
        MANY_BIG + "{{ l | upcase | size }}",
        "{% for i in list %}{{ long }}{% endfor %}",
        "{% for i in list %}{% assign a = long | upcase %}{% endfor %}",
        "{% for i in list %}{% capture a %}{{ long }}{% endcapture %}{% endfor %}",
        "{% for i in list %}{{ long | split: '' | size }}{% endfor %}",
        "{% for i in list %}{{ long | url_encode | size }}{% endfor %}",
        "{% for i in list %}{{ long | truncatewords: 2 }}{% endfor %}",
        "{% for i in list %}{% if long contains 'b' %}{% endif %}{% endfor %}",
        "{% for i in list %}{% if long == other %}{% endif %}{% endfor %}",
        "{% for i in list %}{% case long %}{% when other %}{% endcase %}{% endfor %}",
        "{% for i in (1..110) %}{% cycle " + "'a', " * 120 + "long %}{% endfor %}",
        "{% for i in list %}{{ list | sort | size }}{{ list | where: 'k' | size }}{% endfor %}",
        "{{ big | concat: list | concat: list | where: 'k', long | size }}",
        "{% assign n = 99999999999999999999 %}" + "{% assign n = n | times: n %}" * 30,
        "{% assign n = " + "9" * 600 + " %}{{ n | plus: 1 }}",
    ],
)
def test_memory_is_counted(source: str) -> None:
    assert _render(source).startswith(FELL_BACK)


def test_deep_nesting_is_refused() -> None:
    nested = "{% if true %}" * 200 + "x" + "{% endif %}" * 200
    assert render(nested, {}) == nested


@pytest.mark.parametrize("depth", [60, 5000])
def test_deep_data_is_cut_off(depth: int) -> None:
    value: object = "deep"
    for _ in range(depth):
        value = {"a": [value]}
    assert render("{{ x.a.0.a.size }}{{ y }}", {"x": value, "y": 2}) == "12"
    assert "deep" not in render("{{ x }}{{ x | json }}", {"x": value})


@pytest.mark.parametrize("source", ["{% broken %}" + "{{ long }}" * 20, "{{ name }}" * 100_000])
def test_a_source_that_even_by_placeholders_is_too_much_stays_as_it_is(source: str) -> None:
    assert render(source, SCOPE) == source


def test_other_mails_do_not_pay_for_one_that_was_refused() -> None:
    source = "{% for i in list %}{{ i }}{% for j in (1..n) %}{% endfor %}{% endfor %}"
    assert render(source, {"list": list(range(100)), "n": 10_000}).startswith("{% for")
    assert render(source, {"list": [1, 2], "n": 10}) == "12"


def _render(source: str) -> str:
    return render("{% if true %}ran{% endif %}" + source, SCOPE)
