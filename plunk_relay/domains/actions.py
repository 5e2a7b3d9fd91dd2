"""What happens to domains? Added with fresh keys, verified, trusted, removed; and asked whether a sender may use them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from plunk_relay.domains import queries
from plunk_relay.domains.queries import Domain, StoredDkimKey
from plunk_relay.domains.records import DnsRecord, SigningKey, check_records, judge, list_records
from plunk_relay.errors import BadRequest, Conflict, FieldError, Forbidden, NotFound, ValidationFailed
from plunk_relay.ids import new_id
from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.dkim import Algorithm, DkimKey, generate_ed25519_pem, generate_rsa_pem, load_key, public_record
from plunk_relay.mail.verp import bounce_host
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

_NAME = re.compile(r"(?=.{3,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])\Z")
_PURPOSE = "dkim key"
_IDENTITIES = "identities"
_LOCAL_NAMES = "local names"


@dataclass(frozen=True, slots=True)
class Identity:
    """A domain as a sender: whether it may be used, and the keys that sign for it."""

    domain_id: str
    domain: str
    verified: bool
    keys: tuple[DkimKey, ...]
    return_path: bool = False
    """The MX record that brings bounces to us was found."""


async def find_identity(relay: Relay, project_id: str, domain: str) -> Identity | None:
    """Return the project's identity for a domain (exact name, any case), or None; remembered for a few seconds."""
    return await _find_identity(relay, domain, project_id=project_id)


async def find_signer(relay: Relay, domain: str) -> Identity | None:
    """Return the verified identity of whatever project has the domain, or None: it signs what the relay itself writes."""
    identity = await _find_identity(relay, domain, project_id=None)
    return identity if identity is not None and identity.verified else None


async def _find_identity(relay: Relay, domain: str, *, project_id: str | None) -> Identity | None:
    name = to_ascii_domain(domain)

    async def load() -> Identity | None:
        found = await relay.db.read(queries.find_domain_named, name)
        if found is None or project_id not in (None, found.project_id):
            return None
        keys, _ = _split_generations(await relay.db.read(queries.list_keys, found.id))
        return_path = (found.records or {}).get("return-path") == "Success"
        return Identity(
            found.id, found.domain, found.verified, tuple(_open_key(relay, key) for key in keys), return_path=return_path
        )

    return await relay.memory.remember(_IDENTITIES, (project_id, name), load)


async def find_local_names(relay: Relay) -> frozenset[str]:
    """Return the domains whose mail stays here: those that receive, and bounce hosts; remembered for a few seconds.

    There are none while the inbound door is off. Kept with the identities: what changes these may change the names.
    """
    if not relay.settings.smtp.inbound_port:
        return frozenset()

    async def load() -> frozenset[str]:
        found = await relay.db.read(queries.list_local_names)
        receiving = [name for name, receives, _ in found if receives]
        return frozenset([*receiving, *(bounce_host(name) for name, _, returns in found if returns)])

    return await relay.memory.remember(_IDENTITIES, _LOCAL_NAMES, load)


async def check_sender(relay: Relay, project_id: str, address: str) -> Identity:
    """Return the identity a sender address may use; raises BadRequest or Forbidden with the reason."""
    if address.count("@") != 1:
        raise BadRequest(f"The sender address {address} must have exactly one @.")
    domain = domain_of(address)
    identity = await find_identity(relay, project_id, domain)
    if identity is None:
        raise Forbidden(f"The sender domain {domain} is not registered in this project: add it under /domains.")
    if not identity.verified:
        raise Forbidden(f"The sender domain {domain} is not verified: publish its DKIM record, then verify it.")
    return identity


async def add_domain(relay: Relay, project_id: str, name: str) -> Domain:
    """Register a domain with new DKIM keys; raises ValidationFailed, BadRequest (own already) or Forbidden (others')."""
    clean = to_ascii_domain(name.strip())
    if not _NAME.match(clean):
        reason = "Enter a bare domain name such as example.com"
        raise ValidationFailed([FieldError("domain", reason, "invalid_string")])
    existing = await relay.db.read(queries.find_domain_named, clean)
    if existing is not None:
        raise _already_taken(existing, project_id)
    now = relay.clock.now()
    domain = Domain(new_id(), project_id, clean, False, False, "NotStarted", None, None, now, now)
    keys = await _make_keys(relay, domain.id, now)
    await relay.db.write(_insert_unless_taken, domain, keys)
    relay.memory.forget(_IDENTITIES)
    relay.wakes.domains.set()
    return domain


async def verify_domain(relay: Relay, domain: Domain) -> tuple[Domain, list[DnsRecord]]:
    """Ask the DNS now and store the verdict; a trusted domain stays verified; a failed look-up unverifies nothing.

    New keys whose record is found take over from those they replace.
    """
    records = await describe_records(relay, domain)
    statuses = await check_records(relay.resolver, records)
    verified, status = judge(statuses, was_verified=domain.verified)
    if domain.trusted:
        verified, status = True, "Success"
    now = relay.clock.now()

    def store(tx: "sa.Connection") -> None:
        queries.set_verdict(tx, domain.id, verified=verified, status=status, records=statuses, now=now)
        signing, successors = _split_generations(queries.list_keys(tx, domain.id))
        if successors and statuses["dkim-rsa"] == "Success":
            queries.retire_keys(tx, signing, now=now)

    await relay.db.write(store)
    relay.memory.forget(_IDENTITIES)
    checked = replace(domain, verified=verified, status=status, records=statuses, checked_at=now)
    return checked, await describe_records(relay, checked)


