"""What does an operator see of a project's suppression list, and change? With a running server and without one."""

from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.worker import Deliverer
from plunk_relay.relay import Relay
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.serve import open_relay
from plunk_relay.settings import load_settings
from plunk_relay.suppressions.queries import suppress
from plunk_relay.web.binding import bind
from tests.cli.conftest import Typing
from tests.kit.cli import Done

LISTED = ("suppressions", "list", "--project", "acme")
ADDED = ("suppressions", "add", "--project", "acme")
REMOVED = ("suppressions", "remove", "--project", "acme")


@pytest.fixture
async def bounced(made: dict[str, Any], config: Path) -> str:
    """Let an address bounce, and queue a mail to it; return its queue id. To be named before `pr`."""
    project = made["project"]["id"]
    async with open_relay(load_settings(config)) as relay:
        now, detail = relay.clock.now(), "550 5.1.1 no such user"
        await relay.db.write(suppress, project, "bob@example.org", reason="BOUNCE", detail=detail, email_id="mail", now=now)
        return await _send_and_deliver(relay, project)


async def _send_and_deliver(relay: Relay, project_id: str) -> str:
    body = {"to": "bob@example.org", "from": "app@example.com", "subject": "Hello", "body": "Hi"}
    [queued] = await send_message(relay, project_id, bind(SendRequest, body))
    async with Deliverer(relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()
    return queued.delivery_id


async def _addresses(pr: Typing, *filters: str) -> list[str]:
    return [entry["email"] for entry in (await pr(*LISTED, *filters, "--json")).json()]


async def test_an_entry_is_shown_with_its_cause(bounced: str, pr: Typing) -> None:
    [entry] = (await pr(*LISTED, "--json")).json()
    assert entry == {
        "email": "bob@example.org",
        "reason": "BOUNCE",
        "detail": "550 5.1.1 no such user",
        "caused_by": "mail",
        "created": entry["created"],
    }
    line = (await pr(*LISTED)).out
    assert line == f"{entry['created']}  BOUNCE     bob@example.org  550 5.1.1 no such user\n"


async def test_an_empty_list_prints_nothing(made: dict[str, Any], pr: Typing) -> None:
    assert await pr(*LISTED) == Done(0, "", "")
    assert (await pr(*LISTED, "--json")).json() == []


async def test_addresses_are_entered_by_hand(made: dict[str, Any], pr: Typing) -> None:
    added = (await pr(*ADDED, "Ann@example.org", "bob@example.org", "--note", "asked by phone", "--json")).json()
    assert [(entry["email"], entry["reason"], entry["detail"]) for entry in added] == [
        ("ann@example.org", "MANUAL", "asked by phone"),
        ("bob@example.org", "MANUAL", "asked by phone"),
    ]
    assert (await pr(*LISTED, "--json")).json() == added[::-1]
    assert (await pr(*ADDED, "ANN@example.org", "--json")).json() == added[:1]  # safe to repeat


async def test_people_are_told_what_was_entered(made: dict[str, Any], pr: Typing) -> None:
    done = await pr(*ADDED, "ann@example.org")
    assert done.code == 0
    assert done.out.startswith("email: ann@example.org\nreason: MANUAL\ndetail: -\n")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("--search", "A"), ["ann@example.org"]),
        (("--search", "example"), []),
        (("--reason", "bounce"), ["bob@example.org"]),
        (("--reason", "complaint"), []),
        (("--limit", "1"), ["ann@example.org"]),
    ],
)
async def test_a_list_can_be_narrowed(bounced: str, pr: Typing, filters: tuple[str, ...], found: list[str]) -> None:
    await pr(*ADDED, "ann@example.org")
    assert await _addresses(pr, *filters) == found


async def test_one_bad_address_enters_none(made: dict[str, Any], pr: Typing) -> None:
    done = await pr(*ADDED, "ann@example.org", "bob", "cid@")
    assert (done.code, done.out) == (1, "")
    assert done.err == "plunk-relay: email: Invalid email: bob; email: Invalid email: cid@\n"
    assert await _addresses(pr) == []


async def test_removed_addresses_are_gone(bounced: str, pr: Typing) -> None:
    await pr(*ADDED, "ann@example.org")
    assert (await pr(*REMOVED, "ANN@example.org", "bob@example.org", "--json")).json() == {"removed": 2}
    assert await _addresses(pr) == []


async def test_an_address_that_is_not_there_is_named_and_none_is_removed(bounced: str, pr: Typing) -> None:
    done = await pr(*REMOVED, "bob@example.org", "ann@example.org")
    assert (done.code, done.out) == (1, "")
    assert done.err == "plunk-relay: Suppression not found: ann@example.org\n"
    assert await _addresses(pr) == ["bob@example.org"]


@pytest.mark.parametrize("command", [LISTED[:2], (*ADDED[:2], "ann@example.org"), (*REMOVED[:2], "ann@example.org")])
async def test_a_project_nobody_knows_is_named(made: dict[str, Any], pr: Typing, command: tuple[str, ...]) -> None:
    done = await pr(*command, "--project", "other")
    assert (done.code, done.out) == (1, "")
    assert "other" in done.err
    assert done.err.count("\n") == 1


async def test_suppressed_mail_is_found_in_the_queue_and_counted(bounced: str, pr: Typing) -> None:
    [entry] = (await pr("queue", "list", "--status", "suppressed", "--json")).json()
    assert (entry["id"], entry["state"], entry["status"]) == (bounced, "SUPPRESSED", "SUPPRESSED")
    shown = (await pr("queue", "show", bounced, "--json")).json()
    assert shown["attempts"] == []
    assert "is on the suppression list (BOUNCE, " in shown["last_reply"]
    audit = (await pr("audit", "--json")).json()
    assert (audit["accepted"], audit["suppressed"], audit["balanced"]) == (1, 1, True)


async def test_the_command_in_the_error_does_what_it_says(bounced: str, pr: Typing) -> None:
    error = (await pr("queue", "show", bounced, "--json")).json()["last_reply"]
    command = error.split("`")[1].removeprefix("plunk-relay ").split(" ")
    assert (await pr(*command)).code == 0
    assert await _addresses(pr) == []
