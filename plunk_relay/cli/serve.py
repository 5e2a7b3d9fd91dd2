"""`plunk-relay serve` and `migrate`."""

from pathlib import Path

import click

from plunk_relay.cli.run import config_option, json_option, run_async, show
from plunk_relay.db.migrate import list_migrations
from plunk_relay.log import configure_logging
from plunk_relay.serve import check_settings, lock_directory, open_relay, serve
from plunk_relay.settings import Settings, load_settings


@click.command("serve")
@config_option()
def serve_command(config_path: Path | None) -> None:
    """Run everything in one process, in the foreground. The log goes to stderr."""
    settings = load_settings(config_path)
    configure_logging(settings.server.log_format, settings.server.log_level)
    run_async(serve(settings))


@click.command()
@config_option()
@json_option()
def migrate(config_path: Path | None, as_json: bool) -> None:
    """Bring the database up to this version. `serve` does it, too."""
    settings = load_settings(config_path)
    check_settings(settings)
    configure_logging(settings.server.log_format, "warning")
    run_async(_migrate(settings))
    if as_json:
        show({"schema": list_migrations()[-1][0]}, as_json=True)
    else:
        click.echo("the database is up to date")


async def _migrate(settings: Settings) -> None:
    lock = lock_directory(settings)
    try:
        async with open_relay(settings):
            pass
    finally:
        lock.release()


COMMANDS = (serve_command, migrate)
