"""How does a command reach the data? Through the running server, or on the file itself when no server runs."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
import uvloop

from plunk_relay.admin import ServerAway, ask_server, run_command
from plunk_relay.datadir import DirectoryLock, prepare_directory
from plunk_relay.errors import SetupError
from plunk_relay.log import configure_logging
from plunk_relay.serve import check_settings, database_path, open_relay
from plunk_relay.settings import Settings, load_settings
from plunk_relay.web.envelope import dump_json

T = TypeVar("T")
_PATIENCE_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.1
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option(*, used: bool = True) -> Decorator:
    """Add `--config`; commands that need no configuration take it too, and do not get it."""
    return click.option(
        "--config",
        "config_path",
        expose_value=used,
        type=click.Path(path_type=Path),
        help="Configuration file [default: $PLUNK_RELAY_CONFIG, else /etc/plunk-relay/plunk-relay.toml if it exists]",
    )


def json_option() -> Decorator:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def call(config_path: Path | None, command: str, **arguments: Any) -> Any:
    """Run a command of `plunk_relay.commands` and return its JSON value; raises RelayError with one line."""
    settings = _load(config_path)
    directory, database = settings.server.data_dir, database_path(settings)
    if not os.path.lexists(directory) or (os.access(directory, os.X_OK) and not os.path.lexists(database)):
        raise SetupError(f"there is no data in {directory}: make it with `plunk-relay setup`, or name another --config")
    return run_async(_call(settings, command, arguments))


def call_first(config_path: Path | None, command: str, **arguments: Any) -> Any:
    """Do the same as `call`, and make the data when there is none."""
    return run_async(_call(_load(config_path), command, arguments))


def _load(config_path: Path | None) -> Settings:
    settings = load_settings(config_path)
    check_settings(settings)
    configure_logging(settings.server.log_format, "warning")
    return settings


async def _call(settings: Settings, command: str, arguments: dict[str, Any]) -> Any:
    """Ask whoever has the data; wait a while for a server that is starting, or another command that is working."""
    directory = settings.server.data_dir
    prepare_directory(directory)
    lock = DirectoryLock(directory)
    looks = int(_PATIENCE_SECONDS / _LOOK_AGAIN_SECONDS)
    while not lock.acquire():
        try:
            return await ask_server(directory, command, arguments)
        except ServerAway:
            looks -= 1
            if not looks:
                raise
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    try:
        async with open_relay(settings) as relay:
            result = await run_command(relay, command, arguments)
            return orjson.loads(dump_json(result))
    finally:
        lock.release()


def show(value: Any, *, as_json: bool) -> None:
    """Print a command's value: JSON, or lines for people."""
    if as_json:
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
    else:
        for line in _lines(value, ""):
            click.echo(line)


def _lines(value: Any, indent: str) -> list[str]:
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _entry(key, item, indent)]
    if isinstance(value, list):
        return [line for item in value for line in [*_lines(item, indent), ""]][:-1] if value else [f"{indent}(none)"]
    return [f"{indent}{value}"]


def _entry(key: str, item: Any, indent: str) -> list[str]:
    label = key.replace("_", " ")
    if isinstance(item, dict | list) and item:
        return [f"{indent}{label}:", *_lines(item, indent + "  ")]
    return [f"{indent}{label}: {_word(item)}"]


def _word(item: Any) -> str:
    if item is None:
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    return "(none)" if isinstance(item, dict | list) else str(item)
