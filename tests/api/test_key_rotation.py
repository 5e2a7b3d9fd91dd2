"""How does a domain change its DKIM keys without a pause? Old ones sign until the new ones are published."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.domains import worker
from plunk_relay.domains.actions import describe_records, find_identity, get_domain, rotate_keys, trust_domain, verify_domain
from plunk_relay.domains.queries import Domain
from plunk_relay.domains.records import DnsRecord
from plunk_relay.relay import Relay
from tests.kit.dns import DnsTable, running_dns
from tests.kit.relay import Tenant, make_tenant, running_relay


class Zone:
    """The DNS of one domain, and what signs for it."""

    def __init__(self, relay: Relay, owner: Tenant, dns: DnsTable) -> None:
        self.relay, self.dns, self._owner = relay, dns, owner

    async def domain(self) -> Domain:
        """Return the domain as it is now."""
        identity = await find_identity(self.relay, self._owner.id, self._owner.domain)
        assert identity is not None
        return await get_domain(self.relay, self._owner.id, identity.domain_id)

    async def signing(self) -> list[str]:
        """Return the selectors that sign."""
        identity = await find_identity(self.relay, self._owner.id, self._owner.domain)
        assert identity is not None
        return [key.selector for key in identity.keys]

    async def records(self, purpose: str) -> list[DnsRecord]:
        """Return the DKIM records that are shown for a purpose."""
        return [r for r in await describe_records(self.relay, await self.domain()) if r.purpose == purpose]

    async def publish(self, purpose: str = "dkim-rsa") -> None:
        """Put the record of a purpose into the DNS."""
        for record in await self.records(purpose):
            self.dns.set(record.name, record.type, record.value)


@pytest.fixture
async def zone(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Zone]:
    """Serve the DNS of a verified domain."""
    table = DnsTable()
    async with (
        running_dns(table) as resolver,
        running_relay(tmp_path, clock=clock, delivery={"resolvers": [resolver]}) as relay,
    ):
        made = Zone(relay, await make_tenant(relay, verified=False), table)
        await made.publish()
        checked, _ = await verify_domain(relay, await made.domain())
        assert checked.verified
        yield made


async def test_old_keys_sign_and_the_domain_stays_verified_until_the_new_record_is_found(zone: Zone) -> None:
    old = await zone.signing()
    rotated = await rotate_keys(zone.relay, await zone.domain())
    assert (rotated.verified, rotated.status) == (True, "Success")
    assert await zone.signing() == old
    [new] = await zone.records("dkim-rsa")
    assert (new.required, new.status) == (True, "Pending")
    [replaced] = await zone.records("dkim-rsa-old")
    assert (replaced.required, replaced.status) == (False, "Success")
    assert replaced.name.partition(".")[0] in old


async def test_new_keys_sign_as_soon_as_their_record_is_found(zone: Zone, clock: ManualClock) -> None:
    old = await zone.signing()
    await rotate_keys(zone.relay, await zone.domain())
    await zone.publish()
    clock.advance(minutes=6)
    await worker.run_once(zone.relay)
    assert not set(await zone.signing()) & set(old)
    assert len(await zone.signing()) == 2
    assert await zone.records("dkim-rsa-old") == []
    assert (await zone.domain()).verified


async def test_domain_that_loses_the_old_record_before_the_new_one_is_there_is_unverified(zone: Zone) -> None:
    await rotate_keys(zone.relay, await zone.domain())
    [replaced] = await zone.records("dkim-rsa-old")
    zone.dns.remove(replaced.name, "TXT")
    checked, _ = await verify_domain(zone.relay, await zone.domain())
    assert (checked.verified, checked.status) == (False, "Pending")


async def test_resolver_error_during_a_rotation_changes_nothing(zone: Zone) -> None:
    old = await zone.signing()
    await rotate_keys(zone.relay, await zone.domain())
    for purpose in ("dkim-rsa", "dkim-rsa-old"):
        [record] = await zone.records(purpose)
        zone.dns.fail(record.name, "TXT", "SERVFAIL")
    checked, _ = await verify_domain(zone.relay, await zone.domain())
    assert (checked.verified, checked.status) == (True, "TemporaryFailure")
    assert await zone.signing() == old


async def test_second_rotation_gives_up_the_keys_that_were_never_published(zone: Zone) -> None:
    old = await zone.signing()
    await rotate_keys(zone.relay, await zone.domain())
    [first] = await zone.records("dkim-rsa")
    await rotate_keys(zone.relay, await zone.domain())
    [second] = await zone.records("dkim-rsa")
    assert first.name != second.name
    assert await zone.signing() == old
    await zone.publish()
    await verify_domain(zone.relay, await zone.domain())
    assert second.name.partition(".")[0] in await zone.signing()


@pytest.mark.parametrize("state", ["trusted", "unverified"])
async def test_without_records_to_wait_for_new_keys_sign_at_once(zone: Zone, state: str) -> None:
    old = await zone.signing()
    if state == "trusted":
        await trust_domain(zone.relay, await zone.domain())
    else:
        [record] = await zone.records("dkim-rsa")
        zone.dns.remove(record.name, "TXT")
        await verify_domain(zone.relay, await zone.domain())
    rotated = await rotate_keys(zone.relay, await zone.domain())
    assert rotated.verified is (state == "trusted")
    assert not set(await zone.signing()) & set(old)
