"""Which domains are throw-away, aliases or everybody's? Lists that come with the package, or the operator's own.

A list of a hundred thousand domains is one text in memory (2 MB), not as many objects (15 MB); to find a domain in it
takes a third of a millisecond.
"""

import asyncio
import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from plunk_relay.clock import Clock
from plunk_relay.log import get_logger
from plunk_relay.mail.address import to_ascii_domain
from plunk_relay.mail.https import HttpsFailed, HttpsReach, fetch_text
from plunk_relay.mail.registered_domain import registered_domain
from plunk_relay.sections import VerifySettings

Kind = Literal["disposable", "personal", "alias"]
KINDS: tuple[Kind, ...] = ("disposable", "personal", "alias")
_MOST_BYTES = 20_000_000
_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))  # the operator wrote the URL: an inner server is meant
_RETRY_SECONDS = 900.0
_MOST_LEVELS = 5
_DOMAIN = re.compile(r"(?=.{4,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]\Z")
log = get_logger("verify")


class DomainList:
    """Domains, compactly."""

    def __init__(self, domains: Iterator[str]) -> None:
        self._text = "\n".join(("", *sorted(set(domains)), "")).encode()

    def __len__(self) -> int:
        return self._text.count(b"\n") - 1 if len(self._text) > 2 else 0

    def __contains__(self, domain: str) -> bool:
        return f"\n{domain}\n".encode() in self._text

    def covers(self, domain: str) -> bool:
        """Tell whether a lower-case A-label domain is listed, or one that it is a part of, down to the registered one."""
        return any(one in self for one in _with_parents(domain))


def _with_parents(domain: str) -> list[str]:
    """Return a domain and those above it down to the registered one; of a long row the last, as no list goes deeper."""
    last, found = registered_domain(domain), [domain]
    while found[-1] != last and "." in found[-1]:
        found.append(found[-1].partition(".")[2])
    return found[-_MOST_LEVELS:]


def read_domains(text: str) -> Iterator[str]:
    """Read a list with a domain a line; comments (#, //), `@` and `*.` before a domain, and what is none, are left out."""
    for line in text.splitlines():
        word = line.partition("#")[0].strip().lower().removeprefix("@").removeprefix("*.")
        domain = to_ascii_domain(word)
        if _DOMAIN.match(domain):
            yield domain


class DomainLists:
    """The lists of one relay; the operator's replace those of the package, and the last good one counts."""

    def __init__(self, settings: VerifySettings, clock: Clock, reach: HttpsReach) -> None:
        self._sources: dict[Kind, str] = {
            kind: source for kind in KINDS if (source := getattr(settings, f"{kind}_list")) is not None
        }
        self._refresh_seconds = settings.refresh_hours * 3600
        self._clock = clock
        self._reach = replace(reach, allow_networks=_ANYWHERE)
        self._read: dict[Kind, DomainList] = {}
        self._due: dict[Kind, float] = dict.fromkeys(self._sources, clock.monotonic())
        self._failing: set[Kind] = set()

    def get(self, kind: Kind) -> DomainList:
        """Return a list: the operator's when it has been read, else the one of the package."""
        return self._read.get(kind) or shipped_list(kind)

    async def refresh(self) -> None:
        """Read again what is due; a list that cannot be read stays as it was, which is told once."""
        now = self._clock.monotonic()
        for kind in [kind for kind, due in self._due.items() if due <= now]:
            try:
                self._read[kind] = await self._load(self._sources[kind])
            except (OSError, HttpsFailed, UnicodeDecodeError, ValueError) as error:
                self._due[kind] = now + min(_RETRY_SECONDS, self._refresh_seconds)
                if kind not in self._failing:
                    self._failing.add(kind)
                    log.warning("list not read", setting=f"verify.{kind}_list", error=str(error))
            else:
                self._due[kind] = now + self._refresh_seconds
                self._failing.discard(kind)
                log.info("list read", setting=f"verify.{kind}_list", domains=len(self._read[kind]))

    async def _load(self, source: str) -> DomainList:
        if source.startswith("https://"):
            text = await fetch_text(self._reach, source, most_bytes=_MOST_BYTES, content_type=None)
        else:
            text = await asyncio.to_thread(_read_file, source)
        found = await asyncio.to_thread(_read_list, text)
        if not len(found):
            raise ValueError(f"{source} holds no domains: write one a line")
        return found


@functools.cache
def shipped_list(kind: Kind) -> DomainList:
    """Return a list of the package, read when it is first needed."""
    if kind == "disposable":
        from disposable_email_domains import blocklist  # noqa: PLC0415  a module of 200 KB: only who asks pays for it

        return DomainList(iter(blocklist))
    name = {"personal": "personal.txt", "alias": "aliases.txt"}[kind]
    return _read_list((files("plunk_relay.verify") / name).read_text(encoding="utf-8"))


def _read_list(text: str) -> DomainList:
    return DomainList(read_domains(text))


def _read_file(path: str) -> str:
    with Path(path).open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path} is larger than {_MOST_BYTES} bytes")
    return data.decode()
