"""What passes between a session and who decides for it? The limits and the client, the envelope, and the questions."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from plunk_relay.smtp.replies import SmtpReply
from plunk_relay.spool import SpooledFile

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bounds of a session; see the settings of the same names."""

    max_message_bytes: int = 26214400
    max_recipients: int = 100
    max_command_bytes: int = 2048
    errors_before_slow: int = 10
    errors_before_close: int = 20
    idle_seconds: float = 300.0
    session_seconds: float = 3600.0
    max_connections: int = 1000
    max_connections_per_ip: int = 50
    max_connections_per_network: int = 200
    max_new_per_minute: int = 3000
    max_idle_commands: int = 100
    slow_seconds: float = 1.0
    """How much later each error beyond `errors_before_slow` makes the next reply."""


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """What a door is: its name in greetings, its TLS, who may come without AUTH or speaks for others."""

    hostname: str
    implicit_tls: bool = False
    auth: bool = True
    """Offers AUTH; a door for the mail of other servers does not."""
    open_to_strangers: bool = False
    """MAIL needs no AUTH: the handler decides by the recipient."""
    auth_without_tls: bool = False
    trusted: Sequence[tuple[Network, str]] = ()
    """Networks and the project id each submits as."""
    proxies: Sequence[Network] = ()
    """Sources that must begin with a PROXY protocol header, which is believed."""
    spool: Path | None = None
    """Directory of the nameless files that large messages are collected in; None: the system's for temporary files."""


@dataclass(slots=True)
class Client:
    """Who is at the other end of a session, as far as known."""

    address: str
    tls: bool
    session_id: str
    helo: str = ""
    extended: bool = False
    project_id: str | None = None
    authenticated: bool = False


@dataclass(slots=True)
class Envelope:
    """A transaction: who sends to whom, and the message with CRLF lines, dots unstuffed."""

    sender: str
    smtputf8: bool = False
    require_tls: bool = False
    """MAIL asked for REQUIRETLS (RFC 8689)."""
    recipients: list[str] = field(default_factory=list)
    content: bytearray | SpooledFile = field(default_factory=bytearray)
    """A large message is in a file, which the session closes when it has been answered."""


class Handler(Protocol):
    """Who decides; a RelayError raised is answered with its SMTP reply."""

    async def authenticate(self, client: Client, username: str, password: str) -> str | SmtpReply:
        """Return the project id, or the refusal."""
        ...

    async def check_sender(self, client: Client, address: str) -> SmtpReply | None:
        """Return the refusal, or None."""
        ...

    async def check_recipient(self, client: Client, envelope: Envelope, address: str) -> SmtpReply | None:
        """Return the refusal, or None."""
        ...

    async def accept_message(self, client: Client, envelope: Envelope) -> SmtpReply:
        """Store the message and answer; a 250 means that it is on disk. The content may be emptied when it is done with."""
        ...
