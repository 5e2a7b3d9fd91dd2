"""Does every domain that wants one get one report a day about our TLS to it? (RFC 8460)"""

import email
import email.policy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import deliveries, tls_results
from plunk_relay.delivery.tls.worker import TlsKeeper, store_results
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from tests.kit.authority import Authority, Issued
from tests.kit.outbox import Prepared, set_exchangers
from tests.kit.peer import KEYWORDS, Script
from tests.kit.policies import running_https
from tests.kit.secure import SAVE_NO_CONNECTION, WITH_TLS, Road, road
from tests.kit.store import rows

CONTACT = "tls@acme.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def bad(authority: Authority) -> Issued:
    return authority.issue("mx.elsewhere.test")


def want_reports(way: Road, *targets: str, domain: str = "example.org") -> None:
    """Let a domain publish where reports go."""
    way.outbox.dns.set(f"_smtp._tls.{domain}", "TXT", f"v=TLSRPTv1; rua={','.join(targets)}")
    way.outbox.relay.resolver.forget(f"_smtp._tls.{domain}")


async def keep(way: Road) -> None:
    keeper = TlsKeeper(way.outbox.relay)
    while await keeper.run_once():
        pass


async def counted(way: Road) -> dict[str, int]:
    await store_results(way.outbox.relay)
    return {row["result"]: row["sessions"] for row in await rows(way.outbox.relay, tls_results)}


def reports(way: Road) -> list[Any]:
    """Return the reports that arrived, as messages."""
    found = [email.message_from_bytes(one.message, policy=email.policy.default) for one in way.peer.taken]
    return [message for message in found if message["TLS-Report-Domain"]]


