"""How is mail sent over TLS in a test? To example.org: an exchanger with a certificate, and a server for its policy."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.authority import Authority, Issued
from tests.kit.outbox import Outbox, Prepared, running_outbox, usual_dns
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer
from tests.kit.policies import HttpsServer, running_https

WITH_TLS = (*KEYWORDS, "STARTTLS")
SAVE_NO_CONNECTION = "250 2.0.0 taken + close"
RECORD = "_mta-sts.example.org"


@dataclass(slots=True)
class Road:
    """Everything on the way of a mail to example.org."""

    outbox: Outbox
    peer: Peer
    https: HttpsServer

    def publish(self, policy_id: str, *mx: str, mode: str = "enforce", max_age: int = 86400) -> None:
        """Let example.org have an MTA-STS policy."""
        self.outbox.dns.set(RECORD, "TXT", f"v=STSv1; id={policy_id};")
        self.outbox.dns.set("mta-sts.example.org", "A", "127.0.0.1")
        self.outbox.relay.resolver.forget(RECORD)
        self.outbox.relay.resolver.forget("mta-sts.example.org")
        self.https.set_policy(*(mx or ("mx.example.org",)), mode=mode, max_age=max_age)

    def withdraw(self) -> None:
        """Let the record be gone, and the server answer 404."""
        self.outbox.dns.remove(RECORD, "TXT")
        self.outbox.relay.resolver.forget(RECORD)
        self.https.status = 404

    async def send(self, **options: Any) -> dict[str, Any]:
        """Send a mail and return its first attempt, with the `state` of the delivery."""
        [delivery_id] = await self.outbox.submit(**options)
        await self.outbox.deliver()
        attempt = (await self.outbox.attempts(delivery_id))[0]
        return attempt | {"state": (await self.outbox.delivery(delivery_id))["state"]}


@asynccontextmanager
async def road(
    prepared: Prepared,
    directory: Path,
    authority: Authority,
    *,
    shows: Issued | None = None,
    keywords: Sequence[str] = WITH_TLS,
    copy: bool = True,
    signed: Sequence[str] = (),
    **delivery: Any,
) -> AsyncIterator[Road]:
    """Run it all; `shows` is the exchanger's certificate, else a good one."""
    issued = shows or authority.issue("mx.example.org")
    script = Script(keywords=keywords, dot=SAVE_NO_CONNECTION)
    server = authority.issue("mta-sts.example.org")
    dns = usual_dns()
    dns.sign(*signed)
    async with running_peer(script, certificate=issued.files) as peer, running_https(server.files) as https:
        settings: dict[str, Any] = {"ca_file": str(authority.ca_file), "mta_sts_port": https.port, **delivery}
        async with running_outbox(prepared, directory, port=peer.port, dns=dns, copy=copy, **settings) as outbox:
            yield Road(outbox, peer, https)
