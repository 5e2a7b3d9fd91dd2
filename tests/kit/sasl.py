"""Who tells Postfix whether a password is right? A server of Dovecot's auth protocol, which knows one user.

https://doc.dovecot.org/developer_manual/design/auth_protocol/; AUTH PLAIN is all that is offered.
"""

import base64
import socketserver
import threading
from pathlib import Path

_HELLO = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n"


class AuthServer(socketserver.ThreadingUnixStreamServer):
    """Listens on a unix socket that everybody may use."""

    daemon_threads = True

    def __init__(self, socket: Path, username: str, password: str) -> None:
        super().__init__(str(socket), _Session)
        socket.chmod(0o666)
        self.username, self.password = username, password
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "AuthServer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Session(socketserver.StreamRequestHandler):
    server: AuthServer

    def handle(self) -> None:
        self.wfile.write(_HELLO.encode())
        for line in self.rfile:
            command, *fields = line.decode().rstrip("\n").split("\t")
            if command == "AUTH":
                self.wfile.write(self._judge(fields[0], fields[1:]).encode())

    def _judge(self, request: str, parameters: list[str]) -> str:
        response = next((text.removeprefix("resp=") for text in parameters if text.startswith("resp=")), "")
        _, username, password = base64.b64decode(response).decode().split("\0")
        good = (username, password) == (self.server.username, self.server.password)
        return f"OK\t{request}\tuser={username}\n" if good else f"FAIL\t{request}\tuser={username}\n"
