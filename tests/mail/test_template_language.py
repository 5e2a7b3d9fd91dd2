"""How does Liquid behave here? As LiquidJS with JavaScript's truth; nothing but data is in reach."""

import pytest

from plunk_relay.mail.template import TemplateSyntaxError, check_template, render

MISSING = object()


@pytest.mark.parametrize(
    ("value", "true"),
    [
        ("", False),
        (0, False),
        (0.0, False),
        (False, False),
        (None, False),
        (float("nan"), False),
        (MISSING, False),
        ("0", True),
        (" ", True),
        ("false", True),
        (1, True),
        (-1, True),
        (True, True),
        ([], True),
        ({}, True),
        ([0], True),
    ],
)
def test_truth_is_javascripts(value: object, *, true: bool) -> None:
    scope = {} if value is MISSING else {"x": value}
    branch = "yes" if true else "no"
    assert render("{% if x %}yes{% else %}no{% endif %}", scope) == branch
    assert render("{% unless x %}no{% else %}yes{% endunless %}", scope) == branch
    assert render("{% if false %}{% elsif x %}yes{% else %}no{% endif %}", scope) == branch
    assert render("{% if x and true %}yes{% else %}no{% endif %}", scope) == branch
    assert render("{% if false or x %}yes{% else %}no{% endif %}", scope) == branch


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("n == 5", True),
        ("n == '5'", False),
        ("n != 5", False),
        ("n > 4 and n < 6", True),
        ("n >= 5 and n <= 5", True),
        ("n > 5 or n < 5", False),
        ("s == 'abc'", True),
        ("s < 'abd'", True),
        ("'B' < 'a'", True),
        ("digits > 9", True),
        ("digits < 9", False),
        ("digits > '9'", False),
        ("s > 1", False),
        ("s < 1", False),
        ("yes == true", True),
        ("yes > 0", True),
        ("s contains 'b'", True),
        ("s contains 'x'", False),
        ("digits contains 1", True),
        ("l contains 2", True),
        ("l contains 'two'", True),
        ("l contains 3", False),
        ("o contains 'k'", True),
        ("o contains l", False),
        ("n contains 5", False),
        ("nosuch contains 'a'", False),
        ("nosuch == nil", True),
        ("nosuch > 1", False),
        ("nosuch <= 1", False),
        ("nil < 1", False),
        ("nosuch == blank", True),
        ("'  ' == blank", True),
        ("'' == empty", True),
        ("el == empty", True),
        ("el == blank", True),
        ("l == empty", False),
        ("l != empty", True),
        ("false == blank", True),
        ("0 == blank", False),
        ("l == l", True),
        ("o.k == 1", True),
        ("l.size == 3", True),
        ("l.first == 1 and l.last == 'two'", True),
        ("s.size == 3", True),
    ],
)
def test_conditions_compare_as_in_javascript(condition: str, *, true: bool) -> None:
    scope = {"n": 5, "s": "abc", "digits": "10", "yes": True, "l": [1, 2, "two"], "o": {"k": 1}, "el": []}
    check_template("{% if " + condition + " %}yes{% endif %}")
    assert render("{% if " + condition + " %}yes{% else %}no{% endif %}", scope) == ("yes" if true else "no")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("text", "text"),
        ("<b>&</b>", "<b>&</b>"),
        (0, "0"),
        (False, "false"),
        (True, "true"),
        (None, ""),
        (MISSING, ""),
        (3.0, "3"),
        (2.5, "2.5"),
        (-0.5, "-0.5"),
        (1e30, "1e+30"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (2**63, "9223372036854775808"),
        ([1, "two", None, 3.5], "<li>1</li>\n<li>two</li>\n<li></li>\n<li>3.5</li>"),
        ([], ""),
        ({"a": 1, "b": ["é", None]}, '{"a":1,"b":["é",null]}'),
        ([{"a": 1}], '<li>{"a":1}</li>'),
    ],
)
def test_a_value_prints_as_in_javascript(value: object, printed: str) -> None:
    scope = {} if value is MISSING else {"x": value}
    assert render("{{ x }}", scope) == printed
    assert render("{% echo x %}", scope) == printed
    assert render("{{ x }}{{ unclosed", scope) == printed + "{{ unclosed"


def test_a_list_prints_bare_when_it_asks_to() -> None:
    assert render("{{ items | raw }}", {"items": ["a", None, 1]}) == "a,,1"
    assert render("{% for item in items %}{{ item }};{% endfor %}", {"items": ["a", 1]}) == "a;1;"


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("items.0", "first"),
        ("items[1]", "second"),
        ("items[-1]", "second"),
        ("items.9", ""),
        ("items['0']", "first"),
        ("items[index]", "second"),
        ('data["first name"]', "Ann"),
        ("data['first name']", "Ann"),
        ("data[key]", "Ann"),
        ("years.2024", "leap"),
        ("years[2024]", "leap"),
        ("rows.0.cells.1", "b"),
        ("rows[0].cells.last", "b"),
        ("items.size", "2"),
        ("nosuch.a.b.c", ""),
        ("text.a", ""),
        ("text.0", ""),
        ("number.a", ""),
        ("items.first.first", ""),
    ],
)
def test_a_path_leads_through_objects_and_lists(path: str, printed: str) -> None:
    scope = {
        "items": ["first", "second"],
        "index": 1,
        "key": "first name",
        "data": {"first name": "Ann"},
        "years": {"2024": "leap"},
        "rows": [{"cells": ["a", "b"]}],
        "text": "abc",
        "number": 5,
    }
    assert render("{{ " + path + " }}", scope) == printed


def test_a_placeholder_may_stretch_over_lines() -> None:
    assert render("{{\n  name\n  | upcase\n}}", {"name": "ann"}) == "ANN"


