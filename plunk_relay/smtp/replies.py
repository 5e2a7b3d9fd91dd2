"""What do we answer? Replies with their enhanced status codes (RFC 5321 4.2, RFC 2034, RFC 3463)."""

from dataclasses import dataclass
from typing import Self

from plunk_relay.mail.outcome import Reply, sanitize


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """One reply; `enhanced` is empty where RFC 2034 wants none (greeting, EHLO, 354, AUTH challenges)."""

    code: int
    enhanced: str
    text: str

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Say what was decided elsewhere."""
        return cls(reply.code, reply.enhanced or "", reply.text)

    def encode(self) -> bytes:
        """Return the line with its CRLF; only ASCII (RFC 5321 4.2), so a foreign letter becomes `?`."""
        return f"{self.code} {self.enhanced} {sanitize(self.text)}\r\n".replace("  ", " ").encode("ascii", "replace")


OK = SmtpReply(250, "2.0.0", "Ok")
BAD_SEQUENCE = SmtpReply(503, "5.5.1", "Bad sequence of commands")
BAD_SYNTAX = SmtpReply(501, "5.5.4", "Syntax error in parameters")
NEEDS_SMTPUTF8 = SmtpReply(553, "5.6.7", "An internationalised address needs SMTPUTF8")
BARE_LF = SmtpReply(521, "5.5.2", "Lines must end with CR LF; goodbye")
STOPPING = SmtpReply(421, "4.3.2", "The server is stopping; try again later")
CANNOT_STORE = SmtpReply(452, "4.3.1", "The message cannot be stored now; try again later")
TROUBLE = SmtpReply(451, "4.3.0", "Temporary trouble on our side; try again later")
