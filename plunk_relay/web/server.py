"""Who listens for HTTP? uvicorn, run inside our own loop and stopped by us."""

import asyncio
import socket
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from plunk_relay.errors import SetupError


class HttpDoor:
    """One listening socket and its uvicorn server."""

    def __init__(self, app: ASGIApp, *, host: str, port: int, trusted_proxies: Sequence[str] = ()) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=65536,
        )
        self._host, self._port = host, port
        self._server = uvicorn.Server(config)
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._socket.getsockname()[1]) if self._socket else self._port

    def open(self) -> None:
        """Bind and listen; raises SetupError when the address is taken or not ours."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._host, self._port))
            bound.listen(2048)
        except OSError as error:
            bound.close()
            raise SetupError(f"cannot listen on {self._host}:{self._port} (http): {error.strerror}") from error
        bound.setblocking(False)
        self._socket = bound

    async def run(self, stop: asyncio.Event, *, grace_seconds: float) -> None:
        """Serve until `stop`; then no new connections, and open requests may end within the grace."""
        if self._socket is None:
            self.open()
        self._server.config.timeout_graceful_shutdown = max(1, int(grace_seconds))
        if not self._server.config.loaded:
            self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[self._socket] if self._socket else None)
        ticking = asyncio.ensure_future(self._server.main_loop())
        await stop.wait()
        self._server.should_exit = True
        await ticking
        await self._server.shutdown(sockets=[self._socket] if self._socket else None)
