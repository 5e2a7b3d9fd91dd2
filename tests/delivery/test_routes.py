"""Which way does a mail go: to the exchangers, by a smarthost, or nowhere (capture)?"""

import base64
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from plunk_relay.commands import queue_show
from plunk_relay.db.tables import captured
from plunk_relay.delivery.routes import RouteTable, Smarthost, parse_smarthost
from plunk_relay.errors import UsageError
from plunk_relay.mailbox import MAILBOX_PAGES
from plunk_relay.sections import DeliveryRoute, DeliverySettings
from tests.kit.certificates import make_certificate
from tests.kit.http import running_http
from tests.kit.outbox import Prepared, running_outbox
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer
from tests.kit.store import rows

PASSWORD = "hunter2/and more"
LOGIN = "app:hunter2%2Fand%20more"
SENT = ("DELIVERED", "SENT")
DELIVERED = ("DELIVERED", "DELIVERED")


async def test_a_smarthost_takes_mail_for_every_domain_on_one_connection(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    settings: dict[str, Any] = _smarthost(peer) | {"per_destination": 1}
    async with running_outbox(prepared, tmp_path, **settings) as outbox:
        ids = await outbox.submit("ann@example.org", "bob@elsewhere.example")
        await outbox.deliver()
        assert [await outbox.state(one) for one in ids] == [SENT, SENT]
        [received] = peer.taken
        assert sorted(received.recipients) == ["ann@example.org", "bob@elsewhere.example"]
        assert outbox.dns.questions == []


async def test_what_a_smarthost_took_is_sent_and_not_yet_delivered(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_outbox(prepared, tmp_path, **_smarthost(peer)) as outbox:
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        [event] = await outbox.events()
        assert (event["name"], event["data"]["sentAt"]) == ("email.sent", "2026-03-01T12:00:00.000Z")
        email = await outbox.email(delivery_id)
        assert (email["sent_at"], email["delivered_at"]) == (outbox.clock.now(), None)
        assert (await outbox.check_ledger())["delivered"] == 1


async def test_a_refusal_of_the_smarthost_about_the_address_is_a_bounce(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(rcpt="550 5.1.1 no such user")
    async with running_outbox(prepared, tmp_path, **_smarthost(peer)) as outbox:
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("BOUNCED", "BOUNCED")


async def test_the_login_goes_over_tls_and_is_shown_nowhere(prepared: Prepared, tmp_path: Path) -> None:
    script = Script(keywords=(*KEYWORDS, "STARTTLS", "AUTH PLAIN"))
    certificate = make_certificate(tmp_path, ["mx.test"])
    async with running_peer(script, certificate=certificate) as peer:
        settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://{LOGIN}@127.0.0.1:{peer.port}"}
        with capture_logs() as lines:
            async with running_outbox(prepared, tmp_path / "data", **settings) as outbox:
                [delivery_id] = await outbox.submit()
                await outbox.deliver()
                assert await outbox.state(delivery_id) == SENT
                shown = (
                    str(await queue_show(outbox.relay, delivery=delivery_id)) + str(lines) + repr(outbox.deliverer._routes)
                )
        [session] = peer.sessions
        assert (session.credentials, session.tls) == ([("app", PASSWORD)], "TLSv1.3")
        assert "AUTH (credentials not shown)" in shown
        for secret in (PASSWORD, _base64(PASSWORD), _base64(f"\0app\0{PASSWORD}")):
            assert secret not in shown


async def test_a_smarthost_that_offers_no_tls_gets_no_mail_where_it_is_required(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    peer.script = Script(keywords=(*KEYWORDS, "AUTH PLAIN"))
    settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://{LOGIN}@127.0.0.1:{peer.port}"}
    async with running_outbox(prepared, tmp_path, **settings) as outbox:
        [delivery_id] = await outbox.submit()
        await outbox.deliver()
        row = await outbox.delivery(delivery_id)
        assert row["state"] == "QUEUED"
        assert row["last_reply"].startswith("451 4.7.5 127.0.0.1 does not offer STARTTLS")
        assert peer.sessions[0].verbs() == "EHLO"


@pytest.mark.parametrize("auth", ["535 5.7.8 wrong password", "454 4.7.0 later"])
async def test_a_wrong_password_bounces_nothing(prepared: Prepared, tmp_path: Path, peer: Peer, auth: str) -> None:
    peer.script = Script(keywords=(*KEYWORDS, "AUTH PLAIN"), auth=auth)
    settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://{LOGIN}@127.0.0.1:{peer.port}?starttls=off"}
    async with running_outbox(prepared, tmp_path, **settings) as outbox:
        ids = await outbox.submit("ann@example.org", "bob@example.org")
        await outbox.deliver()
        for one in ids:
            row = await outbox.delivery(one)
            assert (row["state"], row["last_reply"]) == ("QUEUED", f"451 4.7.8 the login was refused: {auth}")


async def test_a_smarthost_is_looked_up_by_its_name(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    settings: dict[str, Any] = {"route": "smarthost", "smarthost_url": f"smtp://smart.example:{peer.port}"}
    async with running_outbox(prepared, tmp_path, **settings) as outbox:
        [first] = await outbox.submit()
        await outbox.deliver()
        assert (await outbox.delivery(first))["last_reply"].startswith("451 4.4.3 smarthost: smart.example does not exist")
        outbox.dns.set("smart.example", "A", "127.0.0.1")
        outbox.relay.resolver.forget("smart.example")
        [second] = await outbox.submit()
        await outbox.deliver()
        assert await outbox.state(second) == SENT


async def test_captured_mail_is_kept_as_it_would_have_left_and_never_sent(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    async with running_outbox(prepared, tmp_path, port=peer.port, route="capture") as outbox:
        [queued] = await outbox.send("ann@example.org")
        await outbox.deliver()
        assert await outbox.state(queued.delivery_id) == DELIVERED
        [row] = await rows(outbox.relay, captured)
        assert row["message"].startswith(b"DKIM-Signature: ")
        assert b"\r\nSubject: Hello\r\n" in row["message"]
        assert peer.sessions == []
        assert outbox.dns.questions == []
        [attempt] = await outbox.attempts(queued.delivery_id)
        assert (attempt["host"], attempt["tls"]) == ("capture", None)
        assert [event["name"] for event in await outbox.events()] == ["email.sent", "email.delivery"]


async def test_captured_mail_can_be_read(prepared: Prepared, tmp_path: Path) -> None:
    async with running_outbox(prepared, tmp_path, route="capture") as outbox:
        [queued] = await outbox.send("ann@example.org", subject="A <b>bold</b> subject")
        await outbox.deliver()
        shown = await queue_show(outbox.relay, delivery=queued.delivery_id, message=True)
        assert "\r\nTo: ann@example.org\r\n" in shown["message"]
        async with running_http(outbox.relay, pages=MAILBOX_PAGES) as http:
            listed = await http.get("/dev/mail")
            assert f'href="/dev/mail/{queued.delivery_id}"' in listed.text
            assert "A &lt;b&gt;bold&lt;/b&gt; subject" in listed.text
            page = await http.get(f"/dev/mail/{queued.delivery_id}")
            assert "DKIM-Signature: " in page.text
            assert _is_safe(page)
            assert (await http.get("/dev/mail/00000000-0000-7000-8000-000000000000")).status_code == 404


async def test_a_route_of_its_own_for_a_domain(prepared: Prepared, tmp_path: Path, peer: Peer) -> None:
    async with running_peer(host="127.0.0.2") as smart:
        routes = [
            {"domain": "Partner.example", "route": "smarthost", "smarthost_url": f"smtp://127.0.0.2:{smart.port}"},
            {"domain": "bücher.example", "route": "capture"},
        ]
        async with running_outbox(prepared, tmp_path, port=peer.port, routes=routes) as outbox:
            recipients = ("ann@example.org", "bob@partner.example", "cid@bücher.example", "dan@sub.partner.example")
            ids = await outbox.submit(*recipients)
            await outbox.deliver()
            assert [await outbox.state(one) for one in ids] == [DELIVERED, SENT, DELIVERED, ("BOUNCED", "BOUNCED")]
            assert [received.recipients for received in peer.taken] == [("ann@example.org",)]
            assert [received.recipients for received in smart.taken] == [("bob@partner.example",)]
            [kept] = await rows(outbox.relay, captured)
            assert kept["delivery_id"] == ids[2]


async def test_two_logins_at_one_smarthost_do_not_share_a_connection(prepared: Prepared, tmp_path: Path) -> None:
    async with running_peer(Script(keywords=(*KEYWORDS, "AUTH PLAIN"))) as peer:
        routes = [
            {
                "domain": f"{user}.example",
                "route": "smarthost",
                "smarthost_url": f"smtp://{user}:secret@127.0.0.1:{peer.port}?starttls=off",
            }
            for user in ("one", "two")
        ]
        async with running_outbox(prepared, tmp_path, routes=routes) as outbox:
            for recipient in ("ann@one.example", "ann@two.example"):
                await outbox.submit(recipient)
                await outbox.deliver()
        by_user = {session.credentials[0][0]: session.received[0].recipients for session in peer.sessions}
        assert by_user == {"one": ("ann@one.example",), "two": ("ann@two.example",)}


@pytest.mark.parametrize(
    ("url", "smarthost"),
    [
        ("smtp://mail.example", Smarthost("mail.example", 25, "may", None, None)),
        ("smtp://mail.example:587", Smarthost("mail.example", 587, "may", None, None)),
        ("smtp://u:p@mail.example", Smarthost("mail.example", 25, "required", "u", "p")),
        ("smtp://u%40x:p%3A%2F@mail.example:587", Smarthost("mail.example", 587, "required", "u@x", "p:/")),
        ("smtp://u:p@mail.example?starttls=may", Smarthost("mail.example", 25, "may", "u", "p")),
        ("smtp://mail.example?starttls=off", Smarthost("mail.example", 25, "off", None, None)),
        ("smtps://u:p@mail.example", Smarthost("mail.example", 465, "implicit", "u", "p")),
        ("smtp://[::1]:2525", Smarthost("::1", 2525, "may", None, None)),
    ],
)
def test_a_smarthost_url_says_where_and_how(url: str, smarthost: Smarthost) -> None:
    assert parse_smarthost(url) == smarthost


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example",
        "http://u:hunter2@mail.example",
        "smtp://",
        "smtp://u:hunter2@mail.example:port",
        "smtp://u:hunter2@mail.example:99999",
        "smtp://u:hunter2@mail.example?starttls=yes",
    ],
)
def test_a_smarthost_url_that_cannot_be_read_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_smarthost(url)
    assert "delivery.smarthost_url" in refused.value.message
    assert "hunter2" not in refused.value.message


def test_a_route_without_a_url_of_its_own_takes_the_general_one() -> None:
    table = RouteTable(
        DeliverySettings(
            route="mx",
            smarthost_url="smtp://mail.example",
            routes=(DeliveryRoute(domain="a.example", route="smarthost", smarthost_url=None),),
        )
    )
    assert table.find("a.example").smarthost == Smarthost("mail.example", 25, "may", None, None)
    assert table.find("b.example").kind == "mx"


def test_a_smarthost_shows_no_password() -> None:
    assert "hunter2" not in repr(parse_smarthost("smtp://u:hunter2@mail.example"))


def _smarthost(peer: Peer) -> dict[str, Any]:
    return {"route": "smarthost", "smarthost_url": f"smtp://127.0.0.1:{peer.port}"}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _is_safe(page: httpx2.Response) -> bool:
    return "default-src 'none'" in page.headers["content-security-policy"]
