"""Run the command line: `python -m plunk_relay`."""

from plunk_relay.cli import main

main()
