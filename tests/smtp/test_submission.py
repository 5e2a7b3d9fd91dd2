"""What is kept of a submitted message? Every byte, but for Bcc and our own headers; and for whom: every RCPT, once."""

import re
import sqlite3
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage

import pytest

from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.db.tables import projects
from plunk_relay.domains.actions import delete_domain
from plunk_relay.domains.queries import find_domain_named
from tests.kit.smtp import Site, greeted, message, submit
from tests.kit.store import change

_RECEIVED = re.compile(
    rb"Received: by relay\.test \(Plunk Relay\)\r\n\twith (\S+) id (\S+)(?:\r\n\tfor <(\S+)>)?;\r\n\t(.+)\r\n"
)
_ADDED = b"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\nMessage-ID: <%s@relay.test>\r\n"


async def test_what_is_stored_is_what_was_sent_byte_for_byte(site: Site) -> None:
    sent = _odd_message()
    assert await submit(site, sent) == (250, "")
    [mail] = await site.stored()
    trace, kept = _split_trace(mail.content)
    assert kept == sent
    assert trace[2] == mail.queue_id.encode()


async def test_a_line_too_long_for_smtp_is_encoded_and_the_text_stays(site: Site) -> None:
    assert await submit(site, b"From: app@acme.test\r\nSubject: long\r\n\r\n" + b"long " * 500 + b"\r\n") == (250, "")
    [mail] = await site.stored()
    assert max(map(len, mail.content.split(b"\r\n"))) <= 998
    assert message_from_bytes(mail.content).get_payload(decode=True) == b"long " * 500 + b"\r\n"


async def test_mail_beyond_the_monthly_cap_is_refused_for_now(site: Site) -> None:
    await change(site.relay, projects, site.acme.id, billing_limit_transactional=1)
    site.relay.memory.forget("projects")
    assert await submit(site, message(), recipients=["ann@example.net", "bob@example.net"]) == (
        451,
        "4.7.1 The project's limit of 1 transactional mails a month is reached.",
    )
    assert await site.stored() == []
    assert await submit(site, message()) == (250, "")


async def test_a_structured_message_keeps_its_structure(site: Site) -> None:
    html = EmailMessage()
    html.set_content('<img src="cid:logo@acme">', subtype="html")
    html.add_related(b"\x89PNG", "image", "png", cid="<logo@acme>")
    composed = EmailMessage()
    composed["From"] = "Acme <app@acme.test>"
    composed["To"] = "Ann <ann@example.net>"
    composed["Subject"] = "Grüße"
    composed["Date"] = "Mon, 02 Mar 2026 10:00:00 +0100"
    composed["Message-ID"] = "<own@acme.test>"
    composed.set_content("plain\n")
    composed.make_alternative()
    composed.attach(html)
    sent = composed.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert await submit(site, sent) == (250, "")
    [mail] = await site.stored()
    assert _split_trace(mail.content)[1] == sent
    assert (mail.subject, mail.message_id, mail.from_name) == ("Grüße", "own@acme.test", "Acme")


async def test_dots_at_the_beginning_of_lines_are_kept(site: Site) -> None:
    body = ".\r\n..\r\n.a\r\n\r\n.\r\n"
    assert await submit(site, message(body=body)) == (250, "")
    [mail] = await site.stored()
    assert mail.content.endswith(f"\r\n\r\n{body}".encode())


async def test_date_and_message_id_are_added_when_they_are_missing(site: Site) -> None:
    sent = message()
    await submit(site, sent)
    [mail] = await site.stored()
    head, _, body = sent.partition(b"\r\n\r\n")
    added = _ADDED % mail.queue_id.encode()
    assert _split_trace(mail.content)[1] == head + b"\r\n" + added + b"\r\n" + body
    assert mail.message_id == f"{mail.queue_id}@relay.test"


async def test_blank_date_and_message_id_are_replaced(site: Site) -> None:
    await submit(site, message(headers="Date:\r\nMessage-ID: \r\n"))
    [mail] = await site.stored()
    head = mail.content.partition(b"\r\n\r\n")[0]
    assert re.findall(rb"(?im)^(?:date|message-id):.*\r?$", head + b"\r\n") == [
        line + b"\r" for line in (_ADDED % mail.queue_id.encode()).splitlines()
    ]


@pytest.mark.parametrize(
    "removed",
    [
        "Bcc: eve@example.net\r\n",
        "BCC: eve@example.net,\r\n\tmallory@example.net\r\n",
        "Bcc: \r\n",
        "Bcc: a@example.net\r\nBcc: b@example.net\r\n",
        "Resent-Bcc: eve@example.net\r\n",
        "Return-Path: <x@example.net>\r\n",
        "X-Plunk-Tag: secret\r\n",
        "x-plunk-unknown: folded\r\n over lines\r\n",
    ],
)
async def test_what_is_only_for_us_never_leaves(site: Site, removed: str) -> None:
    before = "X-Before: 1\r\n\tfolded\r\n"
    after = "Date: Mon, 02 Mar 2026 10:00:00 +0100\r\nMessage-ID: <a@acme.test>\r\n"
    await submit(site, message(headers=before + removed + after))
    [mail] = await site.stored()
    assert _split_trace(mail.content)[1] == message(headers=before + after)


