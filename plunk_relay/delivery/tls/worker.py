"""What is done about TLS besides sending? Policies are refreshed, session counts stored, and once a day reported.

A day's counts of a domain are removed in the transaction that queues its report, so each report leaves once, whatever
happens in between; one sent by HTTPS may come twice after a crash, with the same id.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, timedelta
from functools import partial
from typing import TYPE_CHECKING

from plunk_relay.delivery.tls import queries
from plunk_relay.emails.notices import queue_notice
from plunk_relay.errors import Unavailable
from plunk_relay.log import get_logger
from plunk_relay.mail.address import domain_of
from plunk_relay.mail.dns import DnsTemporary, NameNotFound, Resolver
from plunk_relay.mail.https import HttpsFailed, HttpsReach, post
from plunk_relay.mail.tls_report import (
    CONTENT_TYPE,
    ReportFacts,
    find_report_targets,
    mail_target,
    make_report,
    report_message,
    report_subject,
)
from plunk_relay.relay import Relay
from plunk_relay.sections import DeliverySettings
from plunk_relay.workers import poll

if TYPE_CHECKING:
    import sqlalchemy as sa

log = get_logger("tls")
_EVERY_SECONDS = 300.0
_REFRESHED_AT_ONCE = 20
_REPORTED_AT_ONCE = 20
_DAYS_KEPT = 3
_REPORT_LIFETIME = timedelta(days=1)  # RFC 8460 5.3: a day of attempts
_START = ("", "")


def https_reach(settings: DeliverySettings, resolver: Resolver) -> HttpsReach:
    """Return where HTTPS requests may go: where mail may go."""
    return HttpsReach(resolver, settings.allow_networks, str(settings.ca_file) if settings.ca_file else None)


async def run(relay: Relay, stop: asyncio.Event) -> None:
    """Work every few minutes until `stop`."""
    keeper = TlsKeeper(relay)
    await poll(keeper.run_once, wake=asyncio.Event(), stop=stop, every_seconds=_EVERY_SECONDS)


async def store_results(relay: Relay) -> None:
    """Write the counts of sessions down; when that cannot be done they wait in memory."""
    rows = relay.tls_results.take()
    if rows:
        try:
            await relay.db.write(queries.add_results, rows)
        except Unavailable:
            relay.tls_results.put_back(rows)


class TlsKeeper:
    """Goes through the domains that have results of past days, some at a time."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._reach = https_reach(relay.settings.delivery, relay.resolver)
        self._after = _START

    async def run_once(self) -> bool:
        """Do a part of what is due; True when there is more."""
        relay = self._relay
        await store_results(relay)
        try:
            refreshed = await relay.sts_policies.refresh(most=_REFRESHED_AT_ONCE)
            reported = await self._report_some(relay.clock.now().date())
            if not reported:
                await relay.db.write(_purge, relay)
        except Unavailable:
            return False
        relay.sts_policies.forget_expired()
        return refreshed == _REFRESHED_AT_ONCE or reported

    async def _report_some(self, today: date) -> bool:
        """Report the next domains; True when there may be more. One that could not be reported waits for the next round."""
        pairs = await self._relay.db.read(
            queries.list_reportable, before=today.isoformat(), after=self._after, limit=_REPORTED_AT_ONCE
        )
        await asyncio.gather(*(self._report(day, domain) for day, domain in pairs))
        more = len(pairs) == _REPORTED_AT_ONCE
        self._after = pairs[-1] if more else _START
        return more

    async def _report(self, day: str, domain: str) -> None:
        """Report a day of a domain where its record says, or drop the counts when it has none."""
        try:
            targets = find_report_targets(await self._relay.resolver.txt(f"_smtp._tls.{domain}"))
        except NameNotFound:
            targets = []
        except DnsTemporary:
            return
        contact = self._relay.settings.delivery.tls_report_from
        if not targets or contact is None:
            await self._relay.db.write(queries.delete_counts, [(day, domain)])
            return
        facts = ReportFacts(domain, date.fromisoformat(day), domain_of(contact), contact)
        counts = await self._relay.db.read(queries.list_counts, day=day, domain=domain)
        await self._deliver(facts, make_report(facts, counts), targets)

    async def _deliver(self, facts: ReportFacts, report: bytes, targets: Sequence[str]) -> None:
        addresses = list(dict.fromkeys(found for target in targets if (found := mail_target(target)) is not None))
        posts = [self._post(target, report) for target in targets if mail_target(target) is None]
        posted = sum(await asyncio.gather(*posts))
        if not addresses and not posted:
            return
        work = partial(_queue_report, relay=self._relay, facts=facts, report=report, addresses=addresses)
        await self._relay.db.write(work)
        log.info("report sent", domain=facts.domain, day=facts.day.isoformat(), mails=len(addresses), posts=posted)
        self._relay.wakes.deliveries.set()

    async def _post(self, url: str, report: bytes) -> bool:
        try:
            await post(self._reach, url, report, content_type=CONTENT_TYPE)
        except HttpsFailed as error:
            log.warning("report not taken", url=url, error=str(error))
            return False
        return True


def _queue_report(tx: "sa.Connection", *, relay: Relay, facts: ReportFacts, report: bytes, addresses: Sequence[str]) -> None:
    now = relay.clock.now()
    for address in addresses:
        queue_notice(
            tx,
            recipient=address,
            sender_address=facts.contact,
            subject=report_subject(facts),
            message=report_message(facts, report, recipient=address, moment=now.astimezone(UTC)),
            now=now,
            expires_at=now + _REPORT_LIFETIME,
            tls_wish="OPTIONAL",
        )
    queries.delete_counts(tx, [(facts.day.isoformat(), facts.domain)])


def _purge(tx: "sa.Connection", relay: Relay) -> None:
    now = relay.clock.now()
    queries.delete_expired_policies(tx, now=now)
    queries.delete_old_counts(tx, before=(now.date() - timedelta(days=_DAYS_KEPT)).isoformat())
