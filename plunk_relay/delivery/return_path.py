"""Where do failures of a mail come back to? To an address of its own on the bounce host, where we receive them."""

from plunk_relay.domains.actions import find_identity
from plunk_relay.emails.queue import Claimed
from plunk_relay.mail.address import domain_of
from plunk_relay.mail.verp import MAC_PURPOSE, make_return_address
from plunk_relay.relay import Relay


async def find_return_path(relay: Relay, claimed: Claimed) -> str:
    """Return the envelope sender a mail leaves with; the null sender stays what it is.

    Without our own inbound door, or without the MX record that leads to it, it is the sender that was given. The bounce
    host is below the domain of the From field, so that SPF is aligned with it (RFC 7489 3.1.2).
    """
    settings = relay.settings
    if not claimed.sender or not settings.delivery.verp or not settings.smtp.inbound_port:
        return claimed.sender
    identity = await find_identity(relay, claimed.project_id, domain_of(claimed.email.from_address))
    if identity is None or not identity.return_path:
        return claimed.sender
    return make_return_address("bounce", claimed.id, domain=identity.domain, key=relay.secrets.mac_key(MAC_PURPOSE))
