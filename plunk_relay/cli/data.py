"""`plunk-relay setup`, `users`, `projects`, `domains`."""

import sys
from pathlib import Path

import click

from plunk_relay.cli.run import call, call_first, config_option, json_option, show


def _ask_for_password(_context: click.Context, _option: click.Parameter, given: str | None) -> str:
    """Take the password from the option, else from a person at the terminal, else from standard input."""
    if given is None and sys.stdin.isatty():
        answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return answer
    password = given if given is not None else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("give --password, or write the password to standard input")
    return password


_password_option = click.option(
    "--password", callback=_ask_for_password, help="Password; not given: asked for, or read from standard input"
)


@click.command()
@config_option()
@json_option()
@click.option("--email", required=True, help="Address of the first user")
@click.option("--project", required=True, help="Name of the project")
@click.option("--password", help="Password of the user [default: a random one, which `users password` replaces]")
@click.option("--domain", help="Sending domain to add")
@click.option("--trust", is_flag=True, help="Count the domain as verified, for internal networks")
def setup(
    config_path: Path | None,
    as_json: bool,
    email: str,
    project: str,
    password: str | None,
    domain: str | None,
    trust: bool,
) -> None:
    """Make the first user, project and domain. Safe to repeat."""
    made = call_first(config_path, "setup", email=email, project=project, password=password, domain=domain, trust=trust)
    show(made, as_json=as_json)


@click.group()
def users() -> None:
    """People who may sign in."""


@users.command("list")
@config_option()
@json_option()
def users_list(config_path: Path | None, as_json: bool) -> None:
    """List users."""
    show(call(config_path, "users_list"), as_json=as_json)


@users.command("create")
@config_option()
@json_option()
@click.argument("email")
@_password_option
def users_create(config_path: Path | None, as_json: bool, email: str, password: str) -> None:
    """Make a user."""
    show(call(config_path, "users_create", email=email, password=password), as_json=as_json)


@users.command("password")
@config_option()
@json_option()
@click.argument("email")
@_password_option
def users_password(config_path: Path | None, as_json: bool, email: str, password: str) -> None:
    """Set a user's password."""
    show(call(config_path, "users_password", email=email, password=password), as_json=as_json)


@click.group()
def projects() -> None:
    """Tenants with their API keys. PROJECT is an id or a unique name."""


@projects.command("list")
@config_option()
@json_option()
def projects_list(config_path: Path | None, as_json: bool) -> None:
    """List projects."""
    show(call(config_path, "projects_list"), as_json=as_json)


@projects.command("create")
@config_option()
@json_option()
@click.argument("name")
@click.option("--owner", help="Address of the user who owns it")
def projects_create(config_path: Path | None, as_json: bool, name: str, owner: str | None) -> None:
    """Make a project and show its keys."""
    show(call(config_path, "projects_create", name=name, owner=owner), as_json=as_json)


@projects.command("keys")
@config_option()
@json_option()
@click.argument("project")
@click.option("--rotate", is_flag=True, help="Replace both keys; the old ones stop working at once")
def projects_keys(config_path: Path | None, as_json: bool, project: str, rotate: bool) -> None:
    """Show a project's keys."""
    show(call(config_path, "projects_keys", project=project, rotate=rotate), as_json=as_json)


@projects.command("disable")
@config_option()
@json_option()
@click.argument("project")
def projects_disable(config_path: Path | None, as_json: bool, project: str) -> None:
    """Refuse the project's writes; its queued mail fails."""
    show(call(config_path, "projects_disable", project=project), as_json=as_json)


@projects.command("enable")
@config_option()
@json_option()
@click.argument("project")
def projects_enable(config_path: Path | None, as_json: bool, project: str) -> None:
    """Accept the project's writes again."""
    show(call(config_path, "projects_enable", project=project), as_json=as_json)


@click.group()
def domains() -> None:
    """Sending domains and the DNS records they need."""


@domains.command("list")
@config_option()
@json_option()
@click.option("--project", help="Only this project's")
def domains_list(config_path: Path | None, as_json: bool, project: str | None) -> None:
    """List domains with their records."""
    show(call(config_path, "domains_list", project=project), as_json=as_json)


@domains.command("add")
@config_option()
@json_option()
@click.argument("domain")
@click.option("--project", required=True, help="Project that may send from it")
@click.option("--trust", is_flag=True, help="Count it as verified, for internal networks")
def domains_add(config_path: Path | None, as_json: bool, domain: str, project: str, trust: bool) -> None:
    """Add a domain and show the records to publish."""
    show(call(config_path, "domains_add", project=project, domain=domain, trust=trust), as_json=as_json)


@domains.command("verify")
@config_option()
@json_option()
@click.argument("domain")
def domains_verify(config_path: Path | None, as_json: bool, domain: str) -> None:
    """Look the domain's records up now."""
    show(call(config_path, "domains_verify", domain=domain), as_json=as_json)


@domains.command("trust")
@config_option()
@json_option()
@click.argument("domain")
def domains_trust(config_path: Path | None, as_json: bool, domain: str) -> None:
    """Count the domain as verified by your word. The DNS is not asked."""
    show(call(config_path, "domains_trust", domain=domain), as_json=as_json)


@domains.command("receive")
@config_option()
@json_option()
@click.argument("domain")
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
def domains_receive(config_path: Path | None, as_json: bool, domain: str, switch: str) -> None:
    """Accept mail to the domain, or stop that. Shows the MX record it needs."""
    show(call(config_path, "domains_receive", domain=domain, receiving=switch == "on"), as_json=as_json)


@domains.command("rotate")
@config_option()
@json_option()
@click.argument("domain")
def domains_rotate(config_path: Path | None, as_json: bool, domain: str) -> None:
    """Give the domain new DKIM keys. The old ones sign until the new record is found."""
    show(call(config_path, "domains_rotate", domain=domain), as_json=as_json)


COMMANDS = (setup, users, projects, domains)
