"""What does an operator type? One command group a file; a mistake is answered with one line, never with a traceback."""

import sys

import click

from plunk_relay import __version__
from plunk_relay.cli import config, data, dev, queue, serve
from plunk_relay.errors import RelayError, SetupError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Plunk Relay: mail in by SMTP and HTTP, signed and delivered by your own server."""


@cli.command()
def version() -> None:
    """Show the version."""
    click.echo(__version__)


for command in (*serve.COMMANDS, *dev.COMMANDS, *data.COMMANDS, *queue.COMMANDS, *config.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage or configuration."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except SetupError as error:
        click.echo(f"plunk-relay: {error.message}", err=True)
        sys.exit(error.exit_code)
    except RelayError as error:
        click.echo(f"plunk-relay: {error.message}", err=True)
        sys.exit(1)
