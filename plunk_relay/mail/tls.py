"""What must the TLS of a session be, on whose word, and what was it?"""

import functools
import ssl
from dataclasses import dataclass
from typing import Literal

from plunk_relay.mail.certificates import Untrusted, check_trusted, read_failure, shown_chain
from plunk_relay.mail.dane import Dane, check_dane

PolicyKind = Literal["tlsa", "sts", "no-policy-found"]


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """Why a session's TLS must be what the peer's mode says; the default is that nobody asks for anything."""

    name: str = ""
    """For people: DANE, MTA-STS enforce, MTA-STS testing, REQUIRETLS, ...; empty: none applies."""
    dane: Dane | None = None
    """Records that the certificate must match; None: DANE does not decide."""
    bounces: bool = False
    """TLS that this peer cannot do is a refusal for good: the message itself asks for it (RFC 8689)."""
    trouble: str = ""
    """What the policy has against the peer whatever its certificate, where it only tests; empty: nothing."""
    domain: str = ""
    """Whose recipients the session is for, for reports (RFC 8460); empty: it is not reported."""
    kind: PolicyKind = "no-policy-found"
    lines: str = ""
    """The policy as reports show it, a line each; empty: none."""


NO_POLICY = TlsPolicy()


@dataclass(frozen=True, slots=True)
class TlsTrouble:
    """What was wrong with the TLS of a session: the word of RFC 8460 4.3, and one sentence."""

    result: str
    text: str


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a session has."""

    version: str = ""
    """Such as TLSv1.3; empty: it is in clear."""
    verified: bool = False
    """The certificate was checked and found good for the peer's name, or matched the DNS (DANE)."""
    trouble: TlsTrouble | None = None
    """Why it is in clear or not verified, or broke a policy that only tests; None: it is as it should be."""

    def describe(self, policy: TlsPolicy) -> str:
        """Write it for the attempt's row: `TLSv1.3 verified (DANE)`, `TLSv1.3 unverified`, `none`."""
        words = f"{self.version} {'verified' if self.verified else 'unverified'}" if self.version else "none"
        return f"{words} ({policy.name})" if policy.name else words


@functools.cache
def tls_context(*, verify: bool, authorities: str | None = None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer; `authorities` is a PEM file of those trusted beside the system's.

    Without `verify` any certificate passes the handshake and is judged afterwards.
    """
    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def judge_tls(tls: ssl.SSLObject, policy: TlsPolicy, *, host: str, checked: bool) -> TlsFacts:
    """Look at the certificate of a session that has begun; raises Untrusted when it must match TLSA records and does not.

    `checked`: the handshake would have failed had it not been good.
    """
    version = tls.version() or "TLS"
    if policy.dane is not None and policy.dane.usable:
        check_dane(policy.dane, shown_chain(tls))
        return TlsFacts(version, verified=True)
    if checked:
        return TlsFacts(version, verified=True)
    try:
        check_trusted(tls, tls.context, host)
    except Untrusted as error:
        return TlsFacts(version, trouble=TlsTrouble(error.result, str(error)))
    return TlsFacts(version, verified=True)


def explain_tls_failure(error: Exception) -> TlsTrouble:
    """Name the reason of a failed handshake in the words of RFC 8460 4.3."""
    untrusted = error if isinstance(error, Untrusted) else read_failure(error) if isinstance(error, ssl.SSLError) else None
    if untrusted is not None:
        return TlsTrouble(untrusted.result, str(untrusted))
    return TlsTrouble("validation-failure", f"TLS handshake failed: {error}")
