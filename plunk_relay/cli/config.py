"""`plunk-relay config` and `openapi`."""

from pathlib import Path
from typing import Any

import click
import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plunk_relay import __version__
from plunk_relay.app import FEATURES
from plunk_relay.cli.run import config_option, json_option, show
from plunk_relay.delivery.routes import RouteTable
from plunk_relay.settings import DeliveryRoute, Settings, TrustedNetwork, load_settings
from plunk_relay.web.meta import health, ready
from plunk_relay.web.openapi import build_document

_SECRETS = frozenset({"secret_key", "smarthost_url"})
_TABLES: dict[str, type[BaseModel]] = {"smtp.trusted": TrustedNetwork, "delivery.routes": DeliveryRoute}


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@config_option()
def config_check(config_path: Path | None) -> None:
    """Say whether the configuration is valid."""
    RouteTable(load_settings(config_path).delivery)
    click.echo("the configuration is valid")


@config.command("show")
@config_option()
@json_option()
def config_show(config_path: Path | None, as_json: bool) -> None:
    """Show the settings in force; secrets are not shown."""
    values = load_settings(config_path).model_dump(mode="json")
    show({section: _without_secrets(keys) for section, keys in values.items()}, as_json=as_json)


@config.command("docs")
def config_docs() -> None:
    """Print a configuration file with every setting, its meaning and default."""
    click.echo(render_config(), nl=False)


@click.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    document = build_document([*FEATURES, health, ready], version=__version__, server_url="http://127.0.0.1:8080")
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def render_config() -> str:
    """Return the text of config/plunk-relay.toml."""
    lines = [
        "# Plunk Relay configuration. Every setting is shown with its default; uncomment what you change.",
        "# Each can also be given as environment variable PLUNK_RELAY_SECTION__KEY, and each secret as <key>_file:",
        "# the path of a file that holds it.",
    ]
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            lines += [
                "",
                f"[{section}]",
                *(line for name, item in model.model_fields.items() for line in _setting(section, name, item)),
            ]
    return "\n".join(lines) + "\n"


def _setting(section: str, name: str, field: FieldInfo) -> list[str]:
    table = _TABLES.get(f"{section}.{name}")
    if table is None:
        return [f"# {field.description}", f"#{name} = {_toml(field.default)}"]
    keys = [f"#{key} = {_toml(None)}  # {item.description}" for key, item in table.model_fields.items()]
    return [f"# {field.description}", f"#[[{section}.{name}]]", *keys]


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value}"'


def _without_secrets(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: "(set)" if key in _SECRETS and value else value for key, value in keys.items()}


COMMANDS = (config, openapi)