@pytest.mark.parametrize(
    "path",
    [
        "x.__class__",
        "x.__class__.__mro__",
        "x['__class__']",
        "x.upper",
        "x.format",
        "l.__len__",
        "l.append",
        "l.sort",
        "o.keys",
        "o.items",
        "o.__dict__",
        "n.real",
        "n.bit_length",
        "forloop",
        "nosuch.__init__",
        "__builtins__",
        "self",
        "now",
        "today",
        "x | map: '__class__' | compact",
        "l | map: 'upper' | compact",
        "l | where: '__class__' | raw",
        "l | sum: '__len__' | times: nosuch | replace: '0', ''",
        "o | find: 'keys'",
    ],
)
def test_nothing_but_data_is_in_reach(path: str) -> None:
    assert render("{{ " + path + " }}", {"x": "text", "l": ["a"], "o": {"k": 1}, "n": 5}) == ""


class Exposed:
    """What must not be seen through a template."""

    secret = "secret"

    def __str__(self) -> str:
        return "shown"


def test_objects_with_attributes_are_texts() -> None:
    assert render("{{ x }}{{ x.secret }}{{ x['secret'] }}{{ l[0].secret }}", {"x": Exposed(), "l": [Exposed()]}) == "shown"


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("{% if a == 1 %}one{% elsif a == 2 %}two{% else %}many{% endif %}", "two"),
        ("{% unless a == 1 %}not one{% endunless %}", "not one"),
        ("{% case a %}{% when 1 %}one{% when 2, 3 %}few{% else %}many{% endcase %}", "few"),
        ("{% case s %}{% when 'x' or 'abc' %}known{% else %}other{% endcase %}", "known"),
        ("{% case a %}{% when 9 %}nine{% else %}other{% endcase %}", "other"),
        ("{% for i in l %}{{ i }}{% endfor %}", "123"),
        ("{% for i in l reversed %}{{ i }}{% endfor %}", "321"),
        ("{% for i in l limit:2 %}{{ i }}{% endfor %}", "12"),
        ("{% for i in l offset:1 %}{{ i }}{% endfor %}", "23"),
        ("{% for i in l limit:1 offset:1 %}{{ i }}{% endfor %}", "2"),
        ("{% for i in l limit:1 %}{{ i }}{% endfor %}{% for i in l offset:continue %}{{ i }}{% endfor %}", "123"),
        ("{% for i in (1..3) %}{{ i }}{% endfor %}", "123"),
        ("{% for i in (a..4) %}{{ i }}{% endfor %}", "234"),
        ("{% for i in nosuch %}x{% else %}none{% endfor %}", "none"),
        ("{% for i in el %}x{% else %}none{% endfor %}", "none"),
        ("{% for p in o %}{{ p[0] }}={{ p[1] }};{% endfor %}", "k=1;j=2;"),
        ("{% for i in s %}{{ i }}{% endfor %}", "abc"),
        ("{% for i in l %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        ("{% for i in l %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% for i in l %}{{ forloop.index }}{{ forloop.index0 }}{{ forloop.rindex }} {% endfor %}", "103 212 321 "),
        (
            "{% for i in l %}{{ forloop.first }},{{ forloop.last }},{{ forloop.length }} {% endfor %}",
            "true,false,3 false,false,3 false,true,3 ",
        ),
        (
            "{% for i in l %}{% for j in l %}{{ forloop.parentloop.index }}{{ j }} {% endfor %}{% endfor %}",
            "11 12 13 21 22 23 31 32 33 ",
        ),
        ("{% assign b = a | plus: 1 %}{{ b }}", "3"),
        ("{% assign a = 'over' %}{{ a }}", "over"),
        ("{% capture c %}[{{ a }}]{% endcapture %}{{ c }}{{ c }}", "[2][2]"),
        ("{% raw %}{{ a }}{% if %}{% endraw %}", "{{ a }}{% if %}"),
        ("a{% comment %}{{ b }} {{ {% nosuch %}{% comment %}x{% endcomment %} y{% endcomment %}c", "ac"),
        ("a{% # inline comment %}c", "ac"),
        ("{% increment n %}{% increment n %}{% decrement m %}", "01-1"),
        ("{% for i in l %}{% cycle 'odd', 'even' %} {% endfor %}", "odd even odd "),
        (
            "{% tablerow i in l cols:2 %}{{ i }}{% endtablerow %}",
            '<tr class="row1">\n<td class="col1">1</td><td class="col2">2</td></tr>\n<tr class="row2">'
            '<td class="col1">3</td></tr>\n',
        ),
        ("{% liquid\nassign x = 'a'\nif x\necho x\nendif %}", "a"),
        ("[ {{- a -}} ]", "[2]"),
        ("[ {%- if a -%} x {%- endif -%} ]", "[x]"),
        ("[ {{-}} ]", "[ ]"),
    ],
)
def test_tags_do_what_they_say(source: str, printed: str) -> None:
    check_template(source)
    scope = {"a": 2, "s": "abc", "l": [1, 2, 3], "el": [], "o": {"k": 1, "j": 2}}
    assert render(source, scope) == printed


@pytest.mark.parametrize(
    "tag",
    ["include 'a'", "render 'a'", "layout 'a'", "extends 'a'", "block a", "import 'a'", "nosuch", "endif", "ifchanged"],
)
def test_tags_that_read_files_and_unknown_ones_are_refused(tag: str) -> None:
    source = "{% " + tag + " %}{{ x }}"
    with pytest.raises(TemplateSyntaxError, match="unexpected tag"):
        check_template(source)
    assert render(source, {"x": 1}) == "{% " + tag + " %}1"
