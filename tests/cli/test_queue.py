"""What does an operator see of the queue and the ledger, and change? The same with a running server and without one."""

from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.worker import Deliverer
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.serve import open_relay
from plunk_relay.settings import load_settings
from plunk_relay.web.binding import bind
from tests.cli.conftest import Typing

SECRET_TEXT = "the body is nobody else's business"
LEDGER = ["accepted", "delivered", "bounced", "expired", "suppressed", "cancelled", "failed", "held", "queued"]
NOWHERE = ("--domain", "nowhere.test")


@pytest.fixture
async def mails(made: dict[str, Any], config: Path) -> dict[str, str]:
    """Queue three mails and deliver one; return queue ids by recipient. To be named before `pr`."""
    async with open_relay(load_settings(config)) as relay:

        async def send(recipient: str) -> str:
            body = {"to": recipient, "from": "app@example.com", "subject": "Hello", "body": SECRET_TEXT}
            [queued] = await send_message(relay, made["project"]["id"], bind(SendRequest, body))
            return queued.delivery_id

        delivered = await send("first@example.org")
        async with Deliverer(relay) as deliverer:
            await deliverer.run_once()
            await deliverer.settle()
        return {"first": delivered, "a": await send("a@example.org"), "b": await send("b@example.net")}


async def test_deliveries_are_listed_newest_first(mails: dict[str, str], pr: Typing) -> None:
    listed = (await pr("queue", "list", "--json")).json()
    assert [entry["id"] for entry in listed] == [mails["b"], mails["a"], mails["first"]]
    assert [entry["state"] for entry in listed] == ["QUEUED", "QUEUED", "DELIVERED"]
    assert (listed[0]["sender"], listed[0]["recipient"]) == ("app@example.com", "b@example.net")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (("--status", "queued"), ["b", "a"]),
        (("--status", "delivered"), ["first"]),
        (("--status", "suppressed"), []),
        (("--domain", "EXAMPLE.org"), ["a", "first"]),
        (("--project", "acme", "--limit", "1"), ["b"]),
        (("--older-than", "60"), []),
        (("--older-than", "0"), ["b", "a", "first"]),
        (NOWHERE, []),
    ],
)
async def test_a_list_can_be_narrowed(mails: dict[str, str], pr: Typing, filters: tuple[str, ...], names: list[str]) -> None:
    listed = (await pr("queue", "list", *filters, "--json")).json()
    assert [entry["id"] for entry in listed] == [mails[name] for name in names]


async def test_people_get_a_line_a_delivery(mails: dict[str, str], pr: Typing) -> None:
    lines = (await pr("queue", "list")).out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(mails["b"])
    assert "app@example.com -> b@example.net" in lines[0]


async def test_a_delivery_is_shown_with_its_attempts(mails: dict[str, str], pr: Typing) -> None:
    shown = (await pr("queue", "show", mails["first"], "--json")).json()
    assert (shown["state"], len(shown["attempts"])) == ("DELIVERED", 1)
    assert shown["attempts"][0]["outcome"] == "DELIVERED"
    assert (await pr("queue", "show", shown["email"], "--json")).json() == shown  # the mail's own id will do


async def test_a_message_is_shown_only_when_asked_for(mails: dict[str, str], pr: Typing) -> None:
    assert SECRET_TEXT not in (await pr("queue", "show", mails["first"])).out
    assert SECRET_TEXT in (await pr("queue", "show", mails["first"], "--message", "--json")).json()["message"]


async def test_mail_is_held_released_and_cancelled(mails: dict[str, str], pr: Typing) -> None:
    assert (await pr("queue", "hold", mails["a"], "--json")).json() == {"changed": 1}
    assert await _states(pr, mails) == {"a": "HELD", "b": "QUEUED", "first": "DELIVERED"}
    assert (await pr("queue", "release", "--project", "acme", "--json")).json() == {"changed": 1}
    assert (await pr("queue", "cancel", "--domain", "example.net", "--json")).json() == {"changed": 1}
    assert await _states(pr, mails) == {"a": "QUEUED", "b": "CANCELLED", "first": "DELIVERED"}


