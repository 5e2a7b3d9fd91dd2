"""Is mail held to the policy of its domain, also when somebody takes the policy away? (RFC 8461)"""

from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import mta_sts_policies, tls_results
from plunk_relay.delivery.tls.worker import TlsKeeper, store_results
from tests.kit.authority import Authority, Issued
from tests.kit.outbox import Prepared
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer
from tests.kit.policies import running_https
from tests.kit.secure import RECORD, WITH_TLS, road
from tests.kit.store import rows


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def bad(authority: Authority) -> Issued:
    return authority.issue("mx.elsewhere.test")


def went_in_clear(peer: Peer) -> bool:
    return any(session.tls is None and "MAIL" in session.verbs() for session in peer.sessions)


async def test_mail_goes_where_the_policy_and_the_certificate_are_good(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", "*.example.org")
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 verified (MTA-STS enforce)")
        assert "*: TLS policy: MTA-STS enforce" in attempt["conversation"]
        [asked] = way.https.asked
        assert (asked.target, way.https.names) == ("/.well-known/mta-sts.txt", ["mta-sts.example.org"])


async def test_a_certificate_for_another_name_holds_the_mail_back(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad) as way:
        way.publish("1")
        attempt = await way.send()
        assert (attempt["state"], attempt["outcome"]) == ("QUEUED", "DEFERRED")
        assert attempt["reply"].startswith("451 4.7.5 MTA-STS enforce: certificate verify failed: Hostname mismatch")
        assert "Hostname mismatch" in attempt["conversation"]
        assert (way.peer.received, went_in_clear(way.peer)) == ([], False)


async def test_an_exchanger_without_tls_gets_nothing(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority, keywords=KEYWORDS) as way:
        way.publish("1")
        attempt = await way.send()
        assert attempt["state"] == "QUEUED"
        assert attempt["reply"] == "451 4.7.5 MTA-STS enforce: mx.example.org does not offer STARTTLS"
        assert "MAIL" not in way.peer.sessions[0].verbs()


async def test_a_broken_handshake_is_not_followed_by_a_session_in_clear(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1")
        way.peer.script = Script(keywords=WITH_TLS, starttls="220 go ahead + no handshake + close")
        assert (await way.send())["state"] == "QUEUED"
        assert len(way.peer.sessions) == 1


async def test_no_connection_is_made_to_an_exchanger_that_is_not_listed(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", "mx.example.net")
        attempt = await way.send()
        assert attempt["state"] == "QUEUED"
        assert attempt["reply"] == "451 4.7.5 MTA-STS enforce: the policy of example.org does not list mx.example.org"
        assert way.peer.sessions == []


async def test_a_listed_exchanger_is_used_though_a_better_one_is_not_listed(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way, running_peer(host="127.0.0.2", port=way.peer.port) as rogue:
        way.outbox.dns.set("example.org", "MX", "1 mx.rogue.example.", "10 mx.example.org.")
        way.outbox.dns.set("mx.rogue.example", "A", "127.0.0.2")
        way.publish("1")
        assert (await way.send())["state"] == "DELIVERED"
        assert (len(way.peer.taken), rogue.sessions) == (1, [])


async def test_a_policy_under_test_lets_mail_go_and_is_reported(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, tls_report_from="tls@relay.test") as way:
        way.publish("1", mode="testing")
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 unverified (MTA-STS testing)")
        await store_results(way.outbox.relay)
        [row] = await rows(way.outbox.relay, tls_results)
        assert (row["domain"], row["kind"], row["result"]) == ("example.org", "sts", "certificate-host-mismatch")
        assert row["mx_host"] == "mx.example.org"


async def test_a_domain_without_a_policy_is_not_asked_for_one(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad) as way:
        attempt = await way.send()
        assert (attempt["state"], attempt["tls"]) == ("DELIVERED", "TLSv1.3 unverified")
        assert (way.https.names, way.https.asked) == ([], [])


async def test_a_policy_that_says_none_asks_for_nothing(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad) as way:
        way.publish("1", mode="none")
        assert (await way.send())["tls"] == "TLSv1.3 unverified"


@pytest.mark.parametrize("fault", ["404", "no policy", "unreachable"])
async def test_a_policy_that_cannot_be_had_holds_no_mail_back_and_is_not_asked_for_again_at_once(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued, fault: str
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, tls_report_from="tls@relay.test") as way:
        way.publish("1")
        if fault == "404":
            way.https.status = 404
        elif fault == "no policy":
            way.https.body = b"<html>\n"
        else:
            way.outbox.dns.set("mta-sts.example.org", "A", "127.0.0.3")
        for _ in range(2):
            assert (await way.send())["state"] == "DELIVERED"
        assert len(way.https.asked) <= 1
        await store_results(way.outbox.relay)
        failed = {row["result"]: row["sessions"] for row in await rows(way.outbox.relay, tls_results, kind="sts")}
        assert failed == {"sts-policy-invalid" if fault == "no policy" else "sts-policy-fetch-error": 1}
        way.publish("1")
        way.outbox.clock.advance(minutes=6)
        if fault != "unreachable":
            assert (await way.send())["state"] == "QUEUED"


async def test_a_policy_server_with_a_bad_certificate_is_not_believed(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with running_https(bad.files) as impostor:
        settings: dict[str, Any] = {"mta_sts_port": impostor.port, "tls_report_from": "tls@relay.test"}
        async with road(prepared, tmp_path, authority, shows=bad, **settings) as way:
            way.publish("1")
            impostor.set_policy("mx.example.org")
            assert (await way.send())["state"] == "DELIVERED"
            await store_results(way.outbox.relay)
            [row] = await rows(way.outbox.relay, tls_results, kind="sts")
            assert (row["result"], impostor.asked) == ("sts-webpki-invalid", [])


async def test_a_policy_stays_in_force_when_its_record_and_its_server_are_gone(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", max_age=86400)
        assert (await way.send())["state"] == "DELIVERED"
        way.withdraw()
        way.peer.script = Script(keywords=KEYWORDS)
        way.outbox.clock.advance(hours=23, minutes=59)
        assert (await way.send())["state"] == "QUEUED"
        way.outbox.clock.advance(hours=1)
        assert (await way.send())["state"] == "DELIVERED", "its time is over"


async def test_a_policy_survives_a_restart(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", max_age=604800)
        assert (await way.send())["state"] == "DELIVERED"
    async with road(prepared, tmp_path, authority, copy=False, keywords=KEYWORDS) as way:
        assert (await way.send())["state"] == "QUEUED"
        assert way.https.asked == []


async def test_a_new_id_brings_the_new_policy(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", "mx.old.example")
        assert (await way.send())["state"] == "QUEUED"
        way.publish("2", "mx.example.org")
        assert (await way.send())["state"] == "DELIVERED"
        assert (await way.send())["state"] == "DELIVERED"
        assert len(way.https.asked) == 2
        [row] = await rows(way.outbox.relay, mta_sts_policies)
        assert (row["domain"], row["policy_id"]) == ("example.org", "2")


async def test_a_new_policy_that_cannot_be_had_leaves_the_old_one_in_force(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1")
        assert (await way.send())["state"] == "DELIVERED"
        way.publish("2")
        way.https.body = b"version: STSv2\n"
        way.peer.script = Script(keywords=KEYWORDS)
        assert (await way.send())["state"] == "QUEUED"


async def test_a_policy_is_refreshed_before_it_expires(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", max_age=86400)
        await way.send()
        keeper = TlsKeeper(way.outbox.relay)
        way.outbox.clock.advance(hours=11)
        await keeper.run_once()
        assert len(way.https.asked) == 1, "not before half its time is over"
        way.outbox.clock.advance(hours=2)
        await keeper.run_once()
        await keeper.run_once()
        assert len(way.https.asked) == 2
        way.withdraw()
        way.peer.script = Script(keywords=KEYWORDS)
        way.outbox.clock.advance(hours=20)
        assert (await way.send())["state"] == "QUEUED", "33 hours after it was fetched first, 20 after the refresh"


async def test_a_refresh_that_fails_changes_nothing_and_is_tried_again_later(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", max_age=86400)
        await way.send()
        [before] = await rows(way.outbox.relay, mta_sts_policies)
        keeper = TlsKeeper(way.outbox.relay)
        way.https.status = 500
        way.outbox.clock.advance(hours=13)
        for _ in range(3):
            await keeper.run_once()
        assert len(way.https.asked) == 2
        assert await rows(way.outbox.relay, mta_sts_policies) == [before]
        way.outbox.clock.advance(hours=1)
        await keeper.run_once()
        assert len(way.https.asked) == 3


async def test_what_has_expired_is_removed(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1", max_age=60)
        await way.send()
        way.withdraw()
        way.outbox.clock.advance(hours=1)
        await TlsKeeper(way.outbox.relay).run_once()
        assert await rows(way.outbox.relay, mta_sts_policies) == []


async def test_a_burst_of_mail_asks_for_the_policy_once(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority) as way:
        way.publish("1")
        for _ in range(8):
            await way.outbox.submit()
        await way.outbox.deliver()
        assert len(way.peer.taken) == 8
        assert len(way.https.asked) == 1


async def test_several_records_are_as_good_as_none(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad) as way:
        way.publish("1")
        way.outbox.dns.set(RECORD, "TXT", "v=STSv1; id=1;", "v=STSv1; id=2;")
        assert (await way.send())["state"] == "DELIVERED"
        assert way.https.asked == []
