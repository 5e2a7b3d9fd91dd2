"""What becomes of mail that other servers bring? The dialogs say who is answered what; here is what follows."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.accounts.actions import create_user
from plunk_relay.db.tables import events
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.smtp.inbound import inbound_doors
from tests.kit.certificates import make_certificate
from tests.kit.inbound import bring, delivery_report, return_address
from tests.kit.process import ServerProcess, free_port
from tests.kit.relay import running_relay
from tests.kit.smtp import PATIENCE_SECONDS, Site, Stage, StoredMail, running_site
from tests.kit.store import rows

LETTER = b"From: Ann <ann@example.net>\r\nTo: abuse@acme.test\r\nSubject: Spam from you\r\n\r\nLook.\r\n"


@asynccontextmanager
async def _site(stage: Stage, directory: Path, **smtp: Any) -> AsyncIterator[Site]:
    async with running_site(stage, directory, inbound_port=free_port(), **smtp) as site:
        yield site


async def _bring(site: Site, recipient: str, letter: bytes = LETTER, *, sender: str = "ann@example.net") -> tuple[int, str]:
    return await bring(site.door("inbound"), recipient, letter, sender=sender)


@pytest.mark.parametrize(
    ("recipient", "role"),
    [
        ("postmaster@relay.test", "postmaster@relay.test"),
        ("Abuse@Acme.test", "abuse@acme.test"),
        ("abuse@bounce.acme.test", "abuse@acme.test"),
        ("postmaster", "postmaster@relay.test"),
    ],
)
async def test_mail_to_the_operator_is_forwarded_from_the_null_sender(
    stage: Stage, tmp_path: Path, recipient: str, role: str
) -> None:
    async with _site(stage, tmp_path, postmaster="boss@example.com") as site:
        assert await _bring(site, recipient) == (250, "2.0.0 Thank you")
        [mail] = await site.stored()
        assert (mail.project_id, mail.sender, mail.recipient) == (RELAY_PROJECT_ID, "", "boss@example.com")
        assert (mail.subject, mail.from_address) == ("Spam from you", role)
        forwarded = _parse(mail)
        assert (forwarded["From"].addresses[0].addr_spec, forwarded["Reply-To"]) == (role, "ann@example.net")
        assert LETTER in mail.content
        assert site.relay.wakes.deliveries.is_set()


async def test_without_the_setting_the_first_account_is_the_operator(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path) as site:
        assert await _bring(site, "postmaster@relay.test") == (
            550,
            "5.2.1 Nobody reads this mailbox: the operator of this relay has no address yet",
        )
        await create_user(site.relay, "owner@example.com", password="correct horse")
        await create_user(site.relay, "second@example.com", password="correct horse")
        assert (await _bring(site, "postmaster@relay.test"))[0] == 250
        assert [mail.recipient for mail in await site.stored()] == ["owner@example.com"]


async def test_forwarded_mail_that_comes_back_is_refused(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path, postmaster="boss@acme.test") as site:
        await _bring(site, "postmaster@acme.test")
        [mail] = await site.stored()
        assert await _bring(site, "postmaster@acme.test", mail.content, sender="") == (
            554,
            "5.4.6 This message has been here before: a mail loop",
        )
        assert len(await site.stored()) == 1


async def test_a_large_message_for_the_operator_is_forwarded_whole(stage: Stage, tmp_path: Path) -> None:
    letter = LETTER + b"x" * 76 + b"\r\n" * 400_000
    async with _site(stage, tmp_path, postmaster="boss@example.com") as site:
        assert (await _bring(site, "postmaster", letter))[0] == 250
        [mail] = await site.stored()
        assert letter in mail.content


async def test_a_bounce_in_an_utf_8_message_is_taken(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path, postmaster="boss@example.com") as site:
        letter = "From: \u00e4nn@example.net\r\nSubject: Gr\u00fc\u00dfe\r\n\r\nHi\r\n".encode()

        def talk() -> int:
            with smtplib.SMTP("127.0.0.1", site.door("inbound").port, timeout=PATIENCE_SECONDS) as client:
                client.ehlo()
                client.mail("ann@example.net", ["SMTPUTF8", "BODY=8BITMIME"])
                client.rcpt("postmaster@relay.test")
                return client.data(letter)[0]

        assert await asyncio.to_thread(talk) == 250
        [mail] = await site.stored()
        assert mail.subject == "Gr\u00fc\u00dfe"


async def test_starttls_is_offered_with_a_certificate(stage: Stage, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    async with running_site(stage, tmp_path, certificate=files, inbound_port=free_port(), postmaster="b@c.test") as site:

        def talk() -> int:
            with smtplib.SMTP("127.0.0.1", site.door("inbound").port, "mx.test", timeout=PATIENCE_SECONDS) as client:
                client.starttls(context=ssl.create_default_context(cafile=str(files.certificate)))
                client.ehlo()
                assert not client.has_extn("auth")
                client.mail("ann@example.net")
                client.rcpt("postmaster@relay.test")
                return client.data(LETTER)[0]

        assert await asyncio.to_thread(talk) == 250


async def test_a_bounce_while_the_server_stops_is_for_later(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path) as site:
        site.relay.stopping.set()
        assert (await _bring(site, "postmaster@relay.test"))[0] == 421


async def test_nothing_is_written_for_a_letter_to_a_return_address(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path) as site:
        strange = return_address(site.relay, "01890a5d-ac96-774b-bcce-b302099a8057")
        assert (await _bring(site, strange, delivery_report("bob@example.org")))[0] == 550
        assert await site.stored() == []
        assert await rows(site.relay, events) == []


async def test_the_door_is_closed_when_its_port_is_0(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay:
        assert inbound_doors(relay) == []


async def test_the_door_may_have_an_address_of_its_own(stage: Stage, tmp_path: Path) -> None:
    async with _site(stage, tmp_path, inbound_host="127.0.0.2", postmaster="boss@example.com") as site:
        port = site.door("inbound").port

        def talk() -> int:
            with smtplib.SMTP("127.0.0.2", port, "mx.test", timeout=PATIENCE_SECONDS) as client:
                return client.noop()[0]

        assert await asyncio.to_thread(talk) == 250


@pytest.mark.slow
def test_the_server_opens_the_door_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(tmp_path, smtp={"inbound_port": port}) as server:
        server.setup()
        server.start()
        assert server.wait_for_line("ready")["inbound"] == port
        with smtplib.SMTP("127.0.0.1", port, "mx.test", timeout=PATIENCE_SECONDS) as client:
            client.sendmail("ann@example.net", ["abuse@example.com"], LETTER)
        [forwarded] = server.queue()
        assert (forwarded["recipient"], forwarded["sender"]) == ("op@example.com", "")


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    port = free_port()
    first = ServerProcess(_directory(tmp_path, "first"), smtp={"inbound_port": port})
    second = ServerProcess(_directory(tmp_path, "second"), smtp={"inbound_port": port})
    with first, second:
        first.start()
        done = second.command("serve", check=False)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port} (inbound): Address already in use" in done.stderr
        assert "Traceback" not in done.stderr


def _directory(parent: Path, name: str) -> Path:
    directory = parent / name
    directory.mkdir()
    return directory


def _parse(mail: StoredMail) -> EmailMessage:
    parsed = message_from_bytes(mail.content, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed
