"""How did the TLS of our sessions go? Counted in memory, which costs a session next to nothing, and stored now and then."""

from collections import Counter
from dataclasses import astuple, dataclass
from typing import Any

from plunk_relay.clock import Clock
from plunk_relay.mail.session import Peer
from plunk_relay.mail.tls import TlsFacts, TlsPolicy, TlsTrouble

_MOST = 100_000
SUCCESS = "success"


@dataclass(frozen=True, slots=True)
class _Key:
    day: str
    domain: str
    kind: str
    result: str
    sending_address: str
    mx_host: str
    receiving_address: str
    policy: str


class TlsResults:
    """Counts sessions for the reports of RFC 8460; counts nothing unless reports are wanted."""

    def __init__(self, clock: Clock, *, wanted: bool) -> None:
        self.wanted = wanted
        self._clock = clock
        self._counts: Counter[_Key] = Counter()

    def note_session(self, peer: Peer, facts: TlsFacts) -> None:
        """Count a session that came about."""
        if self.wanted and peer.policy.domain:
            self._count(peer, _find_fault(peer.policy, facts) or SUCCESS)

    def note_failure(self, peer: Peer, trouble: TlsTrouble) -> None:
        """Count a session that was given up for its TLS."""
        if self.wanted and peer.policy.domain:
            self._count(peer, trouble.result)

    def note_policy_failure(self, policy: TlsPolicy, result: str, *, mx_host: str = "") -> None:
        """Count what a policy did not even let begin, or a policy that could not be had."""
        if self.wanted and policy.domain:
            self._add(policy, result, "", mx_host, "")

    def take(self) -> list[dict[str, Any]]:
        """Return the counts since the last call as rows of `tls_results`."""
        counts, self._counts = self._counts, Counter()
        names = _Key.__slots__
        return [dict(zip(names, astuple(key), strict=True)) | {"sessions": n} for key, n in counts.items()]

    def put_back(self, rows: list[dict[str, Any]]) -> None:
        """Count again what could not be stored."""
        for row in rows:
            values = dict(row)
            sessions = values.pop("sessions")
            self._counts[_Key(**values)] += sessions

    def _count(self, peer: Peer, result: str) -> None:
        if result == SUCCESS:  # only the sum is reported; a TLSA policy is the exchanger's own
            self._add(peer.policy, result, "", peer.host if peer.policy.kind == "tlsa" else "", "")
        else:
            self._add(peer.policy, result, peer.source_address or "", peer.host, peer.address)

    def _add(self, policy: TlsPolicy, result: str, sending: str, mx_host: str, receiving: str) -> None:
        if len(self._counts) < _MOST:
            day = self._clock.now().date().isoformat()
            key = _Key(day, policy.domain, policy.kind, result, sending, mx_host, receiving, policy.lines)
            self._counts[key] += 1


def _find_fault(policy: TlsPolicy, facts: TlsFacts) -> str | None:
    """Say what a policy has against a session that it did not prevent; None: it is as it should be."""
    if policy.dane is not None and not policy.dane.usable:
        return "tlsa-invalid"
    if policy.trouble:
        return "validation-failure"
    if facts.trouble is not None and (policy.kind == "sts" or not facts.version):
        return facts.trouble.result
    return None
