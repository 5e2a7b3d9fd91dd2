"""Will systemd take the unit as it is, and does it fence the process in?"""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from plunk_relay.sections import ServerSettings
from tests.kit.tools import repository, require_tool

UNIT = repository() / "systemd" / "plunk-relay.service"
EXPOSURE_AT_MOST = 20  # tenths; systemd calls 2.0 "OK", a service without any fence is 9.6


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return a copy whose program is one that exists on this machine."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/plunk-relay", sys.executable))
    return copy


def test_systemd_finds_nothing_to_remark(unit: Path) -> None:
    done = _analyze("verify", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_setting_that_systemd_does_not_know_would_be_noticed(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in _analyze("verify", str(unit)).stderr


def test_the_unit_is_hardened(unit: Path) -> None:
    done = _analyze("security", "--no-pager", "--offline=yes", f"--threshold={EXPOSURE_AT_MOST}", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_state_directory_is_the_default_data_directory() -> None:
    default = ServerSettings.model_fields["data_dir"].default
    assert Path("/var/lib") / _service()["StateDirectory"] == default


def test_systemd_waits_longer_than_the_grace_of_a_stop() -> None:
    default = ServerSettings.model_fields["grace_seconds"].default
    assert float(_service()["TimeoutStopSec"]) > default


def test_a_bad_configuration_is_not_tried_again_and_again() -> None:
    assert _service()["RestartPreventExitStatus"] == "2"


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require_tool("systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read(UNIT)
    return parser["Service"]
