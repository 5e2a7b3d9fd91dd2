"""Which addresses take mail here, and what happens at each? Decided at RCPT, looked up again when the message has come.

    b-<token>@bounce.<domain>               bounces of a delivery: the token has our MAC, the delivery is of that domain
    f-<token>@bounce.<domain>               complaints about it
    postmaster@, abuse@ and `postmaster`    the operator (RFC 5321 4.5.1): at the hostname, at verified domains and their
                                            bounce hosts; refused while it has no address
    anything at a domain with receiving on  the project of that domain

Everything else is refused: what is not ours is relayed for nobody.
"""

import re
from dataclasses import dataclass

from plunk_relay.accounts.queries import list_users
from plunk_relay.bounces.queries import find_author
from plunk_relay.domains.queries import Domain, find_domain_named
from plunk_relay.mail.address import domain_of, to_ascii_domain
from plunk_relay.mail.outcome import Reply
from plunk_relay.mail.verp import BOUNCE_LABEL, MAC_PURPOSE, ReturnAddress, read_return_address
from plunk_relay.relay import Relay

_ROLES = frozenset({"postmaster", "abuse"})
_ROUTING = re.compile(r"[@%!|\"\\]")  # in a local part: another way to name a second address
NOT_OURS = Reply(550, "5.7.1", "We do not relay: the address is not served here")
NO_SUCH_ADDRESS = Reply(550, "5.1.1", "No such address")
NOBODY = Reply(550, "5.2.1", "Nobody reads this mailbox: the operator of this relay has no address yet")


@dataclass(frozen=True, slots=True)
class ReturnBox:
    """Bounces or complaints of one delivery."""

    address: ReturnAddress


@dataclass(frozen=True, slots=True)
class RoleBox:
    """The operator, asked for as `role`."""

    role: str
    operator: str
    """The address that gets the mail."""


@dataclass(frozen=True, slots=True)
class ReceivingBox:
    """A project's own mail."""

    address: str


Mailbox = ReturnBox | RoleBox | ReceivingBox


async def find_mailbox(relay: Relay, address: str) -> Mailbox | Reply:
    """Return what takes mail to an address, or the refusal."""
    hostname = relay.hostname.lower()
    if address.lower() == "postmaster":
        return await _find_operator(relay, f"postmaster@{hostname}")
    local, _, written = address.rpartition("@")
    if not local or _ROUTING.search(local):
        return NOT_OURS
    name = to_ascii_domain(written)
    role = f"{local.lower()}@{name}" if local.lower() in _ROLES else None
    if role is not None and name == hostname:
        return await _find_operator(relay, role)
    domain = await relay.db.read(find_domain_named, name)
    if domain is not None and domain.verified and (role is not None or domain.receiving):
        return await _find_operator(relay, role) if role is not None else ReceivingBox(address)
    return await _find_at_bounce_host(relay, local, name)


async def _find_operator(relay: Relay, role: str) -> RoleBox | Reply:
    chosen = relay.settings.smtp.postmaster
    if chosen is None:
        users = await relay.db.read(list_users, limit=1)
        chosen = users[0].email if users else None
    return NOBODY if chosen is None else RoleBox(role, chosen)


async def _find_at_bounce_host(relay: Relay, local: str, name: str) -> Mailbox | Reply:
    label, _, parent = name.partition(".")
    domain = await relay.db.read(find_domain_named, parent) if label == BOUNCE_LABEL else None
    if domain is None:
        return NOT_OURS
    if local.lower() in _ROLES:
        return await _find_operator(relay, f"{local.lower()}@{parent}") if domain.verified else NOT_OURS
    return await _find_return_box(relay, local, domain) or NO_SUCH_ADDRESS


async def _find_return_box(relay: Relay, local: str, domain: Domain) -> ReturnBox | None:
    address = read_return_address(local, key=relay.secrets.mac_key(MAC_PURPOSE))
    author = await relay.db.read(find_author, address.delivery_id) if address is not None else None
    if address is None or author is None or to_ascii_domain(domain_of(author)) != domain.domain:
        return None
    return ReturnBox(address)
