"""Is TLS what it should be? Certificates are read again when they change, and a broken handshake ends a session quietly."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from plunk_relay.errors import SetupError
from plunk_relay.smtp.certificate import Certificate
from tests.kit.certificates import CertificateFiles, make_certificate
from tests.kit.smtp import Site, Stage, Wire, greeted, running_site, wire_to

Renew = Callable[[CertificateFiles], None]


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return make_certificate(tmp_path)


@pytest.fixture
def renew(tmp_path: Path) -> Renew:
    """Return what puts a new certificate in the place of an old one, as `certbot` does: file by file, in no time."""
    other = tmp_path / "other"
    other.mkdir()
    fresh = make_certificate(other)

    def put(files: CertificateFiles) -> None:
        for new, old in ((fresh.key, files.key), (fresh.certificate, files.certificate)):
            new.replace(old)

    return put


async def test_starttls_shows_a_changed_certificate(
    stage: Stage, tmp_path: Path, files: CertificateFiles, renew: Renew
) -> None:
    async with running_site(stage, tmp_path, certificate=files) as site:
        before = await _shown_after_starttls(site)
        assert before == await _shown_after_starttls(site) == _read(files)
        renew(files)
        assert before != await _shown_after_starttls(site) == _read(files)


@pytest.mark.parametrize("server_name", ["localhost", ""])
async def test_port_465_shows_a_changed_certificate(
    stage: Stage, tmp_path: Path, files: CertificateFiles, renew: Renew, server_name: str
) -> None:
    async with running_site(stage, tmp_path, certificate=files) as site:
        before = await _shown_on_465(site, server_name)
        assert before == _read(files)
        renew(files)
        assert before != await _shown_on_465(site, server_name) == _read(files)


@pytest.mark.parametrize("broken", ["certificate", "key"])
async def test_broken_new_files_leave_the_old_certificate_on_both_doors_until_good_ones_come(
    stage: Stage, tmp_path: Path, files: CertificateFiles, renew: Renew, broken: str
) -> None:
    async with running_site(stage, tmp_path, certificate=files) as site:
        before = _read(files)
        getattr(files, broken).write_text("-----BEGIN NOTHING-----")
        assert await _shown_after_starttls(site) == before
        assert await _shown_on_465(site, "localhost") == before
        renew(files)
        assert before != await _shown_after_starttls(site) == _read(files)
        assert await _shown_on_465(site, "localhost") == _read(files)


async def test_a_session_outlives_the_change(stage: Stage, tmp_path: Path, files: CertificateFiles, renew: Renew) -> None:
    opening = running_site(stage, tmp_path, certificate=files)
    async with opening as site, greeted(site.door("submissions").port, tls=_trust_anything()) as wire:
        renew(files)
        assert (await wire.ask("NOOP")).startswith("250 ")


def test_a_broken_new_certificate_leaves_the_old_one_in_use(files: CertificateFiles) -> None:
    certificate = Certificate(files.certificate, files.key)
    context = certificate.context()
    files.certificate.write_text("not a certificate")
    with capture_logs() as lines:
        assert [certificate.context() for _ in range(3)] == [context] * 3
    assert [line["log_level"] for line in lines] == ["error"], "said once, not at each handshake"


def test_a_missing_new_certificate_leaves_the_old_one_in_use(files: CertificateFiles, renew: Renew) -> None:
    certificate = Certificate(files.certificate, files.key)
    context = certificate.context()
    files.key.unlink()
    assert certificate.context() is context
    renew(files)
    assert certificate.context() is not context


def test_an_unchanged_certificate_is_not_read_again(files: CertificateFiles) -> None:
    certificate = Certificate(files.certificate, files.key)
    assert certificate.context() is certificate.context()


@pytest.mark.parametrize("broken", ["certificate", "key", "missing"])
async def test_the_door_does_not_open_without_a_good_certificate(
    stage: Stage, tmp_path: Path, files: CertificateFiles, broken: str
) -> None:
    if broken == "missing":
        files.certificate.unlink()
    else:
        getattr(files, broken).write_text("-----BEGIN NOTHING-----")
    with pytest.raises(SetupError, match=str(files.certificate)):
        async with running_site(stage, tmp_path, certificate=files):
            pass


def test_old_tls_is_not_spoken(files: CertificateFiles) -> None:
    assert Certificate(files.certificate, files.key).context().minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("garbage", [b"EHLO client.test\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b"\x00" * 100])
async def test_a_broken_handshake_after_starttls_ends_the_session_quietly(
    stage: Stage, tmp_path: Path, files: CertificateFiles, garbage: bytes
) -> None:
    async with running_site(stage, tmp_path, certificate=files) as site:
        with capture_logs() as lines:
            async with greeted(site.port) as wire:
                assert (await wire.ask("EHLO client.test", "STARTTLS")).startswith("220 ")
                await wire.send(garbage)
                wire.writer.write_eof()
                await wire.reader.read()
            async with greeted(site.port) as wire:
                assert (await wire.ask("NOOP")).startswith("250 ")
    assert lines == []


async def test_plain_words_on_port_465_get_no_answer(stage: Stage, tmp_path: Path, files: CertificateFiles) -> None:
    async with running_site(stage, tmp_path, certificate=files) as site:
        port = site.door("submissions").port
        async with wire_to(port) as wire:
            await wire.say("EHLO client.test")
            assert b"220" not in await wire.reader.read()
        async with greeted(port, tls=_trust_anything()) as wire:
            assert (await wire.ask("NOOP")).startswith("250 ")


async def test_without_a_certificate_port_465_stays_shut(stage: Stage, tmp_path: Path) -> None:
    async with running_site(stage, tmp_path, submissions_port=1) as site:
        assert [door.name for door in site.doors] == ["submission"]


async def _shown_after_starttls(site: Site) -> bytes | None:
    async with greeted(site.port) as wire:
        assert (await wire.ask("EHLO client.test", "STARTTLS")).startswith("220 ")
        await wire.start_tls(_trust_anything())
        return _shown(wire)


async def _shown_on_465(site: Site, server_name: str) -> bytes | None:
    async with greeted(site.door("submissions").port, tls=_trust_anything(), server_name=server_name) as wire:
        return _shown(wire)


def _shown(wire: Wire) -> bytes | None:
    tls: ssl.SSLObject = wire.writer.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True)


def _read(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def _trust_anything() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
