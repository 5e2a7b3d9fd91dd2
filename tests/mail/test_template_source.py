"""What do placeholders mean before Liquid sees them, and where in the customer's own text is a fault?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.mail.template import TemplateSyntaxError, check_template, render
from plunk_relay.mail.template_source import MOST_TAGS, read_fallback, split_fallbacks

SIZE = 200_000
UNSET: list[object] = [None, False, "", [], 0, float("nan")]


@pytest.mark.parametrize(
    ("placeholder", "text"),
    [
        ("{{ x ?? friend }}", "friend"),
        ("{{ x ??friend}}", "friend"),
        ("{{x??friend}}", "friend"),
        ("{{ x ?? my dear friend }}", "my dear friend"),
        ('{{ x ?? "friend" }}', "friend"),
        ("{{ x ?? 'friend' }}", "friend"),
        ("{{ x ?? ' friend ' }}", " friend "),
        ("{{ x ?? it's you }}", "it's you"),
        ("{{ x ?? 'it's you' }}", "it's you"),
        ('{{ x ?? say "hi" }}', 'say "hi"'),
        ("""{{ x ?? it's "you" }}""", "it's &quot;you&quot;"),
        ("{{ x ?? name }}", "name"),
        ("{{ x ?? 42 }}", "42"),
        ("{{ x ?? a | upcase }}", "a | upcase"),
        ("{{ x ?? }}", ""),
        ("{{ x ?? '' }}", ""),
        ("{{ x ?? 'really??' }}", "really??"),
        ('{{ x ?? "a ?? b" }}', "a ?? b"),
        ("{{ x ?? '' ?? second }}", "second"),
        ("{{ x ?? first ?? second }}", "first"),
        ("{{ name ?? first ?? second }}", "Ann"),
        ("{{ x | append: '' ?? friend }}", "friend"),
        ("{{ name | upcase ?? friend }}", "ANN"),
        ("{{ user.nick name ?? friend }}", "friend"),
        ("{{ user.first name ?? friend }}", "Bea"),
        ("{{- x ?? friend -}}", "friend"),
        ("{{ x\n??\nfriend }}", "friend"),
        ("{{ x ?? &quot;friend&quot; }}", "friend"),
        ("{{ x ?? {% if %} }}", "{% if %}"),
        ("{{ x ?? <b>you</b> }}", "<b>you</b>"),
    ],
)
def test_a_fallback_is_a_literal(placeholder: str, text: str) -> None:
    check_template(placeholder)
    assert render(placeholder, {"name": "Ann", "user": {"first name": "Bea"}}) == text


@pytest.mark.parametrize("value", UNSET)
def test_a_fallback_is_used_for_what_is_not_set(value: object) -> None:
    assert render("{{ x ?? friend }}", {"x": value}) == "friend"
    assert render("{{ x | default: 'friend' }}", {"x": value}) == "friend"


@pytest.mark.parametrize("value", ["0", " ", 1, True, {}])
def test_a_fallback_is_not_used_for_what_is_set(value: object) -> None:
    assert "friend" not in render("{{ x ?? friend }}", {"x": value})


def test_false_is_kept_when_the_default_allows_it() -> None:
    assert render("{{ x | default: 'friend', allow_false: true }}", {"x": False}) == "false"


@pytest.mark.parametrize("placeholder", ["{{}}", "{{ }}", "{{\n}}", "{{&nbsp;}}", "{{--}}", "{{ \xa0 }}"])
def test_an_empty_placeholder_prints_nothing(placeholder: str) -> None:
    check_template(placeholder)
    assert render(f"a{placeholder}b", {}) == "ab"


@pytest.mark.parametrize(
    ("placeholder", "key"),
    [
        ("{{first name}}", "first name"),
        ("{{ first name }}", "first name"),
        ("{{ First Name 2 }}", "First Name 2"),
        ("{{ first_name of-all }}", "first_name of-all"),
        ("{{ first - name }}", "first - name"),
        ("{{ два слова }}", "два слова"),
        ("{{ terms and conditions }}", "terms and conditions"),
        ("{{ true or false }}", "true or false"),
        ("{{ 2nd name }}", "2nd name"),
        ("{{ first\xa0name }}", "first name"),
        ("{{ first&nbsp;name }}", "first name"),
        ("{{- first name -}}", "first name"),
    ],
)
def test_a_name_with_blanks_is_looked_up_as_a_key(placeholder: str, key: str) -> None:
    check_template(placeholder)
    assert render(placeholder, {key: "found"}) == "found"


