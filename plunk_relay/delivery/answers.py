"""What does an answer mean for the connection, the next host, and the next attempt? What it means for the mail: outcomes."""

from collections.abc import Mapping

from plunk_relay.delivery.outcomes import Result
from plunk_relay.emails.queue import Claimed
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply, Unknown
from plunk_relay.mail.transport import Connection, Transaction

_TOO_MANY_RECIPIENTS = ("4.5.3", "5.5.3")
_LOYAL_ATTEMPTS = 6
"""How often a mail is brought back to the address that put it off: greylisting lets it in by then."""
_ABOUT_THE_SYSTEM = ("4.3.", "4.4.")
"""Status codes by which a host says that it is in trouble itself (RFC 3463 3.4, 3.5)."""


def preferred_address(claimed: Claimed) -> str | None:
    """Return where a mail should be brought again; not for ever: that host may be the one in trouble."""
    return claimed.last_address if claimed.attempts <= _LOYAL_ATTEMPTS else None


def wants_us_back(result: Result) -> bool:
    """Tell whether the next attempt should ask the same host: it may have the mail, or it looks like greylisting."""
    if isinstance(result, Unknown):
        return True
    return (
        isinstance(result, Deferred)
        and result.reply.code in (450, 451)
        and not (result.reply.enhanced or "").startswith(_ABOUT_THE_SYSTEM)
    )


def asks_for_less(reply: Reply) -> bool:
    """Tell whether a reply is about us or the peer's load, not about this message or its recipient (RFC 3463 3)."""
    return reply.code == 421 or (reply.enhanced or "").startswith((*_ABOUT_THE_SYSTEM, "4.7."))


def closed_on_us(transaction: Transaction, connection: Connection) -> bool:
    """Tell whether a used connection just ended (421, or closed while idle): a new one is tried at once."""
    return not connection.usable and all(
        isinstance(outcome, Deferred) and outcome.reply.code == 421 for outcome in transaction.outcomes.values()
    )


def is_left_over(result: Result, results: Mapping[str, Result]) -> bool:
    """Tell a recipient beyond the peer's limit (RFC 5321 4.5.3.1.10): it goes in the next transaction at once."""
    if not isinstance(result, Deferred | Bounced) or result.reply.code not in (452, 552):
        return False
    too_many = result.reply.enhanced in _TOO_MANY_RECIPIENTS or (result.reply.enhanced is None and result.reply.code == 452)
    return too_many and any(isinstance(other, Delivered) for other in results.values())


def milder(first: Deferred | Bounced | None, second: Deferred | Bounced) -> Deferred | Bounced:
    """Prefer a temporary failure: while one host may still take the mail, it is not bounced."""
    return first if isinstance(first, Deferred) else second
