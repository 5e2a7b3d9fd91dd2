"""What does an operator type? One command group a file; a mistake is answered with one line, never with a traceback."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from plunk_relay import __version__
from plunk_relay.cli import config, data, dev, queue, serve, suppressions
from plunk_relay.cli.run import config_option, json_option, show
from plunk_relay.errors import RelayError, SetupError, describe


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Plunk Relay: mail in by SMTP and HTTP, signed and delivered by your own server."""


@cli.command()
@config_option(used=False)
@json_option()
def version(as_json: bool) -> None:
    """Show the version."""
    if as_json:
        show({"version": __version__}, as_json=True)
    else:
        click.echo(__version__)


for command in (*serve.COMMANDS, *dev.COMMANDS, *data.COMMANDS, *queue.COMMANDS, *suppressions.COMMANDS, *config.COMMANDS):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or configuration."""
    os.umask(0o077)  # whatever we write is nobody else's to read
    try:
        cli.main(arguments, "plunk-relay", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("aborted", 1)
    except RelayError as error:
        _fail(describe(error), error.exit_code if isinstance(error, SetupError) else 1)


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"plunk-relay: {message}", err=True)
    sys.exit(exit_code)
