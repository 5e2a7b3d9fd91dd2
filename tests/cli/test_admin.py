"""How does the command line reach a running server, and who else could?"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.admin import AdminSocket, ServerAway, ask_server, socket_path
from plunk_relay.datadir import DirectoryLock
from plunk_relay.errors import SetupError
from plunk_relay.projects.actions import get_project
from plunk_relay.serve import open_relay
from plunk_relay.settings import load_settings
from tests.cli.conftest import running_server
from tests.kit.cli import run_cli


@pytest.fixture
def directory(made: dict[str, Any], config: Path) -> Path:
    """Return the data directory, with data."""
    return config.parent / "data"


async def test_only_the_owner_may_open_the_socket(directory: Path, config: Path) -> None:
    async with running_server(config):
        assert [_mode(path) for path in (socket_path(directory), directory)] == [0o600, 0o700]


async def test_the_socket_goes_with_the_server(directory: Path, config: Path) -> None:
    async with running_server(config):
        assert socket_path(directory).exists()
    assert not socket_path(directory).exists()


async def test_a_socket_that_a_dead_server_left_does_not_matter(directory: Path, config: Path) -> None:
    socket_path(directory).touch()
    assert (await asyncio.to_thread(run_cli, "audit", "--config", config)).code == 0
    async with running_server(config):
        assert (await asyncio.to_thread(run_cli, "audit", "--config", config)).code == 0


async def test_a_path_too_long_for_a_socket_is_one_clear_line(config: Path, environment: dict[str, str]) -> None:
    directory = config.parent / ("long" * 30)
    environment["PLUNK_RELAY_SERVER__DATA_DIR"] = str(directory)
    with pytest.raises(SetupError) as caught:
        async with running_server(config):
            pass
    assert caught.value.message.startswith(f"cannot make the admin socket {directory}")
    assert "\n" not in caught.value.message


async def test_what_a_command_changes_is_felt_by_the_server_at_once(
    directory: Path, config: Path, made: dict[str, Any]
) -> None:
    async with running_server(config) as relay:
        assert (await get_project(relay, made["project"]["id"])).disabled is False
        await asyncio.to_thread(run_cli, "projects", "disable", "acme", "--config", config)
        assert (await get_project(relay, made["project"]["id"])).disabled is True


async def test_a_command_that_the_server_does_not_know_is_refused_with_its_name(directory: Path, config: Path) -> None:
    async with running_server(config):
        with pytest.raises(SetupError, match="does not know the command fly: it may be of another version"):
            await ask_server(directory, "fly", {})


@pytest.mark.parametrize(
    "line", [b"no json\n", b"[]\n", b"{}\n", b'{"command":"audit"}\n', b'{"command":"audit","arguments":{"a":1}}\n']
)
async def test_what_is_no_command_is_answered_and_the_server_lives_on(directory: Path, config: Path, line: bytes) -> None:
    async with running_server(config):
        assert b'"error"' in await _say(directory, line)
        assert (await ask_server(directory, "audit", {}))["balanced"] is True


async def test_a_line_without_end_is_not_kept(directory: Path, config: Path) -> None:
    async with running_server(config):
        assert await _say(directory, b"x" * 1_100_000) == b""
        assert (await ask_server(directory, "audit", {}))["balanced"] is True


async def test_a_command_waits_for_another_one_to_end(directory: Path, config: Path) -> None:
    lock = DirectoryLock(directory)
    assert lock.acquire()
    waiting = asyncio.create_task(asyncio.to_thread(run_cli, "audit", "--config", config))
    with pytest.raises(ServerAway):
        await ask_server(directory, "audit", {})
    assert not waiting.done()
    lock.release()
    assert (await waiting).code == 0


async def test_a_command_waits_for_a_server_that_is_starting(directory: Path, config: Path) -> None:
    lock = DirectoryLock(directory)
    assert lock.acquire()
    waiting = asyncio.create_task(asyncio.to_thread(run_cli, "audit", "--config", config))
    async with open_relay(load_settings(config)) as relay:
        admin, stop = AdminSocket(relay), asyncio.Event()
        await admin.open()
        answering = asyncio.create_task(admin.run(stop))
        assert (await waiting).code == 0
        stop.set()
        await answering
    lock.release()


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def _say(directory: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket_path(directory)))
    try:
        writer.write(line)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()
