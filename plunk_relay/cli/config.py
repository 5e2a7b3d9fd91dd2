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
from plunk_relay.sections import DeliveryRoute, Section, TrustedNetwork
from plunk_relay.serve import check_settings
from plunk_relay.settings import Settings, load_settings
from plunk_relay.web.meta import health, ready
from plunk_relay.web.openapi import build_document

_TABLES: dict[str, type[BaseModel]] = {"smtp.trusted": TrustedNetwork, "delivery.routes": DeliveryRoute}


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@config_option()
def config_check(config_path: Path | None) -> None:
    """Say whether the configuration is valid."""
    check_settings(load_settings(config_path))
    click.echo("the configuration is valid")


@config.command("show")
@config_option()
@json_option()
def config_show(config_path: Path | None, as_json: bool) -> None:
    """Show the settings in force; secrets are not shown."""
    show(_without_secrets(load_settings(config_path)), as_json=as_json)


@config.command("docs")
@config_option(used=False)
def config_docs() -> None:
    """Print a configuration file with every setting, its meaning and default."""
    click.echo(render_config(), nl=False)


@click.command()
@config_option()
@click.option("--json", "as_json", is_flag=True, hidden=True, help="It is JSON in any case")
def openapi(config_path: Path | None, as_json: bool) -> None:
    """Print the OpenAPI document of the HTTP API."""
    del as_json
    server_url = load_settings(config_path).server.public_url.rstrip("/")
    document = build_document([*FEATURES, health, ready], version=__version__, server_url=server_url)
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def render_config() -> str:
    """Return the text of config/plunk-relay.toml."""
    lines = [
        "# Plunk Relay configuration. Every setting is shown with its default; uncomment what you change.",
        "# Each can also be given as environment variable PLUNK_RELAY_SECTION__KEY, and each secret as <key>_file:",
        "# the path of a file that holds it. An empty text sets nothing; a list of the environment is JSON, or words with",
        "# commas between them.",
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
    keys = [f"#{key} = {_toml(_example(item))}  # {item.description}" for key, item in table.model_fields.items()]
    return [f"# {field.description}", f"#[[{section}.{name}]]", *keys]


def _example(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else field.default


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


def _without_secrets(settings: BaseModel) -> dict[str, Any]:
    secrets = settings.secret_keys if isinstance(settings, Section) else ()
    return {
        key: "(set)" if key in secrets and value else _shown(getattr(settings, key), value)
        for key, value in settings.model_dump(mode="json").items()
    }


def _shown(value: Any, plain: Any) -> Any:
    if isinstance(value, BaseModel):
        return _without_secrets(value)
    return [_shown(*pair) for pair in zip(value, plain, strict=True)] if isinstance(value, tuple) else plain


COMMANDS = (config, openapi)
