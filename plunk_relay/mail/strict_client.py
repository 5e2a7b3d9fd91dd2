"""Which answers to the first commands are believed? aiosmtplib's client, with the rules for replies that `pipeline` has.

By itself it judges a reply by its last line, so that `220-welcome` / `554 go away` and the other way round pass as one.
"""

import asyncio
import re

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from plunk_relay.mail.outcome import sanitize

_NO_CODE = -1
_BEGINNING = re.compile(rb"[2-5]\d\d(?:[ -]|\r?\Z)")


class StrictClient(aiosmtplib.SMTP):
    """An SMTP client that is given its socket and gives up on what is no reply (RFC 5321 4.2)."""

    async def _create_connection(self, timeout: float | None) -> aiosmtplib.SMTPResponse:  # noqa: ASYNC109  as theirs
        loop = asyncio.get_running_loop()
        protocol = _StrictProtocol(loop, self._on_connection_lost)
        try:
            async with asyncio.timeout(timeout):
                transport, _ = await loop.create_connection(
                    lambda: protocol,
                    sock=self.sock,
                    ssl=await self._get_tls_context() if self.use_tls else None,
                    server_hostname=self.hostname if self.use_tls else None,
                    ssl_handshake_timeout=timeout if self.use_tls else None,
                )
        except TimeoutError as error:
            raise aiosmtplib.SMTPConnectTimeoutError("connection timed out") from error
        self.protocol, self.transport = protocol, transport
        banner = await protocol.read_response(timeout=timeout)
        if banner.code != aiosmtplib.SMTPStatus.ready:
            raise aiosmtplib.SMTPConnectResponseError(banner.code, banner.message)
        return banner


class _StrictProtocol(SMTPProtocol):
    """Reads replies whose lines all have the same code."""

    def _read_response_from_buffer(self) -> aiosmtplib.SMTPResponse | None:
        code = b""
        for line in self._buffer.split(b"\n")[:-1]:
            if not _BEGINNING.match(line):
                raise _refuse(f"not an SMTP reply: {sanitize(line[:100].decode('utf-8', 'replace'))!r}")
            if code and line[:3] != code:
                raise _refuse(f"a reply with mixed codes: {code.decode()} and {line[:3].decode()}")
            code = bytes(line[:3])
            if line[3:4] != b"-":
                return super()._read_response_from_buffer()
        return None


def _refuse(text: str) -> aiosmtplib.SMTPResponseException:
    return aiosmtplib.SMTPResponseException(_NO_CODE, text)
