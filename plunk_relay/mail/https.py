"""How is another server asked over HTTPS? At an address that our own resolver found and mail may go to, and nowhere else.

For MTA-STS policies (RFC 8461 3.3) and TLS reports (RFC 8460 3): the certificate must be good, nothing is redirected,
little is read, and it must not take long.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from plunk_relay.mail.certificates import Untrusted, read_failure
from plunk_relay.mail.dns import DnsError, Resolver
from plunk_relay.mail.hosts import Network, is_allowed
from plunk_relay.mail.tls import tls_context

_LONGEST_SECONDS = 60.0
_MOST_ADDRESSES = 4


class HttpsFailed(Exception):
    """No usable answer came; `untrusted`: the certificate was not good."""

    def __init__(self, text: str, *, untrusted: bool = False) -> None:
        super().__init__(text)
        self.untrusted = untrusted


@dataclass(frozen=True, slots=True)
class HttpsReach:
    """Where requests may go, and whom they trust."""

    resolver: Resolver
    allow_networks: Sequence[Network] = ()
    authorities: str | None = None
    """PEM file of authorities that are trusted beside the system's."""
    seconds: float = _LONGEST_SECONDS
    """Longest request, from the look-up of the name to the last byte."""


async def fetch_text(reach: HttpsReach, url: str, *, most_bytes: int, content_type: str | None = "text/plain") -> str:
    """GET a document in UTF-8, of any type when `content_type` is None.

    Raises HttpsFailed, also for a redirect and for more than `most_bytes`.
    """
    try:
        async with asyncio.timeout(reach.seconds), _request(reach, "GET", url) as response:
            if response.status_code != 200:
                raise HttpsFailed(f"{url} answered {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type is not None and kind != content_type:
                raise HttpsFailed(f"{url} is {kind[:60] or 'of no type'}, not {content_type}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > most_bytes:
                    raise HttpsFailed(f"{url} is larger than {most_bytes} bytes")
            return body.decode()
    except TimeoutError:
        raise HttpsFailed(f"{url} did not answer within {reach.seconds:g} seconds") from None
    except UnicodeDecodeError:
        raise HttpsFailed(f"{url} is not UTF-8") from None


async def post(reach: HttpsReach, url: str, content: bytes, *, content_type: str) -> None:
    """POST a document; raises HttpsFailed unless the answer is a success."""
    try:
        async with (
            asyncio.timeout(reach.seconds),
            _request(reach, "POST", url, content=content, content_type=content_type) as response,
        ):
            if response.status_code // 100 != 2:
                raise HttpsFailed(f"{url} answered {response.status_code}")
    except TimeoutError:
        raise HttpsFailed(f"{url} did not answer within {reach.seconds:g} seconds") from None


@asynccontextmanager
async def _request(
    reach: HttpsReach, method: str, url: str, *, content: bytes | None = None, content_type: str | None = None
) -> AsyncIterator[httpx2.Response]:
    """Ask the addresses of the URL's host one after the other until one can be connected to."""
    host, port, target = _split(url)
    headers = {"Host": host if port == 443 else f"{host}:{port}", "User-Agent": "Plunk-Relay", "Accept-Encoding": "identity"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    context = tls_context(verify=True, authorities=reach.authorities)
    addresses = await _addresses(reach, host)
    async with httpx2.AsyncClient(verify=context, trust_env=False, timeout=reach.seconds) as client:
        for address in addresses:
            place = f"https://{f'[{address}]' if ':' in address else address}:{port}{target}"
            request = client.build_request(
                method, place, headers=headers, content=content, extensions={"sni_hostname": host}
            )
            try:
                response = await client.send(request, stream=True)
            except httpx2.ConnectError as error:
                _raise_untrusted(error, url)
                if address == addresses[-1]:
                    raise HttpsFailed(f"{host} cannot be reached: {error}") from error
                continue
            except httpx2.HTTPError as error:
                raise HttpsFailed(f"{url} gave no answer: {error or type(error).__name__}") from error
            try:
                yield response
            except httpx2.HTTPError as error:
                raise HttpsFailed(f"{url} gave half an answer: {error or type(error).__name__}") from error
            finally:
                await response.aclose()
            return


def _split(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise HttpsFailed(f"{url[:100]!r} is no URL") from error
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise HttpsFailed(f"{url[:100]!r} is no https URL")
    return parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def _addresses(reach: HttpsReach, host: str) -> list[str]:
    try:
        found = [str(ipaddress.ip_address(host))]
    except ValueError:
        try:
            found = await reach.resolver.addresses(host)
        except DnsError as error:
            raise HttpsFailed(str(error)) from error
    allowed = [address for address in found if is_allowed(address, reach.allow_networks)]
    if not allowed:
        raise HttpsFailed(f"{host} has no address that may be asked")
    return allowed[:_MOST_ADDRESSES]


def _raise_untrusted(error: BaseException, url: str) -> None:
    cause: BaseException | None = error
    while cause is not None:
        found: Untrusted | None = read_failure(cause) if isinstance(cause, ssl.SSLError) else None
        if found is not None:
            raise HttpsFailed(f"{url}: {found}", untrusted=True) from error
        cause = cause.__cause__ or cause.__context__
