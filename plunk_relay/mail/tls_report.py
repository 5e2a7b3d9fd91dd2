"""How are the receivers told about our TLS to them? Daily reports as JSON, by mail or HTTPS (RFC 8460)."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from plunk_relay.mail.address import check_address

CONTENT_TYPE = "application/tlsrpt+gzip"
_MOST_TARGETS = 5


@dataclass(frozen=True, slots=True)
class SessionCount:
    """How many sessions of a day ended alike."""

    kind: str
    """tlsa, sts, no-policy-found."""
    policy: str
    """The policy's lines; empty: none."""
    result: str
    """success, or a failure type of RFC 8460 4.3."""
    sending_address: str
    mx_host: str
    receiving_address: str
    sessions: int


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report is about, and whose it is."""

    domain: str
    """The recipients' domain, A-labels."""
    day: date
    submitter: str
    """Domain of the contact address."""
    contact: str

    @property
    def id(self) -> str:
        """The same for the same day and domain, so that a receiver knows a repetition."""
        return f"{self.day.isoformat()}.{self.domain}@{self.submitter}"


def find_report_targets(records: Sequence[str]) -> list[str]:
    """Return the `mailto:` and `https:` URIs of the one `v=TLSRPTv1` record among the TXT records (RFC 8460 3)."""
    ours = [record for record in records if re.match(r"v=TLSRPTv1[ \t]*;", record)]
    if len(ours) != 1:
        return []
    fields = (field.partition("=") for field in ours[0].split(";")[1:])
    uris = next((value for name, _, value in fields if name.strip() == "rua"), "")
    return [uri.strip() for uri in uris.split(",") if _is_target(uri.strip())][:_MOST_TARGETS]


def _is_target(uri: str) -> bool:
    return uri.lower().startswith("https://") or mail_target(uri) is not None


def mail_target(uri: str) -> str | None:
    """Return the address of a `mailto:` URI; None for another one, or one that has no good address."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    address = unquote(parts.path)
    return address if parts.scheme == "mailto" and address.isascii() and check_address(address) is None else None


def make_report(facts: ReportFacts, counts: Sequence[SessionCount]) -> bytes:
    """Return the report as gzipped JSON (RFC 8460 4.4); the same counts give the same bytes."""
    groups: dict[tuple[str, str, str], list[SessionCount]] = {}
    for count in counts:
        place = count.mx_host if count.kind == "tlsa" else ""  # a TLSA policy is the exchanger's own
        groups.setdefault((count.kind, count.policy, place), []).append(count)
    report = {
        "organization-name": facts.submitter,
        "date-range": {"start-datetime": f"{facts.day}T00:00:00Z", "end-datetime": f"{facts.day}T23:59:59Z"},
        "contact-info": facts.contact,
        "report-id": facts.id,
        "policies": [_policy(facts, key, group) for key, group in groups.items()],
    }
    return gzip.compress(json.dumps(report, ensure_ascii=False).encode(), mtime=0)


def _policy(facts: ReportFacts, key: tuple[str, str, str], counts: Sequence[SessionCount]) -> dict[str, Any]:
    kind, text, place = key
    lines = text.splitlines()
    policy: dict[str, Any] = {"policy-type": kind, "policy-string": lines, "policy-domain": place or facts.domain}
    if kind == "sts":
        policy["mx-host"] = [line.removeprefix("mx: ") for line in lines if line.startswith("mx: ")]
    failures = [count for count in counts if count.result != "success"]
    failed = sum(count.sessions for count in failures)
    summary = {
        "total-successful-session-count": sum(count.sessions for count in counts) - failed,
        "total-failure-session-count": failed,
    }
    found: dict[str, Any] = {"policy": policy, "summary": summary}
    if failures:
        found["failure-details"] = [_failure(count) for count in failures]
    return found


def _failure(count: SessionCount) -> dict[str, Any]:
    """Leave out what is not known: an empty text is no address."""
    facts = {
        "result-type": count.result,
        "sending-mta-ip": count.sending_address,
        "receiving-mx-hostname": count.mx_host,
        "receiving-ip": count.receiving_address,
    }
    return {name: value for name, value in facts.items() if value} | {"failed-session-count": count.sessions}


def report_subject(facts: ReportFacts) -> str:
    """Return the subject of a report's mail (RFC 8460 5.3)."""
    return f"Report Domain: {facts.domain} Submitter: {facts.submitter} Report-ID: <{facts.id}>"


def report_message(facts: ReportFacts, report: bytes, *, recipient: str, moment: datetime) -> bytes:
    """Return the mail that carries a report, CRLF lines; it may go in clear, for it tells of broken TLS (RFC 8460 5.3)."""
    start = int(datetime(facts.day.year, facts.day.month, facts.day.day, tzinfo=moment.tzinfo).timestamp())
    name = f"{facts.submitter}!{facts.domain}!{start}!{start + 86399}.json.gz"
    boundary = f"=_tlsrpt_{facts.day:%Y%m%d}_{start:x}"
    encoded = base64.encodebytes(report).decode().replace("\n", "\r\n")
    lines = [
        f"From: {facts.contact}",
        f"To: {recipient}",
        f"Date: {format_datetime(moment)}",
        f"Message-ID: <tlsrpt.{facts.id}>",
        f"Subject: Report Domain: {facts.domain}",
        f" Submitter: {facts.submitter}",
        f" Report-ID: <{facts.id}>",
        f"TLS-Report-Domain: {facts.domain}",
        f"TLS-Report-Submitter: {facts.submitter}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt"; boundary="{boundary}"',
        "",
        f"--{boundary}",
        'Content-Type: text/plain; charset="us-ascii"',
        "",
        f"Report of {facts.submitter} on the TLS of its sessions with the mail exchangers of",
        f"{facts.domain} on {facts.day} (UTC); see RFC 8460. Questions: {facts.contact}",
        "",
        f"--{boundary}",
        f"Content-Type: {CONTENT_TYPE}",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f' filename="{name}"',
        "",
    ]
    return "\r\n".join([*lines, f"{encoded}--{boundary}--", ""]).encode()
