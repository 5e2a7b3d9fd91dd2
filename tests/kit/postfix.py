"""How does a real mail server take our mail? A Postfix of the test's own on loopback, which keeps what it gets.

Nothing of a Postfix that is installed for use is read or touched: configuration, queue, data and log are in a directory
below /tmp that its users may enter. It delivers to one maildir and nowhere else.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.certificates import make_certificate
from tests.kit.process import free_port
from tests.kit.sasl import AuthServer
from tests.kit.tools import require_tool

_ARRIVING_SECONDS = 30.0
_TRACE = re.compile(
    rb"(?i:(?:Return-Path|X-Original-To|Delivered-To|Envelope-To|Authentication-Results|Received):"
    rb"[^\n]*\n(?:[ \t][^\n]*\n)*)*"
)
_SERVICES = """\
{address}:{smtp} inet n - n - - smtpd
127.0.0.1:{submission} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A mail as it lies in the mailbox, with CRLF lines."""

    trace: bytes
    """The fields on top that the receiver put there: Return-Path, Authentication-Results, Received and the like."""
    message: bytes
    """What the relay sent, from its first field on."""


class Postfix:
    """Takes mail for one domain on `smtp_port`; on `submission_port` only with TLS and AUTH as `username`, `password`.

    `milter` is the unix socket of a filter that sees all mail, `policy` the port of a policy service such as postgrey
    that is asked about each recipient; `tls` offers STARTTLS on `smtp_port`. It knows everybody but `nobody`.

    With `bounces_to`, the port of another server on this machine, it takes mail for three local parts and then reports to
    that server: `later` is unknown after all, `full` has no room for it, `slow` is tried again and its sender warned.
    """

    username, password = "relay", "smarthost password"

    def __init__(
        self,
        domain: str,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        milter: Path | None = None,
        policy: int | None = None,
        tls: bool = True,
        bounces_to: int | None = None,
    ) -> None:
        self.host_name = f"mx.{domain}"
        self.address, self.smtp_port, self.submission_port = address, port or free_port(), free_port()
        self._domain, self._milter, self._policy, self._tls = domain, milter, policy, tls
        self._bounces_to = bounces_to
        self._life = ExitStack()

    def __enter__(self) -> "Postfix":
        if os.geteuid() != 0:
            pytest.skip("Postfix can only be started by root")
        with ExitStack() as life:
            self._directory = _make_directory()
            life.callback(shutil.rmtree, self._directory)
            self._write_configuration()
            life.enter_context(AuthServer(self._directory / "auth.sock", self.username, self.password))
            self._control("start")
            life.callback(self._control, "stop")
            self._life = life.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._life.close()

    @property
    def log(self) -> str:
        """What Postfix has logged."""
        path = self._directory / "mail.log"
        return path.read_text() if path.exists() else ""

    def mails_to(self, recipient: str) -> list[Arrival]:
        """Return what has arrived for an address."""
        files = sorted((self._directory / "mail" / "inbox" / "new").glob("*"))
        contents = [path.read_bytes() for path in files]
        return [read_arrival(content) for content in contents if f"\nDelivered-To: {recipient}\n".encode() in content]

    def wait_for_mail(self, recipient: str) -> Arrival:
        """Return the one mail to an address, waiting for it."""
        deadline = time.monotonic() + _ARRIVING_SECONDS
        while not (found := self.mails_to(recipient)):
            if time.monotonic() > deadline:
                raise AssertionError(f"no mail to {recipient} arrived; Postfix says: {self.log[-3000:]}")
            time.sleep(0.02)
        assert len(found) == 1
        return found[0]

    def _control(self, word: str) -> None:
        line = [require_tool("postfix"), "-c", str(self._directory / "etc"), word]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"postfix {word}: {done.stderr} {self.log[-2000:]}"

    def _write_configuration(self) -> None:
        directory, keeper = self._directory, pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (directory / name).mkdir()
        shutil.chown(directory / "data", "postfix")
        shutil.chown(directory / "mail", keeper.pw_uid, keeper.pw_gid)
        tls = make_certificate(directory, [self.host_name, "127.0.0.1"])
        main = {
            "compatibility_level": "3.6",
            "queue_directory": f"{directory}/queue",
            "data_directory": f"{directory}/data",
            "maillog_file": f"{directory}/mail.log",
            "maillog_file_prefixes": f"{directory}",
            "myhostname": self.host_name,
            "mydestination": "",
            "alias_maps": "",
            "inet_interfaces": "all",  # each service names its address
            "inet_protocols": "ipv4",
            "default_transport": "error:5.4.4 mail leaves no test",
            "local_header_rewrite_clients": "",  # a server does not mend strangers' headers
            "message_size_limit": "52428800",
            "mailbox_size_limit": "0",
            "virtual_mailbox_limit": "0",
            "virtual_mailbox_domains": self._domain,
            "virtual_mailbox_base": f"{directory}/mail",
            "virtual_mailbox_maps": "static:inbox/",
            "virtual_uid_maps": f"static:{keeper.pw_uid}",
            "virtual_gid_maps": f"static:{keeper.pw_gid}",
            "smtpd_recipient_restrictions": ", ".join(self._restrictions()),
            "smtpd_tls_security_level": "may" if self._tls else "none",
            "smtpd_tls_cert_file": str(tls.certificate),
            "smtpd_tls_key_file": str(tls.key),
            "smtpd_tls_received_header": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": f"{directory}/auth.sock",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_milters": f"unix:{self._milter}" if self._milter else "",
            **({} if self._bounces_to is None else self._reports(self._bounces_to)),
        }
        (directory / "etc" / "main.cf").write_text(_lines(main))
        services = _SERVICES.format(address=self.address, smtp=self.smtp_port, submission=self.submission_port)
        (directory / "etc" / "master.cf").write_text(services)

    def _restrictions(self) -> list[str]:
        access = self._directory / "etc" / "access"
        access.write_text(f"nobody@{self._domain} 550 5.1.1 unknown user\n")
        asked = [] if self._policy is None else [f"check_policy_service inet:127.0.0.1:{self._policy}"]
        return ["reject_unauth_destination", f"check_recipient_access texthash:{access}", *asked, "permit"]

    def _reports(self, port: int) -> dict[str, str]:
        transports = self._directory / "etc" / "transport"
        ends = {
            "later": "error:5.1.1 unknown user",
            "full": "error:5.2.2 mailbox full",
            "slow": "retry:4.2.1 mailbox busy",
        }
        transports.write_text("".join(f"{user}@{self._domain} {end}\n" for user, end in ends.items()))
        return {
            "transport_maps": f"texthash:{transports}",
            "smtpd_reject_unlisted_recipient": "no",  # else these ends are told at RCPT
            "default_transport": f"smtp:[127.0.0.1]:{port}",
            "smtp_tls_security_level": "may",
            "delay_warning_time": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
        }


def _make_directory() -> Path:
    """Make a directory that other users may enter; a test's own `tmp_path` is closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="postfix-", dir="/tmp"))
    directory.chmod(0o755)
    return directory


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def read_arrival(content: bytes) -> Arrival:
    """Cut the trace off; the relay's own Received stands below its signatures and so belongs to the message."""
    end = _TRACE.match(content).end()  # type: ignore[union-attr]  # matches the empty string too
    trace, message = (part.replace(b"\n", b"\r\n") for part in (content[:end], content[end:]))
    return Arrival(trace, message)
