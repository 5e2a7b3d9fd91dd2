"""What does every part need at hand? `Relay`: the one value that is passed around, and the one seam tests replace."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plunk_relay.clock import Clock
    from plunk_relay.db.engine import Database
    from plunk_relay.delivery.tls.results import TlsResults
    from plunk_relay.delivery.tls.sts import StsPolicies
    from plunk_relay.mail.dns import Resolver
    from plunk_relay.memory import Memory
    from plunk_relay.secretbox import SecretBox
    from plunk_relay.settings import Settings
    from plunk_relay.uploads.actions import UploadStore
    from plunk_relay.verify.lists import DomainLists


@dataclass(frozen=True, slots=True)
class Wakes:
    """Events that make a worker look now instead of at its next timer; losing one costs only time."""

    deliveries: asyncio.Event = field(default_factory=asyncio.Event)
    domains: asyncio.Event = field(default_factory=asyncio.Event)
    events: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: asyncio.Event = field(default_factory=asyncio.Event)
    providers: asyncio.Event = field(default_factory=asyncio.Event)
    """An operator changed the state of a provider: the deliverer reads it again, with its next claim."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Everything a door or worker may use; built once, in serve.py."""

    settings: "Settings"
    db: "Database"
    clock: "Clock"
    resolver: "Resolver"
    sts_policies: "StsPolicies"
    """MTA-STS policies of other domains."""
    tls_results: "TlsResults"
    """How the TLS of our sessions went, for reports."""
    domain_lists: "DomainLists"
    """Domains of throw-away addresses, aliases and mail providers."""
    uploads: "UploadStore"
    """Where uploaded images are."""
    secrets: "SecretBox"
    memory: "Memory"
    wakes: Wakes
    hostname: str
    """The name we greet with and sign Received headers by."""
    stopping: asyncio.Event
    """Set when the server begins to stop: doors accept nothing any more."""
    started: float
    """`clock.monotonic()` at the start."""
    acme_answers: dict[str, str] = field(default_factory=dict)
    """What the HTTP door says to a certificate authority that looks, by token (RFC 8555 8.3)."""
