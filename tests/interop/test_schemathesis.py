"""Does the API keep the word of its OpenAPI document? schemathesis asks everything that the document allows, and more.

It looks for answers of 5xx, statuses, types and shapes that are not documented, bad requests that are accepted, and
endpoints that need no key although they say so. Whatever it asks for, another project stays as it is.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,ignored_auth,unsupported_method"
)
ASKING = ["--checks", CHECKS, "--seed", "1", "--request-timeout", "20", "--continue-on-failure", "--no-color"]
QUIETLY = ["--suppress-health-check", "all", "--warnings", "off"]
NO_LIMITS = {f"{bucket}_per_second": 0 for bucket in ("send", "track", "contacts")}


@dataclass(frozen=True, slots=True)
class Served:
    """A relay that runs, and the secret keys of two projects."""

    server: ServerProcess
    acme: str
    rival: str

    def make(self, path: str, body: dict[str, Any], *, key: str) -> dict[str, Any]:
        """Make a thing."""
        status, made = self.server.ask(path, key=key, body=body)
        assert status < 300, made
        return made

    def run_schemathesis(self, *options: str) -> None:
        """Let it ask in the name of acme, and expect that it finds nothing."""
        program = str(Path(sys.executable).with_name("schemathesis"))
        url = f"http://127.0.0.1:{self.server.http_port}/openapi.json"
        done = subprocess.run(
            [program, "run", url, "--header", f"Authorization: Bearer {self.acme}", *ASKING, *QUIETLY, *options],
            cwd=self.server.directory,  # where it looks for schemathesis.toml
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        crashes = [line for line in self.server.lines() if line["event"] == "request failed"]
        assert done.returncode == 0, f"{done.stdout[-20_000:]}{done.stderr[-2000:]}{crashes[:3]}"
        assert crashes == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Run a relay that keeps what it would send, for two projects."""
    with ServerProcess(tmp_path, delivery={"route": "capture"}, limits=NO_LIMITS) as server:
        keys = [server.setup(project=name, domain=f"{name}.test")["project"]["secret"] for name in ("acme", "rival")]
        server.start()
        yield Served(server, *keys)


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(served: Served) -> None:
    _make_things(served, served.rival, "rival.test")
    before = _look(served)
    served.run_schemathesis("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15")
    assert _look(served) == before


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing_about_things_that_are_there(served: Served) -> None:
    things = _make_things(served, served.acme, "acme.test")
    lines = [f'"path.{name}" = "{value}"' for name, value in things.items()]
    (served.server.directory / "schemathesis.toml").write_text("\n".join(["[parameters]", *lines, ""]))
    chosen = ["--include-path-regex", rf"\{{({'|'.join(things)})\}}", "--exclude-method", "DELETE"]
    served.run_schemathesis("--phases", "coverage,fuzzing", "--max-examples", "20", *chosen)
    assert served.server.ask(f"/contacts/{things['contact_id']}", key=served.acme)[0] == 200


def _make_things(served: Served, key: str, domain: str) -> dict[str, str]:
    """Make one thing of each kind; return their ids by the name of the path parameter."""
    person = {"email": f"ann@{domain}", "data": {"plan": "pro"}}
    template = {"name": "Welcome", "subject": "Hello", "body": "<p>Hi {{plan}}</p>", "from": f"app@{domain}"}
    contact = served.make("/contacts", person, key=key)["id"]
    served.make("/v1/track", {"event": "seen", **person}, key=key)
    served.make("/suppressions/addresses", {"email": f"held@{domain}"}, key=key)
    segment = {"name": "It", "type": "STATIC", "trackMembership": True}
    rule = {"name": "It", "kind": "DOMAIN", "pattern": "example.com"}
    return {
        "contact_id": contact,
        "segment_id": served.make("/segments", segment, key=key)["id"],
        "template_id": served.make("/templates", template, key=key)["id"],
        "rule_id": served.make("/suppressions", rule, key=key)["id"],
        "bulk_job_id": served.make("/contacts/bulk-subscribe", {"contactIds": [contact]}, key=key)["jobId"],
        "event_name": "seen",
        "field": "data.plan",
        "email": f"held@{domain}",
    }


def _look(served: Served) -> list[object]:
    """Return what the other project has."""
    paths = ("/contacts", "/events", "/templates", "/segments", "/suppressions", "/suppressions/addresses")
    return [served.server.ask(path, key=served.rival) for path in paths]