async def trust_domain(relay: Relay, domain: Domain) -> Domain:
    """Count a domain as verified by the operator's word, for internal networks."""
    await relay.db.write(queries.set_trusted, domain.id, now=relay.clock.now())
    relay.memory.forget(_IDENTITIES)
    return replace(domain, verified=True, trusted=True, status="Success")


async def set_receiving(relay: Relay, domain: Domain, *, receiving: bool) -> Domain:
    """Accept mail to the domain at the inbound door, or stop that; it has an effect while the domain is verified."""
    now = relay.clock.now()
    await relay.db.write(queries.set_receiving, domain.id, receiving=receiving, now=now)
    relay.memory.forget(_IDENTITIES)
    return replace(domain, receiving=receiving, updated_at=now)


async def rotate_keys(relay: Relay, domain: Domain) -> Domain:
    """Give a domain new keys under new selectors.

    The present keys sign until the new RSA record is found, so that no mail waits for the DNS; those of a domain that is
    not verified, or trusted, are replaced at once. Leave the old records in place for some days: mail is still under way.
    """
    now = relay.clock.now()
    keys = await _make_keys(relay, domain.id, now)

    def replace_keys(tx: "sa.Connection") -> None:
        signing, successors = _split_generations(queries.list_keys(tx, domain.id))
        overlaps = domain.verified and not domain.trusted
        queries.retire_keys(tx, successors if overlaps else [*signing, *successors], now=now)
        queries.insert_keys(tx, keys)

    await relay.db.write(replace_keys)
    relay.memory.forget(_IDENTITIES)
    checked, _ = await verify_domain(relay, domain)
    return checked


async def delete_domain(relay: Relay, project_id: str, domain_id: str) -> None:
    """Remove a domain; raises NotFound, or Conflict when templates or unfinished campaigns send from it."""
    domain = await get_domain(relay, project_id, domain_id)
    users = await relay.db.read(queries.find_users_of_domain, project_id, domain.domain)
    if users:
        raise Conflict(f"The domain {domain.domain} is used as sender by: {', '.join(users)}.")
    await relay.db.write(queries.delete_domain, domain.id)
    relay.memory.forget(_IDENTITIES)


async def get_domain(relay: Relay, project_id: str, domain_id: str) -> Domain:
    """Return the project's domain; raises NotFound."""
    domain = await relay.db.read(queries.find_domain, project_id, domain_id)
    if domain is None:
        raise NotFound.of("Domain", domain_id)
    return domain


async def describe_records(relay: Relay, domain: Domain) -> list[DnsRecord]:
    """Return the records to publish for a domain, each with its last status."""
    signing, successors = _split_generations(await relay.db.read(queries.list_keys, domain.id))
    public = [SigningKey(key.selector, key.algorithm, key.public_record) for key in successors or signing]
    if successors:
        public += [SigningKey(key.selector, key.algorithm, key.public_record, replaced=True) for key in signing]
    return list_records(
        domain.domain, public, relay_host=relay.hostname, statuses=domain.records, receiving=domain.receiving
    )


def _split_generations(keys: Sequence[StoredDkimKey]) -> tuple[list[StoredDkimKey], list[StoredDkimKey]]:
    """Part the keys in use into those that sign and those that will; keys made together share all but the last letter."""
    oldest = keys[0].selector[:-1] if keys else ""
    signing = [key for key in keys if key.selector[:-1] == oldest]
    return signing, [key for key in keys if key not in signing]


def _already_taken(existing: Domain, project_id: str) -> Exception:
    if existing.project_id == project_id:
        return BadRequest(f"The domain {existing.domain} is in this project already.")
    return Forbidden(f"The domain {existing.domain} belongs to another project of this relay.")


def _insert_unless_taken(tx: "sa.Connection", domain: Domain, keys: Sequence[StoredDkimKey]) -> None:
    existing = queries.find_domain_named(tx, domain.domain)
    if existing is not None:
        raise _already_taken(existing, domain.project_id)
    queries.insert_domain(tx, domain, keys)


async def _make_keys(relay: Relay, domain_id: str, now: datetime) -> list[StoredDkimKey]:
    settings = relay.settings.dkim
    stamp = f"{settings.selector_prefix}{now:%Y%m}{new_id()[-4:]}"
    pems: list[tuple[str, Algorithm, str]] = [
        (f"{stamp}r", "rsa-sha256", await asyncio.to_thread(generate_rsa_pem, settings.rsa_bits))
    ]
    if settings.ed25519:
        pems.append((f"{stamp}e", "ed25519-sha256", generate_ed25519_pem()))
    return [
        StoredDkimKey(
            new_id(),
            domain_id,
            selector,
            algorithm,
            relay.secrets.seal(pem, purpose=_PURPOSE),
            public_record(load_key(selector, algorithm, pem)),
            now,
        )
        for selector, algorithm, pem in pems
    ]


def _open_key(relay: Relay, key: StoredDkimKey) -> DkimKey:
    pem = relay.secrets.open(key.private_sealed, purpose=_PURPOSE)
    return load_key(key.selector, key.algorithm, pem)  # type: ignore[arg-type]  # one of ours
