"""Who is measured, and where does the mail go? Private Postfix instances, opendkim, smtp-sink; all on loopback.

Postfix runs as an administrator would set it up to relay for an application host: its defaults, a relayhost, no TLS, a log
of its own, fsync on. Nothing is chrooted, so that nothing has to be copied. opendkim is its milter over a UNIX socket; over
TCP it waits for delayed acknowledgements and would be no fair peer.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.bench.measure import Meter, watch_tree
from tests.kit.process import free_port

SENDER_DOMAIN = "example.com"
_STARTING_SECONDS = 20.0
_STOPPING_SECONDS = 20.0
_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin"
_NEVER_SECONDS = 3600
_UNPRIVILEGED = "nobody"
_PACKAGES = {
    "postfix": "postfix",
    "postconf": "postfix",
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "opendkim": "opendkim",
    "wrk": "wrk",
}
_QUEUE_DIRECTORIES = ("incoming", "active", "deferred", "maildrop")
_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
mail_owner = postfix
myhostname = postfix.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{sink_port}
smtpd_milters = {milter}
milter_default_action = tempfail
"""
_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup     unix n - n 60    1 pickup
cleanup    unix n - n -     0 cleanup
qmgr       unix n - n 300   1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n -     - trivial-rewrite
bounce     unix - - n -     0 bounce
defer      unix - - n -     0 bounce
trace      unix - - n -     0 bounce
verify     unix - - n -     1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp       unix - - n -     - smtp
relay      unix - - n -     - smtp
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
postlog    unix-dgram n - n - 1 postlogd
"""
_OPENDKIM_CONF = """\
Mode             s
Domain           {domain}
Selector         bench
KeyFile          {home}/bench.private
Canonicalization relaxed/relaxed
OversignHeaders  From
Socket           local:{socket}
UserID           opendkim
UMask            000
Syslog           no
RequireSafeKeys  no
"""


class BenchError(Exception):
    """The measurement cannot be made; the message is one line for a person."""


class Sink:
    """smtp-sink, which takes every mail and throws it away, and the number of mails that it has taken."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.port = port
        self._output = process.stdout
        self._tail = b""
        self._count = 0
        os.set_blocking(self._output.fileno(), False)

    def count(self) -> int:
        """Return how many mails were taken so far."""
        while block := self._output.read(65536):
            self._tail = (self._tail + block)[-200:]
        found = re.findall(rb"mesg=(\d+)\r", self._tail)
        self._count = int(found[-1]) if found else self._count
        return self._count


@dataclass(frozen=True, slots=True)
class Peer:
    """A mail relay that listens on `port` and delivers to `sink`."""

    name: str
    port: int
    sink: Sink
    meter: Meter
    waiting: Callable[[], int]
    """Count the mails that are not finished: those in the queue, and those delivered but not yet recorded as such."""


def find_program(name: str) -> str:
    """Return the path of a program; raises BenchError that names Debian's package."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_DIRECTORIES}")
    if path is None:
        raise BenchError(f"{name} is not installed; on Debian and Ubuntu:  apt install {_PACKAGES[name]}")
    return path


@contextmanager
def running_sink(port: int, *, keep_in: Path | None = None, silent: bool = False) -> Iterator[Sink]:
    """Run smtp-sink; it keeps the mails in a directory when one is given, and takes none, without a word, when `silent`."""
    command = [find_program("smtp-sink"), "-4", "-c"]
    if silent:
        command += ["-W", f"CONNECT:{_NEVER_SECONDS}"]
    if os.geteuid() == 0:
        command += ["-u", _UNPRIVILEGED]
    if keep_in is not None:
        keep_in.mkdir()
        if os.geteuid() == 0:
            shutil.chown(keep_in, _UNPRIVILEGED)
        command += ["-d", f"{keep_in}/"]
    command += [f"127.0.0.1:{port}", "1024"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process, _ended(process):
        _wait_for_port(port, process)
        yield Sink(port, process)


@contextmanager
def running_postfix(name: str, home: Path, sink: Sink, *, milter: str = "", signer: int | None = None) -> Iterator[Peer]:
    """Run a Postfix instance of its own; `signer` is the process of its milter, which counts as part of it."""
    if os.geteuid() != 0:
        raise BenchError("Postfix starts as root only: run the bench as root, or with --only relay")
    port = free_port()
    _configure_postfix(home, port=port, sink_port=sink.port, milter=milter)
    line = [find_program("postfix"), "-c", str(home / "conf")]
    with subprocess.Popen([*line, "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as postfix:
        try:
            _wait_for_port(port, postfix, log=home / "mail.log")
            master = int((home / "queue/pid/master.pid").read_text())
            with Meter(watch_tree(name, master, *([signer] if signer else []))) as meter:
                yield Peer(name, port, sink, meter, lambda: _count_queue_files(home / "queue"))
        finally:
            subprocess.run([*line, "stop"], capture_output=True, check=False, timeout=_STOPPING_SECONDS)


@contextmanager
def running_opendkim(home: Path) -> Iterator[tuple[str, int]]:
    """Run opendkim, signing with RSA-2048, relaxed/relaxed; yield its socket as a milter address, and its process id."""
    home.mkdir()
    shutil.chown(home, "opendkim")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = home / "bench.private"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    private.chmod(0o600)
    shutil.chown(private, "opendkim")
    path = home / "milter"
    (home / "opendkim.conf").write_text(_OPENDKIM_CONF.format(domain=SENDER_DOMAIN, home=home, socket=path))
    command = [find_program("opendkim"), "-f", "-x", str(home / "opendkim.conf")]
    with subprocess.Popen(command) as process, _ended(process):
        _wait_until(path.exists, process)
        yield f"unix:{path}", process.pid


def _wait_for_port(port: int, process: subprocess.Popen[bytes], *, log: Path | None = None) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _wait_until(listens, process, log=log)


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path | None = None) -> None:
    """Return when a program is up; raises BenchError with the end of its log when it does not come up."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while not condition():
        if time.monotonic() > deadline or process.poll() is not None:
            said = log.read_text()[-1000:].strip() if log and log.exists() else ""
            raise BenchError(f"this did not start: {process.args!r} {said}")
        time.sleep(0.02)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _configure_postfix(home: Path, *, port: int, sink_port: int, milter: str) -> None:
    for directory in (home, home / "conf", home / "queue", home / "data"):
        directory.mkdir()
    shutil.chown(home / "data", "postfix")
    (home / "conf/main.cf").write_text(_MAIN_CF.format(home=home, sink_port=sink_port, milter=milter))
    (home / "conf/master.cf").write_text(_MASTER_CF.format(port=port))


def _count_queue_files(queue: Path) -> int:
    return sum(len(files) for name in _QUEUE_DIRECTORIES for _, _, files in os.walk(queue / name))
