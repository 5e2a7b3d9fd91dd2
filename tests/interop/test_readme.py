"""Does what the README tells people to type work as it stands there?

Only what must differ is replaced: ports, keys, ids, and directories that belong to the system.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from plunk_relay.cli import cli
from tests.interop.dev import DevServer, run_shell, running_dev
from tests.kit.tools import repository, require_tool

pytestmark = pytest.mark.slow

README = (repository() / "README.md").read_text()
BLOCKS = [(match[1], match[2]) for match in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
CODES = re.findall(r"`([^`\n]+)`", README.partition("## Not in this version")[0])
PROGRAMS = Path(sys.prefix) / "bin"
PAGES = sorted({*re.findall(r"`GET (/\w+)`", README), *re.findall(r"at(?: |\n)`(/[\w.]+)`", README)})


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """Run dev mode in a directory that looks like a checkout after `make run`."""
    directory = _checkout(tmp_path_factory.mktemp("checkout"))
    with running_dev(lambda options: [".venv/bin/plunk-relay", "dev", *options.split()], directory) as server:
        yield server


def test_the_printed_curl_line_sends(dev: DevServer) -> None:
    assert json.loads(_run(dev.curl_line, dev.directory))["success"]
    assert _find(dev, "Hello", recipient="you@example.net")


def test_the_curl_line_sends(dev: DevServer) -> None:
    block = _block("sh", "/v1/send")
    assert json.loads(_run(_fit(block, dev, First="With curl"), dev.directory))["success"]
    assert _find(dev, "With curl")


def test_the_swaks_line_sends(dev: DevServer) -> None:
    require_tool("swaks")
    _run(_fit(_block("sh", "swaks"), dev, First="With swaks"), dev.directory)
    assert _find(dev, "With swaks")


def test_the_smtplib_program_sends(dev: DevServer) -> None:
    program = _fit(_block("python", "import smtplib"), dev, First="With smtplib")
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    assert _find(dev, "With smtplib")


def test_the_queue_commands_show_the_mail_as_it_would_have_left(dev: DevServer) -> None:
    listing, showing = _block("sh", "queue show").splitlines()
    _run(_fit(_block("sh", "/v1/send"), dev, First="To be shown"), dev.directory)
    queue_id = _find(dev, "To be shown")["id"]
    assert queue_id in _run(listing, dev.directory)
    said = _run(showing.replace("<id>", queue_id), dev.directory)
    assert "\r\nSubject: To be shown\r\n" in said
    assert "a=rsa-sha256" in said
    assert "a=ed25519-sha256" in said


def test_the_kept_mail_is_shown_in_the_browser(dev: DevServer) -> None:
    _run(_fit(_block("sh", "/v1/send"), dev, First="To be seen"), dev.directory)
    _find(dev, "To be seen")
    links = re.findall(r"`http://127\.0\.0\.1:8080(/dev/\w+)`", README)
    assert [">To be seen</a>" in _get(dev, path) for path in links] == [True]


@pytest.mark.parametrize("path", PAGES)
def test_the_named_pages_are_there(dev: DevServer, path: str) -> None:
    assert _get(dev, path)


def test_the_setup_command_may_be_repeated(tmp_path: Path) -> None:
    command = _block("sh", "plunk-relay setup").replace("runuser -u plunk-relay -- ", "")
    first, again = (json.loads(_run(command, tmp_path, _own_data(tmp_path))) for _ in range(2))
    assert first["project"]["secret"].startswith("sk_")
    assert again == first


def test_the_domains_request_returns_the_records_of_the_table(dev: DevServer) -> None:
    request = _block("sh", "/domains").replace("https://relay.example.com", f"http://127.0.0.1:{dev.http_port}")
    project = json.loads(_run(".venv/bin/plunk-relay projects list --json --config config/dev.toml", dev.directory))[0]
    request = request.replace("<project id>", project["id"]).replace("example.com", "shop.example")
    answer = json.loads(_run(_fit(request, dev), dev.directory))
    records = [_record(record) for record in answer["records"]]
    wanted = list(_dns_rows("shop.example", "localhost"))
    assert len(records) == len(wanted)
    assert [pattern for pattern in wanted if not any(re.fullmatch(pattern, record) for record in records)] == []


def test_the_smarthost_settings_are_valid(tmp_path: Path) -> None:
    block, secret = _block("toml", "smarthost_url_file"), tmp_path / "smarthost"
    secret.write_text(re.findall(r"holds (\S+)", block)[0])
    config = tmp_path / "relay.toml"
    config.write_text(block.replace("/etc/plunk-relay/smarthost", str(secret)))
    assert "is valid" in _run(f"plunk-relay config check --config {config}", tmp_path)


@pytest.mark.parametrize("block", [text for name, text in BLOCKS if name == "toml" and "_file" not in text])
def test_settings_that_are_shown_are_valid(tmp_path: Path, block: str) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(block)
    assert "is valid" in _run(f"plunk-relay config check --config {config}", tmp_path)


def test_a_backup_taken_while_running_can_be_restored(dev: DevServer, tmp_path: Path) -> None:
    require_tool("sqlite3")
    _run(_fit(_block("sh", "/v1/send"), dev, First="Before the backup"), dev.directory)
    mail = _find(dev, "Before the backup")
    backups, restored = tmp_path / "backups", tmp_path / "restored"
    backups.mkdir()
    restored.mkdir()
    data = str(dev.directory / ".plunk-relay")
    _run(_block("sh", ".backup").replace("/var/lib/plunk-relay", data).replace("/var/backups", str(backups)), tmp_path)
    (backups / "plunk-relay.db").rename(restored / "relay.db")
    (backups / "plunk-relay.secret.key").rename(restored / "secret.key")
    command = [str(PROGRAMS / "plunk-relay"), "dev", "--data", str(restored)]
    with running_dev(lambda options: [*command, *options.split()], tmp_path) as again:
        assert again.secret == dev.secret
        assert json.loads(_run(again.curl_line, tmp_path))["success"]
        environment = {"PLUNK_RELAY_SERVER__DATA_DIR": str(restored)}
        assert json.loads(_run(f"plunk-relay queue show {mail['id']} --json", tmp_path, environment))["id"] == mail["id"]


def test_the_named_commands_exist() -> None:
    named = {_command_words(code) for code in CODES} - {""}
    assert {"audit", "setup", "users", "queue list", "config show", "domains verify"} <= named
    assert [words for words in sorted(named) if not _is_command(words)] == []


def test_the_named_files_exist() -> None:
    sources = re.findall(r"^install .* ([\w/.-]+) /\S+$", "\n".join(text for _, text in BLOCKS), re.MULTILINE)
    assert len(sources) == 3
    assert [source for source in sources if not (repository() / source).exists() and source != "dist/plunk-relay"] == []


def _checkout(directory: Path) -> Path:
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "config").symlink_to(repository() / "config")
    return directory


def _block(language: str, marker: str) -> str:
    """Return the one code block with a text in it."""
    found = [text for name, text in BLOCKS if name == language and marker in text]
    assert len(found) == 1, f"{len(found)} blocks with {marker}"
    return found[0]


def _fit(text: str, dev: DevServer, **words: str) -> str:
    """Put this server's ports and key in the place of the README's, and other words for some."""
    for old, new in {"8080": str(dev.http_port), "2587": str(dev.smtp_port), "sk_…": dev.secret, **words}.items():
        text = text.replace(old, new)
    return text


def _run(script: str, directory: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run shell commands; `plunk-relay` is found as if it were installed."""
    return run_shell(script, directory, {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", **(environment or {})})


def _command_words(code: str) -> str:
    """Return the command's words in a piece of code; nothing when it is no command of ours."""
    found = re.search(r"(?:^|(?<= ))(plunk-relay )?([a-z]+(?: [a-z]+)*)", code)
    ours = found is not None and (found[1] or found[2].split()[0] in cli.commands)
    return found[2] if found is not None and ours else ""


def _is_command(words: str) -> bool:
    command: click.Command | None = cli
    for word in words.split():
        command = command.commands.get(word) if isinstance(command, click.Group) else None
    return command is not None


def _own_data(directory: Path) -> dict[str, str]:
    return {"PLUNK_RELAY_SERVER__DATA_DIR": str(directory / "data")}


def _find(dev: DevServer, subject: str, *, recipient: str = "ada@example.org") -> dict[str, Any]:
    """Return the delivered mail with a subject, waiting for it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        entries = json.loads(_run(".venv/bin/plunk-relay queue list --json --config config/dev.toml", dev.directory))
        for entry in entries:
            if (entry["subject"], entry["state"]) == (subject, "DELIVERED"):
                assert (entry["sender"], entry["recipient"]) == ("hello@example.com", recipient)
                found: dict[str, Any] = entry
                return found
    raise AssertionError(f"no mail with the subject {subject}")


def _get(dev: DevServer, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{dev.http_port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def _record(record: Mapping[str, Any]) -> str:
    value = record["value"] if record["priority"] is None else f"{record['priority']} {record['value']}"
    return f"{record['type']}{' required' if record['required'] else ''} {record['name']} {value}"


def _dns_rows(domain: str, host: str) -> Iterator[str]:
    """Write each row of the table of DNS records as a pattern; a row with two types is two records."""
    spf = ""
    for types, name, values, _ in re.findall(
        r"^\| ([A-Z][^|]+) \| (`[^|]+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE
    ):
        quoted = [_pattern(text, domain, host) for text in re.findall(r"`([^`]+)`", values)]
        spf = quoted[0] if "spf1" in quoted[0] else spf
        required = " required" if "required" in types else ""
        for kind, value in zip(re.findall("[A-Z]+", types), [*quoted, spf], strict=False):
            yield f"{kind}{required} {_pattern(name.split('`')[1], domain, host)} {value}"


def _pattern(text: str, domain: str, host: str) -> str:
    parts = {"<selector>": r"\w+", "…": r"\S+", "<smtp.hostname>": re.escape(host), "example.com": re.escape(domain)}
    words = re.split(f"({'|'.join(map(re.escape, parts))})", text)
    return "".join(parts.get(word, re.escape(word)) for word in words)
