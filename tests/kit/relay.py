"""How does a test get a relay? A real one: files in its directory, real sockets on loopback, a clock that stands still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plunk_relay.clock import Clock, ManualClock
from plunk_relay.domains import actions as domains
from plunk_relay.projects.actions import create_project
from plunk_relay.relay import Relay
from plunk_relay.serve import open_relay
from plunk_relay.settings import Settings, load_settings

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A project with its keys and one verified domain."""

    id: str
    public: str
    secret: str
    domain: str

    @property
    def headers(self) -> dict[str, str]:
        """The header of a request with the secret key."""
        return {"Authorization": f"Bearer {self.secret}"}


def make_settings(directory: Path, **sections: dict[str, Any]) -> Settings:
    """Return settings for a relay on loopback that captures mail; `sections` override them key by key."""
    values: dict[str, dict[str, Any]] = {
        "server": {"data_dir": directory, "public_url": "http://relay.test", "grace_seconds": 2},
        "http": {"port": 0},
        "smtp": {
            "hostname": "relay.test",
            "host": "127.0.0.1",
            "submission_port": 0,
            "submissions_port": 0,
            "inbound_port": 0,
            "auth_without_tls": True,
        },
        "delivery": {"route": "capture", "resolvers": ["127.0.0.1:9"]},  # port 9: nobody answers, nothing leaves
        "limits": {"minimum_free_megabytes": 1},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    return load_settings(overrides=values)


@asynccontextmanager
async def running_relay(directory: Path, *, clock: Clock | None = None, **sections: dict[str, Any]) -> AsyncIterator[Relay]:
    """Open a relay without doors and workers; tests call `run_once` of what they need."""
    settings = make_settings(directory, **sections)
    async with open_relay(settings, clock=clock or ManualClock(NOON)) as relay:
        yield relay


async def make_tenant(relay: Relay, name: str = "acme", *, domain: str = "acme.test", verified: bool = True) -> Tenant:
    """Make a project with a domain that is verified by the operator's word."""
    project, keys = await create_project(relay, name, owner_id=None)
    added = await domains.add_domain(relay, project.id, domain)
    if verified:
        await domains.trust_domain(relay, added)
    return Tenant(project.id, keys.public, keys.secret, domain)
