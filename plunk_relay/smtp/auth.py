"""What are the client's user and password? The exchanges of AUTH PLAIN and AUTH LOGIN (RFC 4954, RFC 4616)."""

import base64
import binascii
from collections.abc import Awaitable, Callable

from plunk_relay.smtp.replies import SmtpReply

Ask = Callable[[SmtpReply], Awaitable[bytes]]
"""Sends a challenge and returns the client's line."""
MECHANISMS = ("PLAIN", "LOGIN")


async def read_credentials(mechanism: str, initial: str, ask: Ask) -> tuple[str, str] | SmtpReply:
    """Return user and password, or the refusal; `initial` is the initial response, empty when there was none."""
    if mechanism == "PLAIN":
        answer = await _challenge(ask, "", initial)
        if isinstance(answer, SmtpReply):
            return answer
        parts = answer.split("\x00")
        return (parts[1], parts[2]) if len(parts) == 3 else SmtpReply(501, "5.5.2", "Malformed PLAIN response")
    if mechanism == "LOGIN":
        username = await _challenge(ask, "Username:", initial)
        if isinstance(username, SmtpReply):
            return username
        password = await _challenge(ask, "Password:", "")
        return password if isinstance(password, SmtpReply) else (username, password)
    return SmtpReply(504, "5.5.4", "Use AUTH PLAIN or AUTH LOGIN")


async def _challenge(ask: Ask, prompt: str, initial: str) -> str | SmtpReply:
    """Return the client's answer decoded; `=` stands for an empty initial response (RFC 4954 4)."""
    encoded = initial
    if not encoded:
        line = await ask(SmtpReply(334, "", base64.b64encode(prompt.encode()).decode()))
        encoded = line.decode("ascii", "replace")
    if encoded == "*":
        return SmtpReply(501, "5.7.0", "Authentication cancelled")
    try:
        return base64.b64decode("" if encoded == "=" else encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return SmtpReply(501, "5.5.2", "Not valid base64")
