"""What is an MTA-STS record, what a policy, and which exchangers does it list?"""

import pytest

from plunk_relay.mail.mta_sts import InvalidPolicy, StsPolicy, find_policy_id, read_policy

POLICY = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmx: *.example.net\nmax_age: 604800\n"


@pytest.mark.parametrize(
    ("records", "policy_id"),
    [
        (["v=STSv1; id=20260301T120000;"], "20260301T120000"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ; ext=x; id = 7 ;"], "7"),
        (["some other text", "v=STSv1; id=2"], "2"),
        ([], None),
        (["v=STSv1; id=1", "v=STSv1; id=2"], None),
        (["v=STSv1;"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=not-a-word"], None),
        (["v=STSv1; id=" + "a" * 33], None),
        (["v=STSv10; id=1"], None),
        (["V=STSv1; id=1"], None),
        ([" v=STSv1; id=1"], None),
    ],
)
def test_the_one_record_of_a_domain_names_the_policy(records: list[str], policy_id: str | None) -> None:
    assert find_policy_id(records) == policy_id


@pytest.mark.parametrize("text", [POLICY, POLICY.replace("\n", "\r\n"), POLICY.strip(), POLICY + "\n\nextension: x: y\n"])
def test_a_policy_is_read(text: str) -> None:
    assert read_policy(text) == StsPolicy("enforce", 604800, ("mx.example.org", "*.example.net"))


def test_of_a_key_that_comes_twice_the_first_counts() -> None:
    assert read_policy(POLICY + "mode: none\nmax_age: 1\n").mode == "enforce"


def test_names_of_exchangers_are_compared_as_a_labels() -> None:
    policy = read_policy("version: STSv1\nmode: testing\nmx: *.BÜCHER.example.\nmax_age: 1")
    assert policy.mx == ("*.xn--bcher-kva.example",)
    assert policy.matches("MX1.xn--bcher-kva.example.")


def test_a_policy_that_says_none_needs_no_exchanger() -> None:
    assert read_policy("version: STSv1\nmode: none\nmax_age: 86400").mode == "none"


def test_a_policy_holds_for_a_year_at_most() -> None:
    assert read_policy(POLICY.replace("604800", "9999999999")).max_age == 31557600


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "version"),
        (POLICY.replace("STSv1", "STSv2"), "version"),
        (POLICY.replace("enforce", "forced"), "mode"),
        (POLICY.replace("mode: enforce\n", ""), "mode"),
        (POLICY.replace("604800", "a week"), "max_age"),
        (POLICY.replace("604800", "-1"), "max_age"),
        (POLICY.replace("604800", "٣"), "max_age"),
        (POLICY.replace("max_age: 604800\n", ""), "max_age"),
        ("version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx"),
        (POLICY.replace("mx.example.org", "mx.*.example.org"), "no host name"),
        (POLICY.replace("mx.example.org", "*"), "no host name"),
        (POLICY.replace("mx.example.org", "mx example org"), "no host name"),
        ("<html>\n" + POLICY, "key: value"),
    ],
)
def test_a_policy_that_cannot_be_understood_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidPolicy, match=reason):
        read_policy(text)


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("mx.example.org", True),
        ("MX.Example.ORG", True),
        ("mx2.example.org", False),
        ("example.org", False),
        ("a.mx.example.org", False),
        ("mx.example.net", True),
        ("example.net", False),
        ("a.mx.example.net", False),
        ("mx.badexample.net", False),
        ("", False),
    ],
)
def test_a_wildcard_stands_for_exactly_one_label(host: str, matches: bool) -> None:
    assert read_policy(POLICY).matches(host) is matches


def test_the_policy_of_a_report_is_what_was_understood() -> None:
    assert read_policy(POLICY).lines == POLICY.strip().split("\n")
