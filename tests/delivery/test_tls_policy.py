"""Which of the policies that apply decides what the TLS of a session must be?"""

import pytest

from plunk_relay.delivery.tls.policy import Asked, decide
from plunk_relay.mail.dane import Dane, read_tlsa
from plunk_relay.mail.mta_sts import Mode, StsPolicy
from plunk_relay.sections import TlsFloor

HOST = "mx.example.org"
MATCHING = "3 1 1 " + "ab" * 32
UNUSABLE = "1 1 1 " + "ab" * 32


def sts(mode: Mode, *mx: str) -> StsPolicy:
    return StsPolicy(mode, 86400, mx or (HOST,))


def dane(record: str) -> Dane:
    return Dane(HOST, (read_tlsa(record),), (HOST,))


@pytest.mark.parametrize(
    ("policy", "records", "expected"),
    [
        (None, None, ("may", False, "")),
        (sts("none"), None, ("may", False, "")),
        (sts("testing"), None, ("may", False, "MTA-STS testing")),
        (sts("enforce"), None, ("required", True, "MTA-STS enforce")),
        (None, dane(MATCHING), ("required", False, "DANE")),
        (None, dane(UNUSABLE), ("required", False, "DANE, no usable record")),
        (sts("enforce"), dane(MATCHING), ("required", False, "DANE")),
        (sts("testing"), dane(MATCHING), ("required", False, "DANE")),
        (sts("enforce"), dane(UNUSABLE), ("required", True, "DANE, no usable record, MTA-STS enforce")),
    ],
)
def test_dane_wins_over_mta_sts_and_that_over_nothing(
    policy: StsPolicy | None, records: Dane | None, expected: tuple[str, bool, str]
) -> None:
    demand = decide(Asked("example.org", sts=policy), HOST, records)
    assert demand is not None
    assert (demand.tls, demand.verify, demand.policy.name) == expected


def test_an_exchanger_that_an_enforced_policy_does_not_list_is_not_used() -> None:
    assert decide(Asked("example.org", sts=sts("enforce", "*.example.net")), HOST, None) is None


def test_an_exchanger_that_a_tested_policy_does_not_list_is_used_and_reported() -> None:
    demand = decide(Asked("example.org", sts=sts("testing", "*.example.net")), HOST, None)
    assert demand is not None
    assert (demand.tls, demand.policy.trouble) == ("may", "the policy of example.org does not list mx.example.org")


def test_dane_makes_the_list_of_mta_sts_irrelevant() -> None:
    demand = decide(Asked("example.org", sts=sts("enforce", "*.example.net")), HOST, dane(MATCHING))
    assert demand is not None
    assert demand.policy.trouble == ""


@pytest.mark.parametrize(
    ("floor", "records", "expected"),
    [
        ("required", None, ("required", False, "route: required")),
        ("verified", None, ("required", True, "route: verified")),
        ("required", dane(MATCHING), ("required", False, "DANE, route: required")),
        ("verified", dane(MATCHING), ("required", False, "DANE, route: verified")),
        ("verified", dane(UNUSABLE), ("required", True, "DANE, no usable record, route: verified")),
    ],
)
def test_a_route_may_ask_for_more_than_the_domain(
    floor: TlsFloor, records: Dane | None, expected: tuple[str, bool, str]
) -> None:
    demand = decide(Asked("example.org", floor=floor), HOST, records)
    assert demand is not None
    assert (demand.tls, demand.verify, demand.policy.name) == expected


@pytest.mark.parametrize(
    ("policy", "records", "verify"),
    [(None, None, True), (sts("enforce"), None, True), (None, dane(MATCHING), False), (None, dane(UNUSABLE), True)],
)
def test_a_message_that_requires_tls_wants_it_verified_one_way_or_the_other(
    policy: StsPolicy | None, records: Dane | None, verify: bool
) -> None:
    demand = decide(Asked("example.org", wish="REQUIRED", sts=policy), HOST, records)
    assert demand is not None
    assert (demand.tls, demand.verify, demand.policy.bounces) == ("required", verify, True)


def test_a_message_that_does_not_is_still_held_to_the_route() -> None:
    relaxed = decide(Asked("example.org", wish="OPTIONAL"), HOST, None)
    held = decide(Asked("example.org", wish="OPTIONAL", floor="required"), HOST, None)
    assert relaxed is not None
    assert held is not None
    assert (relaxed.tls, relaxed.policy.name, relaxed.policy.domain) == ("may", "TLS-Required: No", "")
    assert held.tls == "required"


@pytest.mark.parametrize(
    ("policy", "records", "kind", "lines"),
    [
        (None, None, "no-policy-found", ""),
        (sts("none"), None, "no-policy-found", ""),
        (sts("testing"), None, "sts", "version: STSv1\nmode: testing\nmx: mx.example.org\nmax_age: 86400"),
        (sts("enforce"), dane(MATCHING), "tlsa", MATCHING),
    ],
)
def test_a_session_is_reported_under_the_policy_that_decided(
    policy: StsPolicy | None, records: Dane | None, kind: str, lines: str
) -> None:
    demand = decide(Asked("example.org", sts=policy), HOST, records)
    assert demand is not None
    assert (demand.policy.domain, demand.policy.kind, demand.policy.lines) == ("example.org", kind, lines)


def test_mail_to_an_address_literal_is_in_no_report() -> None:
    demand = decide(Asked("[127.0.0.1]"), "[127.0.0.1]", None)
    assert demand is not None
    assert demand.policy.domain == ""
