"""What does an S3 store answer? A server on loopback with one bucket; it checks signatures as AWS documents SigV4.

What is written must be signed; what is in the bucket may be read by everybody, as images in mails must be.
"""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

ACCESS_KEY, SECRET_KEY, BUCKET, REGION = "AKIDEXAMPLE", "secret/of+the=store", "images", "eu-test-1"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with the headers that readers get."""

    data: bytes
    content_type: str
    cache_control: str


@dataclass(slots=True)
class S3Server:
    """A store; `script` says what it answers instead to the next requests: a status, or `silent` for no answer."""

    port: int = 0
    objects: dict[str, StoredObject] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    script: list[int | str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> dict[str, str]:
        """The relay's settings for this store."""
        return {
            "s3_endpoint": f"http://127.0.0.1:{self.port}",
            "s3_bucket": BUCKET,
            "s3_region": REGION,
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
        }


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Run a store on a free port."""
    store = S3Server()

    class Handler(_Handler):
        s3 = store

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    s3: S3Server

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._may_go_on(body):
            self.s3.objects[self._key()] = StoredObject(
                body, self.headers["Content-Type"], self.headers.get("Cache-Control", "")
            )
            self._answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def do_DELETE(self) -> None:
        if self._may_go_on(b""):
            self.s3.objects.pop(self._key(), None)
            self._answer(204)

    def do_GET(self) -> None:
        found = self.s3.objects.get(self._key())
        if found is None:
            self._answer(404)
        else:
            self._answer(200, found.data, {"Content-Type": found.content_type, "Cache-Control": found.cache_control})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def _may_go_on(self, body: bytes) -> bool:
        """Follow the script, else check the signature; False: answered already."""
        self.s3.requests.append(f"{self.command} {self._key()}")
        step = self.s3.script.pop(0) if self.s3.script else None
        if step == "silent":
            self.s3.stopping.wait(30)
        elif isinstance(step, int):
            self._answer(step, _error("ScriptedError"), {"Content-Type": "application/xml"})
        elif self.headers.get("Authorization") == sign(self.command, self.path, dict(self.headers.items()), body):
            return True
        else:
            self._answer(403, _error("SignatureDoesNotMatch"), {"Content-Type": "application/xml"})
        return False

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def sign(method: str, path: str, headers: dict[str, str], body: bytes) -> str | None:
    """Return the Authorization header that a request must have (AWS Signature Version 4); None: its body is another."""
    small = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    digest = hashlib.sha256(body).hexdigest()
    if small.get("x-amz-content-sha256") != digest:
        return None
    claimed = small.get("authorization", "")
    names = claimed.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
        return None
    url = urlsplit(path)
    lines = [method, quote(unquote(url.path), safe="/-_.~"), url.query, *(f"{name}:{small.get(name, '')}" for name in names)]
    canonical = "\n".join([*lines, "", ";".join(names), digest])
    moment = small["x-amz-date"]
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
