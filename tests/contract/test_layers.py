"""Do the modules keep to the architecture: down by call, each library and each clock in its own place?"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.kit.tools import repository

PACKAGE = repository() / "plunk_relay"

# Library -> the only modules that may import it at run time.
HOMES = {
    "acme": ["acme/authority.py"],
    "aiosmtpd": ["smtp/*"],
    "aiosmtplib": ["mail/session.py", "mail/strict_client.py"],
    "aiosqlite": ["db/*"],
    "argon2": ["accounts/*"],
    "charset_normalizer": ["jobs/encodings.py"],
    "click": ["cli/*"],
    "disposable_email_domains": ["verify/lists.py"],
    "cryptography": ["acme/*", "secretbox.py", "mail/certificates.py", "mail/dkim.py", "mail/dkim_check.py"],
    "dkim": ["mail/dkim.py"],
    "httpx2": ["mail/https.py"],
    "dns": ["mail/dns.py"],
    "flufl": ["mail/dsn.py"],
    "jwt": ["accounts/sessions.py"],
    "josepy": ["acme/authority.py"],
    "liquid": ["mail/*", "templates/*"],
    "minio": ["uploads/s3.py"],
    "nh3": ["mail/safe_html.py"],
    "prometheus_client": ["web/*", "app.py"],
    "publicsuffixlist": ["mail/registered_domain.py"],
    "python_multipart": ["web/multipart.py"],
    "pydantic": ["settings.py", "sections.py", "cli/config.py", "web/*", "*/api.py", "*/request.py"],
    "spf": ["mail/verdicts.py"],
    "rapidfuzz": ["verify/spelling.py"],
    "sqlalchemy": ["db/*", "*/queries.py", "emails/queue.py", "segments/filters.py"],
    "starlette": ["web/*", "app.py", "dashboard/*", "public/*"],
    "structlog": ["log.py"],
    "urllib3": ["uploads/s3.py"],
    "uvicorn": ["web/server.py"],
    "uvloop": ["serve.py", "cli/*"],
}
ENVIRONMENT = {"os.environ", "os.getenv", "os.environb", "os.putenv"}
CLOCKS = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "gmtime", "localtime")),
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    *("date.today", "datetime.date.today"),
}


def test_modules_import_only_what_stands_below_them() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    command = [str(lint), "--no-cache", "--no-logo", "--config", str(repository() / ".importlinter")]
    done = subprocess.run(command, cwd=repository(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_only_at_home(library: str) -> None:
    strangers = [
        name
        for name, tree in _modules()
        if library in _imported(tree.body) and not any(fnmatch(name, home) for home in HOMES[library])
    ]
    assert strangers == []


def test_only_settings_reads_the_environment() -> None:
    assert _users_of(ENVIRONMENT) <= {"settings.py"}


def test_only_clock_reads_the_clocks_of_the_system() -> None:
    assert _users_of(CLOCKS) <= {"clock.py"}


def test_the_checks_see_through_other_names() -> None:
    tree = ast.parse("from time import monotonic as tick\nimport datetime as d, os as o\nd.datetime.now(), o.environ")
    assert {"time.monotonic", "datetime.datetime.now", "os.environ"} <= _dotted_names(tree)


def test_imports_for_types_alone_do_not_count() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import sqlalchemy\ndef f():\n    import dns.name")
    assert _imported(tree.body) == {"dns"}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def _imported(body: list[ast.stmt]) -> set[str]:
    """Return the top-level names a module imports at run time, in functions too."""
    names: set[str] = set()
    for node in _run_time_nodes(body):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _run_time_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        if not (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)):
            yield from ast.walk(statement)


def _users_of(forbidden: set[str]) -> set[str]:
    return {name for name, tree in _modules() if _dotted_names(tree) & forbidden}


def _dotted_names(tree: ast.Module) -> set[str]:
    """Return every `a.b.c` of a module, with aliases of imports written out."""
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            full.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    heads = {name: name.partition(".") for name in used}
    written_out = {full.get(head, head) + dot + rest for head, dot, rest in heads.values()}
    return written_out | set(full.values())
