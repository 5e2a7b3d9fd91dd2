"""What does an operator see of providers that are not normal, and how are they set right? With a server and without one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.tables import provider_states
from plunk_relay.serve import open_relay
from plunk_relay.settings import load_settings
from tests.cli.conftest import Typing
from tests.kit.store import insert

PAST, FUTURE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
async def states(made: dict[str, Any], config: Path) -> list[str]:
    """Store one provider of each kind; to be named before `pr`."""
    kinds: dict[str, dict[str, Any]] = {
        "google": {"pace": 50},
        "microsoft": {"pace": 100, "fallback_since": PAST, "probe_at": FUTURE},
        "orange": {"pace": 10, "paused_until": PAST},
        "yahoo": {"pace": 10, "paused_until": FUTURE},
    }
    async with open_relay(load_settings(config)) as relay:
        for provider, state in kinds.items():
            row = {"provider": provider, "source_address": "", "reason": f"421 {provider} says so", "updated_at": PAST}
            await insert(relay, provider_states, **row, **state)
    return list(kinds)


async def test_providers_are_listed_with_what_is_wrong_and_why(states: list[str], pr: Typing) -> None:
    listed = (await pr("queue", "providers", "--json")).json()
    assert [entry["provider"] for entry in listed] == states
    assert [entry["pace"] for entry in listed] == [50, 100, 10, 10]
    assert [entry["paused_until"] is not None for entry in listed] == [False, False, False, True]
    assert listed[1]["fallback_since"].startswith("2026-01-01")
    assert listed[3]["reason"] == "421 yahoo says so"


async def test_people_get_a_line_a_provider(states: list[str], pr: Typing) -> None:
    lines = (await pr("queue", "providers")).out.splitlines()
    assert len(lines) == len(states)
    assert "google" in lines[0]
    assert "at 50 % of its pace  421 google says so" in lines[0]
    assert "by the smarthost since 2026-01-01" in lines[1]
    assert "paused until 2100-01-01" in lines[3]


async def test_a_provider_is_resumed(states: list[str], pr: Typing) -> None:
    assert (await pr("queue", "resume", "yahoo", "--json")).json() == {"resumed": "yahoo", "due": 0}
    left = [entry["provider"] for entry in (await pr("queue", "providers", "--json")).json()]
    assert left == [state for state in states if state != "yahoo"]


async def test_a_provider_that_nothing_is_wrong_with_is_named(made: dict[str, Any], pr: Typing) -> None:
    assert (await pr("queue", "providers", "--json")).json() == []
    done = await pr("queue", "resume", "gmx")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("plunk-relay: nothing is wrong with gmx; `queue providers` lists those")
