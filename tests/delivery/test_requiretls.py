"""What may a message, or a route, ask of the TLS to its recipients? (RFC 8689)"""

from pathlib import Path
from typing import Any

import pytest

from tests.kit.authority import Authority, Issued, tlsa
from tests.kit.outbox import Prepared
from tests.kit.peer import KEYWORDS, Script, running_peer
from tests.kit.secure import WITH_TLS, road

REQUIRETLS = (*WITH_TLS, "REQUIRETLS")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def bad(authority: Authority) -> Issued:
    return authority.issue("mx.elsewhere.test")


async def test_a_message_that_requires_tls_is_passed_on_as_such(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, keywords=REQUIRETLS) as way:
        attempt = await way.send(tls_wish="REQUIRED")
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 verified (REQUIRETLS)")
        [mail] = [command for command in way.peer.commands if command.startswith("MAIL")]
        assert mail.endswith(" REQUIRETLS")


async def test_dane_verifies_for_a_message_that_requires_tls(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, keywords=REQUIRETLS, signed=["example.org"]) as way:
        way.outbox.dns.set(f"_{way.peer.port}._tcp.mx.example.org", "TLSA", tlsa(bad.chain[0]))
        attempt = await way.send(tls_wish="REQUIRED")
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 verified (DANE, REQUIRETLS)")


@pytest.mark.parametrize("keywords", [WITH_TLS, KEYWORDS, (*KEYWORDS, "REQUIRETLS")], ids=["tls alone", "none", "no tls"])
async def test_a_message_that_requires_tls_bounces_where_it_is_not_offered(
    prepared: Prepared, tmp_path: Path, authority: Authority, keywords: tuple[str, ...]
) -> None:
    async with road(prepared, tmp_path, authority, keywords=keywords) as way:
        attempt = await way.send(tls_wish="REQUIRED")
        assert (attempt["state"], attempt["reply"][:10]) == ("BOUNCED", "550 5.7.30")
        assert way.peer.received == []


async def test_a_message_that_requires_tls_bounces_where_the_certificate_is_not_good(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, keywords=REQUIRETLS) as way:
        attempt = await way.send(tls_wish="REQUIRED")
        assert (attempt["state"], attempt["reply"][:10]) == ("BOUNCED", "550 5.7.30")
        assert "certificate" in attempt["reply"]


