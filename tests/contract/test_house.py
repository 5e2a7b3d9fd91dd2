"""Do the files around the code keep their word: the Makefile, the locks, config/dev.toml and the README?"""

import ipaddress
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from plunk_relay.settings import load_settings
from tests.kit.tools import repository, require_tool

TARGETS = {"run", "test", "lint", "bench", "binary"}
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def test_make_works_from_any_directory(tmp_path: Path) -> None:
    done = _make(tmp_path, "-f", str(repository() / "Makefile"), "help")
    assert done.returncode == 0, done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines()} >= TARGETS


@pytest.mark.parametrize("target", ["run", "test"])
def test_an_interpreter_that_will_not_do_is_one_clear_line(tmp_path: Path, target: str) -> None:
    shutil.copy(repository() / "Makefile", tmp_path)
    for name in (*LOCKS, "pyproject.toml"):
        (tmp_path / name).touch()
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = _make(tmp_path, target, f"PYTHON={old}")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert f"make {target} PYTHON=python3.11" in said[0]
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_one_version_and_hashes(lock: str) -> None:
    requirements = (repository() / lock).read_text().replace("\\\n", " ").splitlines()
    assert [line for line in requirements if not re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_direct_dependency_is_locked(lock: str) -> None:
    project = tomllib.loads((repository() / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"]["dev"] if "dev" in lock else [])]
    assert {_package(line) for line in wanted} <= _locked(lock)


def test_both_locks_agree() -> None:
    runtime, dev = ((repository() / lock).read_text() for lock in LOCKS)
    pins = re.findall(r"^([a-z0-9.-]+==\S+)", runtime, flags=re.MULTILINE)
    assert [pin for pin in pins if f"{pin} " not in dev] == []


def test_the_dev_configuration_stays_on_loopback_and_sends_nothing() -> None:
    settings = load_settings(repository() / "config" / "dev.toml")
    assert ipaddress.ip_address(settings.http.host).is_loopback
    assert ipaddress.ip_address(settings.smtp.host).is_loopback
    assert settings.delivery.route == "capture"


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", (repository() / "README.md").read_text())
    assert [link for link in links if not (repository() / link).exists()] == []


def _make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require_tool("make"), "--no-print-directory", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _package(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()


def _locked(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", (repository() / lock).read_text(), flags=re.MULTILINE))
