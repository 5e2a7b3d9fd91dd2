"""Does the sample configuration tell the truth, and what do `config` and `openapi` print?"""

import json
import re
import tomllib
from pathlib import Path

import httpx2
import pytest

from plunk_relay.settings import NO_FILE, Settings, load_settings
from tests.kit.cli import run_cli
from tests.kit.tools import repository

SAMPLE = repository() / "config" / "plunk-relay.toml"
SECRET_URL = "smtp://user:hidden@relay.test"


def test_the_sample_is_what_config_docs_prints() -> None:
    assert run_cli("config", "docs").out == SAMPLE.read_text()


def test_the_sample_as_it_is_sets_nothing() -> None:
    assert load_settings(SAMPLE) == load_settings(NO_FILE)


def test_the_sample_shows_every_setting() -> None:
    shown = {(section, key) for section, keys in _uncommented().items() for key in keys}
    assert shown == {(section, key) for section, keys in Settings().model_dump().items() for key in keys}


def test_every_line_of_the_sample_uncommented_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"(?m)^#(?=[a-z\[])", "", SAMPLE.read_text()))
    settings = load_settings(path).model_dump()
    assert [len(settings["smtp"].pop("trusted")), len(settings["delivery"].pop("routes"))] == [1, 1]  # sample entries
    defaults = Settings().model_dump()
    del defaults["smtp"]["trusted"], defaults["delivery"]["routes"]
    assert settings == defaults


@pytest.mark.parametrize("line", re.findall(r"(?m)^#([a-z_]+ = [^#\n]*)$", SAMPLE.read_text()))
def test_every_line_of_the_sample_can_be_uncommented_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(SAMPLE.read_text().replace(f"\n#{line}\n", f"\n{line}\n"))
    assert load_settings(path) == load_settings(NO_FILE)


def test_config_check_says_that_a_configuration_is_valid(config: Path) -> None:
    done = run_cli("config", "check", "--config", config)
    assert (done.code, done.out, done.err) == (0, "the configuration is valid\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[smtp]\nhostnme = 'x'", "did you mean `smtp.hostname`?"),
        ("[delivery]\nroute = 'smarthost'\nsmarthost_url = 'ftp://x'", "delivery.smarthost_url"),
        ("[database]\nurl = 'postgresql://db'", "database.url"),
        ("[smtp]\ntls_certificate = 'c'\ntls_key = 'k'\n[acme]\nemail = 'op@example.com'", "`smtp.tls_certificate`"),
        ("[acme]\nca_file = '/absent.pem'", "acme.ca_file"),
        ("[http", "not valid TOML"),
    ],
)
def test_config_check_finds_what_serve_would_refuse(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = run_cli("config", "check", "--config", path)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_config_show_prints_the_settings_in_force(config: Path, environment: dict[str, str]) -> None:
    environment["PLUNK_RELAY_HTTP__PORT"] = "8099"
    shown = run_cli("config", "show", "--config", config, "--json").json()
    assert shown["http"]["port"] == 8099
    assert shown["smtp"]["hostname"] == "relay.test"
    assert shown["limits"]["send_burst"] == Settings().limits.send_burst
    assert {section: set(keys) for section, keys in shown.items()} == {
        section: set(keys) for section, keys in Settings().model_dump().items()
    }


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_show_shows_no_secret(tmp_path: Path, form: tuple[str, ...]) -> None:
    path = tmp_path / "secrets.toml"
    path.write_text(
        f"[server]\nsecret_key = '{'hidden' * 8}'\n[delivery]\nsmarthost_url = '{SECRET_URL}'\n"
        f"[[delivery.routes]]\ndomain = 'example.com'\nroute = 'smarthost'\nsmarthost_url = '{SECRET_URL}'\n"
    )
    done = run_cli("config", "show", "--config", path, *form)
    assert done.code == 0
    assert "hidden" not in done.out
    assert done.out.count("(set)") == 3


async def test_openapi_prints_the_document_that_is_served(http: httpx2.AsyncClient) -> None:
    served = (await http.get("/openapi.json")).json()
    printed = run_cli("openapi").json()
    assert printed.pop("servers") == [{"url": "http://127.0.0.1:8080"}]
    assert served.pop("servers") == [{"url": "http://relay.test"}]
    assert printed == served


def test_openapi_names_the_server_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[server]\npublic_url = 'https://mail.example.com/'")
    assert json.loads(run_cli("openapi", "--config", path).out)["servers"] == [{"url": "https://mail.example.com"}]


def _uncommented() -> dict[str, dict[str, object]]:
    return tomllib.loads(re.sub(r"(?m)^#(?=[a-z\[])", "", SAMPLE.read_text()))
