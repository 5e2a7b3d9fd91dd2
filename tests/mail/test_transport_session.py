"""How does a session come about: connection, greeting, TLS, login; and what does each failure mean?"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply
from plunk_relay.mail.session import ConnectionFailed, Timeouts
from plunk_relay.mail.session import Peer as Target
from plunk_relay.mail.transport import Connection, Envelope
from tests.kit.certificates import CertificateFiles, make_certificate
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer
from tests.kit.process import free_port

WITH_TLS = (*KEYWORDS, "STARTTLS")
WITH_AUTH = (*KEYWORDS, "AUTH PLAIN LOGIN")
LOGIN: dict[str, Any] = {"username": "app", "password": "hunter2-and-more"}
MESSAGE = b"Subject: Hello\r\n\r\nHi\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(tmp_path_factory.mktemp("tls"), ["mx.test"])


async def test_the_session_begins_with_the_greeting_and_our_name() -> None:
    conversation = Conversation()
    async with running_peer() as peer, connected(peer, conversation=conversation) as connection:
        assert peer.commands == ["EHLO relay.test"]
        assert connection.tls_description == "none"
    lines = [line.partition(" ")[2] for line in str(conversation).split("\n")]
    assert lines[:3] == [
        f"*: connecting to mx.test[127.0.0.1]:{peer.port}",
        "S: 220 mx.test ESMTP",
        "C: EHLO relay.test",
    ]


async def test_an_old_peer_is_greeted_with_helo() -> None:
    async with running_peer(Script(ehlo="502 5.5.1 what?")) as peer, connected(peer) as connection:
        assert peer.commands == ["EHLO relay.test", "HELO relay.test"]
        assert await delivers(connection)
        assert peer.taken[0].message == MESSAGE


async def test_a_greeting_of_many_lines_is_one(certificate: CertificateFiles) -> None:
    script = Script(banner="220-welcome\n220-to our\n220 server", keywords=WITH_TLS)
    async with running_peer(script, certificate=certificate) as peer, connected(peer) as connection:
        assert await delivers(connection)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (Script(banner="554 5.7.1 go away"), Bounced(Reply(554, "5.7.1", "go away"))),
        (Script(banner="521 we take no mail"), Bounced(Reply(521, None, "we take no mail"))),
        (Script(banner="421 4.3.2 busy"), Deferred(Reply(421, "4.3.2", "busy"))),
        (Script(banner="250 ok"), Deferred(Reply(451, "4.5.0", "unexpected reply: 250 ok"))),
        (Script(ehlo="421 4.3.2 busy"), Deferred(Reply(421, "4.3.2", "busy"))),
        (Script(ehlo="554 5.7.1 no + close"), Bounced(Reply(554, "5.7.1", "no"))),
        (Script(ehlo="554 5.7.1 no", helo="550 5.7.1 never"), Bounced(Reply(550, "5.7.1", "never"))),
        (Script(ehlo="250 mx.test\n421 4.3.2 going down"), Deferred(Reply(421, "4.3.2", "going down"))),
    ],
)
async def test_a_refusal_to_talk_is_kept_as_the_peer_said_it(script: Script, outcome: Deferred | Bounced) -> None:
    async with running_peer(script) as peer:
        assert await failure(peer) == outcome


@pytest.mark.parametrize(
    "script",
    [
        Script(banner="close"),
        Script(banner="reset"),
        Script(banner="220 mx.test\n250 too much"),
        Script(banner="HTTP/1.1 400 Bad Request"),
        Script(banner="flood"),
        Script(ehlo="close"),
        Script(ehlo="flood"),
        Script(ehlo="250 mx.test\n250 2.1.0 before you asked"),
    ],
)
async def test_what_is_no_smtp_server_is_a_temporary_failure(script: Script) -> None:
    async with running_peer(script) as peer:
        outcome = await failure(peer)
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.code, outcome.reply.enhanced) == (451, "4.4.1")
        assert outcome.reply.text


@pytest.mark.parametrize("script", [Script(banner="hang"), Script(ehlo="hang")], ids=["banner", "ehlo"])
async def test_a_peer_that_stays_silent_is_given_up(script: Script) -> None:
    async with running_peer(script) as peer:
        assert await failure(peer, timeouts=Timeouts(reply=0.05)) == Deferred(Reply(451, "4.4.1", "connection timed out"))


async def test_a_port_where_nobody_listens_is_a_temporary_failure() -> None:
    target = Target("mx.test", "127.0.0.1", free_port())
    with pytest.raises(ConnectionFailed) as failed:
        await Connection.open(target, Conversation(), local_hostname="relay.test")
    assert isinstance(failed.value.outcome, Deferred)
    assert failed.value.outcome.reply.enhanced == "4.4.1"


async def test_the_source_address_is_the_one_that_was_asked_for() -> None:
    async with running_peer() as peer, connected(peer, source_address="127.0.0.9"):
        assert peer.sessions[0].peername == "127.0.0.9"


async def test_a_source_address_that_is_not_ours_is_a_temporary_failure() -> None:
    async with running_peer() as peer:
        assert isinstance(await failure(peer, source_address="192.0.2.1"), Deferred)


async def test_no_connection_is_left_open_after_a_failure() -> None:
    async with running_peer(Script(ehlo="554 5.7.1 no", helo="554 5.7.1 no")) as peer:
        await failure(peer)
        assert await hung_up(peer)


@pytest.mark.parametrize("mode", ["may", "required"])
async def test_starttls_is_used_where_it_is_offered(certificate: CertificateFiles, mode: str) -> None:
    script = Script(keywords=WITH_TLS)
    async with running_peer(script, certificate=certificate) as peer, connected(peer, tls=mode) as connection:
        assert await delivers(connection)
        [session] = peer.sessions
        assert session.tls == "TLSv1.3"
        assert session.verbs() == "EHLO STARTTLS EHLO MAIL RCPT DATA"
        assert connection.tls_description == "TLSv1.3 unverified"


async def test_tls_that_is_off_is_not_used(certificate: CertificateFiles) -> None:
    script = Script(keywords=WITH_TLS)
    async with running_peer(script, certificate=certificate) as peer, connected(peer, tls="off") as connection:
        assert await delivers(connection)
        assert peer.sessions[0].tls is None


async def test_implicit_tls_begins_with_the_handshake(certificate: CertificateFiles) -> None:
    async with (
        running_peer(certificate=certificate, implicit_tls=True) as peer,
        connected(peer, tls="implicit") as connection,
    ):
        assert await delivers(connection)
        assert connection.tls_description == "TLSv1.3 unverified"
        assert peer.sessions[0].verbs() == "EHLO MAIL RCPT DATA"


REFUSED_TLS = ["454 4.7.0 TLS not available", "502 5.5.1 not implemented"]
BROKEN_TLS = [
    "454 4.7.0 TLS not available + close",
    "454 4.7.0 TLS not available + 250 what?",
    "421 4.7.0 go away",
    "250 2.0.0 ok",
    "220 go ahead + this is no handshake + close",
    "220 go ahead + close",
    "220 go ahead + reset",
    "close",
]


@pytest.mark.parametrize("starttls", REFUSED_TLS)
async def test_where_tls_may_be_used_and_is_refused_the_session_goes_on_in_clear(starttls: str) -> None:
    conversation = Conversation()
    script = Script(keywords=WITH_TLS, starttls=starttls)
    async with running_peer(script) as peer, connected(peer, conversation=conversation) as connection:
        assert await delivers(connection)
        [session] = peer.sessions
        assert (session.tls, session.verbs()) == (None, "EHLO STARTTLS RSET MAIL RCPT DATA")
        assert connection.tls.trouble is not None
        assert connection.tls.trouble.result == "starttls-not-supported"
    assert f"S: {starttls}" in str(conversation)


@pytest.mark.parametrize("starttls", BROKEN_TLS)
async def test_where_tls_may_be_used_a_broken_one_is_followed_by_a_session_in_clear(starttls: str) -> None:
    conversation = Conversation()
    script = Script(keywords=WITH_TLS, starttls=starttls)
    async with running_peer(script) as peer, connected(peer, conversation=conversation) as connection:
        assert await delivers(connection)
        encrypted, clear = peer.sessions
        assert "STARTTLS" in encrypted.commands
        assert (clear.tls, clear.verbs()) == (None, "EHLO MAIL RCPT DATA")
        assert "once more in clear" in str(conversation)


@pytest.mark.parametrize("starttls", [*REFUSED_TLS, *BROKEN_TLS, "not offered"])
async def test_where_tls_is_required_nothing_goes_in_clear_and_nothing_bounces(starttls: str) -> None:
    offer = KEYWORDS if starttls == "not offered" else WITH_TLS
    async with running_peer(Script(keywords=offer, starttls=starttls)) as peer:
        outcome = await failure(peer, tls="required")
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.code, outcome.reply.enhanced) == (451, "4.7.5")
        assert len(peer.sessions) == 1
        assert not any(command.startswith("MAIL") for command in peer.commands)


async def test_a_handshake_that_hangs_is_followed_by_a_session_in_clear() -> None:
    script = Script(keywords=WITH_TLS, starttls="220 go ahead + hang")
    async with (
        running_peer(script) as peer,
        connected(peer, timeouts=Timeouts(reply=0.2)) as connection,
    ):
        assert await delivers(connection)
        assert peer.sessions[1].tls is None


@pytest.mark.parametrize("mode", ["required", "implicit"])
async def test_a_certificate_that_must_be_right_and_is_not_stops_the_session(
    certificate: CertificateFiles, mode: str
) -> None:
    script = Script(keywords=(*WITH_TLS, *WITH_AUTH))
    async with running_peer(script, certificate=certificate, implicit_tls=mode == "implicit") as peer:
        outcome = await failure(peer, tls=mode, verify=True, **LOGIN)
        assert isinstance(outcome, Deferred)
        assert "certificate" in outcome.reply.text.lower()
        assert [session.credentials for session in peer.sessions if session.credentials] == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_the_login_is_sent_over_tls(certificate: CertificateFiles, mechanism: str) -> None:
    script = Script(keywords=(*WITH_TLS, f"AUTH {mechanism}"))
    conversation = Conversation()
    async with (
        running_peer(script, certificate=certificate) as peer,
        connected(peer, conversation=conversation, tls="required", **LOGIN) as connection,
    ):
        assert await delivers(connection)
        [session] = peer.sessions
        assert session.credentials == [("app", "hunter2-and-more")]
        assert session.verbs() == "EHLO STARTTLS EHLO AUTH MAIL RCPT DATA"
    assert not_shown(str(conversation))


async def test_on_this_machine_the_login_may_go_in_clear() -> None:
    async with running_peer(Script(keywords=WITH_AUTH)) as peer, connected(peer, tls="off", **LOGIN):
        assert peer.sessions[0].credentials == [("app", "hunter2-and-more")]


@pytest.mark.allow_hosts(["127.0.0.1", "::ffff:127.0.0.1"])
async def test_to_another_machine_the_password_never_goes_in_clear() -> None:
    async with running_peer(Script(keywords=WITH_AUTH)) as peer:
        remote = f"::ffff:{peer.host}"  # loopback, and not recognised as such
        outcome = await failure(peer, address=remote, tls="may", **LOGIN)
        assert isinstance(outcome, Deferred)
        assert "not sent in clear" in outcome.reply.text
        assert "AUTH" not in peer.sessions[0].verbs()


@pytest.mark.parametrize(
    "auth",
    [
        "535 5.7.8 bad credentials",
        "454 4.7.0 try later",
        "535 5.7.8 cannot check app:hunter2-and-more",
        f"500 5.5.1 what is AUTH PLAIN {base64.b64encode(b'-app-hunter2-and-more'.replace(b'-', bytes(1), 2)).decode()}?",
        "close",
    ],
)
async def test_a_refused_login_waits_for_the_operator_and_shows_no_password(auth: str) -> None:
    conversation = Conversation()
    async with running_peer(Script(keywords=(*KEYWORDS, "AUTH PLAIN"), auth=auth)) as peer:
        outcome = await failure(peer, conversation=conversation, tls="off", **LOGIN)
        assert isinstance(outcome, Deferred)
        assert outcome.reply.enhanced == ("4.4.1" if auth == "close" else "4.7.8")
        assert not_shown(str(conversation) + str(outcome.reply))
        assert auth[:9] in str(outcome.reply) or auth == "close"


async def test_a_server_that_knows_no_auth_gets_no_mail() -> None:
    async with running_peer() as peer:
        assert isinstance(await failure(peer, tls="off", **LOGIN), Deferred)
        assert peer.sessions[0].verbs() == "EHLO"


def test_a_target_shows_no_password() -> None:
    assert "hunter2" not in repr(Target("mx.test", "127.0.0.1", 25, **LOGIN))


@asynccontextmanager
async def connected(
    peer: Peer, *, conversation: Conversation | None = None, timeouts: Timeouts | None = None, **target: Any
) -> AsyncIterator[Connection]:
    values: dict[str, Any] = {"host": "mx.test", "address": peer.host, "port": peer.port} | target
    connection = await Connection.open(
        Target(**values), conversation or Conversation(), local_hostname="relay.test", timeouts=timeouts
    )
    try:
        yield connection
    finally:
        connection.abort()
        await asyncio.sleep(0)


async def failure(peer: Peer, **target: Any) -> Deferred | Bounced:
    """Connect in vain."""
    with pytest.raises(ConnectionFailed) as failed:
        async with connected(peer, **target):
            pass
    outcome: Deferred | Bounced = failed.value.outcome
    return outcome


async def delivers(connection: Connection) -> bool:
    envelope = Envelope("app@acme.test", ("ann@example.org",), MESSAGE)
    [outcome] = (await connection.send(envelope, Conversation())).outcomes.values()
    return isinstance(outcome, Delivered)


async def hung_up(peer: Peer) -> bool:
    """Wait until the peer has seen the end of its only session: nothing came after the refusal."""
    [session] = peer.sessions
    await peer.until(lambda _peer: session.over)
    return "QUIT" not in session.commands


def not_shown(text: str) -> bool:
    plain = ["hunter2", *(base64.b64encode(word).decode() for word in (b"hunter2-and-more", b"\0app\0hunter2-and-more"))]
    return not any(word in text for word in plain)
