"""How much may a client ask of a door, and is there room for a message now?"""

from plunk_relay.relay import Relay
from plunk_relay.sections import SmtpSettings
from plunk_relay.smtp.handler import DoorLimits
from plunk_relay.smtp.replies import STOPPING, SmtpReply
from plunk_relay.web.meta import list_reasons


def door_limits(settings: SmtpSettings) -> DoorLimits:
    """Return the bounds of every session."""
    return DoorLimits(
        max_message_bytes=settings.max_message_bytes,
        max_recipients=settings.max_recipients,
        max_command_bytes=settings.max_command_bytes,
        errors_before_slow=settings.errors_before_slow,
        errors_before_close=settings.errors_before_close,
        idle_seconds=settings.idle_seconds,
        session_seconds=settings.session_seconds,
        max_connections=settings.max_connections,
        max_connections_per_ip=settings.max_connections_per_ip,
        max_connections_per_network=settings.max_connections_per_network,
        max_new_per_minute=settings.max_new_connections_per_minute,
        max_idle_commands=settings.max_idle_commands,
    )


async def check_room(relay: Relay) -> SmtpReply | None:
    """Refuse for now what cannot be stored; None: there is room."""
    if relay.stopping.is_set():
        return STOPPING
    reasons = await list_reasons(relay)
    return SmtpReply(452, "4.3.1", f"Cannot store mail now: {reasons[0]}") if reasons else None
