"""Which way does a mail go? By its recipient's domain, else the default: direct (mx), a smarthost, or kept (capture)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from plunk_relay.errors import UsageError
from plunk_relay.mail.address import to_ascii_domain
from plunk_relay.mail.session import TlsMode
from plunk_relay.settings import DeliverySettings

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

    kind: Literal["mx", "smarthost", "capture"]
    smarthost: Smarthost | None = None

    def destination(self, domain: str) -> str:
        """Name the lane that mail for `domain` takes: connections, and so a login, are shared inside a lane."""
        if self.kind == "mx":
            return domain
        if self.smarthost is None:
            return self.kind
        relay = self.smarthost
        return f"smarthost {relay.username or ''}@{relay.host}:{relay.port} {relay.tls}"


class RouteTable:
    """The routes of the settings; raises UsageError for a smarthost URL that cannot be read."""

    def __init__(self, settings: DeliverySettings) -> None:
        self._default = _plan(settings.route, settings.smarthost_url)
        self._by_domain = {
            to_ascii_domain(entry.domain): _plan(entry.route, entry.smarthost_url or settings.smarthost_url)
            for entry in settings.routes
        }

    def find(self, domain: str) -> RoutePlan:
        """Return the route for a recipient domain."""
        return self._by_domain.get(domain, self._default)


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


def _plan(kind: Literal["mx", "smarthost", "capture"], url: str | None) -> RoutePlan:
    return RoutePlan(kind, parse_smarthost(url) if kind == "smarthost" and url else None)
