"""Does the API keep the word of its OpenAPI document? schemathesis asks everything that the document allows, and more.

It looks for answers of 5xx, statuses, types and shapes that are not documented, bad requests that are accepted, and
endpoints that need no key although they say so.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.process import ServerProcess

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,ignored_auth,unsupported_method"
)
EXAMPLES = 15
"""Requests of an operation in each phase."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a relay that keeps what it would send."""
    process = ServerProcess(tmp_path, delivery={"route": "capture"})
    process.setup()
    process.start()
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(server: ServerProcess) -> None:
    secret = server.setup()["project"]["secret"]
    url = f"http://127.0.0.1:{server.http_port}/openapi.json"
    options = ["--header", f"Authorization: Bearer {secret}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing"]
    bounds = ["--max-examples", str(EXAMPLES), "--seed", "1", "--request-timeout", "20", "--continue-on-failure", "--no-color"]
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "run", url, *options, *bounds, "--suppress-health-check", "all", "--warnings", "off"],
        cwd=server.directory,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
