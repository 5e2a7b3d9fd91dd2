"""Where do the lists of domains come from, and what happens when one cannot be read?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from plunk_relay.clock import ManualClock
from plunk_relay.errors import UsageError
from plunk_relay.mail.dns import Resolver
from plunk_relay.mail.https import HttpsReach
from plunk_relay.relay import Relay
from plunk_relay.sections import VerifySettings
from plunk_relay.verify import worker
from plunk_relay.verify.lists import DomainList, DomainLists, read_domains, shipped_list
from tests.kit.authority import Authority
from tests.kit.dns import DnsTable, running_dns
from tests.kit.policies import HttpsServer, running_https
from tests.kit.relay import make_settings, running_relay

NAME = "lists.example.org"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def site(authority: Authority) -> AsyncIterator[tuple[HttpsServer, HttpsReach]]:
    """Serve lists at an address of the inner network."""
    table = DnsTable()
    table.set(NAME, "A", "127.0.0.1")
    async with running_dns(table) as dns, running_https(authority.issue(NAME).files) as server:
        yield server, HttpsReach(Resolver([dns]), (), str(authority.ca_file), 5)


@pytest.mark.parametrize(
    ("line", "domains"),
    [
        ("example.com", ["example.com"]),
        ("  Example.COM  # a comment", ["example.com"]),
        ("# example.com", []),
        ("// example.com", []),
        ("@example.com", ["example.com"]),
        ("*.example.com", ["example.com"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
        ("<html>example.com</html>", []),
        ("ann@example.com", []),
        ("example", []),
        ("", []),
        ("192.0.2.1", []),
    ],
)
def test_a_line_of_a_list_is_a_domain_or_nothing(line: str, domains: list[str]) -> None:
    assert list(read_domains(line)) == domains


def test_a_list_finds_whole_domains_alone() -> None:
    found = DomainList(iter(["b.example", "a.example"]))
    assert len(found) == 2
    assert all(domain in found for domain in ("a.example", "b.example"))
    assert not any(domain in found for domain in ("example", "xa.example", "a.exampl", "a.example.com", "", "\n"))
    assert len(DomainList(iter([]))) == 0
    assert "" not in DomainList(iter([]))


def test_a_list_covers_what_is_below_its_domains() -> None:
    found = DomainList(iter(["a.example", "deep.b.example"]))
    assert found.covers("x.y.a.example")
    assert found.covers("x.deep.b.example")
    assert not found.covers("b.example")
    assert not found.covers("x.b.example")
    assert found.covers("x." * 100 + "a.example")


def test_the_lists_of_the_package_are_not_empty() -> None:
    assert len(shipped_list("disposable")) > 5_000
    assert len(shipped_list("personal")) > 3_000
    assert len(shipped_list("alias")) > 20


async def test_the_operators_file_takes_the_place_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "throwaway.txt"
    path.write_text("own.example\n")
    async with running_relay(tmp_path, verify={"disposable_list": str(path)}) as relay:
        assert "mailinator.com" in relay.domain_lists.get("disposable")
        await worker.run_once(relay)
        assert "own.example" in relay.domain_lists.get("disposable")
        assert "mailinator.com" not in relay.domain_lists.get("disposable")
        assert "gmail.com" in relay.domain_lists.get("personal")


async def test_a_list_is_read_again_after_the_hours_that_are_set(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "list.txt"
    path.write_text("one.example\n")
    async with running_relay(tmp_path, clock=clock, verify={"alias_list": str(path), "refresh_hours": 2}) as relay:
        await worker.run_once(relay)
        path.write_text("two.example\n")
        clock.advance(hours=1, minutes=59)
        await worker.run_once(relay)
        assert "one.example" in relay.domain_lists.get("alias")
        clock.advance(minutes=1)
        await worker.run_once(relay)
        assert "two.example" in relay.domain_lists.get("alias")
        assert "one.example" not in relay.domain_lists.get("alias")


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"<html>\n<p>gone</p>\n", b"\xff\xfe\n"])
async def test_a_list_that_cannot_be_read_stays_as_it_was_and_is_told_once(
    tmp_path: Path, clock: ManualClock, content: bytes | None
) -> None:
    path = tmp_path / "list.txt"
    path.write_text("one.example\n")
    async with running_relay(tmp_path, clock=clock, verify={"alias_list": str(path), "refresh_hours": 1}) as relay:
        await worker.run_once(relay)
        path.unlink() if content is None else path.write_bytes(content)
        with capture_logs() as said:
            for _ in range(3):
                clock.advance(hours=1)
                await worker.run_once(relay)
        assert "one.example" in relay.domain_lists.get("alias")
        assert [line["setting"] for line in said if line["log_level"] == "warning"] == ["verify.alias_list"]
        path.write_text("two.example\n")
        clock.advance(minutes=15)
        await worker.run_once(relay)
        assert "two.example" in relay.domain_lists.get("alias")


async def test_a_list_is_fetched_by_https_from_an_inner_server_too(authority: Authority, clock: ManualClock) -> None:
    async with site(authority) as (server, reach):
        server.headers, server.body = {"Content-Type": "application/octet-stream"}, b"fetched.example\n"
        url = f"https://{NAME}:{server.port}/list.txt"
        lists = DomainLists(VerifySettings(personal_list=url), clock, reach)
        await lists.refresh()
        assert "fetched.example" in lists.get("personal")


@pytest.mark.parametrize("fault", ["status", "redirect", "size", "certificate"])
async def test_an_answer_that_is_no_list_leaves_the_list_of_the_package(
    authority: Authority, clock: ManualClock, fault: str
) -> None:
    async with site(authority) as (server, reach):
        server.body = b"fetched.example\n"
        if fault == "status":
            server.status = 404
        if fault == "redirect":
            server.status, server.headers = 302, {"Location": "https://other.example/"}
        if fault == "size":
            server.body = b"# " + b"x" * 20_000_000 + b"\nfetched.example\n"
        trusting = HttpsReach(reach.resolver, (), None, 5) if fault == "certificate" else reach
        lists = DomainLists(VerifySettings(personal_list=f"https://{NAME}:{server.port}/"), clock, trusting)
        await lists.refresh()
        assert "gmail.com" in lists.get("personal")
        assert "fetched.example" not in lists.get("personal")


async def test_without_lists_of_the_operator_nothing_is_read(relay: Relay) -> None:
    with capture_logs() as said:
        assert await worker.run_once(relay) is False
    assert said == []


@pytest.mark.parametrize("source", ["http://lists.example/list.txt", "ftp://lists.example/list.txt"])
def test_a_list_is_a_path_or_an_https_url(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match=r"verify\.disposable_list"):
        make_settings(tmp_path, verify={"disposable_list": source})
