"""What TLS has a session, who vouches for the certificate, and what happens when nobody does?"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.dane import Dane, read_tlsa
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply
from plunk_relay.mail.session import ConnectionFailed
from plunk_relay.mail.session import Peer as Target
from plunk_relay.mail.tls import TlsPolicy, tls_context
from plunk_relay.mail.transport import Connection, Envelope
from tests.kit.authority import Authority, Issued, tlsa
from tests.kit.certificates import make_certificate
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer

WITH_TLS = (*KEYWORDS, "STARTTLS")
MESSAGE = b"Subject: Hello\r\n\r\nHi\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Issued:
    return authority.issue("mx.test")


@asynccontextmanager
async def talking(
    issued: Issued, target: dict[str, Any], *, conversation: Conversation | None = None, keywords: tuple[str, ...] = WITH_TLS
) -> AsyncIterator[tuple[Connection, Peer]]:
    """Connect to a peer that shows a certificate."""
    async with running_peer(Script(keywords=keywords), certificate=issued.files) as peer:
        values: dict[str, Any] = {"host": "mx.test", "address": peer.host, "port": peer.port, **target}
        connection = await Connection.open(Target(**values), conversation or Conversation(), local_hostname="relay.test")
        try:
            yield connection, peer
        finally:
            await connection.close()


async def failure(issued: Issued, **target: Any) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as failed:
        async with talking(issued, target):
            pass
    return failed.value


@pytest.mark.parametrize("verify", [True, False])
def test_old_tls_is_not_spoken(verify: bool) -> None:
    assert tls_context(verify=verify).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_good_certificate_is_told_though_nobody_asked(authority: Authority, good: Issued) -> None:
    conversation = Conversation()
    async with talking(good, {"authorities": str(authority.ca_file)}, conversation=conversation) as (connection, peer):
        assert connection.tls_description == "TLSv1.3 verified"
        assert (connection.tls.verified, connection.tls.trouble) == (True, None)
        assert len(peer.sessions) == 1
    assert "*: TLS: TLSv1.3 verified" in str(conversation)


async def test_a_good_certificate_may_be_shown_with_those_above_it(authority: Authority) -> None:
    issued = authority.issue("mx.test", intermediate=True, with_root=True)
    async with talking(issued, {"authorities": str(authority.ca_file)}) as (connection, _):
        assert connection.tls.verified


async def test_any_certificate_will_do_where_nobody_asks_for_more_and_the_reason_is_told(
    authority: Authority, tmp_path: Path
) -> None:
    bad = [
        (authority.issue("mx.other.test"), "certificate-host-mismatch"),
        (authority.issue("mx.test", days=-2), "certificate-expired"),
        (Authority(tmp_path).issue("mx.test", with_root=True), "certificate-not-trusted"),
        (Issued(make_certificate(tmp_path, ["mx.test"]), []), "certificate-not-trusted"),
    ]
    for issued, result in bad:
        conversation = Conversation()
        target = {"authorities": str(authority.ca_file)}
        async with talking(issued, target, conversation=conversation) as (connection, peer):
            assert connection.tls_description == "TLSv1.3 unverified"
            assert connection.tls.trouble is not None
            assert connection.tls.trouble.result == result
            assert peer.sessions[0].tls == "TLSv1.3"
            assert connection.tls.trouble.text in str(conversation)
            assert len(peer.sessions) == 1


@pytest.mark.parametrize(
    ("names", "days", "result"),
    [
        (["mx.other.test"], 1, "certificate-host-mismatch"),
        (["mx.test"], -2, "certificate-expired"),
    ],
)
async def test_where_the_certificate_must_be_good_a_bad_one_defers_the_mail(
    authority: Authority, names: list[str], days: float, result: str
) -> None:
    failed = await failure(
        authority.issue(*names, days=days), tls="required", verify=True, authorities=str(authority.ca_file)
    )
    assert isinstance(failed.outcome, Deferred)
    assert (failed.outcome.reply.code, failed.outcome.reply.enhanced) == (451, "4.7.5")
    assert failed.tls_trouble is not None
    assert failed.tls_trouble.result == result


async def test_an_authority_that_nobody_listed_is_not_trusted(good: Issued) -> None:
    failed = await failure(good, tls="required", verify=True)
    assert failed.tls_trouble is not None
    assert failed.tls_trouble.result == "certificate-not-trusted"


async def test_where_the_certificate_must_be_good_a_good_one_lets_the_mail_go(authority: Authority, good: Issued) -> None:
    policy = TlsPolicy(name="MTA-STS enforce")
    target = {"tls": "required", "verify": True, "authorities": str(authority.ca_file), "policy": policy}
    conversation = Conversation()
    async with talking(good, target, conversation=conversation) as (connection, _):
        assert await delivers(connection)
        assert connection.tls_description == "TLSv1.3 verified (MTA-STS enforce)"
    assert "*: TLS policy: MTA-STS enforce" in str(conversation)


async def test_a_certificate_that_the_dns_names_needs_no_authority(good: Issued) -> None:
    async with talking(good, _dane(tlsa(good.chain[0]))) as (connection, _):
        assert await delivers(connection)
        assert connection.tls_description == "TLSv1.3 verified (DANE)"


async def test_a_chain_whose_root_the_dns_names_is_good(authority: Authority) -> None:
    issued = authority.issue("mx.test", with_root=True)
    async with talking(issued, _dane(tlsa(authority.certificate, 2))) as (connection, _):
        assert connection.tls.verified


async def test_a_good_certificate_that_the_dns_does_not_name_is_refused(authority: Authority, good: Issued) -> None:
    other = authority.issue("mx.test")
    failed = await failure(good, authorities=str(authority.ca_file), **_dane(tlsa(other.chain[0])))
    assert failed.outcome == Deferred(Reply(451, "4.7.5", "DANE: no TLSA record matches the certificate"))


async def test_records_that_cannot_be_used_ask_for_tls_and_no_more(good: Issued) -> None:
    unusable = _dane(tlsa(good.chain[0], 1))
    async with talking(good, unusable) as (connection, _):
        assert (connection.tls.version, connection.tls.verified) == ("TLSv1.3", False)
    with pytest.raises(ConnectionFailed) as failed:
        async with talking(good, unusable, keywords=KEYWORDS):
            pass
    assert failed.value.outcome.reply.enhanced == "4.7.5"


async def test_only_a_message_that_asks_for_tls_itself_bounces_for_it(good: Issued) -> None:
    policy = TlsPolicy(name="REQUIRETLS", bounces=True)
    failed = await failure(good, tls="required", verify=True, policy=policy)
    assert isinstance(failed.outcome, Bounced)
    assert failed.outcome.reply.enhanced == "5.7.30"


async def test_a_handshake_that_breaks_bounces_nothing_at_all() -> None:
    script = Script(keywords=WITH_TLS, starttls="454 4.7.0 TLS not available")
    async with running_peer(script) as peer:
        policy = TlsPolicy(name="REQUIRETLS", bounces=True)
        target = Target("mx.test", peer.host, peer.port, tls="required", verify=True, policy=policy)
        with pytest.raises(ConnectionFailed) as failed:
            await Connection.open(target, Conversation(), local_hostname="relay.test")
        assert isinstance(failed.value.outcome, Deferred)


async def test_requiretls_is_passed_on_to_a_peer_that_offers_it(authority: Authority, good: Issued) -> None:
    target = {"tls": "required", "verify": True, "authorities": str(authority.ca_file)}
    async with talking(good, target, keywords=(*WITH_TLS, "REQUIRETLS")) as (connection, peer):
        assert await delivers(connection, require_tls=True)
        assert peer.commands[3] == "MAIL FROM:<app@acme.test> SIZE=22 REQUIRETLS"
        assert await delivers(connection)
        assert "MAIL FROM:<app@acme.test> SIZE=22" in peer.commands


@pytest.mark.parametrize(
    ("keywords", "trusted"), [(WITH_TLS, True), ((*WITH_TLS, "REQUIRETLS"), False)], ids=["not offered", "not verified"]
)
async def test_a_message_that_requires_tls_does_not_go_where_it_cannot_be_kept(
    authority: Authority, good: Issued, keywords: tuple[str, ...], trusted: bool
) -> None:
    target = {"authorities": str(authority.ca_file)} if trusted else {}
    async with talking(good, target, keywords=keywords) as (connection, peer):
        envelope = Envelope("app@acme.test", ("ann@example.org",), MESSAGE, require_tls=True)
        transaction = await connection.send(envelope, Conversation())
        assert transaction.host_refused is not None
        assert (transaction.host_refused.reply.code, transaction.host_refused.reply.enhanced) == (550, "5.7.30")
        assert "MAIL" not in peer.sessions[0].verbs()


def _dane(*records: str) -> dict[str, Any]:
    found = Dane("mx.test", tuple(read_tlsa(record) for record in records), ("mx.test",))
    return {"tls": "required", "policy": TlsPolicy(name="DANE", dane=found, kind="tlsa")}


async def delivers(connection: Connection, *, require_tls: bool = False) -> bool:
    envelope = Envelope("app@acme.test", ("ann@example.org",), MESSAGE, require_tls)
    [outcome] = (await connection.send(envelope, Conversation())).outcomes.values()
    return isinstance(outcome, Delivered)