async def test_the_trace_names_recipient_and_way_but_not_the_client(site: Site) -> None:
    await submit(site, message())
    await submit(site, message(), recipients=["ann@example.net", "bob@example.net"])
    await submit(site, message(), options=["SMTPUTF8", "BODY=8BITMIME"])
    alone, first, _, foreign = [_split_trace(mail.content)[0] for mail in await site.stored()]
    assert (alone[1], alone[3]) == (b"ESMTPA", b"ann@example.net")
    assert first[3] is None, "who else gets it is nobody's business"
    assert foreign[1] == b"UTF8SMTPA"
    assert b"127.0.0.1" not in alone[0]
    assert b"client.test" not in alone[0]
    assert alone[4] == b"Sun, 01 Mar 2026 12:00:00 +0000"


async def test_every_rcpt_is_delivered_and_only_rcpt_decides(site: Site) -> None:
    sent = message(headers="Cc: Carl <carl@example.net>, nobody@example.net\r\nBcc: bob@example.net\r\n")
    await submit(site, sent, recipients=["bob@example.net", "carl@example.net"])
    mails = await site.stored()
    assert [mail.recipient for mail in mails] == ["bob@example.net", "carl@example.net"]
    assert [mail.to_name for mail in mails] == [None, "Carl"]
    assert {mail.sender for mail in mails} == {"app@acme.test"}


async def test_a_recipient_named_twice_gets_it_once(site: Site) -> None:
    recipients = ["Ann@example.net", "bob@example.net", "Ann@example.net", "ann@EXAMPLE.net"]
    await submit(site, message(), recipients=recipients)
    assert [mail.recipient for mail in await site.stored()] == ["Ann@example.net", "bob@example.net"]


async def test_the_envelope_sender_may_differ_from_the_author(site: Site) -> None:
    await submit(site, message("Boss <boss@acme.test>"), sender="bounces@acme.test")
    [mail] = await site.stored()
    assert (mail.sender, mail.from_address, mail.from_name) == ("bounces@acme.test", "boss@acme.test", "Boss")


async def test_the_reply_address_is_noted(site: Site) -> None:
    await submit(site, message(headers="Reply-To: Help <help@example.org>, two@example.org\r\n"))
    [mail] = await site.stored()
    assert mail.reply_to == "help@example.org"


async def test_recipients_become_contacts_that_are_not_subscribed(site: Site) -> None:
    await submit(site, message(), recipients=["Ann@Example.net"])
    [mail] = await site.stored()
    assert (mail.project_id, mail.contact, mail.subscribed) == (site.acme.id, "ann@example.net", False)


async def test_a_contact_that_is_subscribed_stays_it(site: Site) -> None:
    change = ContactChange("ann@example.net", subscribed=True)
    await site.relay.db.write(upsert_contact, site.acme.id, change, now=site.relay.clock.now())
    await submit(site, message())
    [mail] = await site.stored()
    assert mail.subscribed


async def test_each_message_of_a_session_stands_alone(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        for number in range(3):
            await wire.begin_message(site.acme, f"ann{number}@example.net")
            await wire.send(message(subject=f"No. {number}") + b".\r\n")
            assert (await wire.reply() or "").startswith("250 2.0.0 queued as ")
    mails = await site.stored()
    assert [(mail.recipient, mail.subject) for mail in mails] == [(f"ann{n}@example.net", f"No. {n}") for n in range(3)]
    assert len({mail.message_id for mail in mails}) == 3


async def test_250_is_said_when_the_message_is_in_the_database(site: Site) -> None:
    database = site.relay.settings.server.data_dir / "relay.db"
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net", "bob@example.net")
        await wire.send(message() + b".\r\n")
        reply = await wire.reply() or ""
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as other:
            found = other.execute("SELECT d.id, d.state FROM deliveries d JOIN emails e ON e.id = d.email_id ORDER BY d.id")
            rows = found.fetchall()
    assert [state for _, state in rows] == ["QUEUED", "QUEUED"]
    assert reply == f"250 2.0.0 queued as {rows[0][0]}"


async def test_the_deliverer_is_woken(site: Site) -> None:
    await submit(site, message())
    assert site.relay.wakes.deliveries.is_set()


async def test_a_domain_removed_while_a_session_lasts_is_felt_by_the_next_message(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert (await wire.ask("MAIL FROM:<app@acme.test>")).startswith("250 ")
        domain = await site.relay.db.read(find_domain_named, "acme.test")
        assert domain is not None
        await delete_domain(site.relay, site.acme.id, domain.id)
        assert (await wire.ask("RSET", "MAIL FROM:<app@acme.test>")).startswith("550 5.7.1 ")


def _odd_message() -> bytes:
    """Return a complete message with everything that a careless rewrite would change."""
    return (
        b"received: by before\r\n"
        b"FROM:  Acme   <app@acme.test>\r\n"
        b"DKIM-Signature: v=1; a=rsa-sha256;\r\n\tb=abc\r\n"
        b"X-Spaces:   two  spaces  \t \r\n"
        b"X-Spaces: again\r\n"
        b"X-Raw: Gr\xfc\xdfe\r\n"
        b"Subject : odd\r\n"
        b"message-id: <own@acme.test>\r\n"
        b"date: Mon, 02 Mar 2026 10:00:00 +0100\r\n"
        b"\r\n"
        b"\r\nTrailing spaces   \r\n\t\r\n.\r\n.dot\r\n" + b"long " * 199 + b"\r\n\xff\xfe\r\n\r\n\r\n"
    )


def _split_trace(content: bytes) -> tuple[re.Match[bytes], bytes]:
    trace = _RECEIVED.match(content)
    assert trace is not None, content[:200]
    return trace, content[trace.end() :]
