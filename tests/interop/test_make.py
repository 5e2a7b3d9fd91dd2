"""Do the two ways to a running relay work for somebody who has only the repository: `make run` and `make binary`?

Both start in a fresh clone of the last commit, with a home directory that is empty and has to stay so.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.interop.dev import run_shell, running_dev
from tests.kit.tools import repository, require_tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_INSTALLING_SECONDS = 600.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty home directory."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return an environment in which `python3` is the interpreter that the suite was installed with."""
    path = f"{sys.base_prefix}/bin:{os.environ['PATH']}"
    rust = tmp_path_factory.mktemp("rust")  # pip asks rustc for its version, and rustup then makes itself a directory
    return {**os.environ, "HOME": str(home), "PATH": path, "RUSTUP_HOME": str(rust)}


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """Clone the last commit; nothing is there to run it with yet. Packages fill it, so it is not kept afterwards."""
    if not (repository() / ".git").exists():
        pytest.skip("this is not a clone")
    with tempfile.TemporaryDirectory() as parent:
        _need_package_index(parent)
        directory = Path(parent) / "plunk-relay"
        source = f"file://{repository()}"
        subprocess.run([require_tool("git"), "clone", "--quiet", "--depth=1", source, str(directory)], check=True)
        yield directory


def test_make_run_in_a_fresh_clone_takes_mail(clone: Path, home: Path, environment: Mapping[str, str]) -> None:
    make = require_tool("make")
    with running_dev(
        lambda options: [make, "run", f"ARGS={options}"],
        clone,
        environment=environment,
        starting_seconds=_INSTALLING_SECONDS,
    ) as server:
        assert json.loads(run_shell(server.curl_line, clone))["success"]
    assert list(home.iterdir()) == []
    assert run_shell("git status --porcelain", clone) == ""


def test_make_binary_makes_a_program_that_needs_no_python(
    clone: Path, home: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    if not os.environ.get("PLUNK_RELAY_CI"):
        pytest.skip("takes minutes; PLUNK_RELAY_CI=1 makes it run")
    require_tool("objcopy")
    said = run_shell("make binary", clone, environment)
    assert run_shell("git status --porcelain", clone) == ""
    program = Path(shutil.copy(clone / "dist" / "plunk-relay", tmp_path))
    with running_dev(lambda options: [str(program), "dev", *options.split()], tmp_path, environment={}) as server:
        assert json.loads(run_shell(server.curl_line, tmp_path))["success"]
    assert run_shell(f"{program} version", tmp_path).strip() in said.splitlines()
    assert list(home.iterdir()) == []


def _need_package_index(directory: str) -> None:
    """Skip where packages cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=0", "--timeout=15"]
    done = subprocess.run([*command, "--dest", directory, "idna"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("there is no package index to install from")
