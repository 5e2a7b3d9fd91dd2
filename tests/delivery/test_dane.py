"""Is mail held to what the signed DNS says of an exchanger's certificate? (RFC 7672)"""

from pathlib import Path

import pytest

from plunk_relay.db.tables import tls_results
from plunk_relay.delivery.tls.worker import store_results
from tests.kit.authority import Authority, Issued, tlsa
from tests.kit.outbox import Prepared, set_exchangers
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer
from tests.kit.secure import WITH_TLS, Road, road
from tests.kit.store import rows

SIGNED = ["example.org"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    """Return a certificate that no authority vouches for, for no name that matters, and out of date."""
    return Authority(tmp_path_factory.mktemp("home"), "home").issue("localhost", days=-5)


def publish(way: Road, *records: str, host: str = "mx.example.org") -> None:
    way.outbox.dns.set(f"_{way.peer.port}._tcp.{host}", "TLSA", *records)


def in_clear(peer: Peer) -> bool:
    return any(session.tls is None and "MAIL" in session.verbs() for session in peer.sessions)


async def test_a_certificate_that_the_dns_names_is_as_good_as_any(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=shown, signed=SIGNED) as way:
        publish(way, tlsa(shown.chain[0]))
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 verified (DANE)")
        assert "*: TLS policy: DANE" in attempt["conversation"]


async def test_another_certificate_defers_the_mail(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, signed=SIGNED) as way:
        publish(way, tlsa(shown.chain[0]))
        attempt = await way.send()
        assert attempt["state"] == "QUEUED"
        assert attempt["reply"] == "451 4.7.5 DANE: no TLSA record matches the certificate"
        assert (way.peer.received, in_clear(way.peer)) == ([], False)


@pytest.mark.parametrize(
    "script",
    [
        Script(keywords=KEYWORDS),
        Script(keywords=WITH_TLS, starttls="454 4.7.0 not now"),
        Script(keywords=WITH_TLS, starttls="220 go ahead + close"),
    ],
    ids=["not offered", "refused", "broken"],
)
async def test_where_there_are_records_nothing_goes_in_clear(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued, script: Script
) -> None:
    async with road(prepared, tmp_path, authority, shows=shown, signed=SIGNED) as way:
        publish(way, tlsa(shown.chain[0]))
        way.peer.script = script
        attempt = await way.send()
        assert (attempt["state"], attempt["reply"][:9]) == ("QUEUED", "451 4.7.5")
        assert (way.peer.received, in_clear(way.peer)) == ([], False)


async def test_records_of_an_unsigned_zone_are_not_believed(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        publish(way, tlsa(shown.chain[0]))
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 verified")


async def test_a_resolver_that_is_not_trusted_is_not_believed(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, signed=SIGNED, trust_ad=False) as way:
        publish(way, tlsa(shown.chain[0]))
        assert (await way.send())["state"] == "DELIVERED"
        assert not any(kind == "TLSA" for _, kind in way.outbox.dns.questions)


async def test_a_signed_host_whose_records_cannot_be_had_is_skipped_and_the_mail_waits(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, signed=SIGNED, tls_report_from="tls@relay.test") as way:
        name = f"_{way.peer.port}._tcp.mx.example.org"
        way.outbox.dns.fail(name, "TLSA", "SERVFAIL")
        attempt = await way.send()
        assert attempt["state"] == "QUEUED"
        assert attempt["reply"].startswith(f"451 4.7.5 DANE: TLSA look-up of {name} failed")
        assert way.peer.sessions == []
        await store_results(way.outbox.relay)
        [row] = await rows(way.outbox.relay, tls_results)
        assert (row["kind"], row["result"], row["mx_host"]) == ("tlsa", "dnssec-invalid", "mx.example.org")


async def test_the_next_host_is_used_when_the_records_of_the_first_cannot_be_had(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with (
        road(prepared, tmp_path, authority, signed=SIGNED) as way,
        running_peer(Script(keywords=WITH_TLS), host="127.0.0.2", port=way.peer.port, certificate=shown.files) as second,
    ):
        set_exchangers(way.outbox.dns, "example.org", "127.0.0.1", "127.0.0.2")
        way.outbox.dns.fail(f"_{way.peer.port}._tcp.mx.example.org", "TLSA", "SERVFAIL")
        publish(way, tlsa(shown.chain[0]), host="mx2.example.org")
        assert (await way.send())["state"] == "DELIVERED"
        assert (way.peer.sessions, len(second.taken)) == ([], 1)


async def test_records_that_cannot_be_used_ask_for_tls_alone(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=shown, signed=SIGNED, tls_report_from="tls@relay.test") as way:
        publish(way, tlsa(shown.chain[0], 1))
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 unverified (DANE, no usable record)")
        way.peer.script = Script(keywords=KEYWORDS)
        assert (await way.send())["state"] == "QUEUED"
        await store_results(way.outbox.relay)
        results = {row["result"]: row["sessions"] for row in await rows(way.outbox.relay, tls_results)}
        assert results == {"tlsa-invalid": 1, "starttls-not-supported": 1}


async def test_dane_wins_over_a_policy_that_would_let_the_mail_go(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, signed=SIGNED) as way:
        way.publish("1", mode="testing")
        publish(way, tlsa(shown.chain[0]))
        assert (await way.send())["state"] == "QUEUED"


async def test_dane_wins_over_a_policy_that_would_hold_the_mail(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=shown, signed=SIGNED) as way:
        way.publish("1", "mx.elsewhere.example")
        publish(way, tlsa(shown.chain[0]))
        assert (await way.send())["tls"] == "TLSv1.3 verified (DANE)"


async def test_a_chain_to_the_authority_that_the_dns_names_is_good(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    home = Authority(tmp_path, "ta")
    issued = home.issue("mx.example.org", with_root=True, intermediate=True)
    async with road(prepared, tmp_path / "data", authority, shows=issued, signed=SIGNED) as way:
        publish(way, tlsa(home.certificate, 2, 0, 1))
        assert (await way.send())["tls"] == "TLSv1.3 verified (DANE)"


async def test_an_exchanger_in_an_unsigned_zone_has_no_dane_though_the_domain_is_signed(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, signed=SIGNED) as way:
        way.outbox.dns.set("example.org", "MX", "10 mx.hosting.example.")
        way.outbox.dns.set("mx.hosting.example", "A", "127.0.0.1")
        way.outbox.dns.fail(f"_{way.peer.port}._tcp.mx.hosting.example", "TLSA", "SERVFAIL")
        assert (await way.send())["state"] == "DELIVERED"
        assert not any(kind == "TLSA" for _, kind in way.outbox.dns.questions)


async def test_a_signed_domain_without_exchangers_may_have_records_of_its_own(
    prepared: Prepared, tmp_path: Path, authority: Authority, shown: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=shown, signed=["bare.example"]) as way:
        way.outbox.dns.set("bare.example", "A", "127.0.0.1")
        publish(way, tlsa(shown.chain[0]), host="bare.example")
        [delivery_id] = await way.outbox.submit("ann@bare.example")
        await way.outbox.deliver()
        [attempt] = await way.outbox.attempts(delivery_id)
        assert attempt["tls"] == "TLSv1.3 verified (DANE)"