async def test_the_day_s_sessions_are_reported_on_the_next_day(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, tls_report_from=CONTACT) as way:
        want_reports(way, "mailto:reports@example.org")
        way.publish("1", mode="testing")
        await way.send()
        await way.send()
        await keep(way)
        await way.outbox.deliver()
        assert reports(way) == [], "the day is not over"
        way.outbox.clock.advance(hours=13)
        await keep(way)
        await way.outbox.deliver()
        [message] = reports(way)
        assert (message["From"], message["To"]) == (CONTACT, "reports@example.org")
        assert message["DKIM-Signature"] is not None, "it is signed as its From domain asks"
        [_, attached] = message.iter_parts()
        report = json.loads(gzip.decompress(attached.get_content()))
        [part] = report["policies"]
        assert report["date-range"]["start-datetime"] == "2026-03-01T00:00:00Z"
        assert part["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 2}
        [failure] = part["failure-details"]
        assert (failure["result-type"], failure["failed-session-count"]) == ("certificate-host-mismatch", 2)


async def test_a_report_goes_out_once_whatever_is_restarted(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        await way.send()
        await store_results(way.outbox.relay)
        before = way.outbox.clock.now()
    async with road(prepared, tmp_path, authority, copy=False, tls_report_from=CONTACT) as way:
        assert way.outbox.clock.now() == before
        want_reports(way, "mailto:reports@example.org")
        way.outbox.clock.advance(hours=24)
        await keep(way)
        await keep(way)
    async with road(prepared, tmp_path, authority, copy=False, tls_report_from=CONTACT) as way:
        way.outbox.clock.advance(hours=24)
        await keep(way)
        await way.outbox.deliver()
        assert len(reports(way)) == 1


async def test_a_report_about_broken_tls_goes_through_it(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued
) -> None:
    async with road(prepared, tmp_path, authority, shows=bad, tls_report_from=CONTACT) as way:
        want_reports(way, "mailto:reports@example.org")
        way.publish("1", mode="enforce")
        assert (await way.send())["state"] == "QUEUED"
        way.outbox.clock.advance(hours=13)
        await keep(way)
        await way.outbox.deliver()
        [message] = reports(way)
        assert message["TLS-Required"] == "No"
        [row] = await rows(way.outbox.relay, deliveries, project_id=RELAY_PROJECT_ID)
        assert (row["state"], row["tls_wish"], row["sender"]) == ("DELIVERED", "OPTIONAL", "")


async def test_a_report_is_not_counted_in_the_next_one(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        want_reports(way, "mailto:reports@example.org")
        await way.send()
        way.outbox.clock.advance(hours=13)
        await keep(way)
        await way.outbox.deliver()
        assert len(reports(way)) == 1
        assert await counted(way) == {}


async def test_a_domain_that_wants_none_gets_none_and_its_counts_go(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        await way.send()
        assert await counted(way) == {"success": 1}
        way.outbox.clock.advance(hours=13)
        await keep(way)
        await way.outbox.deliver()
        assert (reports(way), await counted(way)) == ([], {})


async def test_a_record_that_cannot_be_looked_up_is_asked_for_again_and_not_for_ever(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        way.outbox.dns.fail("_smtp._tls.example.org", "TXT", "SERVFAIL")
        await way.send()
        way.outbox.clock.advance(hours=13)
        await keep(way)
        assert await counted(way) == {"success": 1}
        way.outbox.clock.advance(days=2)
        await keep(way)
        assert await counted(way) == {"success": 1}
        way.outbox.clock.advance(days=1)
        await keep(way)
        assert await counted(way) == {}


async def test_without_a_contact_nothing_is_counted_and_nothing_sent(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority) as way:
        want_reports(way, "mailto:reports@example.org")
        await way.send()
        assert await counted(way) == {}
        way.outbox.clock.advance(hours=24)
        await keep(way)
        await way.outbox.deliver()
        assert reports(way) == []


async def test_a_report_can_be_posted(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with (
        road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way,
        running_https(authority.issue("reports.example.org").files) as receiver,
    ):
        way.outbox.dns.set("reports.example.org", "A", "127.0.0.1")
        want_reports(way, f"https://reports.example.org:{receiver.port}/tls")
        await way.send()
        way.outbox.clock.advance(hours=13)
        receiver.status = 503
        await keep(way)
        assert await counted(way) == {"success": 1}, "it was not taken: once more later"
        receiver.status = 201
        await keep(way)
        await keep(way)
        assert [(one.method, one.target) for one in receiver.asked] == [("POST", "/tls")] * 2
        first, second = receiver.asked
        assert first.body == second.body
        assert json.loads(gzip.decompress(second.body))["report-id"] == "2026-03-01.example.org@acme.test"
        assert await counted(way) == {}


async def test_every_domain_has_its_own_report(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        domains = [f"d{number}.example" for number in range(45)]
        for domain in domains:
            set_exchangers(way.outbox.dns, domain, "127.0.0.1")
            want_reports(way, f"mailto:reports@{domain}", domain=domain)
        await way.outbox.submit(*(f"ann@{domain}" for domain in domains))
        await way.outbox.deliver()
        way.outbox.clock.advance(hours=13)
        await keep(way)
        await way.outbox.deliver()
        assert sorted(message["TLS-Report-Domain"] for message in reports(way)) == sorted(domains)


@pytest.mark.parametrize(
    ("script", "trusted", "result"),
    [
        (Script(keywords=WITH_TLS, dot=SAVE_NO_CONNECTION), True, "success"),
        (Script(keywords=WITH_TLS, dot=SAVE_NO_CONNECTION), False, "success"),
        (Script(keywords=KEYWORDS), True, "starttls-not-supported"),
        (Script(keywords=WITH_TLS, starttls="454 4.7.0 not now"), True, "starttls-not-supported"),
        (Script(keywords=WITH_TLS, starttls="220 ok + close"), True, "validation-failure"),
    ],
    ids=["verified", "unverified", "not offered", "refused", "broken"],
)
async def test_without_a_policy_only_a_session_in_clear_is_a_failure(
    prepared: Prepared, tmp_path: Path, authority: Authority, bad: Issued, script: Script, trusted: bool, result: str
) -> None:
    async with road(prepared, tmp_path, authority, shows=None if trusted else bad, tls_report_from=CONTACT) as way:
        way.peer.script = script
        assert (await way.send())["state"] == "DELIVERED"
        await store_results(way.outbox.relay)
        [row] = await rows(way.outbox.relay, tls_results)
        assert (row["kind"], row["result"], row["day"]) == ("no-policy-found", result, "2026-03-01")


async def test_counts_of_one_day_add_up_over_many_writes(prepared: Prepared, tmp_path: Path, authority: Authority) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        for number in (1, 2, 3):
            await way.send()
            assert await counted(way) == {"success": number}


async def test_a_session_is_one_count_however_many_messages_it_carries(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        way.peer.script = Script(keywords=WITH_TLS)
        for _ in range(3):
            await way.send()
        assert await counted(way) == {"success": 1}


async def test_a_peer_that_is_not_there_says_nothing_about_tls(
    prepared: Prepared, tmp_path: Path, authority: Authority
) -> None:
    async with road(prepared, tmp_path, authority, tls_report_from=CONTACT) as way:
        way.peer.script = Script(banner="421 4.3.2 busy")
        assert (await way.send())["state"] == "QUEUED"
        assert await counted(way) == {}
