"""What does a customer's template say for one contact, and what happens when it cannot be run?"""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plunk_relay.mail.template import (
    ContactUrls,
    TemplateSyntaxError,
    check_template,
    contact_urls,
    has_placeholders,
    merge_scope,
    render,
)

URLS = ContactUrls("http://r.test/unsubscribe/c", "http://r.test/subscribe/c", "http://r.test/manage/c")
BROKEN = "{% if name %}{{ name }}"  # does not parse: rendered by placeholders alone

WORDS = (
    "{{ }} {% %} - x name items data . ?? ' \" | upcase default: if endif for in endfor ( 1 .. ) == > contains raw endraw"
    " comment endcomment assign = case when endcase [ ] 0 , limit: cycle unless capture break liquid &lt; \n \xa0 é"
)
SOURCES = st.lists(st.sampled_from(WORDS.split(" ")), max_size=30).flatmap(
    lambda words: st.sampled_from(["".join(words), " ".join(words)])
)
KEYS = st.sampled_from(["x", "name", "0", "size"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(SOURCES, st.dictionaries(st.sampled_from(["x", "name", "items", "data"]), JSON))
@example("{{ x }}", {"x": 2**64})
@example("{{ x }}", {"x": [1e300, float("nan")]})
@example("{{ x ", {"x": {"name": 1.2e29}})
@example("{{ x | date: '%Y' }}{{ x | plus: x | json }}", {"x": ["\ud800", {"name": float("inf")}]})
def test_rendering_never_raises(source: str, scope: dict[str, Any]) -> None:
    assert isinstance(render(source, scope), str)


@given(SOURCES)
def test_authoring_finds_a_template_valid_or_says_where_it_is_not(source: str) -> None:
    fault = _find_fault(source)
    if fault is not None:
        assert fault.message
        assert 1 <= fault.column <= len(source.split("\n")[fault.line - 1]) + 1


@given(st.text())
def test_text_without_delimiters_stays_as_it_is(text: str) -> None:
    if not has_placeholders(text):
        assert render(text, {"x": 1}) == text


@pytest.mark.parametrize(
    ("source", "whether"), [("{{ a }}", True), ("{% a %}", True), ("{ { a } }", False), ("", False), ("}}", False)]
)
def test_whether_rendering_could_change_a_text(source: str, *, whether: bool) -> None:
    assert has_placeholders(source) is whether


@pytest.mark.parametrize(
    "value", ["{{ secret }}", "{% assign a = 1 %}", "{{ 'x' | upcase }}", "{% raw %}", "{{", "%}", "&lt;b&gt;", "<script>"]
)
def test_what_a_value_contains_is_never_evaluated_and_not_escaped(value: str) -> None:
    scope = {"name": value, "items": [value], "secret": "leaked"}
    assert render("{{ name }}", scope) == value
    assert render("{% for item in items %}{{ item }}{% endfor %}", scope) == value
    assert render("{{ missing ?? 'x' }}{{ name | append: '' }}", scope) == f"x{value}"
    assert render(BROKEN, scope) == "{% if name %}" + value


@pytest.mark.parametrize(
    ("source", "scope", "text"),
    [
        ("{{ firstName }} {{ data.firstName }}", {"firstName": "Ann"}, "Ann "),
        ("{{ firstName }} {{ data.firstName }}", {"data": {"firstName": "Ann"}}, "Ann Ann"),
        ("{{ firstName }} {{ data.firstName }}", {"firstName": "Ann", "data": {"firstName": "Bea"}}, "Ann Bea"),
        ("{{ data }}{{ x }}", {"data": "text", "x": 1}, "text1"),
    ],
)
def test_data_lies_under_the_top_level(source: str, scope: dict[str, Any], text: str) -> None:
    assert render(source, scope) == text


@pytest.mark.parametrize(
    ("placeholder", "text"),
    [
        ("{{ name }}", "Ann"),
        ("{{name}}", "Ann"),
        ("{{- name -}}", "Ann"),
        ("{{ user.city }}", "Rome"),
        ("{{ a.b }}", "dotted"),
        ("{{ nosuch }}", ""),
        ("{{ user.nosuch.deeper }}", ""),
        ("{{ nosuch ?? there }}", "there"),
        ("{{ nosuch ?? 'there' }}", "there"),
        ('{{ nosuch ?? "" ?? there }}', "there"),
        ("{{ empty ?? there }}", "there"),
        ("{{ name ?? there }}", "Ann"),
        ("{{ items }}", "<li>1</li>\n<li></li>\n<li>two</li>"),
        ("{{ code }}", "42"),
        ("{{ zero }} {{ no }}", "0 false"),
        ("{% for a in items %}", "{% for a in items %}"),
    ],
)
def test_what_does_not_parse_is_rendered_by_placeholders_alone(placeholder: str, text: str) -> None:
    scope = {
        "name": "Ann",
        "user": {"city": "Rome"},
        "a.b": "dotted",
        "items": [1, None, "two"],
        "empty": "",
        "zero": 0,
        "no": False,
        "data": {"code": 42},
    }
    assert render(f"{{% broken %}}{placeholder}", scope) == f"{{% broken %}}{text}"


def test_a_failing_filter_falls_back_too() -> None:
    source = "{{ name }}{{ 'a' | upcase: 1, 2 }}{% if true %}x{% endif %}"
    assert render(source, {"name": "Ann"}) == "Ann{% if true %}x{% endif %}"


@pytest.mark.parametrize("filters", ["nosuch", "nosuch: 1, 'a'", "upcase | nosuch"])
def test_an_unknown_filter_passes_the_value_on_but_cannot_be_authored(filters: str) -> None:
    assert render("{{ name | " + filters + " }}", {"name": "ANN"}) == "ANN"
    with pytest.raises(TemplateSyntaxError, match="unknown filter 'nosuch'"):
        check_template("{{ name | " + filters + " }}")


@pytest.mark.parametrize(
    "source",
    [
        "{% if a %}{{ x | nosuch }}{% endif %}",
        "{% assign a = x | nosuch %}",
        "{% for i in l %}{% echo i | nosuch %}{% endfor %}",
    ],
)
def test_an_unknown_filter_is_found_wherever_it_is(source: str) -> None:
    with pytest.raises(TemplateSyntaxError, match="unknown filter"):
        check_template(source)


def test_a_template_is_used_again_after_others_pushed_it_out() -> None:
    texts = [f"<p>{number}</p>" * 20_000 + "{{ name }}" * 200 for number in range(50)]
    assert all(render(text, {"name": ""}) == text.replace("{{ name }}", "") for text in [*texts, *texts[:3]])


def test_urls_of_the_contacts_pages_tell_which_mail_led_there() -> None:
    assert contact_urls("http://r.test/", "c", "m") == ContactUrls(
        "http://r.test/unsubscribe/c?e=m", "http://r.test/subscribe/c?e=m", "http://r.test/manage/c?e=m"
    )


def test_a_scope_has_the_contacts_fields_the_requests_data_and_the_system_variables() -> None:
    assert _scope(stored={"plan": "free", "city": "Rome"}, request={"plan": "pro", "code": 7}) == {
        "plunk_id": "c",
        "plunk_email": "a@b.de",
        "plan": "pro",
        "city": "Rome",
        "code": 7,
        "locale": None,
        "data": {
            "plunk_id": "c",
            "plunk_email": "a@b.de",
            "plan": "pro",
            "city": "Rome",
            "code": 7,
            "locale": None,
        },
        "id": "c",
        "email": "a@b.de",
        "subscribed": True,
        "unsubscribeUrl": URLS.unsubscribe,
        "subscribeUrl": URLS.subscribe,
        "manageUrl": URLS.manage,
    }


@pytest.mark.parametrize("name", ["plunk_id", "plunk_email", "id", "email", "unsubscribeUrl", "subscribeUrl", "manageUrl"])
def test_a_request_cannot_replace_a_system_variable(name: str) -> None:
    assert _scope(request={name: "forged"}) == _scope()


@pytest.mark.parametrize(
    ("stored", "sent", "seen"),
    [
        ("old", "new", "new"),
        ("old", "", ""),
        ("old", None, None),
        ("old", 0, 0),
        ("old", {"value": "new", "persistent": False}, "new"),
        ("old", {"value": "new", "persistent": True}, "new"),
        ("old", {"value": "new"}, {"value": "new"}),
        ("old", {"value": "new", "persistent": "no"}, {"value": "new", "persistent": "no"}),
        ("old", ["a"], ["a"]),
    ],
)
def test_the_requests_data_counts_for_this_rendering(stored: object, sent: object, seen: object) -> None:
    assert _scope(stored={"x": stored}, request={"x": sent})["x"] == seen


@pytest.mark.parametrize(
    ("stored", "request_data", "locale"),
    [(None, None, None), ({"locale": "de"}, None, "de"), ({"locale": "de"}, {"locale": "fr"}, "fr")],
)
def test_the_locale_is_null_until_it_is_set(
    stored: dict[str, Any] | None, request_data: dict[str, Any] | None, locale: str
) -> None:
    assert _scope(stored=stored, request=request_data)["locale"] == locale


@pytest.mark.parametrize("name", ["subscribed", "email", "id", "data"])
def test_system_variables_win(name: str) -> None:
    assert _scope(stored={name: "forged"}, request={name: "forged"})[name] != "forged"


def test_the_merged_object_is_seen_as_data() -> None:
    scope = _scope(stored={"city": "Rome"}, request={"code": {"value": 7, "persistent": False}})
    assert render("{% if data.list == list %}same{% endif %}", _scope(request={"list": [1]})) == "same"
    assert render("{{ data.city }} {{ city }} {{ data.code }} {{ subscribed }} {{ manageUrl }}", scope) == (
        f"Rome Rome 7 true {URLS.manage}"
    )


def _find_fault(source: str) -> TemplateSyntaxError | None:
    try:
        check_template(source)
    except TemplateSyntaxError as error:
        return error
    return None


def _scope(stored: dict[str, Any] | None = None, request: dict[str, Any] | None = None) -> dict[str, object]:
    return merge_scope(contact_id="c", email="a@b.de", stored=stored, subscribed=True, request=request, urls=URLS)