@pytest.mark.parametrize(
    "placeholder", ["{{ profile.first name }}", "{{ profile . first name }}", "{{profile.more.0.first name}}"]
)
def test_a_path_with_blanks_is_looked_up_segment_by_segment(placeholder: str) -> None:
    check_template(placeholder)
    assert render(placeholder, {"profile": {"first name": "found", "more": [{"first name": "found"}]}}) == "found"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% if a &lt; b %}less{% endif %}", "less"),
        ("{% if b &gt; a %}more{% endif %}", "more"),
        ("{% if s == &quot;x&quot; %}quot{% endif %}", "quot"),
        ("{% if s == &#34;x&#34; %}#34{% endif %}", "#34"),
        ("{% if s == &#39;x&#39; %}#39{% endif %}", "#39"),
        ("{% if s == &apos;x&apos; %}apos{% endif %}", "apos"),
        ("{%&nbsp;if&#160;s&nbsp;%}nbsp{%&nbsp;endif&nbsp;%}", "nbsp"),
        ("{{ s | append: &quot;&amp;&quot; }}", "x&"),
        ("{{ s | append: '&amp;lt;' }}", "x&lt;"),
        ("{{ s | append: '?a=1&copy=2&lt' }}", "x?a=1&copy=2&lt"),
        ("{{ s | append: '&eacute;' }}", "x&eacute;"),
        ("&lt;{{ s }}&gt;", "&lt;x&gt;"),
    ],
)
def test_what_editors_escape_is_decoded_once_and_only_inside_delimiters(source: str, text: str) -> None:
    check_template(source)
    assert render(source, {"a": 1, "b": 2, "s": "x"}) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a {{- x -}} b", "a1b"),
        ("a {{- x }} b", "a1 b"),
        ("a {{ x -}} b", "a 1b"),
        ("a\n{%- if true -%}\nb\n{%- endif -%}\nc", "abc"),
        ("a {%- comment -%} x {%- endcomment -%} b", "ab"),
        ("a {%- raw -%} {{ x }} {%- endraw -%} b", "a {{ x }} b"),
        ("a {{- -}} b", "ab"),
    ],
)
def test_dashes_trim_blanks(source: str, text: str) -> None:
    assert render(source, {"x": 1}) == text


@pytest.mark.parametrize(
    "content", ["{{ x ?? y }}", "{% if %}", "{{ first name }}", "&lt;", "{{", "{% comment %}", " \n ", ""]
)
def test_a_raw_block_is_copied_untouched(content: str) -> None:
    source = "{% raw %}" + content + "{% endraw %}"
    check_template(source)
    assert render(source, {"x": 1}) == content


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("{{ x", 1, 1),
        ("ab\n  {{ x", 2, 3),
        ("ab\n  {% if x", 2, 3),
        ("{% nosuch %}", 1, 4),
        ("text {% if a %}\n{% nosuch %}{% endif %}", 2, 4),
        ("{% if a %}text", 1, 4),
        ("{% if a %}{% for i in l %}text{% endfor %}", 1, 4),
        ("{% if a %}\n {% for i in l %}text", 2, 5),
        ("{% if a %}{% if b %}{% endif %}\n{% unless c %}", 2, 4),
        ("{{ x | }}", 1, 1),
        ("{% if x == %}a{% endif %}", 1, 4),
        ("{% assign x = %}", 1, 4),
        ("{% if %}a{% endif %}", 1, 4),
        ("{% for x %}{% endfor %}", 1, 4),
        ("{% %}", 1, 1),
        ("{{ x }} {% raw %} {{", 1, 12),
        ("{{ x }} {% comment %} {{", 1, 12),
        ("{{ a ! b }}", 1, 6),
        ("{{ x | nosuch }}", 1, 8),
        ("{{ x | upcase | nosuch: 'a' }}", 1, 17),
        ("{{ x ?? 'y' }}\n{{ x ?? 'y' }} {{ | }}", 2, 19),
        ("{{first name}} {{x??long fallback}} {{ x | nosuch }}", 1, 44),
        ("{{ x ?? y }}{% if a &lt; b and c | %}", 1, 34),
        ("{% if a &lt; b &gt;&gt; c %}{% endif %}", 1, 16),
        ("{{&nbsp;x&nbsp;|&nbsp;nosuch }}", 1, 23),
        ("{{- x | nosuch -}}", 1, 9),
        ("{%- nosuch -%}", 1, 5),
        ("a\r\nb {{ x | nosuch }}", 2, 10),
        ("é{{ x | nosuch }}", 1, 9),
        ("{% liquid\n  assign a = 1\n  nosuch\n%}", 3, 3),
        ("{% liquid\n  assign a = 1\n  assign b = 2 ! 3\n%}", 3, 16),
        ("{% if " + " or ".join(["a"] * 3000) + " %}{% endif %}", 1, 4),
        ("{% if a %}" * 40 + "{% endif %}" * 40, 1, 314),
    ],
)
def test_a_fault_is_told_by_its_place_in_the_customers_source(source: str, line: int, column: int) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        check_template(source)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.message


