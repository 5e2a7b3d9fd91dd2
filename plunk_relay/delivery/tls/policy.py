"""What must the TLS to each exchanger be? DANE, else MTA-STS, else what the settings and the message ask for.

    who asks                             TLS         certificate
    DANE, a record is usable             required    must match a TLSA record (RFC 7672)
    DANE, no record is usable            required    any
    MTA-STS, mode enforce                required    good for the exchanger's name, which the policy must list (RFC 8461)
    MTA-STS, mode testing                may         looked at for the report
    route with tls = "required"          required    any
    route with tls = "verified"          required    good for the exchanger's name
    MAIL ... REQUIRETLS                  required    by DANE, else good for the exchanger's name (RFC 8689 4.2.1)
    TLS-Required: No                     may         neither DANE nor MTA-STS is asked (RFC 8689 4.3); the route is
    nobody                               may         any

Who breaks a policy waits (4.7.5): nothing goes in clear against one, and nothing bounces for one but REQUIRETLS.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from plunk_relay.delivery.tls.results import TlsResults
from plunk_relay.delivery.tls.sts import StsPolicies
from plunk_relay.mail.dane import Dane, find_dane
from plunk_relay.mail.dns import DnsTemporary, Resolver
from plunk_relay.mail.hosts import Host
from plunk_relay.mail.mta_sts import StsPolicy
from plunk_relay.mail.outcome import Deferred, Reply
from plunk_relay.mail.session import TlsMode
from plunk_relay.mail.tls import TlsPolicy
from plunk_relay.sections import TlsFloor


@dataclass(frozen=True, slots=True)
class Demand:
    """What the session with one exchanger must be."""

    tls: TlsMode
    verify: bool
    policy: TlsPolicy


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known before a host is looked at."""

    domain: str
    wish: str | None = None
    """Of the message: REQUIRED, OPTIONAL or None."""
    floor: TlsFloor = "may"
    """Of the route."""
    sts: StsPolicy | None = None


class TlsPolicies:
    """Finds the policies that apply."""

    def __init__(self, resolver: Resolver, sts: StsPolicies, results: TlsResults, *, port: int) -> None:
        self._resolver = resolver
        self._sts = sts
        self._results = results
        self._port = port

    async def find_sts(self, domain: str, wish: str | None) -> StsPolicy | None:
        """Return the MTA-STS policy that counts for a message; an address literal has none."""
        return None if wish == "OPTIONAL" or domain.startswith("[") else await self._sts.find(domain)

    async def apply(self, asked: Asked, hosts: Sequence[Host]) -> list[tuple[Host, Demand]] | Deferred:
        """Return the hosts that may be used, each with its demand, in their order; Deferred when none is left."""
        names = list(dict.fromkeys(host.name for host in hosts))
        found = await asyncio.gather(*(self._find_dane(asked, name) for name in names))
        demands: dict[str, Demand] = {}
        reply: Reply | None = None
        for name, dane in zip(names, found, strict=True):
            if isinstance(dane, DnsTemporary):
                unknown = TlsPolicy(domain=asked.domain, kind="tlsa")
                self._results.note_policy_failure(unknown, "dnssec-invalid", mx_host=name)
                reply = reply or Reply(451, "4.7.5", f"DANE: {dane}")
                continue
            demand = decide(asked, name, dane)
            if demand is None:
                self._results.note_policy_failure(_policy(asked, None), "validation-failure", mx_host=name)
                reply = reply or Reply(451, "4.7.5", f"MTA-STS enforce: the policy of {asked.domain} does not list {name}")
                continue
            demands[name] = demand
        if not demands and reply is not None:
            return Deferred(reply)
        return [(host, demands[host.name]) for host in hosts if host.name in demands]

    async def _find_dane(self, asked: Asked, host: str) -> Dane | DnsTemporary | None:
        if asked.wish == "OPTIONAL" or asked.domain.startswith("["):
            return None
        try:
            return await find_dane(self._resolver, domain=asked.domain, host=host, port=self._port)
        except DnsTemporary as error:
            return error


def decide(asked: Asked, host: str, dane: Dane | None) -> Demand | None:
    """Apply the table above to one exchanger; None: it must not be used."""
    usable = dane is not None and bool(dane.usable)
    enforced = asked.sts is not None and asked.sts.mode == "enforce" and not usable
    if enforced and asked.sts is not None and not asked.sts.matches(host):
        return None
    verify = not usable and (enforced or asked.floor == "verified" or asked.wish == "REQUIRED")
    required = verify or dane is not None or asked.floor != "may"
    unlisted = dane is None and asked.sts is not None and asked.sts.mode == "testing" and not asked.sts.matches(host)
    trouble = f"the policy of {asked.domain} does not list {host}" if unlisted else ""
    return Demand("required" if required or asked.wish == "REQUIRED" else "may", verify, _policy(asked, dane, trouble))


def _policy(asked: Asked, dane: Dane | None, trouble: str = "") -> TlsPolicy:
    sts = asked.sts if asked.sts is not None and asked.sts.mode != "none" else None
    names = [
        "DANE" if dane is not None and dane.usable else "DANE, no usable record" if dane is not None else "",
        f"MTA-STS {sts.mode}" if sts is not None and not (dane is not None and dane.usable) else "",
        f"route: {asked.floor}" if asked.floor != "may" else "",
        {"REQUIRED": "REQUIRETLS", "OPTIONAL": "TLS-Required: No"}.get(asked.wish or "", ""),
    ]
    lines = [str(record) for record in dane.records] if dane is not None else sts.lines if sts is not None else []
    return TlsPolicy(
        name=", ".join(name for name in names if name),
        dane=dane,
        bounces=asked.wish == "REQUIRED",
        trouble=trouble,
        domain="" if asked.wish == "OPTIONAL" or asked.domain.startswith("[") else asked.domain,
        kind="tlsa" if dane is not None else "sts" if sts is not None else "no-policy-found",
        lines="\n".join(lines),
    )
