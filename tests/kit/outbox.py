"""How does mail leave in a test? By hand: submit, `deliver`, look at rows, events and what the peers received.

The relay finds its peers through the DNS of the test: `example.org` has one exchanger, `mx.example.org` on 127.0.0.1.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange
from plunk_relay.contents.queries import Content
from plunk_relay.db.tables import attempts, deliveries, emails, events
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.emails.actions import PRIORITY_TRANSACTIONAL, NewMail, QueuedMail, queue_mails
from plunk_relay.emails.ledger.queries import find_imbalances, is_balanced, read_ledger
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.send.actions import send_message
from plunk_relay.send.request import SendRequest
from plunk_relay.spool import ByteSource
from tests.kit.dns import DnsTable, running_dns
from tests.kit.relay import NOON, Tenant, make_tenant, running_relay
from tests.kit.store import rows

if TYPE_CHECKING:
    import sqlalchemy as sa

MESSAGE = b"From: app@acme.test\r\nSubject: Hello\r\nMessage-ID: <1@acme.test>\r\n\r\nHi\r\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data directory with two tenants: making their RSA keys takes longer than most tests."""

    directory: Path
    acme: Tenant
    rival: Tenant


async def prepare_tenants(directory: Path) -> Prepared:
    """Make the directory that every outbox starts from."""
    async with running_relay(directory) as relay:
        return Prepared(directory, await make_tenant(relay), await make_tenant(relay, "rival", domain="rival.test"))


