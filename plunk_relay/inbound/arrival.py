"""What has come in? A message with its envelope, from another server or from this relay itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from plunk_relay.mail.outcome import Reply
from plunk_relay.relay import Relay
from plunk_relay.spool import ByteSource

_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message for addresses of ours; CRLF lines, dots unstuffed."""

    client_address: str | None
    """Who brought it; None: it was sent by this relay."""
    helo: str
    session_id: str
    """For the log: of the door's session, or the queue id of what this relay sent."""
    sender: str
    """Envelope sender, empty for `<>`."""
    recipients: Sequence[str]
    content: ByteSource

    @property
    def client(self) -> str:
        """Who brought it, for people."""
        return f"{self.helo} [{self.client_address}]" if self.client_address else self.helo

    def beginning(self, count: int) -> bytes:
        """Return up to so many bytes of the message."""
        return b"".join(self.content.pieces(0, min(count, self.content.size)))

    def whole(self) -> bytes:
        """Return the message; of a large one in a thread."""
        return b"".join(self.content.pieces())


def check_hops(relay: Relay, head: bytes) -> Reply | None:
    """Refuse a message that has gone through too many servers (RFC 5321 6.3)."""
    most = relay.settings.smtp.max_received_headers
    if len(_RECEIVED.findall(head)) > most:
        return Reply(554, "5.4.6", f"More than {most} hops: a mail loop")
    return None
