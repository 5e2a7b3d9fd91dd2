"""How does the command line reach a running server? Through a socket in the data directory, one JSON line each way.

Whoever may open the socket may do everything: its mode is 600 and the directory's 700. The commands themselves are in
`commands.py`; without a server the command line runs the same functions on the file itself.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson

from plunk_relay.commands import COMMANDS
from plunk_relay.errors import RelayError, SetupError, UsageError, describe
from plunk_relay.log import get_logger
from plunk_relay.relay import Relay
from plunk_relay.web.envelope import dump_json

log = get_logger("admin")
_LONGEST_LINE = 1_000_000


def socket_path(directory: Path) -> Path:
    """Return where the socket is."""
    return directory / "admin.sock"


class AdminSocket:
    """The server's end."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._path = socket_path(relay.settings.server.data_dir)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; raises SetupError when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._answer, path=str(self._path), limit=_LONGEST_LINE)
            self._path.chmod(0o600)
        except OSError as error:  # the whole path is limited to about 100 bytes: unix(7)
            raise SetupError(f"cannot make the admin socket {self._path}: {error.strerror or error}") from error

    async def run(self, stop: asyncio.Event) -> None:
        """Answer commands until `stop`; after `open`."""
        assert self._server is not None  # noqa: S101  open() set it
        async with self._server:
            await stop.wait()
        self._path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10)
            writer.write(dump_json(await self._run(line)) + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            return
        finally:
            writer.close()

    async def _run(self, line: bytes) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
            return {"result": await run_command(self._relay, request["command"], request["arguments"])}
        except RelayError as error:
            return {"error": describe(error)}
        except Exception:
            log.exception("command failed")
            return {"error": "the server could not carry out the command; its log tells why"}


async def run_command(relay: Relay, command: str, arguments: dict[str, Any]) -> object:
    """Run a command by name; raises UsageError for a name this version does not know."""
    if command not in COMMANDS:
        raise UsageError(f"this server does not know the command {command}: it may be of another version")
    return await COMMANDS[command](relay, **arguments)


class ServerAway(SetupError):
    """Somebody has the data directory and does not answer: a server that is starting or stopping, or a command."""


async def ask_server(directory: Path, command: str, arguments: dict[str, Any]) -> Any:
    """Send a command to the running server and return its result; raises SetupError with what it says."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket_path(directory)), limit=64 * _LONGEST_LINE)
    except OSError as error:
        text = os.strerror(error.errno or 0)
        raise ServerAway(f"another process has the data directory {directory}, but cannot be asked: {text}") from error
    try:
        writer.write(dump_json({"command": command, "arguments": arguments}) + b"\n")
        await writer.drain()
        answer = orjson.loads(await reader.readline() or b'{"error":"the server closed the connection"}')
    finally:
        writer.close()
    if "error" in answer:
        raise SetupError(answer["error"])
    return answer["result"]
