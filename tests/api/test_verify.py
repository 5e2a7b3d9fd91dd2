"""What does `POST /v1/verify` say of an address? Lists and spelling first, then what the DNS tells in time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plunk_relay.mail.dns import Resolver
from plunk_relay.verify.actions import look_up
from tests.api.conftest import NO_LIMITS
from tests.kit.api import faults, refusal
from tests.kit.dns import DnsTable, running_dns
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant, running_relay

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Site:
    """A served relay whose DNS is a table of ours."""

    http: httpx2.AsyncClient
    tenant: Tenant
    dns: DnsTable


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    table = DnsTable()
    async with running_dns(table) as server:
        directory, patience = tmp_path_factory.mktemp("verify"), {"dns_seconds": PATIENCE_SECONDS}
        async with running_relay(directory, delivery={"resolvers": [server]}, verify=patience, limits=NO_LIMITS) as relay:
            tenant = await make_tenant(relay)
            async with running_http(relay) as http:
                yield Site(http, tenant, table)


async def ask(site: Site, email: object) -> httpx2.Response:
    return await site.http.post("/v1/verify", headers=site.tenant.headers, json={"email": email})


async def verify(site: Site, email: str) -> dict[str, Any]:
    response = await ask(site, email)
    assert response.status_code == 200, response.text
    assert response.json()["success"] is True
    data: dict[str, Any] = response.json()["data"]
    return data


def publish(site: Site, domain: str) -> None:
    """Give a domain all that it should have."""
    site.dns.set(domain, "NS", f"ns.{domain}.")
    site.dns.set(domain, "MX", f"10 mx.{domain}.")
    site.dns.set(domain, "A", "192.0.2.1")


def hang(site: Site, domain: str) -> None:
    """Let the DNS say nothing about a domain."""
    for kind in ("NS", "MX", "A", "AAAA"):
        site.dns.fail(domain, kind, "silent")


async def test_an_ordinary_address_appears_valid(site: Site) -> None:
    publish(site, "ordinary.example")
    assert await verify(site, "Ann@Ordinary.example") == {
        "email": "Ann@Ordinary.example",
        "valid": True,
        "isDisposable": False,
        "isAlias": False,
        "isTypo": False,
        "isPlusAddressed": False,
        "isPersonalEmail": False,
        "domainExists": True,
        "hasWebsite": True,
        "hasMxRecords": True,
        "reasons": ["The address appears valid"],
    }


@pytest.mark.parametrize(
    "email",
    ["", "ann", "ann@", "@example.com", "a@b@example.com", " ann@example.com", "ann@exa mple.com", "a..b@example.com"],
)
async def test_what_is_no_address_is_a_validation_error(site: Site, email: str) -> None:
    assert faults(await ask(site, email)) == [("email", "invalid_string")]


@pytest.mark.parametrize("email", [None, 7, True, [], {}, ["ann@example.com"]])
async def test_an_address_of_another_type_is_a_validation_error(site: Site, email: object) -> None:
    assert faults(await ask(site, email)) == [("email", "invalid_type")]


async def test_an_address_must_be_given(site: Site) -> None:
    response = await site.http.post("/v1/verify", headers=site.tenant.headers, json={})
    assert faults(response) == [("email", "invalid_type")]


async def test_only_the_secret_key_opens_it(site: Site) -> None:
    for headers, said in (
        ({"Authorization": f"Bearer {site.tenant.public}"}, (401, "INVALID_API_KEY")),
        ({}, (401, "MISSING_AUTH")),
    ):
        response = await site.http.post("/v1/verify", headers=headers, json={"email": "ann@example.com"})
        assert refusal(response) == said
        assert response.headers["access-control-allow-origin"] == "*"


async def test_a_throw_away_address_is_told_and_stays_valid(site: Site) -> None:
    publish(site, "mailinator.com")
    found = await verify(site, "ann@mailinator.com")
    assert (found["isDisposable"], found["valid"], found["isTypo"]) == (True, True, False)


@pytest.mark.parametrize(
    ("email", "flag"),
    [
        ("ann@sub.mailinator.com", "isDisposable"),
        ("x@privaterelay.appleid.com", "isAlias"),
        ("x@mozmail.com", "isAlias"),
        ("x@duck.com", "isAlias"),
        ("x@ann.33mail.com", "isAlias"),
        ("x@ann.anonaddy.com", "isAlias"),
        ("x@simplelogin.com", "isAlias"),
        ("x@passmail.net", "isAlias"),
        ("x@use.startmail.com", "isAlias"),
        ("x@gmail.com", "isPersonalEmail"),
        ("x@GMAIL.com", "isPersonalEmail"),
        ("x@web.de", "isPersonalEmail"),
        ("x@posteo.de", "isPersonalEmail"),
        ("x+news@example.com", "isPlusAddressed"),
    ],
)
async def test_a_kind_of_address_is_told(site: Site, email: str, flag: str) -> None:
    flags = {name: value for name, value in (await verify(site, email)).items() if name in FLAGS}
    assert flags[flag] is True
    assert {name for name, value in flags.items() if value} <= {flag, "isPersonalEmail"}


UNLISTED = ["example.com", "sub.gmail.com", "startmail.com", "notmozmail.com", "appleid.com"]
FLAGS = {"isDisposable", "isAlias", "isPersonalEmail", "isPlusAddressed"}


@pytest.mark.parametrize(
    "email", ["x@example.com", "x@sub.gmail.com", "x@startmail.com", "x@notmozmail.com", "x@appleid.com"]
)
async def test_an_address_of_no_kind_has_no_flag(site: Site, email: str) -> None:
    found = await verify(site, email)
    assert {name for name in FLAGS if found[name]} == set()


async def test_a_mistyped_domain_that_works_is_valid_and_only_the_hint_is_told(site: Site) -> None:
    publish(site, "gmial.com")
    found = await verify(site, "Ann.Lee+x@gmial.com")
    assert (found["valid"], found["isTypo"], found["suggestedEmail"]) == (True, True, "Ann.Lee+x@gmail.com")
    assert found["reasons"] == ["gmial.com looks mistyped: did you mean gmail.com?"]


async def test_a_mistyped_domain_that_does_not_exist_has_both_reasons(site: Site) -> None:
    found = await verify(site, "ann@gmail.con")
    assert (found["valid"], found["domainExists"], found["suggestedEmail"]) == (False, False, "ann@gmail.com")
    assert len(found["reasons"]) == 2
    assert "gmail.con does not exist" in found["reasons"][1]


async def test_a_domain_without_name_servers_does_not_exist(site: Site) -> None:
    found = await verify(site, "ann@nowhere.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (False,) * 4
    assert found["reasons"] == ["The domain nowhere.example does not exist"]


async def test_a_domain_without_an_exchanger_cannot_receive_mail(site: Site) -> None:
    site.dns.set("web.example", "NS", "ns.web.example.")
    site.dns.set("web.example", "A", "192.0.2.1")
    found = await verify(site, "ann@web.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (False, True, False, True)
    assert found["reasons"] == ["The domain web.example cannot receive mail: it has no MX record"]


async def test_a_null_mx_cannot_receive_mail(site: Site) -> None:
    """RFC 7505."""
    site.dns.set("null.example", "NS", "ns.null.example.")
    site.dns.set("null.example", "MX", "0 .")
    found = await verify(site, "ann@null.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"]) == (False, True, False)
    assert "receives no mail" in found["reasons"][0]


async def test_a_subdomain_with_an_exchanger_exists(site: Site) -> None:
    site.dns.set("mail.parts.example", "MX", "10 mx.parts.example.")
    found = await verify(site, "ann@mail.parts.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (True, True, True, False)


async def test_a_name_in_the_zone_of_a_registered_domain_exists(site: Site) -> None:
    site.dns.set("zone.example", "NS", "ns.zone.example.")
    site.dns.set("host.in.zone.example", "A", "192.0.2.1")
    found = await verify(site, "ann@host.in.zone.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (False, True, False, True)


async def test_a_name_that_its_zone_does_not_know_does_not_exist(site: Site) -> None:
    site.dns.set("zone.example", "NS", "ns.zone.example.")
    found = await verify(site, "ann@unknown.zone.example")
    assert (found["valid"], found["domainExists"]) == (False, False)


async def test_a_website_may_have_an_ipv6_address_alone(site: Site) -> None:
    publish(site, "six.example")
    site.dns.remove("six.example", "A")
    site.dns.set("six.example", "AAAA", "2001:db8::1")
    assert (await verify(site, "ann@six.example"))["hasWebsite"] is True


async def test_an_internationalised_domain_is_asked_for_by_its_a_label(site: Site) -> None:
    publish(site, "xn--bcher-kva.example")
    found = await verify(site, "ann@Bücher.example")
    assert (found["email"], found["valid"]) == ("ann@Bücher.example", True)


async def test_a_dns_that_hangs_is_told(site: Site) -> None:
    hang(site, "hanging.example")
    found = await verify(site, "ann@hanging.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"]) == (False, False, False)
    assert found["reasons"] == ["The name servers of hanging.example do not answer"]


async def test_the_dns_is_not_waited_for_longer_than_is_set(site: Site) -> None:
    hang(site, "hanging.example")
    async with running_dns(site.dns) as server, asyncio.timeout(30):
        patient = Resolver([server], query_seconds=600, total_seconds=600)
        assert not (await look_up(patient, "hanging.example", seconds=PATIENCE_SECONDS)).exists


@pytest.mark.parametrize("fault", ["silent", "SERVFAIL", "REFUSED"])
async def test_an_exchanger_is_proof_when_name_servers_are_not_told(site: Site, fault: Any) -> None:
    publish(site, "half.example")
    site.dns.fail("half.example", "NS", fault)
    site.dns.fail("half.example", "A", fault)
    found = await verify(site, "ann@half.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (True, True, True, False)


async def test_exchangers_that_are_not_told_count_as_none(site: Site) -> None:
    publish(site, "mute.example")
    site.dns.fail("mute.example", "MX", "SERVFAIL")
    found = await verify(site, "ann@mute.example")
    assert (found["valid"], found["domainExists"], found["hasMxRecords"], found["hasWebsite"]) == (False, True, False, True)
    assert "could not be looked up" in found["reasons"][0]


async def test_unknown_fields_are_ignored(site: Site) -> None:
    body = {"email": "ann@gmail.com", "more": 1}
    assert (await site.http.post("/v1/verify", headers=site.tenant.headers, json=body)).status_code == 200


async def test_an_idempotency_key_means_nothing_here(site: Site) -> None:
    headers = site.tenant.headers | {"Idempotency-Key": "once"}
    for _ in range(2):
        answer = await site.http.post("/v1/verify", headers=headers, json={"email": "ann@gmail.com"})
        assert answer.status_code == 200


LABEL = st.text(alphabet="abgmilo0123-üß.", min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(st.recursive(st.none() | st.integers() | st.text(), st.lists), st.builds("x@{}".format, LABEL)))
async def test_any_body_is_answered_or_refused(site: Site, body: object) -> None:
    response = await site.http.post("/v1/verify", headers=site.tenant.headers, json={"email": body})
    assert response.status_code in (200, 422)
