"""`plunk-relay suppressions`."""

from pathlib import Path

import click

from plunk_relay.cli.run import call, config_option, json_option, show

_project_option = click.option("--project", required=True, help="Whose list")


@click.group()
def suppressions() -> None:
    """Addresses that get no mail. They bounced, complained, or were entered. PROJECT is an id or a unique name."""


@suppressions.command("list")
@config_option()
@json_option()
@_project_option
@click.option("--search", help="Only addresses that begin so")
@click.option("--reason", type=click.Choice(("bounce", "complaint", "manual")), help="Only with this reason")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10000), help="Most entries shown")
def suppressions_list(
    config_path: Path | None, as_json: bool, project: str, search: str | None, reason: str | None, limit: int
) -> None:
    """List addresses, newest first."""
    found = call(config_path, "suppressions_list", project=project, search=search, reason=reason, limit=limit)
    if as_json:
        show(found, as_json=True)
        return
    for entry in found:
        click.echo(f"{entry['created']}  {entry['reason']:<9}  {entry['email']}  {entry['detail'] or ''}".rstrip())


@suppressions.command("add")
@config_option()
@json_option()
@_project_option
@click.option("--note", help="Why; kept with the entry")
@click.argument("emails", nargs=-1, required=True)
def suppressions_add(
    config_path: Path | None, as_json: bool, project: str, note: str | None, emails: tuple[str, ...]
) -> None:
    """Hold all mail to addresses."""
    show(call(config_path, "suppressions_add", project=project, emails=list(emails), note=note), as_json=as_json)


@suppressions.command("remove")
@config_option()
@json_option()
@_project_option
@click.argument("emails", nargs=-1, required=True)
def suppressions_remove(config_path: Path | None, as_json: bool, project: str, emails: tuple[str, ...]) -> None:
    """Send to addresses again. Mail that was held is not sent."""
    show(call(config_path, "suppressions_remove", project=project, emails=list(emails)), as_json=as_json)


COMMANDS = (suppressions,)
