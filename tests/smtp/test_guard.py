"""Can a password be guessed? Ten failures a minute, fifty a day, five times as many a network; restarts forget nothing."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.smtp.guard import TOO_MANY, LoginGuard
from plunk_relay.smtp.queries import Counter, list_counters
from tests.kit.smtp import Site, Stage, greeted, running_site, sasl_plain

ADDRESS = "192.0.2.1"


@pytest.fixture
def guard(clock: ManualClock) -> LoginGuard:
    return LoginGuard(clock.now)


def test_ten_failures_a_minute_are_enough(guard: LoginGuard, clock: ManualClock) -> None:
    assert _fail_until_refused(guard, [ADDRESS]) == 10
    clock.advance(seconds=59)
    assert guard.check(ADDRESS) == TOO_MANY
    clock.advance(seconds=1)
    assert guard.check(ADDRESS) is None


def test_fifty_failures_a_day_are_enough(guard: LoginGuard, clock: ManualClock) -> None:
    for _ in range(5):
        assert _fail_until_refused(guard, [ADDRESS]) == 10
        clock.advance(minutes=2)
    assert guard.check(ADDRESS) == TOO_MANY
    clock.advance(hours=23, minutes=49)
    assert guard.check(ADDRESS) == TOO_MANY
    clock.advance(minutes=1)
    assert guard.check(ADDRESS) is None


@pytest.mark.parametrize(
    ("attackers", "neighbour", "stranger"),
    [
        ([f"192.0.2.{n}" for n in range(5)], "192.0.2.99", "192.0.3.1"),
        ([f"2001:db8:1:{n}::1" for n in range(5)], "2001:db8:1:ffff::1", "2001:db8:2::1"),
    ],
)
def test_a_network_that_changes_its_addresses_is_refused_whole(
    guard: LoginGuard, attackers: list[str], neighbour: str, stranger: str
) -> None:
    assert _fail_until_refused(guard, attackers) == 50
    assert guard.check(neighbour) == TOO_MANY
    assert guard.check(stranger) is None


def test_success_makes_the_failures_of_an_address_forgotten(guard: LoginGuard) -> None:
    for _ in range(9):
        guard.fail(ADDRESS)
    guard.succeed(ADDRESS)
    assert _fail_until_refused(guard, [ADDRESS]) == 10


def test_success_does_not_excuse_the_network(guard: LoginGuard) -> None:
    for _ in range(50):
        guard.fail(ADDRESS)
        guard.succeed(ADDRESS)
    assert guard.check(ADDRESS) == TOO_MANY


def test_a_guard_goes_on_where_another_stopped(guard: LoginGuard, clock: ManualClock) -> None:
    for _ in range(10):
        guard.fail(ADDRESS)
    stored, deleted = guard.take_changes()
    assert deleted == []
    assert LoginGuard(clock.now, stored).check(ADDRESS) == TOO_MANY


def test_only_changes_are_told(guard: LoginGuard, clock: ManualClock) -> None:
    guard.fail(ADDRESS)
    names = {counter.name for counter in guard.take_changes()[0]}
    assert len(names) == 4
    assert guard.take_changes() == ([], [])
    guard.succeed(ADDRESS)
    stored, deleted = guard.take_changes()
    assert (stored, len(deleted)) == ([], 2)
    clock.advance(days=2)
    guard.fail("198.51.100.1")
    _, deleted = guard.take_changes()
    assert len(deleted) == 2, "what has expired goes with the next failure"


def test_a_botnet_does_not_fill_the_memory(clock: ManualClock) -> None:
    old = [Counter(f"smtp-auth:day:{n}", 1, clock.now().replace(year=2100)) for n in range(100_000)]
    guard = LoginGuard(clock.now, old)
    guard.fail(ADDRESS)
    stored, deleted = guard.take_changes()
    assert deleted == ["smtp-auth:day:0"]
    assert len(stored) == 4


async def test_failures_outlive_a_restart(stage: Stage, tmp_path: Path, clock: ManualClock) -> None:
    async with running_site(stage, tmp_path, clock=clock) as site:
        assert [await _log_in(site, "sk_wrong") for _ in range(10)] == ["535"] * 10
    async with running_site(stage, tmp_path, clock=clock) as site:
        assert await _log_in(site, site.acme.secret) == "454"
        assert await _log_in(site, site.acme.secret, source="127.0.1.1") == "235"
        clock.advance(minutes=1)
        assert await _log_in(site, site.acme.secret) == "235"


async def test_success_is_remembered_too(stage: Stage, tmp_path: Path, clock: ManualClock) -> None:
    async with running_site(stage, tmp_path, clock=clock) as site:
        for password in ["sk_wrong"] * 9 + [site.acme.secret]:
            await _log_in(site, password)
        counters = await site.relay.db.read(list_counters, "smtp-auth:")
        assert [counter.value for counter in counters] == [9, 9], "the network's minute and day"
    async with running_site(stage, tmp_path, clock=clock) as site:
        assert await _log_in(site, "sk_wrong") == "535"


async def test_a_wrong_password_is_wrong_even_when_nothing_can_be_stored(site: Site) -> None:
    site.relay.db.failure = "a write to disk failed"
    assert [await _log_in(site, "sk_wrong") for _ in range(11)] == ["535"] * 10 + ["454"]


async def test_guesses_at_once_are_no_more_than_one_after_the_other(site: Site) -> None:
    codes = await asyncio.gather(*(_log_in(site, "sk_wrong") for _ in range(30)))
    assert sorted(codes) == ["454"] * 20 + ["535"] * 10


async def test_many_may_log_in_at_once(site: Site) -> None:
    assert await asyncio.gather(*(_log_in(site, site.acme.secret) for _ in range(30))) == ["235"] * 30


async def test_an_attacker_does_not_lock_out_others(site: Site) -> None:
    assert [await _log_in(site, "sk_wrong", source="127.0.1.1") for _ in range(11)][-1] == "454"
    assert await _log_in(site, site.acme.secret) == "235"


def _fail_until_refused(guard: LoginGuard, addresses: Iterable[str]) -> int:
    """Let each address fail until it is refused; return how many failures that took."""
    failures = 0
    for address in addresses:
        while guard.check(address) is None:
            guard.fail(address)
            failures += 1
    return failures


async def _log_in(site: Site, password: str, *, source: str = "127.0.0.1") -> str:
    """Return the code of a login in a session of its own."""
    async with greeted(site.port, source=source) as wire:
        await wire.ask("EHLO client.test")
        return (await wire.ask(f"AUTH PLAIN {sasl_plain('plunk', password)}"))[:3]
