"""Where do our HTTPS requests go, whom do they trust, and how much do they read?"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from plunk_relay.mail.dns import Resolver
from plunk_relay.mail.hosts import Network
from plunk_relay.mail.https import HttpsFailed, HttpsReach, fetch_text, post
from plunk_relay.sections import DeliverySettings
from tests.kit.authority import Authority
from tests.kit.dns import DnsTable, running_dns
from tests.kit.policies import HttpsServer, running_https
from tests.kit.process import free_port

NAME = "mta-sts.example.org"
LOOPBACK = DeliverySettings(allow_networks=["127.0.0.0/8"]).allow_networks


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def site(
    authority: Authority,
    *,
    names: tuple[str, ...] = (NAME,),
    addresses: tuple[str, ...] = ("127.0.0.1",),
    networks: tuple[Network, ...] = LOOPBACK,
    trusted: bool = True,
    days: float = 1,
    seconds: float = 5,
) -> AsyncIterator[tuple[HttpsServer, HttpsReach]]:
    table = DnsTable()
    table.set(NAME, "A", *addresses)
    issued = authority.issue(*names, days=days)
    async with running_dns(table) as dns, running_https(issued.files) as server:
        ca_file = str(authority.ca_file) if trusted else None
        yield server, HttpsReach(Resolver([dns]), networks, ca_file, seconds)


def url(server: HttpsServer, target: str = "/policy.txt") -> str:
    return f"https://{NAME}:{server.port}{target}"


async def test_a_document_is_fetched_from_the_name_s_address(authority: Authority) -> None:
    async with site(authority) as (server, reach):
        server.body = b"version: STSv1\r\n"
        assert await fetch_text(reach, url(server), most_bytes=100) == "version: STSv1\r\n"
        [asked] = server.asked
        assert (asked.method, asked.target, asked.headers["host"]) == ("GET", "/policy.txt", f"{NAME}:{server.port}")
        assert server.names == [NAME]


async def test_an_address_that_does_not_answer_is_followed_by_the_next(authority: Authority) -> None:
    async with site(authority, addresses=("127.0.0.98", "127.0.0.1")) as (server, reach):
        server.body = b"text"
        assert await fetch_text(reach, url(server), most_bytes=100) == "text"


@pytest.mark.parametrize(
    ("certificate", "untrusted"),
    [({"names": ("example.org",)}, True), ({"days": -2}, True), ({"trusted": False}, True)],
    ids=["other name", "expired", "unknown authority"],
)
async def test_a_server_whose_certificate_is_not_good_is_not_believed(
    authority: Authority, certificate: dict[str, object], untrusted: bool
) -> None:
    async with site(authority, **certificate) as (server, reach):  # type: ignore[arg-type]  # names of its arguments
        server.body = b"text"
        with pytest.raises(HttpsFailed) as failed:
            await fetch_text(reach, url(server), most_bytes=100)
        assert failed.value.untrusted is untrusted
        assert server.asked == []


async def test_private_addresses_are_not_asked_unless_they_are_listed(authority: Authority) -> None:
    async with site(authority, networks=()) as (server, reach):
        with pytest.raises(HttpsFailed, match="no address that may be asked"):
            await fetch_text(reach, url(server), most_bytes=100)
        with pytest.raises(HttpsFailed, match="no address that may be asked"):
            await post(reach, f"https://127.0.0.1:{server.port}/", b"", content_type="text/plain")
        assert (server.asked, server.names) == ([], [])


def _redirect(server: HttpsServer) -> None:
    server.status, server.headers = 302, {"Location": "/elsewhere", "Content-Type": "text/plain"}


def _hypertext(server: HttpsServer) -> None:
    server.headers = {"Content-Type": "text/html"}


def _missing(server: HttpsServer) -> None:
    server.status = 404


def _large(server: HttpsServer) -> None:
    server.body = b"x" * 65537


def _no_text(server: HttpsServer) -> None:
    server.body = b"\xff\xfe"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_redirect, "answered 302"),
        (_missing, "answered 404"),
        (_hypertext, "not text/plain"),
        (_large, "larger than 65536 bytes"),
        (_no_text, "not UTF-8"),
    ],
)
async def test_what_is_no_plain_small_document_is_refused(
    authority: Authority, change: Callable[[HttpsServer], None], reason: str
) -> None:
    async with site(authority) as (server, reach):
        change(server)
        with pytest.raises(HttpsFailed, match=reason):
            await fetch_text(reach, url(server), most_bytes=65536)
        assert len(server.asked) == 1


async def test_a_server_that_says_nothing_is_given_up(authority: Authority) -> None:
    async with site(authority, seconds=0.3) as (server, reach):
        server.silent = True
        with pytest.raises(HttpsFailed, match="did not answer"):
            await fetch_text(reach, url(server), most_bytes=100)


async def test_a_name_that_leads_nowhere_is_told_in_one_line(authority: Authority) -> None:
    async with site(authority) as (_, reach):
        with pytest.raises(HttpsFailed, match=r"gone\.example does not exist"):
            await fetch_text(reach, "https://gone.example/", most_bytes=100)
        with pytest.raises(HttpsFailed, match="cannot be reached"):
            await fetch_text(reach, f"https://{NAME}:{free_port()}/", most_bytes=100)


@pytest.mark.parametrize("bad", ["http://example.org/", "https://", "https://user@example.org/", "https://x:port/", "ftp:x"])
async def test_only_https_is_spoken(authority: Authority, bad: str) -> None:
    async with site(authority) as (_, reach):
        with pytest.raises(HttpsFailed, match=r"no (https )?URL"):
            await post(reach, bad, b"", content_type="text/plain")


async def test_a_document_is_posted(authority: Authority) -> None:
    async with site(authority) as (server, reach):
        server.status = 201
        await post(reach, url(server, "/reports?a=b"), b"\x1f\x8b", content_type="application/tlsrpt+gzip")
        [asked] = server.asked
        assert (asked.method, asked.target, asked.body) == ("POST", "/reports?a=b", b"\x1f\x8b")
        assert asked.headers["content-type"] == "application/tlsrpt+gzip"


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_a_post_that_is_not_taken_is_a_failure(authority: Authority, status: int) -> None:
    async with site(authority) as (server, reach):
        server.status = status
        with pytest.raises(HttpsFailed, match=str(status)):
            await post(reach, url(server), b"x", content_type="text/plain")
