"""How does a command reach the data? Through the running server, or on the file itself when no server runs."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
import uvloop

from plunk_relay.admin import ask_server, run_command
from plunk_relay.datadir import DirectoryLock, prepare_directory
from plunk_relay.errors import SetupError, UsageError
from plunk_relay.log import configure_logging
from plunk_relay.serve import open_relay
from plunk_relay.settings import Settings, load_settings
from plunk_relay.web.envelope import dump_json

T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option() -> Decorator:
    """Add `--config`."""
    return click.option(
        "--config",
        "config_path",
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
    """Run a command of `plunk_relay.commands` and return its JSON value; raises SetupError with one line."""
    settings = load_settings(config_path)
    configure_logging(settings.server.log_format, "warning")
    return run_async(_call(settings, command, arguments))


async def _call(settings: Settings, command: str, arguments: dict[str, Any]) -> Any:
    directory = settings.server.data_dir
    prepare_directory(directory)
    lock = DirectoryLock(directory)
    if not lock.acquire():
        return await ask_server(directory, command, arguments)
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


__all__ = ["SetupError", "UsageError", "call", "config_option", "json_option", "run_async", "show"]