@given(
    st.lists(st.sampled_from(["a\n", "é ", "{{ x ?? 'y' }}", "{{ first name }}", "{% if a &lt; b %}{% endif %}", "{{ }}"]))
)
def test_rewriting_what_stands_before_does_not_move_a_fault(before: list[str]) -> None:
    text = "".join(before)
    with pytest.raises(TemplateSyntaxError) as caught:
        check_template(text + "{{ &quot;x&quot; | nosuch }}")
    last_line = text.rpartition("\n")[2]
    assert caught.value.line == text.count("\n") + 1
    assert caught.value.column == len(last_line) + len("{{ &quot;x&quot; | ") + 1


@pytest.mark.parametrize(
    "source",
    [
        "{{" * (SIZE // 2),
        "{%" * (SIZE // 2),
        "{" * SIZE,
        "{{ x " * (SIZE // 5),
        "{% raw %}" * (SIZE // 9),
        "{% raw" * (SIZE // 6),
        "{% doc %}" * (SIZE // 9),
        "{% comment %}" * (SIZE // 13),
        "{% if a %}" * (SIZE // 10),
        "{%" + "a" * SIZE,
        "{%" + "a" * SIZE + "%}",
        "{% if" + " " * SIZE + "%}",
        "{{" + " " * SIZE + "}}",
        "{{" + "-" * SIZE + "}}",
        "{{ " + "a " * (SIZE // 2) + "! }}",
        "{{ " + "a." * (SIZE // 2) + " }}",
        "{{ " + "(" * SIZE + " }}",
        "{{ " + '["a" ' * (SIZE // 5) + " }}",
        "{{ " + "\"'?? " * (SIZE // 5) + " }}",
        "{{ x" + " ?? y" * (SIZE // 5) + " }}",
        "{{ " + "&lt;" * (SIZE // 4) + " }}",
        "{{ x" + "&nbsp;" * (SIZE // 6) + "}}",
        "{{ " + "1" * SIZE + "x }}",
        "{{ x" + "|upcase" * (SIZE // 7) + " }}",
        "{{ x" + "[x" * (SIZE // 2) + " }}",
        "{% if " + "a or " * (SIZE // 5) + "a %}{% endif %}",
        "{% liquid\nassign a = " + " " * SIZE + "b\n%}",
        "{% case a %}{% when " + "1, " * (SIZE // 3) + "1 %}x{% endcase %}",
        "{{x}}" * (SIZE // 5),
    ],
)
def test_any_source_is_read_in_linear_time(source: str) -> None:
    """The suite's time-out would tell: in quadratic time these take hours."""
    render(source, {"x": "x"})
    try:
        check_template(source)
    except TemplateSyntaxError:
        return


def test_a_template_may_have_many_tags_but_not_any_number() -> None:
    check_template("{{ x }}" * MOST_TAGS)
    with pytest.raises(TemplateSyntaxError, match=f"more than {MOST_TAGS} tags"):
        check_template("{{ x }}" * (MOST_TAGS + 1))


def test_long_fallbacks_with_brackets_in_them_are_no_abuse() -> None:
    fallback = "(see [1]) and more text " * 100
    assert render("{{ x ?? " + fallback + "}}", {}) == fallback.strip()
    check_template(("{{ x ?? " + fallback + "}}") * 30)


def test_a_template_may_be_long_but_not_any_length() -> None:
    check_template("x" * 2_000_000)
    with pytest.raises(TemplateSyntaxError, match="too long"):
        check_template("x" * 2_000_001)
    assert render("{{ x }}{% if x %}" + "y" * 2_000_000, {"x": 1}) == "1{% if x %}" + "y" * 2_000_000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x", ["x"]),
        ("x ?? y", ["x ", " y"]),
        ("x ?? 'a ?? b' ?? c", ["x ", " 'a ?? b' ", " c"]),
        ("x ?? it's ?? y", ["x ", " it's ", " y"]),
        ('x ?? "a\' ?? b" ?? c', ["x ", ' "a\' ?? b" ', " c"]),
        ("x???y", ["x", "?y"]),
    ],
)
def test_two_question_marks_separate_outside_quotes(text: str, parts: list[str]) -> None:
    assert split_fallbacks(text) == parts


@pytest.mark.parametrize(
    ("text", "literal"), [(" a ", "a"), ("'a'", "a"), ('" a "', " a "), ("'a", "'a"), ("'", "'"), ("'a\"", "'a\""), ("", "")]
)
def test_the_quotes_of_a_fallback_are_optional(text: str, literal: str) -> None:
    assert read_fallback(text) == literal
