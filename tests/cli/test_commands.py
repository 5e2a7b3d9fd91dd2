"""Is every promised command there, does it explain itself, and does it end with 0, 1 or 2 and one clear line?"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from plunk_relay import __version__
from plunk_relay.cli import cli
from plunk_relay.datadir import DirectoryLock
from tests.kit.cli import run_cli

PROMISED = {
    *("serve", "dev", "setup", "audit", "openapi", "migrate", "version"),
    *(f"users {name}" for name in ("list", "create", "password")),
    *(f"projects {name}" for name in ("list", "create", "keys", "disable", "enable")),
    *(f"domains {name}" for name in ("list", "add", "verify", "trust", "receive", "rotate")),
    *(f"queue {name}" for name in ("list", "show", "retry", "hold", "release", "cancel", "stats", "providers", "resume")),
    *(f"suppressions {name}" for name in ("list", "add", "remove")),
    *(f"config {name}" for name in ("check", "show", "docs")),
}
WITHOUT_JSON = {"serve", "dev", "config check", "config docs"}
NEEDS = {
    "users create": ("a@example.com", "--password", "password"),
    "users password": ("a@example.com", "--password", "password"),
    "projects create": ("acme",),
    "projects keys": ("acme",),
    "projects disable": ("acme",),
    "projects enable": ("acme",),
    "domains add": ("example.com", "--project", "acme"),
    "domains verify": ("example.com",),
    "domains trust": ("example.com",),
    "domains receive": ("example.com", "on"),
    "domains rotate": ("example.com",),
    "queue show": ("id",),
    "queue retry": ("id",),
    "queue hold": ("id",),
    "queue release": ("id",),
    "queue cancel": ("id",),
    "queue resume": ("google",),
    "suppressions list": ("--project", "acme"),
    "suppressions add": ("ann@example.com", "--project", "acme"),
    "suppressions remove": ("ann@example.com", "--project", "acme"),
}
OPENS_DATA = sorted(
    PROMISED - {"serve", "dev", "setup", "migrate", "openapi", "version"} - {"config check", "config show"} - {"config docs"}
)


def _leaves(group: click.Group = cli, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(_leaves())


def test_every_promised_command_exists() -> None:
    assert set(COMMANDS) == PROMISED


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_and_its_options(name: str) -> None:
    done = run_cli(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    command = COMMANDS[name]
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []
    assert command.get_short_help_str(limit=200) in " ".join(done.out.split())


@pytest.mark.parametrize("name", [None, "users", "projects", "domains", "queue", "suppressions", "config"])
def test_a_group_lists_its_commands(name: str | None) -> None:
    done = run_cli(*([name] if name else []), "--help")
    group = cli.commands[name] if name else cli
    assert isinstance(group, click.Group)
    assert done.code == 0
    assert group.help
    assert all(f"\n  {command} " in done.out for command in group.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_config_and_where_it_prints_data_json(name: str) -> None:
    options = {text for option in COMMANDS[name].params for text in option.opts}
    assert "--config" in options
    assert ("--json" in options) == (name not in WITHOUT_JSON)


def test_the_version_is_printed() -> None:
    assert run_cli("version").out == f"{__version__}\n"
    assert run_cli("version", "--json").json() == {"version": __version__}


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("queue", "fly"),
        ("queue", "list", "--fly"),
        ("queue", "list", "--limit", "many"),
        ("queue", "list", "--status", "lost"),
        ("queue", "retry"),
        ("suppressions", "list"),
        ("suppressions", "add", "--project", "acme"),
        ("setup", "--email", "a@example.com"),
        ("domains", "add", "example.com"),
        ("dev", "--http", "8080"),
        ("dev", "--smtp", "localhost:port"),
        (),
        ("queue",),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = run_cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: " in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", sorted(PROMISED - {"config docs", "version", "dev"}))
@pytest.mark.parametrize(
    ("text", "said"), [("[smpt]", "unknown setting `smpt`; did you mean `smtp`?"), ("[smtp", "is not valid TOML")]
)
def test_a_bad_configuration_is_one_line_and_2(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    needed = ("--email", "a@example.com", "--project", "acme") if name == "setup" else NEEDS.get(name, ())
    done = run_cli(*name.split(), *needed, "--config", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"plunk-relay: {path}")
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", OPENS_DATA)
def test_a_command_makes_no_data_where_there_is_none(config: Path, name: str) -> None:
    done = run_cli(*name.split(), *NEEDS.get(name, ()), "--config", config)
    directory = config.parent / "data"
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"plunk-relay: there is no data in {directory}: make it with `plunk-relay setup`")
    assert done.err.count("\n") == 1
    assert not directory.exists()


def test_migrate_makes_the_data(config: Path) -> None:
    assert run_cli("migrate", "--config", config).out == "the database is up to date\n"
    assert run_cli("audit", "--config", config, "--json").json()["balanced"] is True


def test_what_is_made_is_for_its_owner_alone(config: Path) -> None:
    run_cli("migrate", "--config", config)
    directory = config.parent / "data"
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir()}
    assert modes == {"lock": "0o600", "relay.db": "0o600", "secret.key": "0o600", "spool": "0o700", "uploads": "0o700"}


@pytest.mark.parametrize("name", ["audit", "migrate", "serve"])
def test_a_database_of_a_newer_version_is_one_line_and_1(made: dict[str, Any], config: Path, name: str) -> None:
    database = config.parent / "data" / "relay.db"
    with closing(sqlite3.connect(database)) as file:
        file.execute("PRAGMA user_version=999")
    done = run_cli(name, "--config", config)
    assert (done.code, done.out) == (1, "")
    assert f"the database {database} was written by a newer version of plunk-relay (schema 999" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["audit", "migrate", "serve"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is not whole"), (b"short\n", "is not whole"), (b"k" * 64, "server.secret_key does not fit this database")],
)
def test_a_secret_key_that_does_not_fit_is_one_line_and_1(
    made: dict[str, Any], config: Path, name: str, content: bytes, said: str
) -> None:
    (config.parent / "data" / "secret.key").write_bytes(content)
    done = run_cli(name, "--config", config)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["audit", "migrate", "serve"])
def test_a_file_that_is_no_database_is_one_line_and_1(made: dict[str, Any], config: Path, name: str) -> None:
    database = config.parent / "data" / "relay.db"
    database.write_bytes(b"This is no database. " * 500)
    done = run_cli(name, "--config", config)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"plunk-relay: cannot open the database {database}: file is not a database\n"


def test_a_data_directory_that_is_a_file_is_one_line_and_1(config: Path) -> None:
    directory = config.parent / "data"
    directory.touch()
    done = run_cli("migrate", "--config", config)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"plunk-relay: cannot make the data directory {directory}: File exists\n"


@pytest.mark.parametrize("name", ["serve", "migrate"])
def test_a_directory_that_another_server_has_is_one_line_and_1(made: dict[str, Any], config: Path, name: str) -> None:
    directory = config.parent / "data"
    lock = DirectoryLock(directory)
    assert lock.acquire()
    done = run_cli(name, "--config", config)
    lock.release()
    assert (done.code, done.out) == (1, "")
    assert done.err == f"plunk-relay: another plunk-relay server is using the data directory {directory}\n"


def test_another_kind_of_database_is_one_line_and_2(config: Path, environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_DATABASE__URL"] = "postgresql+psycopg://db/relay"
    done = run_cli("audit", "--config", config)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("plunk-relay: setting `database.url`: ")
    assert done.err.count("\n") == 1


def test_the_database_may_be_elsewhere(config: Path, environment: dict[str, str]) -> None:
    elsewhere = config.parent / "other.db"
    environment["PLUNK_RELAY_DATABASE__URL"] = f"sqlite:///{elsewhere}"
    assert run_cli("migrate", "--config", config).code == 0
    assert elsewhere.exists()
    assert not (config.parent / "data" / "relay.db").exists()
