"""Who listens for SMTP? A door: one port, its certificate, its sessions and their number by address."""

import asyncio
import socket
import ssl

from plunk_relay.errors import SetupError
from plunk_relay.ids import new_id
from plunk_relay.smtp.certificate import CertificateSource, renewing_context
from plunk_relay.smtp.connection import HANDSHAKE_SECONDS, Connection
from plunk_relay.smtp.crowd import Crowd
from plunk_relay.smtp.handler import Client, DoorLimits, DoorOptions, Handler
from plunk_relay.smtp.protocol import SubmissionSession
from plunk_relay.smtp.proxy import ProxiedServer
from plunk_relay.smtp.replies import STOPPING, SmtpReply

_BACKLOG = 1024


class Door:
    """A listening port."""

    def __init__(
        self,
        handler: Handler,
        options: DoorOptions,
        limits: DoorLimits,
        *,
        name: str,
        host: str,
        port: int,
        certificate: CertificateSource | None = None,
    ) -> None:
        self.name = name
        self._handler, self._options, self._limits = handler, options, limits
        self._host, self._port = host, port
        self._certificate = certificate
        self._server: asyncio.Server | ProxiedServer | None = None
        self._sessions: set[Connection] = set()
        trusted = [network for network, _ in options.trusted]
        self._crowd = Crowd(limits, trusted, asyncio.get_running_loop().time)
        self._addresses: dict[Connection, str] = {}
        self._stopping = False

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def start(self) -> None:
        """Listen; raises SetupError when the address is taken or not ours, or the certificate cannot be read.

        A door with implicit TLS whose certificate is still awaited listens as well, and refuses each handshake until then.
        """
        context = renewing_context(self._certificate) if self._certificate else None
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(f"cannot listen on {self._host}:{self._port} ({self.name}): {reason}") from error
        tls = context if self._options.implicit_tls else None
        if self._options.proxies:
            self._server = ProxiedServer(self._make_session, listener, self._options.proxies, tls)
        else:
            self._server = await asyncio.get_running_loop().create_server(
                self._make_session,
                sock=listener,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
                backlog=_BACKLOG,
            )

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections; sessions get 421, those that are sending a message may finish within the grace."""
        self._stopping = True
        if self._server is None:
            return
        self._server.close()
        for session in list(self._sessions):
            session.dismiss()
        deadline = asyncio.get_running_loop().time() + grace_seconds
        while self._sessions and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  a look now and then is enough
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            session.drop()

    def admit(self, session: Connection, address: str) -> SmtpReply | None:
        """Count a session; refuse it when there are too many or the door is closing."""
        if self._stopping:
            return STOPPING
        self._sessions.add(session)
        self._addresses[session] = address
        return self._crowd.enter(address)

    def leave(self, session: Connection) -> None:
        """Forget a session."""
        self._sessions.discard(session)
        address = self._addresses.pop(session, None)
        if address is not None:
            self._crowd.leave(address)

    def _make_session(self, address: str = "") -> SubmissionSession:
        return SubmissionSession(
            Client(address, self._options.implicit_tls, new_id()),
            self._limits,
            self._options,
            handler=self._handler,
            registry=self,
            tls_context=self._tls_context,
        )

    def _tls_context(self) -> ssl.SSLContext | None:
        return self._certificate.context() if self._certificate else None
