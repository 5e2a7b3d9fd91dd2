"""Do programs written for the documented API work when nothing but their base URL is changed?"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import ServerProcess
from tests.kit.tools import require_node_module, require_tool

pytestmark = pytest.mark.slow

CLIENTS = Path(__file__).with_name("clients")
CURL = r"""
curl -X POST $BASE_URL/v1/send \
  -H "Authorization: Bearer $PLUNK_SECRET_KEY" \
  -H "Content-Type: application/json" \
  -d '{"to": "user@example.com", "subject": "Hello", "body": "Message"}'
"""
CURL_TRACK = r"""
curl -X POST $BASE_URL/v1/track \
  -H "Authorization: Bearer $PLUNK_PUBLIC_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "email": "user@example.com",
    "event": "signed_up"
  }'
"""
CURL_CONTACT = r"""
curl -X POST $BASE_URL/contacts \
  -H "Authorization: Bearer $PLUNK_SECRET_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "email": "user@example.com",
    "subscribed": true,
    "data": {
      "firstName": "John",
      "plan": "pro"
    }
  }'
"""


class Service:
    """A relay with a project, as its clients see it."""

    def __init__(self, server: ServerProcess, secret: str, public: str) -> None:
        self.server, self.secret = server, secret
        self.base_url = f"http://127.0.0.1:{server.http_port}"
        keys = {"PLUNK_SECRET_KEY": secret, "PLUNK_PUBLIC_KEY": public}
        self.environment = {**os.environ, **keys, "BASE_URL": self.base_url}

    def run(self, *command: str, **environment: str) -> Any:
        """Run a program; return the JSON it printed."""
        done = subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout)

    def call(self, *calls: tuple[str, str, dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
        """Let the official client make calls: resource, method, body; return its answers and exceptions."""
        orders = {"baseUrl": f"{self.base_url}/v1/", "key": key or self.secret, "calls": calls}
        done = subprocess.run(
            [require_tool("node"), str(CLIENTS / "official.js")],
            env=require_node_module("@plunk/node"),
            input=json.dumps(orders),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a relay that keeps what it would send."""
    server = ServerProcess(tmp_path_factory.mktemp("service"), delivery={"route": "capture"})
    made = server.setup()
    server.start()
    try:
        yield Service(server, made["project"]["secret"], made["project"]["public"])
    finally:
        server.kill()


def test_the_curl_examples_work(service: Service) -> None:
    curl = require_tool("curl")
    sent, tracked, contact = (
        service.run("sh", "-c", example.replace("curl", f"{curl} -sS", 1)) for example in (CURL, CURL_TRACK, CURL_CONTACT)
    )
    assert sent["success"] is True
    assert tracked["success"] is True
    assert set(tracked["data"]) == {"contact", "event", "timestamp"}
    assert contact["id"] == tracked["data"]["contact"] == sent["data"]["emails"][0]["contact"]["id"]
    assert contact["_meta"] == {"isNew": False, "isUpdate": True}
    assert contact["data"] == {"firstName": "John", "plan": "pro"}


def test_the_node_example_works(service: Service) -> None:
    data = service.run(require_tool("node"), str(CLIENTS / "reference.mjs"), "ann@example.net", "Hello", "<p>Hi</p>")
    assert data["emails"][0]["contact"]["email"] == "ann@example.net"


def test_the_python_example_works(service: Service) -> None:
    data = service.run(sys.executable, str(CLIENTS / "reference.py"), "ann@example.net", "Hello", "<p>Hi</p>")
    assert data["emails"][0]["contact"]["email"] == "ann@example.net"


@pytest.mark.parametrize("client", [("node", "reference.mjs"), (sys.executable, "reference.py")], ids=["node", "python"])
def test_the_examples_tell_what_was_wrong(service: Service, client: tuple[str, str]) -> None:
    program, script = client
    done = subprocess.run(
        [program, str(CLIENTS / script), "no address", "Hello", "Hi"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[VALIDATION_ERROR] Request validation failed"


def test_the_official_client_sends_and_tracks(service: Service) -> None:
    mail = {"to": "bob@example.net", "subject": "Hello", "body": "Hello world!", "name": "Acme", "subscribed": True}
    event = {"event": "new-project", "email": "bob@example.net", "data": {"company": "Plunk", "note": None}}
    sent, tracked = service.call(("emails", "send", mail), ("events", "track", event))
    [queued] = sent["answer"]["data"]["emails"]
    assert sent["answer"]["success"] is True
    assert queued["contact"]["email"] == "bob@example.net"
    assert tracked["answer"]["success"] is True
    assert tracked["answer"]["data"]["contact"] == queued["contact"]["id"]
    assert [one["recipient"] for one in service.server.queue() if one["email"] == queued["email"]] == ["bob@example.net"]


def test_the_official_client_sees_its_own_kinds_of_error(service: Service) -> None:
    mail = {"to": "bob@example.net", "subject": "Hello", "body": "Hi"}
    [wrong_key] = service.call(("emails", "send", mail), key=f"sk_{'0' * 48}")
    assert wrong_key["error"] == "TokenError"
    [unknown, bad] = service.call(
        ("emails", "send", {"to": "bob@example.net", "template": "00000000-0000-4000-8000-000000000000"}),
        ("events", "track", {"event": "email.sent", "email": "bob@example.net"}),
    )
    assert (unknown["error"], bad["error"]) == ("NotFoundError", "Error")
