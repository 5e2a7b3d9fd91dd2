"""When is a certificate asked for, and what is on disk meanwhile? By the clock, and always a pair that fits."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from plunk_relay.acme.actions import acme_files, is_due, wanted_names
from plunk_relay.acme.files import AcmeFiles, Validity
from plunk_relay.acme.worker import WAITS, Keeper, run
from plunk_relay.clock import ManualClock
from plunk_relay.relay import Relay
from plunk_relay.smtp.certificate import AwaitedCertificate, Certificate
from tests.kit.certificates import make_certificate
from tests.kit.process import free_port
from tests.kit.relay import NOON, running_relay

NAMES = frozenset({"relay.test"})
NINETY_DAYS = Validity(NAMES, NOON, NOON + timedelta(days=90))
URL = "https://ca.test/directory"


@pytest.fixture
async def unlucky(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Relay]:
    """Open a relay whose authority does not answer."""
    acme = {"email": "op@example.com", "directory_url": f"https://127.0.0.1:{free_port()}/dir"}
    async with running_relay(tmp_path, clock=clock, acme=acme) as relay:
        yield relay


@pytest.mark.parametrize(
    ("validity", "names", "days", "due"),
    [
        (None, ("relay.test",), 0, True),
        (NINETY_DAYS, ("relay.test",), 0, False),
        (NINETY_DAYS, ("relay.test",), 59.9, False),
        (NINETY_DAYS, ("relay.test",), 60, True),
        (NINETY_DAYS, ("relay.test",), 91, True),
        (NINETY_DAYS, ("relay.test", "mx.relay.test"), 0, True),
        (NINETY_DAYS, ("mx.relay.test",), 0, True),
    ],
)
def test_certificate_is_due_after_two_thirds_of_its_life_or_when_the_names_change(
    validity: Validity | None, names: tuple[str, ...], days: float, due: bool
) -> None:
    assert is_due(validity, names, NOON + timedelta(days=days)) is due


async def test_failures_are_a_line_each_and_further_and_further_apart_up_to_a_day(
    unlucky: Relay, clock: ManualClock
) -> None:
    keeper = Keeper(unlucky)
    with capture_logs() as lines:
        for wait in (*WAITS, WAITS[-1]):
            await keeper.run_once()
            clock.advance(seconds=wait.total_seconds() - 1)
            await keeper.run_once()
            clock.advance(seconds=1)
    assert [(line["event"], line["log_level"]) for line in lines] == [("no certificate", "warning")] * len(lines)
    assert [line["again_minutes"] for line in lines] == [1, 5, 15, 60, 240, 720, 1440, 1440]
    assert all("127.0.0.1" in line["reason"] and "\n" not in line["reason"] for line in lines)


async def test_nothing_is_asked_for_while_the_server_stops(unlucky: Relay) -> None:
    unlucky.stopping.set()
    with capture_logs() as lines:
        await Keeper(unlucky).run_once()
    assert lines == []


async def test_a_failure_leaves_the_present_certificate_in_use(unlucky: Relay, clock: ManualClock, tmp_path: Path) -> None:
    files = acme_files(unlucky.settings)
    _store(files, tmp_path, "relay.test")
    before = files.certificate.read_bytes()
    clock.advance(days=3650)
    with capture_logs() as lines:
        await Keeper(unlucky).run_once()
    [line] = lines
    assert line["present_one_until"] is not None
    assert files.certificate.read_bytes() == before


async def test_the_account_s_key_is_made_once(unlucky: Relay, clock: ManualClock) -> None:
    keys = set()
    for _ in range(3):
        await Keeper(unlucky).run_once()
        keys.add((acme_files(unlucky.settings).certificate.parent / "account.key").read_bytes())
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("acme", "names"),
    [({}, ("relay.test",)), ({"names": ["MX.Example.com", "mail.example.com"]}, ("mx.example.com", "mail.example.com"))],
)
async def test_names_are_those_of_the_setting_else_our_own(
    tmp_path: Path, acme: dict[str, Any], names: tuple[str, ...]
) -> None:
    async with running_relay(tmp_path, acme=acme) as relay:
        assert wanted_names(relay) == names


def test_key_and_certificate_are_replaced_in_one_step(tmp_path: Path) -> None:
    files = AcmeFiles(tmp_path, URL)
    source = AwaitedCertificate(files.certificate)
    assert source.context() is None
    _store(files, tmp_path, "relay.test")
    first = source.context()
    assert first is not None
    _store(files, tmp_path, "other.test")
    assert source.context() not in (None, first)
    assert [path.name for path in files.certificate.parent.iterdir()] == ["certificate.pem"]
    assert isinstance(Certificate(files.certificate, files.certificate).context(), ssl.SSLContext)


def test_a_write_that_fails_leaves_the_old_certificate(tmp_path: Path) -> None:
    files = AcmeFiles(tmp_path, URL)
    _store(files, tmp_path, "relay.test")
    before = files.certificate.read_bytes()
    (files.certificate.parent / "certificate.new").mkdir()  # as good as a disk that is full
    with pytest.raises(OSError, match=r"certificate\.new"):
        _store(files, tmp_path, "other.test")
    assert files.certificate.read_bytes() == before


def test_half_a_file_that_a_crash_left_is_not_read(tmp_path: Path) -> None:
    files = AcmeFiles(tmp_path, URL)
    _store(files, tmp_path, "relay.test")
    (files.certificate.parent / "certificate.new").write_text("-----BEGIN PRIV")
    validity = files.read_validity()
    assert validity is not None
    assert validity.names == NAMES
    _store(files, tmp_path, "other.test")
    assert [path.name for path in files.certificate.parent.iterdir()] == ["certificate.pem"]


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_counts_as_none(tmp_path: Path, content: str) -> None:
    files = AcmeFiles(tmp_path, URL)
    files.store_certificate("", content)
    assert files.read_validity() is None
    assert AwaitedCertificate(files.certificate).context() is None


def test_each_authority_has_files_of_its_own(tmp_path: Path) -> None:
    urls = ["https://ca.test/directory", "https://ca.test:444/directory", "https://staging.ca.test/directory"]
    kept = {AcmeFiles(tmp_path, url).certificate for url in urls}
    assert len(kept) == len(urls)
    assert {path.parents[1] for path in kept} == {tmp_path / "acme"}


def test_files_stay_below_the_data_directory_whatever_the_url(tmp_path: Path) -> None:
    for url in ("https://../../x", "https://", "https://..", "https:///etc"):
        kept = AcmeFiles(tmp_path, url).certificate
        assert (tmp_path / "acme").resolve() in kept.resolve().parents


def test_without_the_library_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[acme]\nemail = 'op@example.com'\n")
    without = "import sys; sys.modules['acme'] = None; from plunk_relay.cli import main; main()"
    command = [sys.executable, "-c", without, "config", "check", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{sys.executable} -m pip install acme josepy" in done.stderr
    assert "`acme.email`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    look = "import sys, plunk_relay.serve; sys.exit('acme' in sys.modules or 'requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


async def test_nothing_is_done_unless_it_is_set(relay: Relay) -> None:
    with capture_logs() as lines:
        await run(relay, asyncio.Event())
    assert lines == []
    assert not acme_files(relay.settings).certificate.parent.exists()


def _store(files: AcmeFiles, directory: Path, name: str) -> None:
    made = make_certificate(directory, (name,))
    files.store_certificate(made.key.read_text(), made.certificate.read_text())
