"""Which addresses does a rule's pattern fit?"""

from datetime import UTC, datetime

import pytest

from plunk_relay.suppressions.queries import Kind, Rule
from plunk_relay.suppressions.rules import catches, find_match

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _rule(kind: Kind, pattern: str, *, name: str = "Sink", enabled: bool = True) -> Rule:
    return Rule("id", "project", name, kind, pattern, enabled, NOW, NOW)


@pytest.mark.parametrize(
    ("kind", "pattern", "address", "fits"),
    [
        ("ADDRESS", "ann@example.org", "ann@example.org", True),
        ("ADDRESS", "Ann@Example.org", "aNN@eXAMPLE.ORG", True),
        ("ADDRESS", " ann@example.org ", "ann@example.org", True),
        ("ADDRESS", "ann@example.org", "ann@example.org.net", False),
        ("ADDRESS", "ann@example.org", "joann@example.org", False),
        ("ADDRESS", "a.n@example.org", "axn@example.org", False),
        ("DOMAIN", "example.org", "ann@EXAMPLE.org", True),
        ("DOMAIN", "example.org", "ann@mail.example.org", False),
        ("DOMAIN", "example.org", "ann@notexample.org", False),
        ("DOMAIN", "example.org", '"a@example.org"@example.net', False),
        ("DOMAIN", "bücher.example", "ann@xn--bcher-kva.example", True),
        ("DOMAIN", "xn--bcher-kva.example", "ann@Bücher.example", True),
        ("PREFIX", "qa-", "QA-17@example.org", True),
        ("PREFIX", "qa-", "my-qa-17@example.org", False),
        ("PREFIX", "ann", "bob@ann.example", False),
        ("SUFFIX", "+test", "ann+test@example.org", True),
        ("SUFFIX", "+test", "ann+test2@example.org", False),
        ("SUFFIX", "org", "ann@example.org", False),
        ("WILDCARD", "*@example.org", "ann@example.org", True),
        ("WILDCARD", "*@example.org", "ann@example.org.net", False),
        ("WILDCARD", "*@*.example.org", "ann@a.b.example.org", True),
        ("WILDCARD", "*@*.example.org", "ann@example.org", False),
        ("WILDCARD", "qa-??@example.org", "qa-17@example.org", True),
        ("WILDCARD", "qa-??@example.org", "qa-7@example.org", False),
        ("WILDCARD", "ann@example.org", "ann@example.org", True),
        ("WILDCARD", "ann", "ann@example.org", False),
        ("WILDCARD", "*", "ann@example.org", True),
        ("WILDCARD", "**@*", "ann@example.org", True),
        ("WILDCARD", "a*a@example.org", "a@example.org", False),
        ("WILDCARD", "a*a@example.org", "aa@example.org", True),
        ("WILDCARD", "[ab]nn@example.org", "ann@example.org", False),
        ("WILDCARD", "a.n@example.org", "axn@example.org", False),
        ("WILDCARD", "*x*y*@example.org", "axxyy@example.org", True),
        ("WILDCARD", "*x*y*@example.org", "ayyxx@example.org", False),
    ],
)
def test_a_kind_says_what_is_compared(kind: Kind, pattern: str, address: str, fits: bool) -> None:
    assert catches(_rule(kind, pattern), address) is fits


def test_a_pattern_of_many_stars_is_tried_in_one_pass() -> None:
    pattern = "*a" * 120 + "*b"  # tried every way, this would not end
    assert not catches(_rule("WILDCARD", pattern), f"{'a' * 240}@example.org")
    assert catches(_rule("WILDCARD", pattern), f"{'a' * 240}b")


def test_a_rule_that_is_off_is_passed_over() -> None:
    rules = [_rule("WILDCARD", "*", name="off", enabled=False), _rule("WILDCARD", "*", name="on")]
    found = find_match(rules, "ann@example.org")
    assert found is not None
    assert found.name == "on"
    assert find_match(rules[:1], "ann@example.org") is None
