"""Which way does a mail go? By its recipient's domain, else by whose exchangers that has (its provider), else the default.

There are four ways: direct (mx), a smarthost, kept (capture), or to a mailbox of this relay (local). Local is the way of
domains that receive here, and of bounce hosts: before a route by provider and before the default, be it direct or a
smarthost, which could only bring the mail back. A route that is written for such a domain wins; and where the default is
`capture`, nothing is delivered, not even here.

Where the default is direct and there is a general smarthost, that is the fallback for what the default route cannot
deliver; a route of its own stays as it was written.
"""

import difflib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from plunk_relay.errors import UsageError
from plunk_relay.mail.address import to_ascii_domain
from plunk_relay.mail.providers import built_in, provider_of
from plunk_relay.mail.session import TlsMode
from plunk_relay.sections import DeliverySettings, TlsFloor

_STARTTLS: Mapping[str, TlsMode] = {"required": "required", "may": "may", "off": "off"}
_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A relay that takes our mail."""

    host: str
    port: int
    tls: TlsMode
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"Smarthost({self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """`smarthost` is set exactly when the kind is `smarthost`."""

    kind: Literal["mx", "smarthost", "capture", "local"]
    smarthost: Smarthost | None = None
    tls: TlsFloor = "may"
    """What TLS the route asks for, whatever the peer's policies say."""

    def destination(self, domain: str) -> str:
        """Name the lane that mail for `domain` takes: connections, and so a login, are shared inside a lane."""
        if self.kind == "mx":
            return domain
        if self.smarthost is None:
            return self.kind
        relay = self.smarthost
        floor = "" if self.tls == "may" else f", {self.tls}"
        return f"smarthost {relay.username or ''}@{relay.host}:{relay.port} {relay.tls}{floor}"


_LOCAL = RoutePlan("local")


class RouteTable:
    """The routes of the settings; raises UsageError for what cannot be read: a smarthost URL, a provider's name."""

    def __init__(self, settings: DeliverySettings) -> None:
        self._default = _plan(settings.route, settings.smarthost_url)
        self._by_domain: dict[str, RoutePlan] = {}
        self._by_provider: dict[str, RoutePlan] = {}
        for entry in settings.routes:
            plan = _plan(entry.route, entry.smarthost_url or settings.smarthost_url, entry.tls)
            if entry.domain is not None:
                self._by_domain[to_ascii_domain(entry.domain)] = plan
            elif entry.provider is not None:
                self._by_provider[_check_provider(entry.provider)] = plan
        has_fallback = settings.fallback and settings.route == "mx" and settings.smarthost_url
        self.fallback = _plan("smarthost", settings.smarthost_url) if has_fallback else None

    def find_by_domain(self, domain: str, local_names: Container[str] = ()) -> RoutePlan | None:
        """Return the route for a recipient domain; None when it depends on the domain's provider.

        `local_names` are the domains whose mail stays here.
        """
        plan = self._by_domain.get(domain)
        if plan is None and domain in local_names and self._default.kind != "capture":
            return _LOCAL
        return plan or (None if self._by_provider else self._default)

    def find(self, domain: str, provider: str | None = None) -> RoutePlan:
        """Return the route for a recipient domain whose provider is known."""
        return self._by_domain.get(domain) or self._by_provider.get(provider or "", self._default)

    def may_fall_back(self, plan: RoutePlan) -> bool:
        """Tell whether the smarthost may take what this route cannot deliver."""
        return self.fallback is not None and plan is self._default


def parse_smarthost(url: str) -> Smarthost:
    """Read `smtp[s]://user:pass@host:port?starttls=required|may|off`; raises UsageError, never showing the password."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    starttls = parse_qs(parts.query).get("starttls", ["may" if parts.username is None else "required"])[0]
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == -1 or starttls not in _STARTTLS:
        raise UsageError(
            "setting `delivery.smarthost_url`: write smtp://user:password@host:port?starttls=required|may|off, or smtps://"
        )
    return Smarthost(
        parts.hostname,
        port or _DEFAULT_PORTS[parts.scheme],
        "implicit" if parts.scheme == "smtps" else _STARTTLS[starttls],
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def _check_provider(name: str) -> str:
    """Return the provider that an operator means by its name, or by a domain of its exchangers."""
    lowered = to_ascii_domain(name)
    if built_in().is_listed(lowered):
        return lowered
    if "." in lowered:
        return provider_of(lowered)
    close = difflib.get_close_matches(lowered, built_in().names, n=1)
    hint = f"did you mean {close[0]}?" if close else "write a domain of its exchangers, such as example.net"
    raise UsageError(f"setting `delivery.routes`: the provider {name} is not known; {hint}")


def _plan(kind: Literal["mx", "smarthost", "capture"], url: str | None, tls: TlsFloor = "may") -> RoutePlan:
    return RoutePlan(kind, parse_smarthost(url) if kind == "smarthost" and url else None, tls)