@dataclass(slots=True)
class Outbox:
    """A relay with a deliverer that moves when it is told to."""

    relay: Relay
    clock: ManualClock
    dns: DnsTable
    acme: Tenant
    rival: Tenant
    deliverer: Deliverer
    stack: AsyncExitStack = field(repr=False)

    async def send(self, *recipients: str, tenant: Tenant | None = None, **fields: Any) -> list[QueuedMail]:
        """Queue a mail a recipient, as `POST /v1/send` does; `from_` stands for `from`."""
        chosen = tenant or self.acme
        body: dict[str, Any] = {
            "to": list(recipients) or ["ann@example.org"],
            "from": f"app@{chosen.domain}",
            "subject": "Hello",
            "body": "<p>Hi</p>",
        }
        body |= {name.rstrip("_"): value for name, value in fields.items()}
        return await send_message(self.relay, chosen.id, SendRequest.model_validate(body))

    async def submit(
        self,
        *recipients: str,
        tenant: Tenant | None = None,
        message: bytes | ByteSource = MESSAGE,
        never_twice: bool = False,
        priority: int = PRIORITY_TRANSACTIONAL,
        lifetime: timedelta = timedelta(hours=96),
        tls_wish: str | None = None,
    ) -> list[str]:
        """Queue one message for all recipients, as the submission door does; return the queue ids."""
        chosen, now = tenant or self.acme, self.relay.clock.now()
        content = Content(new_id(), chosen.id, "MIME", message)
        mails = [
            NewMail(
                email_id=new_id(),
                delivery_id=new_id(),
                project_id=chosen.id,
                contact=ContactChange(recipient.lower(), subscribed_if_new=True),
                rendered_for=None,
                recipient=recipient,
                to_name=None,
                subject="Hello",
                from_address=f"app@{chosen.domain}",
                from_name=None,
                reply_to=None,
                headers=None,
                content_id=content.id,
                attachments_id=None,
                message_id=f"1@{chosen.domain}",
                mail_class="transactional",
                source_type="TRANSACTIONAL",
                sender=f"app@{chosen.domain}",
                expires_at=now + lifetime,
                never_twice=never_twice,
                tls_wish=tls_wish,
                priority=priority,
            )
            for recipient in recipients or ("ann@example.org",)
        ]

        def store(tx: "sa.Connection") -> list[QueuedMail]:
            return queue_mails(tx, [content], mails, now=now)

        return [queued.delivery_id for queued in await self.relay.db.write(store)]

    async def claim(self) -> None:
        """Let the deliverer claim all there is room for, and go on at once."""
        while await self.deliverer.run_once():
            pass

    async def deliver(self) -> None:
        """Let the deliverer claim until nothing is due and all it had has a result."""
        async with asyncio.timeout(20):
            await self.claim()
            while self.deliverer.in_hand:
                await self.deliverer.settle()
                await self.claim()

    async def until(self, fits: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something about the rows is true."""
        async with asyncio.timeout(20):
            while not await fits():  # noqa: ASYNC110  rows have no event
                await asyncio.sleep(0)  # let the others work

    async def new_deliverer(self) -> Deliverer:
        """Start another deliverer; from now on it is the one that moves."""
        self.deliverer = await self.stack.enter_async_context(_finished(Deliverer(self.relay)))
        return self.deliverer

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        """Return the row of the queue."""
        [row] = await rows(self.relay, deliveries, id=delivery_id)
        return row

    async def email(self, delivery_id: str) -> dict[str, Any]:
        """Return the row of the mail."""
        [row] = await rows(self.relay, emails, id=(await self.delivery(delivery_id))["email_id"])
        return row

    async def state(self, delivery_id: str) -> tuple[str, str]:
        """Return the state of the delivery and the status of the mail."""
        return (await self.delivery(delivery_id))["state"], (await self.email(delivery_id))["status"]

    async def attempts(self, delivery_id: str) -> list[dict[str, Any]]:
        """Return the attempts, first one first."""
        return await rows(self.relay, attempts, delivery_id=delivery_id)

    async def events(self) -> list[dict[str, Any]]:
        """Return all events, oldest first."""
        return await rows(self.relay, events)

    async def check_ledger(self) -> dict[str, int]:
        """Return the ledger; fails when it does not balance."""
        ledger = await self.relay.db.read(read_ledger)
        assert is_balanced(ledger)
        assert await self.relay.db.read(find_imbalances) == []
        return ledger


@asynccontextmanager
async def running_outbox(
    prepared: Prepared,
    directory: Path,
    *,
    port: int = 1,
    clock: ManualClock | None = None,
    dns: DnsTable | None = None,
    copy: bool = True,
    smtp: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    **delivery: Any,
) -> AsyncIterator[Outbox]:
    """Run a relay that delivers by MX to `port` of loopback; `smtp`, `limits`, `delivery` are settings of those sections."""
    table = dns or usual_dns()
    if copy:
        shutil.copytree(prepared.directory, directory, dirs_exist_ok=True)
    chosen = clock or ManualClock(NOON)
    async with AsyncExitStack() as stack:
        resolver = await stack.enter_async_context(running_dns(table))
        sections = {"smtp": smtp or {}, **({"limits": limits} if limits else {})}
        settings = {"route": "mx", "port": port, "resolvers": [resolver], "allow_networks": ["127.0.0.0/8"], **delivery}
        relay = await stack.enter_async_context(running_relay(directory, clock=chosen, delivery=settings, **sections))
        deliverer = await stack.enter_async_context(_finished(Deliverer(relay)))
        yield Outbox(relay, chosen, table, prepared.acme, prepared.rival, deliverer, stack)


@asynccontextmanager
async def _finished(deliverer: Deliverer) -> AsyncIterator[Deliverer]:
    """Run a deliverer and stop it without grace, so that a peer that hangs does not hold the test."""
    async with deliverer:
        try:
            yield deliverer
        finally:
            await deliverer.finish(0)


def usual_dns() -> DnsTable:
    """Return the zone of a recipient's domain with one exchanger."""
    table = DnsTable()
    set_exchangers(table, "example.org", "127.0.0.1")
    return table


def set_exchangers(table: DnsTable, domain: str, *addresses: str) -> None:
    """Give a domain an exchanger for each address, the first one preferred: mx.<domain>, mx2.<domain>, ..."""
    names = [f"mx{number if number > 1 else ''}.{domain}" for number in range(1, len(addresses) + 1)]
    table.set(domain, "MX", *(f"{10 * number} {name}." for number, name in enumerate(names, 1)))
    for name, address in zip(names, addresses, strict=True):
        table.set(name, "AAAA" if ":" in address else "A", address)


def set_provider(table: DnsTable, domain: str, exchanger: str, address: str = "127.0.0.1") -> None:
    """Give a domain an exchanger of somebody else's, such as `aspmx.l.google.com`."""
    table.set(domain, "MX", f"10 {exchanger}.")
    table.set(exchanger, "A", address)


def other_message(number: int) -> bytes:
    """Return a message that is not the same as others."""
    return MESSAGE.replace(b"<1@", b"<%d@" % number)
