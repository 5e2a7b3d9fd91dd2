"""Which MTA-STS policy does a domain have? Fetched when its record says so, kept until it expires, whatever happens then.

RFC 8461 5.1: a policy that is in force stays so when the record or the policy server is gone, as an attacker on the way
could have taken them away. Policies are refreshed long before they expire.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from plunk_relay.clock import Clock
from plunk_relay.db.engine import Database
from plunk_relay.delivery.tls.queries import StoredPolicy, list_policies, store_policy
from plunk_relay.delivery.tls.results import TlsResults
from plunk_relay.errors import Unavailable
from plunk_relay.log import get_logger
from plunk_relay.mail.dns import DnsError
from plunk_relay.mail.https import HttpsFailed, HttpsReach, fetch_text
from plunk_relay.mail.mta_sts import LONGEST_POLICY_BYTES, InvalidPolicy, StsPolicy, find_policy_id, read_policy
from plunk_relay.mail.tls import TlsPolicy

log = get_logger("mta-sts")
_TRY_AGAIN = timedelta(minutes=5)  # RFC 8461 3.3
_REFRESH_AGAIN = timedelta(hours=1)
_REFRESH_AGE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A policy in force."""

    policy_id: str
    policy: StsPolicy
    fetched_at: datetime
    expires_at: datetime

    def is_stale(self, now: datetime) -> bool:
        """Tell whether it should be refreshed: after a day, and after half its life."""
        return now >= self.fetched_at + min(_REFRESH_AGE, (self.expires_at - self.fetched_at) / 2)


class StsPolicies:
    """The policies of all domains: read from the database once, then remembered here and written there."""

    def __init__(self, db: Database, clock: Clock, reach: HttpsReach, results: TlsResults, *, port: int = 443) -> None:
        self._db = db
        self._clock = clock
        self._reach = reach
        self._results = results
        self._port = port
        self._kept: dict[str, _Kept] | None = None
        self._tried: dict[tuple[str, str], datetime] = {}
        self._fetching: dict[str, asyncio.Task[StsPolicy | None]] = {}

    async def find(self, domain: str) -> StsPolicy | None:
        """Return the policy in force; None: there is none."""
        kept = await self._find_kept(domain)
        policy_id = await self._find_id(domain)
        if policy_id is not None and (kept is None or kept.policy_id != policy_id):
            fresh = await self._fetch_once(domain, policy_id)
            if fresh is not None:
                return fresh
        return kept.policy if kept else None

    async def refresh(self, *, most: int) -> int:
        """Fetch policies again that are in force and getting old, at most so many; return how many were tried."""
        now = self._clock.now()
        stale = [domain for domain, kept in (await self._load()).items() if kept.is_stale(now) and kept.expires_at > now]
        due = [domain for domain in stale if not self._has_tried(domain, "", _REFRESH_AGAIN)][:most]
        await asyncio.gather(*(self._refresh_one(domain) for domain in due))
        return len(due)

    def forget_expired(self) -> None:
        """Drop what is in force no longer, and old attempts."""
        now = self._clock.now()
        self._kept = {domain: kept for domain, kept in (self._kept or {}).items() if kept.expires_at > now}
        self._tried = {place: moment for place, moment in self._tried.items() if now - moment < _REFRESH_AGAIN}

    async def _refresh_one(self, domain: str) -> None:
        self._tried[(domain, "")] = self._clock.now()
        kept = await self._find_kept(domain)
        policy_id = await self._find_id(domain) or (kept.policy_id if kept else None)
        if policy_id is not None:
            await self._fetch_once(domain, policy_id)

    async def _find_id(self, domain: str) -> str | None:
        with suppress(DnsError):
            return find_policy_id(await self._reach.resolver.txt(f"_mta-sts.{domain}"))
        return None

    async def _find_kept(self, domain: str) -> _Kept | None:
        kept = (await self._load()).get(domain)
        return kept if kept is not None and kept.expires_at > self._clock.now() else None

    async def _load(self) -> dict[str, _Kept]:
        if self._kept is None:
            stored = await self._db.read(list_policies, now=self._clock.now())
            if self._kept is None:
                self._kept = _read_stored(stored)
        return self._kept

    async def _fetch_once(self, domain: str, policy_id: str) -> StsPolicy | None:
        """Fetch, or wait for the same fetch of somebody else; not again soon after a failure."""
        fetching = self._fetching.get(domain)
        if fetching is None:
            if self._has_tried(domain, policy_id, _TRY_AGAIN):
                return None
            fetching = self._fetching[domain] = asyncio.create_task(self._fetch(domain, policy_id), name=f"mta-sts {domain}")
            fetching.add_done_callback(lambda _done: self._fetching.pop(domain, None))
        return await asyncio.shield(fetching)

    def _has_tried(self, domain: str, policy_id: str, wait: timedelta) -> bool:
        tried = self._tried.get((domain, policy_id))
        return tried is not None and self._clock.now() - tried < wait

    async def _fetch(self, domain: str, policy_id: str) -> StsPolicy | None:
        """Fetch a policy and keep it; None when that fails: then the former one stays."""
        host = f"mta-sts.{domain}" if self._port == 443 else f"mta-sts.{domain}:{self._port}"
        url = f"https://{host}/.well-known/mta-sts.txt"
        try:
            text = await fetch_text(self._reach, url, most_bytes=LONGEST_POLICY_BYTES)
            policy = read_policy(text)
        except HttpsFailed as error:
            result = "sts-webpki-invalid" if error.untrusted else "sts-policy-fetch-error"
            self._note_failure(domain, policy_id, result, error)
            return None
        except InvalidPolicy as error:
            self._note_failure(domain, policy_id, "sts-policy-invalid", error)
            return None
        await self._keep(domain, policy_id, policy, text)
        return policy

    async def _keep(self, domain: str, policy_id: str, policy: StsPolicy, text: str) -> None:
        now = self._clock.now()
        kept = _Kept(policy_id, policy, now, now + timedelta(seconds=policy.max_age))
        (await self._load())[domain] = kept
        log.info("policy fetched", domain=domain, mode=policy.mode, id=policy_id, max_age=policy.max_age)
        with suppress(Unavailable):  # then it holds until the next start
            await self._db.write(store_policy, StoredPolicy(domain, policy_id, text, now, kept.expires_at))

    def _note_failure(self, domain: str, policy_id: str, result: str, error: Exception) -> None:
        self._tried[(domain, policy_id)] = self._clock.now()
        self._results.note_policy_failure(TlsPolicy(domain=domain, kind="sts"), result)
        log.warning("policy not fetched", domain=domain, result=result, error=str(error))


def _read_stored(stored: Sequence[StoredPolicy]) -> dict[str, _Kept]:
    found: dict[str, _Kept] = {}
    for one in stored:
        with suppress(InvalidPolicy):  # written by a version that read it otherwise
            found[one.domain] = _Kept(one.policy_id, read_policy(one.policy or ""), one.fetched_at, one.expires_at)
    return found
