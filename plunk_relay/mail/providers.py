"""Whose mail exchangers are these? `providers.toml` names the large providers; others go by their registered domain."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from plunk_relay.mail.dns import NameNotFound
from plunk_relay.mail.registered_domain import registered_domain

if TYPE_CHECKING:
    from plunk_relay.mail.dns import Resolver

_KEYS = {"name", "mx", "connections", "messages_per_connection", "messages_per_minute"}
_REMEMBERED = 10_000
_REMEMBERED_SECONDS = 300.0
NO_PROVIDER = ""
"""The provider of a domain whose exchangers cannot be told: nothing is paced there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast mail may go to one provider when nothing is wrong."""

    connections: int
    messages_per_connection: int | None = None
    messages_per_minute: float | None = None
    slowed_messages_per_minute: float = 600.0
    """What a hundred percent are for a provider that is slowed down and has no rate of its own."""


class BadProviders(ValueError):
    """A provider table cannot be read; the text names the entry and the key."""


class ProviderTable:
    """Providers by suffix of their exchangers."""

    def __init__(self, *, limits: Mapping[str, Limits], suffixes: Mapping[str, str], unlisted: Limits) -> None:
        self._limits = limits
        self._suffixes = suffixes
        self._unlisted = unlisted

    @classmethod
    def read(cls, text: str) -> "ProviderTable":
        """Read a table in TOML; raises BadProviders."""
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadProviders(f"not valid TOML: {error}") from error
        unlisted = Limits(
            connections=_number(tables.get("unlisted", {}), "unlisted", "connections"),
            slowed_messages_per_minute=_number(tables.get("unlisted", {}), "unlisted", "slowed_messages_per_minute"),
        )
        limits: dict[str, Limits] = {}
        suffixes: dict[str, str] = {}
        for entry in tables.get("provider", []):
            name = _name(entry, limits)
            limits[name] = _limits(entry, name, unlisted)
            for suffix in entry.get("mx") or []:
                if suffix in suffixes:
                    raise BadProviders(f"provider {name}: {suffix} is of {suffixes[suffix]} already")
                suffixes[suffix] = name
        return cls(limits=limits, suffixes=suffixes, unlisted=unlisted)

    @property
    def names(self) -> list[str]:
        """The names of all entries."""
        return list(self._limits)

    def is_listed(self, provider: str) -> bool:
        """Tell whether the table has an entry of this name."""
        return provider in self._limits

    def provider_of(self, mx_host: str) -> str:
        """Return the entry with the longest suffix of an exchanger's name, else the registered domain of it."""
        host = mx_host.rstrip(".").lower()
        rest = host
        while rest:
            if rest in self._suffixes:
                return self._suffixes[rest]
            rest = rest.partition(".")[2]
        return registered_domain(host)

    def limits_of(self, provider: str) -> Limits:
        """Return the numbers of a provider."""
        return self._limits.get(provider, self._unlisted)


def _name(entry: Mapping[str, Any], known: Mapping[str, Limits]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise BadProviders(f"an entry has no name: {dict(entry)}")
    if name in known:
        raise BadProviders(f"provider {name}: there are two of this name")
    if strange := sorted(set(entry) - _KEYS):
        raise BadProviders(f"provider {name}: unknown key {strange[0]}; known: {', '.join(sorted(_KEYS))}")
    suffixes = entry.get("mx")
    if not isinstance(suffixes, list) or not suffixes or not all(_is_suffix(suffix) for suffix in suffixes):
        raise BadProviders(f"provider {name}: mx is a list of lower-case names, without a dot in front")
    return name


def _is_suffix(suffix: object) -> bool:
    return isinstance(suffix, str) and suffix != "" and suffix == suffix.lower().strip(".")


def _limits(entry: Mapping[str, Any], name: str, unlisted: Limits) -> Limits:
    return Limits(
        connections=_number(entry, name, "connections"),
        messages_per_connection=_number(entry, name, "messages_per_connection"),
        messages_per_minute=_number(entry, name, "messages_per_minute") if "messages_per_minute" in entry else None,
        slowed_messages_per_minute=unlisted.slowed_messages_per_minute,
    )


def _number(entry: Mapping[str, Any], name: str, key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadProviders(f"provider {name}: {key} is a whole number from 1 up")
    return value


@functools.cache
def built_in() -> ProviderTable:
    """Return the table of this package."""
    return ProviderTable.read(files(__package__).joinpath("providers.toml").read_text("utf-8"))


def provider_of(mx_host: str) -> str:
    """Return the name of an exchanger's provider: the table's, else the exchanger's registered domain."""
    return built_in().provider_of(mx_host)


class ProviderFinder:
    """Tells the provider of recipient domains by their best exchanger, and remembers it for some minutes."""

    def __init__(self, resolver: "Resolver", table: ProviderTable) -> None:
        self._resolver = resolver
        self._table = table
        self._kept: dict[str, tuple[float, str]] = {}

    def known(self, domain: str, now: float) -> str | None:
        """Return the provider as remembered at loop time `now`; None: ask with `find`."""
        kept = self._kept.get(domain)
        return kept[1] if kept is not None and kept[0] > now else None

    async def find(self, domain: str, now: float) -> str:
        """Look the exchangers up; NO_PROVIDER when there are none (RFC 7505). Raises DnsTemporary."""
        provider = await self._ask(domain)
        if len(self._kept) >= _REMEMBERED:
            self._kept.clear()
        self._kept[domain] = (now + _REMEMBERED_SECONDS, provider)
        return provider

    async def _ask(self, domain: str) -> str:
        if domain.startswith("["):
            return NO_PROVIDER
        try:
            records = await self._resolver.mx(domain)
        except NameNotFound:
            return NO_PROVIDER
        best = min(((record.preference, record.host) for record in records), default=(0, domain))
        return self._table.provider_of(best[1]) if best[1] else NO_PROVIDER
