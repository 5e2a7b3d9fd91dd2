"""`plunk-relay queue` and `audit`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from plunk_relay.cli.run import call, config_option, json_option, show

_STATES = ("queued", "held", "delivered", "bounced", "expired", "suppressed", "cancelled", "failed")


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters that list, hold, release and cancel share."""
    for option in (
        click.option("--older-than", "older_than_minutes", type=float, help="Accepted at least so many minutes ago"),
        click.option("--status", type=click.Choice(_STATES), help="Only in this state"),
        click.option("--domain", help="Only to this recipient domain"),
        click.option("--project", help="Only of this project"),
    ):
        function = option(function)
    return function


@click.group()
def queue() -> None:
    """Mail on its way. ID is a queue id, or the mail's id."""


@queue.command("list")
@config_option()
@json_option()
@_filters
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10000), help="Most entries shown")
def queue_list(config_path: Path | None, as_json: bool, **filters: Any) -> None:
    """List deliveries, newest first."""
    found = call(config_path, "queue_list", **filters)
    if as_json:
        show(found, as_json=True)
        return
    for entry in found:
        click.echo(
            f"{entry['id']}  {entry['state']:<9}  {entry['sender']} -> {entry['recipient']}  {entry['last_reply'] or ''}"
        )


@queue.command("show")
@config_option()
@json_option()
@click.argument("delivery")
@click.option("--message", is_flag=True, help="With the message that the route capture kept")
def queue_show(config_path: Path | None, as_json: bool, delivery: str, message: bool) -> None:
    """Show a delivery with every attempt's conversation."""
    show(call(config_path, "queue_show", delivery=delivery, message=message), as_json=as_json)


@queue.command("retry")
@config_option()
@json_option()
@click.argument("deliveries", nargs=-1, required=True)
def queue_retry(config_path: Path | None, as_json: bool, deliveries: tuple[str, ...]) -> None:
    """Try queued deliveries now."""
    show(call(config_path, "queue_retry", deliveries=list(deliveries)), as_json=as_json)


def _changing(name: str, text: str) -> click.Command:
    @click.command(name, help=text)
    @config_option()
    @json_option()
    @_filters
    @click.argument("deliveries", nargs=-1)
    def change(config_path: Path | None, as_json: bool, deliveries: tuple[str, ...], **filters: Any) -> None:
        if not deliveries and not any(filters.values()):
            raise click.UsageError("name the deliveries by id, or choose them with --project, --domain or --older-than")
        chosen = {"deliveries": list(deliveries)} if deliveries else {}
        show(call(config_path, f"queue_{name}", **chosen, **filters), as_json=as_json)

    return change


queue.add_command(_changing("hold", "Put queued deliveries on hold."))
queue.add_command(_changing("release", "Queue held deliveries again."))
queue.add_command(_changing("cancel", "Give queued or held deliveries up."))


@queue.command("stats")
@config_option()
@json_option()
def queue_stats(config_path: Path | None, as_json: bool) -> None:
    """Count deliveries by state."""
    show(call(config_path, "queue_stats"), as_json=as_json)


@queue.command("providers")
@config_option()
@json_option()
def queue_providers(config_path: Path | None, as_json: bool) -> None:
    """List mail providers that do not get mail as usual.

    They are slowed down, paused, or reached by the smarthost (fallback).
    """
    found = call(config_path, "queue_providers")
    if as_json:
        show(found, as_json=True)
        return
    for entry in found:
        click.echo(f"{entry['provider']:<20}  {_provider_state(entry)}  {entry['reason'] or ''}")


def _provider_state(entry: dict[str, Any]) -> str:
    if entry["fallback_since"]:
        return f"by the smarthost since {entry['fallback_since']}, tried directly {entry['probe_at']}"
    if entry["paused_until"]:
        return f"paused until {entry['paused_until']}"
    return f"at {entry['pace']} % of its pace"


@queue.command("resume")
@config_option()
@json_option()
@click.argument("provider")
def queue_resume(config_path: Path | None, as_json: bool, provider: str) -> None:
    """Send to a provider directly and at full pace again."""
    show(call(config_path, "queue_resume", provider=provider), as_json=as_json)


@click.command()
@config_option()
@json_option()
def audit(config_path: Path | None, as_json: bool) -> None:
    """Prove that every accepted mail is accounted for. Ends with 1 when it is not."""
    ledger = call(config_path, "audit")
    show(ledger, as_json=as_json)
    if not ledger["balanced"]:
        raise SystemExit(1)


COMMANDS = (queue, audit)
