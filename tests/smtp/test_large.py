"""What is different about a large message? Nothing that anybody sees: it goes through a file instead of memory."""

import os
import shutil
import stat
from email import message_from_bytes
from pathlib import Path

import pytest

from plunk_relay.spool import spool_directory
from tests.kit.smtp import Site, Stage, Wire, greeted, message, running_site, submit

_HEADERS = "Date: Mon, 02 Mar 2026 10:00:00 +0100\r\nMessage-ID: <own@acme.test>\r\n"
_LINE = "a line of text, and then\r\n..dots\r\n.\r\n"
_LARGE = 1_000_000
"""More than comes at once: certainly in a file."""
_STORED = "250 2.0.0 queued as "


def large_message(*, line: str = _LINE, size: int = _LARGE) -> bytes:
    return message(headers=_HEADERS, body=line * (size // len(line)))


async def test_a_large_message_is_kept_byte_for_byte(site: Site) -> None:
    for size in (262_000, 262_144, 263_000, 600_000, _LARGE, 3_000_000):
        sent = large_message(size=size)
        assert await submit(site, sent) == (250, "")
        content = (await site.stored())[-1].content
        assert content.endswith(b";\r\n\tSun, 01 Mar 2026 12:00:00 +0000\r\n" + sent)
        assert content.count(b"Received:") == 1


async def test_headers_of_a_large_message_are_read_and_changed_as_those_of_a_small_one(site: Site) -> None:
    sent = large_message()
    marked = sent.replace(b"Subject: Hello\r\n", b"Bcc: eve@example.net\r\nSubject: Hello\r\nX-Plunk-Tag: big\r\n")
    assert await submit(site, marked) == (250, "")
    [mail] = await site.stored()
    assert mail.content.endswith(b"\r\n" + sent)
    assert (mail.subject, mail.tag, mail.message_id) == ("Hello", "big", "own@acme.test")


async def test_every_recipient_of_a_large_message_gets_it(site: Site) -> None:
    sent = large_message()
    assert await submit(site, sent, recipients=["ann@example.net", "bob@example.net"]) == (250, "")
    assert [mail.content.endswith(sent) for mail in await site.stored()] == [True, True]


async def test_lines_too_long_for_smtp_are_encoded_and_the_text_stays(site: Site) -> None:
    text = ("long " * 300 + "\r\n") * (_LARGE // 1502)
    assert await submit(site, message(headers=_HEADERS, body=text)) == (250, "")
    [mail] = await site.stored()
    assert max(map(len, mail.content.split(b"\r\n"))) <= 998
    assert message_from_bytes(mail.content).get_payload(decode=True) == text.encode()


async def test_one_line_of_a_megabyte_is_encoded(site: Site) -> None:
    text = "<p>" + "word " * 200_000 + "</p>\r\n"
    assert await submit(site, message(headers=_HEADERS, body=text)) == (250, "")
    [mail] = await site.stored()
    assert message_from_bytes(mail.content).get_payload(decode=True) == text.encode()


@pytest.mark.parametrize(
    ("spoiled", "reply"),
    [
        (b"bare\nLF", "550 5.6.0 "),
        (b"bare\rCR", "550 5.6.0 "),
        (b"\n.\n", "550 5.6.0 "),
        (b"\r\n.\n", "550 5.6.0 "),
        (b"NUL\x00", "550 5.6.0 "),
    ],
)
@pytest.mark.parametrize("place", [0, 262_144, -1], ids=["in front", "where the file begins", "at the end"])
async def test_unclean_line_ends_are_refused_wherever_they_are(site: Site, spoiled: bytes, reply: str, place: int) -> None:
    lines = b"x" * 62 + b"\r\n"
    body = lines * (_LARGE // 64)
    at = place if place >= 0 else len(body)
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net")
        await wire.send(b"From: app@acme.test\r\n\r\n" + body[:at] + spoiled + b"\r\n" + body[at:] + b".\r\nNOOP\r\n")
        assert (await wire.reply() or "").startswith(reply)
        assert await wire.reply() == "250 2.0.0 Ok"
    assert await site.stored() == []


async def test_the_limit_counts_what_is_in_the_file_too(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, max_message_bytes=_LARGE) as site, greeted(site.port) as wire:
        await wire.log_in(site.acme)
        for spare, code in ((0, "250"), (-1, "552")):
            head = b"From: app@acme.test\r\n\r\n"
            lines, rest = divmod(_LARGE - len(head) - spare - 2, 4)
            body = b".x\r\n" * lines + b"x" * rest + b"\r\n"
            await wire.begin_message(site.acme, "ann@example.net")
            await wire.send(head + body.replace(b".x", b"..x") + b".\r\n")
            assert (await wire.reply() or "")[:3] == code
        assert await wire.ask("NOOP") == "250 2.0.0 Ok"


async def test_a_header_block_without_end_is_refused(site: Site) -> None:
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert await _send(wire, site, b"X-Many: " + b"x" * 60 + b"\r\n", times=20_000) == (
            "552 5.3.4 The header block is larger than 262144 bytes"
        )
        assert (await _send(wire, site, large_message())).startswith(_STORED)
    assert len(await site.stored()) == 1


async def test_the_spool_is_private_and_nothing_stays_in_it(site: Site) -> None:
    directory = spool_directory(site.relay.settings.server.data_dir)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    before = _count_open_files()
    assert await submit(site, large_message()) == (250, "")
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        await wire.begin_message(site.acme, "ann@example.net")
        await wire.send(large_message())
        assert list(directory.iterdir()) == []
    await site.door("submission").stop(0)
    assert _count_open_files() <= before
    assert len(await site.stored()) == 1


async def test_what_a_crash_left_in_the_spool_is_removed_at_the_start(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path) as site:
        directory = spool_directory(site.relay.settings.server.data_dir)
    (directory / "left-over").write_text("half a message")
    async with running_site(stage, tmp_path):
        assert list(directory.iterdir()) == []


async def test_a_message_that_cannot_be_spooled_is_put_off_and_the_next_one_is_taken(site: Site) -> None:
    directory = spool_directory(site.relay.settings.server.data_dir)
    shutil.rmtree(directory)
    async with greeted(site.port) as wire:
        await wire.log_in(site.acme)
        assert (await _send(wire, site, large_message())).startswith("452 4.3.1 ")
        assert (await _send(wire, site, message())).startswith(_STORED), "a small one needs no file"
        directory.mkdir(mode=0o700)
        assert (await _send(wire, site, large_message())).startswith(_STORED)
    assert len(await site.stored()) == 2


async def _send(wire: Wire, site: Site, content: bytes, *, times: int = 1) -> str:
    await wire.begin_message(site.acme, "ann@example.net")
    await wire.send(content.replace(b"\r\n.", b"\r\n..") * times + b".\r\n")
    return await wire.reply() or ""


def _count_open_files() -> int:
    return sum(1 for entry in os.scandir("/proc/self/fd") if "/spool/" in _target(entry))


def _target(entry: "os.DirEntry[str]") -> str:
    try:
        return os.readlink(entry.path)
    except FileNotFoundError:
        return ""
