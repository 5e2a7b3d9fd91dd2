"""What stands between a mail program and a mailbox? The relay as a process, and a Postfix with opendkim behind it.

Relay and opendkim ask the same DNS server: the relay for the mail exchanger of `inbox.test` and for its own domain's
records, opendkim for the keys published there.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from plunk_relay.mail.dkim import verify
from tests.kit.certificates import CertificateFiles, make_certificate
from tests.kit.dns import DnsTable, running_dns
from tests.kit.opendkim import Opendkim
from tests.kit.postfix import Arrival, Postfix
from tests.kit.process import ServerProcess

INBOX = "inbox.test"
SENDER = "hello@example.com"
_FOLDS = rb"(?:[ \t][^\n]*\n)*"
_FRONT = rb"(?:DKIM-Signature:[^\n]*\n" + _FOLDS + rb"){2}Received: by relay\.test [^\n]*\n" + _FOLDS


@dataclass(frozen=True, slots=True)
class Internet:
    """What a relay finds outside: DNS, and the mail server of `inbox.test`."""

    dns: DnsTable
    resolver: str
    postfix: Postfix


@dataclass(frozen=True, slots=True)
class Site:
    """A relay that sends for `example.com`."""

    relay: ServerProcess
    secret: str
    """The key of the project, which is the SMTP password."""
    tls: CertificateFiles
    """What the submission port shows, for 127.0.0.1."""
    keys: Mapping[str, str]
    """The published keys by DNS name: RSA, then Ed25519."""


@contextmanager
def running_internet() -> Iterator[Internet]:
    """Run the DNS in a thread, since tests wait for programs, and Postfix with opendkim as its milter."""
    table = DnsTable()
    table.set(INBOX, "MX", f"10 mx.{INBOX}.")
    table.set(f"mx.{INBOX}", "A", "127.0.0.1")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_dns(table)) as resolver,
        tempfile.TemporaryDirectory(prefix="opendkim-", dir="/tmp") as directory,
        _milter(Path(directory), resolver) as milter,
        Postfix(INBOX, milter=milter.socket) as postfix,
    ):
        yield Internet(table, resolver, postfix)


def _milter(directory: Path, resolver: str) -> Opendkim:
    directory.chmod(0o755)  # Postfix's own user goes through it to the socket
    return Opendkim(directory, resolver=resolver, host_name=f"mx.{INBOX}")


@contextmanager
def running_site(internet: Internet, directory: Path, *, inbound_port: int = 0, **delivery: Any) -> Iterator[Site]:
    """Run a relay whose domain is verified by the DNS records it asked for; AUTH needs TLS."""
    tls = make_certificate(directory)
    smtp = {"auth_without_tls": False, "tls_certificate": str(tls.certificate), "tls_key": str(tls.key)}
    smtp["inbound_port"] = inbound_port
    ways = {"resolvers": [internet.resolver], "allow_networks": ["127.0.0.0/8"], **delivery}
    with ServerProcess(directory, smtp=smtp, delivery=ways) as relay:
        made = _run(relay, "setup", "--email", "op@example.com", "--project", "shop", "--domain", "example.com")
        records = made["domain"]["records"]
        _publish(internet.dns, records)
        assert _run(relay, "domains", "verify", "example.com")["verified"]
        relay.start()
        keys = {record["name"]: record["value"] for record in records if record["purpose"].startswith("dkim")}
        yield Site(relay, made["project"]["secret"], tls, keys)
        assert relay.audit()["balanced"]
        assert relay.terminate() == 0


def check_signatures(site: Site, arrival: Arrival) -> None:
    """Prove both signatures twice: by what opendkim wrote on top, and with dkimpy on the bytes that arrived."""
    rsa, ed25519 = (name.partition(".")[0].encode() for name in site.keys)
    passed = re.findall(rb"dkim=pass [^\r\n]*header\.d=example\.com [^\r\n]*header\.a=(\S+) header\.s=(\S+)", arrival.trace)
    assert passed == [(b"rsa-sha256", rsa), (b"ed25519-sha256", ed25519)], arrival.trace.decode()
    published = {f"{name}.".encode(): value.encode() for name, value in site.keys.items()}
    assert verify(arrival.message, find_txt=published.get) == [True, True]


def unwrap(arrival: Arrival) -> bytes:
    """Return the message without what the relay puts in front: two signatures and its Received."""
    front = re.match(_FRONT, arrival.message)
    assert front is not None, arrival.message.decode("utf-8", "replace")
    return arrival.message[front.end() :]


def _run(relay: ServerProcess, *arguments: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(relay.command(*arguments, "--json").stdout)
    return said


def _publish(table: DnsTable, records: Sequence[Mapping[str, Any]]) -> None:
    """Do what the operator does: copy the records into the zone."""
    for record in records:
        value = record["value"] if record["priority"] is None else f"{record['priority']} {record['value']}."
        table.set(record["name"], record["type"], value)