async def test_mail_is_tried_again_at_once(mails: dict[str, str], pr: Typing) -> None:
    assert (await pr("queue", "retry", mails["a"], mails["b"], mails["first"], "--json")).json() == {"changed": 2}


async def test_every_command_takes_the_mail_s_id_as_well(mails: dict[str, str], pr: Typing) -> None:
    ids = {entry["id"]: entry["email"] for entry in (await pr("queue", "list", "--json")).json()}
    a, b = ids[mails["a"]], ids[mails["b"]]
    for command, state in (("hold", "HELD"), ("release", "QUEUED"), ("retry", "QUEUED"), ("cancel", "CANCELLED")):
        assert (await pr("queue", command, a, "--json")).json() == {"changed": 1}
        assert await _states(pr, mails) == {"a": state, "b": "QUEUED", "first": "DELIVERED"}
    assert (await pr("queue", "hold", mails["b"], b, "--json")).json() == {"changed": 1}
    assert (await pr("queue", "release", b, "--domain", "example.org", "--json")).json() == {"changed": 0}


@pytest.mark.parametrize("command", ["hold", "release", "cancel"])
async def test_nothing_is_changed_without_a_choice(mails: dict[str, str], pr: Typing, command: str) -> None:
    done = await pr("queue", command)
    assert (done.code, done.out) == (2, "")
    assert "name the deliveries by id, or choose them" in done.err
    assert await _states(pr, mails) == {"a": "QUEUED", "b": "QUEUED", "first": "DELIVERED"}


async def test_a_delivery_nobody_knows_is_named(mails: dict[str, str], pr: Typing) -> None:
    done = await pr("queue", "show", "other")
    assert (done.code, done.out, done.err) == (1, "", "plunk-relay: no delivery or mail has the id other\n")


async def test_deliveries_are_counted(mails: dict[str, str], pr: Typing) -> None:
    stats = (await pr("queue", "stats", "--json")).json()
    assert stats["states"] == {"delivered": 1, "queued": 2}
    assert stats["domains"] == {"example.org": 1, "example.net": 1}
    assert stats["oldest_queued_seconds"] >= 0


async def test_the_ledger_is_printed_and_balances(mails: dict[str, str], pr: Typing) -> None:
    ledger = (await pr("audit", "--json")).json()
    assert list(ledger) == [*LEDGER, "balanced"]
    assert ledger == dict.fromkeys(LEDGER, 0) | {"accepted": 3, "delivered": 1, "queued": 2, "balanced": True}
    assert "balanced: yes\n" in (await pr("audit")).out


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("DELETE FROM deliveries WHERE id = ?", {"delivery": None, "status": "PENDING", "state": None}),
        ("UPDATE deliveries SET state = 'DELIVERED' WHERE id = ?", {"status": "PENDING", "state": "DELIVERED"}),
    ],
)
async def test_a_ledger_that_does_not_balance_fails_and_names_the_rows(
    mails: dict[str, str], config: Path, pr: Typing, damage: str, what: dict[str, str | None]
) -> None:
    async with open_relay(load_settings(config)) as relay:
        await relay.db.migrate(lambda raw: raw.execute(damage, [mails["a"]]))
    done = await pr("audit", "--json")
    assert done.code == 1
    assert '"balanced": false' in done.out
    assert mails["a"] in done.out or what["state"] is None
    for key, value in what.items():
        assert f'"{key}": {"null" if value is None else chr(34) + value + chr(34)}' in done.out


async def _states(pr: Typing, mails: dict[str, str]) -> dict[str, str]:
    names = {queue_id: name for name, queue_id in mails.items()}
    return {names[entry["id"]]: entry["state"] for entry in (await pr("queue", "list", "--json")).json()}