async def test_another_exchanger_may_do_what_the_first_cannot(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    able = authority.issue("mx2.example.org")
    async with (
        road(prepared, tmp_path, authority) as way,
        running_peer(Script(keywords=REQUIRETLS), host="127.0.0.2", port=way.peer.port, certificate=able.files) as second,
    ):
        way.outbox.dns.set("example.org", "MX", "10 mx.example.org.", "20 mx2.example.org.")
        way.outbox.dns.set("mx2.example.org", "A", "127.0.0.2")
        assert (await way.send(tls_wish="REQUIRED"))["state"] == "DELIVERED"
        assert len(second.taken) == 1


async def test_a_peer_that_is_away_bounces_nothing(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.peer.script = Script(banner="421 4.3.2 busy")
        assert (await way.send(tls_wish="REQUIRED"))["state"] == "QUEUED"


async def test_an_open_connection_of_other_mail_is_not_used_for_a_message_that_requires_tls(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, keywords=REQUIRETLS) as way:
        way.peer.script = Script(keywords=REQUIRETLS)  # keeps its connections
        assert (await way.send())["tls"] == "TLSv1.3 unverified"
        assert (await way.send(tls_wish="REQUIRED"))["state"] == "BOUNCED"
        assert (await way.send())["state"] == "DELIVERED"
        assert [len(session.received) for session in way.peer.sessions] == [2, 0]


async def test_tls_required_no_overrides_the_policies_of_the_domain(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, signed=["example.org"]) as way:
        way.publish("1", "mx.elsewhere.example")
        way.outbox.dns.fail(f"_{way.peer.port}._tcp.mx.example.org", "TLSA", "SERVFAIL")
        assert (await way.send())["state"] == "QUEUED"
        attempt = await way.send(tls_wish="OPTIONAL")
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 unverified (TLS-Required: No)")


async def test_a_message_that_does_not_need_tls_may_go_in_clear(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, keywords=KEYWORDS) as way:
        way.publish("1")
        attempt = await way.send(tls_wish="OPTIONAL")
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "none (TLS-Required: No)")


async def test_mail_that_a_policy_holds_back_does_not_use_the_connection_of_mail_that_needs_no_tls(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, keywords=KEYWORDS) as way:
        way.publish("1")
        way.peer.script = Script(keywords=KEYWORDS)  # keeps its connections
        assert (await way.send(tls_wish="OPTIONAL"))["state"] == "DELIVERED"
        assert (await way.send())["state"] == "QUEUED"
        assert len(way.peer.taken) == 1


async def test_policy_trouble_of_other_mail_does_not_take_along_mail_that_needs_no_tls(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, keywords=KEYWORDS) as way:
        way.publish("1")
        held = [one for _ in range(5) for one in await way.outbox.submit()]
        free = [one for _ in range(5) for one in await way.outbox.submit(tls_wish="OPTIONAL")]
        await way.outbox.deliver()
        assert [(await way.outbox.delivery(one))["state"] for one in held] == ["QUEUED"] * 5
        assert [(await way.outbox.delivery(one))["state"] for one in free] == ["DELIVERED"] * 5


@pytest.mark.parametrize(
    ("floor", "keywords", "trusted", "state"),
    [
        ("may", KEYWORDS, True, "DELIVERED"),
        ("required", KEYWORDS, True, "QUEUED"),
        ("required", WITH_TLS, False, "DELIVERED"),
        ("verified", WITH_TLS, False, "QUEUED"),
        ("verified", WITH_TLS, True, "DELIVERED"),
    ],
)
async def test_a_route_may_require_tls(
    prepared: Prepared,
    tmp_path: Path,
    authority: Authority,
    bad: Issued,
    floor: str,
    keywords: tuple[str, ...],
    trusted: bool,
    state: str,
) -> None:
    routes = [{"domain": "example.org", "route": "mx", "tls": floor}]
    shows = None if trusted else bad
    async with road(prepared, tmp_path, authority, shows=shows, keywords=keywords, routes=routes) as way:
        attempt = await way.send()
        assert attempt["state"] == state
        assert floor == "may" or f"*: TLS policy: route: {floor}" in attempt["conversation"]
        assert state == "DELIVERED" or attempt["reply"].startswith(f"451 4.7.5 route: {floor}: ")


async def test_a_message_that_needs_no_tls_is_still_held_to_the_operator_s_route(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    routes = [{"domain": "example.org", "route": "mx", "tls": "required"}]
    async with road(prepared, tmp_path, authority, keywords=KEYWORDS, routes=routes) as way:
        assert (await way.send(tls_wish="OPTIONAL"))["state"] == "QUEUED"


@pytest.mark.parametrize(
    ("route_tls", "wish", "names", "state"),
    [
        ("may", None, ["elsewhere.test"], "DELIVERED"),
        ("verified", None, ["elsewhere.test"], "QUEUED"),
        ("verified", None, ["relay.smart.test"], "DELIVERED"),
        ("may", "REQUIRED", ["elsewhere.test"], "BOUNCED"),
        ("may", "REQUIRED", ["relay.smart.test"], "DELIVERED"),
    ],
)
async def test_a_smarthost_is_held_to_the_route_and_to_the_message_too(
    prepared: Prepared,
    tmp_path: Path,
    authority: Authority,
    route_tls: str,
    wish: str | None,
    names: list[str],
    state: str,
) -> None:
    async with running_peer(Script(keywords=REQUIRETLS), certificate=authority.issue(*names).files) as smart:
        url = f"smtp://relay.smart.test:{smart.port}"
        route: dict[str, Any] = {"domain": "example.org", "route": "smarthost", "smarthost_url": url, "tls": route_tls}
        async with road(prepared, tmp_path, authority, routes=[route], smarthost_url=url) as way:
            way.outbox.dns.set("relay.smart.test", "A", "127.0.0.1")
            assert (await way.send(tls_wish=wish))["state"] == state
            assert bool(smart.taken) == (state == "DELIVERED")
