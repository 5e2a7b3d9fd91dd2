"""What does a rendering tell its author? Which variables had no value, and whether it ran into a limit."""

from typing import Any

import pytest

from plunk_relay.mail.template import Rendered, render, render_subject, render_watched

SCOPE: dict[str, Any] = {"name": "Ann", "nothing": None, "items": [{"n": 1}, {"n": 2, "m": 3}], "data": {"plan": "pro"}}


@pytest.mark.parametrize(
    ("source", "unset"),
    [
        ("{{ name }} {{ plan }} {{ data.plan }}", ()),
        ("{{ unset }} {{ nothing }} {{ unset }}", ("unset", "nothing")),
        ("{{ name.first }}", ("name.first",)),
        ("{{ items[5].n }} {{ items.5.n }}", ("items[5].n",)),
        ("{% for item in items %}{{ item.m }}{% endfor %}", ("item.m",)),
        ("{% for item in unset %}{{ item.m }}{% endfor %}", ()),
        ("{% if unset %}{{ unset }}{% endif %}", ()),
        ("{% assign made = name %}{{ made }}", ()),
        ("{% assign made = unset %}{{ made }}", ("made",)),
        ("{{ unset | upcase }} {{ 'a' | append: tail }}", ("unset", "tail")),
        ("{{ unset | upcase | default: 'x' }} {{ unset ?? x }}", ()),
        ("{% echo unset %}", ("unset",)),
        ("{% raw %}{{ unset }}{% endraw %}{% comment %}{{ unset }}{% endcomment %}", ()),
        ("{{ first name }}", ("first name",)),
        ("{{ items[unset] }}", ("items[unset]", "unset")),
    ],
)
def test_variables_without_a_value_are_named_in_their_order(source: str, unset: tuple[str, ...]) -> None:
    assert render_watched(source, SCOPE) == Rendered(render(source, SCOPE), unset)


@pytest.mark.parametrize(
    "source", ["{{ broken", "{% for a in (1..50000) %}{% for b in (1..50000) %}x{% endfor %}{% endfor %}"]
)
def test_what_falls_back_to_plain_placeholders_says_so(source: str) -> None:
    assert render_watched(source, SCOPE) == Rendered(render(source, SCOPE), failed=True)


def test_text_without_placeholders_is_itself() -> None:
    assert render_watched("50 % off", SCOPE) == Rendered("50 % off")


@pytest.mark.parametrize("value", ["a\nb", "a\rb"])
def test_subject_is_one_line_whatever_its_values_are(value: str) -> None:
    assert render_subject("x\n{{v}}", {"v": value}) == "x a b"
    assert render_subject(f"x\n{value}", {}) == "x a b"
