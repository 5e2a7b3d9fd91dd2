"""Which programs of the system does a test need? Without them it is skipped; in CI, which installs them, it fails."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin"
_DEBIAN_NODE_MODULES = "/usr/share/nodejs"


def require_tool(name: str) -> str:
    """Return the path of a program such as `postfix`; skip the test when it is missing, or fail it in CI."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}")
    if path is None:
        miss(f"{name} is not installed")
    return path


def require_node_module(name: str) -> dict[str, str]:
    """Return the environment in which `node` finds a module; skip the test when it is missing, or fail it in CI."""
    node = require_tool("node")
    environment = {**os.environ, "NODE_PATH": f"{_DEBIAN_NODE_MODULES}:{repository()}/build/clients/node_modules"}
    command = [node, "-e", f"require.resolve('{name}')"]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        miss(f"the node module {name} is not installed")
    return environment


def repository() -> Path:
    """Return the top of the checkout."""
    return Path(__file__).resolve().parents[2]


def miss(reason: str) -> NoReturn:
    """Skip the test that lacks something, or fail it in CI."""
    if os.environ.get("PLUNK_RELAY_CI"):
        pytest.fail(f"{reason}, and in CI every test has to run")
    pytest.skip(reason)
