"""What can every test of the command line ask for? A configuration with a directory of its own, and no environment."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.admin import AdminSocket
from plunk_relay.relay import Relay
from plunk_relay.serve import lock_directory, open_relay
from plunk_relay.settings import load_settings
from tests.kit.cli import Done, run_cli
from tests.kit.dns import DnsTable, running_dns

USER = ("--email", "op@example.com", "--password", "password")
SETUP = ("setup", *USER, "--project", "acme", "--domain", "example.com", "--trust", "--json")


@pytest.fixture(autouse=True)
def environment() -> Iterator[dict[str, str]]:
    """Take the product's variables away; the test may set some, which go again."""
    before = {name: value for name, value in os.environ.items() if name.startswith("PLUNK_RELAY_")}
    for name in before:
        del os.environ[name]
    yield os.environ  # type: ignore[misc]  # it behaves like one
    for name in [name for name in os.environ if name.startswith("PLUNK_RELAY_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration that captures mail and listens nowhere public."""
    path = tmp_path / "relay.toml"
    path.write_text(
        f"""
[server]
data_dir = "{tmp_path}/data"
log_format = "json"
[http]
port = 0
[smtp]
hostname = "relay.test"
host = "127.0.0.1"
submission_port = 0
submissions_port = 0
inbound_port = 0
auth_without_tls = true
[delivery]
route = "capture"
resolvers = ["127.0.0.1:9"]
[limits]
minimum_free_megabytes = 1
"""
    )
    return path


Typing = Callable[..., Awaitable[Done]]
"""Types a command, with `--config`: `await pr("queue", "list")`."""


@pytest.fixture(scope="session")
def first_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Make a user, a project and a trusted domain once; return their directory and what `setup` printed."""
    directory = tmp_path_factory.mktemp("first")
    settings = directory / "relay.toml"
    settings.write_text(f"[server]\ndata_dir = '{directory}/data'\n[smtp]\nhostname = 'relay.test'\n")
    return directory / "data", run_cli(*SETUP, "--config", settings).json()


@pytest.fixture
def made(first_data: tuple[Path, dict[str, Any]], config: Path) -> dict[str, Any]:
    """Begin with a user, the project acme and its domain; to be named before `pr`."""
    directory, printed = first_data
    shutil.copytree(directory, config.parent / "data")
    return printed


@pytest.fixture
async def dns(environment: dict[str, str]) -> AsyncIterator[DnsTable]:
    """Answer the product's look-ups; to be named before `pr`."""
    table = DnsTable()
    async with running_dns(table) as address:
        environment["PLUNK_RELAY_DELIVERY__RESOLVERS"] = address
        yield table


@pytest.fixture(params=["on the file", "through the server"])
async def pr(request: pytest.FixtureRequest, config: Path) -> AsyncIterator[Typing]:
    """Type commands, once with no server running and once through the admin socket of one."""

    async def typing(*arguments: str, stdin: str = "") -> Done:
        return await asyncio.to_thread(run_cli, *arguments, "--config", config, stdin=stdin)

    if request.param == "on the file":
        yield typing
        return
    async with running_server(config):
        yield typing


@asynccontextmanager
async def running_server(config: Path) -> AsyncIterator[Relay]:
    """Run what the command line sees of a server: it has the directory's lock, and answers at the admin socket."""
    settings = load_settings(config)
    lock = lock_directory(settings)
    try:
        async with open_relay(settings) as relay:
            admin, stop = AdminSocket(relay), asyncio.Event()
            await admin.open()
            answering = asyncio.create_task(admin.run(stop))
            yield relay
            stop.set()
            await answering
    finally:
        lock.release()
