"""Who wants reports about TLS, and what do they look like? (RFC 8460)"""

import email
import email.policy
import gzip
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from plunk_relay.mail.tls_report import (
    ReportFacts,
    SessionCount,
    find_report_targets,
    mail_target,
    make_report,
    report_message,
    report_subject,
)

FACTS = ReportFacts("example.org", date(2026, 3, 1), "relay.test", "tls@relay.test")
STS = "version: STSv1\nmode: testing\nmx: mx.example.org\nmx: *.example.net\nmax_age: 86400"


@pytest.mark.parametrize(
    ("records", "targets"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@example.org"], ["mailto:tls@example.org"]),
        (["v=TLSRPTv1;rua=https://example.org/tls"], ["https://example.org/tls"]),
        (
            ["v=TLSRPTv1; rua=mailto:a@example.org , https://example.org/r;"],
            ["mailto:a@example.org", "https://example.org/r"],
        ),
        (["other", "v=TLSRPTv1; x=y; rua=mailto:a@example.org"], ["mailto:a@example.org"]),
        (["v=TLSRPTv1; rua=ftp://example.org, mailto:no-address, mailto:a@example.org"], ["mailto:a@example.org"]),
        (["v=TLSRPTv1; rua=mailto:a@example.org", "v=TLSRPTv1; rua=mailto:b@example.org"], []),
        (["v=TLSRPTv1;"], []),
        (["v=TLSRPTv2; rua=mailto:a@example.org"], []),
        ([], []),
    ],
)
def test_reports_go_where_the_one_record_says(records: list[str], targets: list[str]) -> None:
    assert find_report_targets(records) == targets


def test_reports_go_to_five_places_at_most() -> None:
    many = ",".join(f"mailto:a{number}@example.org" for number in range(20))
    assert len(find_report_targets([f"v=TLSRPTv1; rua={many}"])) == 5


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mailto:tls@example.org", "tls@example.org"),
        ("MAILTO:tls%2Breports@example.org?subject=x", "tls+reports@example.org"),
        ("mailto:a@example.org%0d%0aBcc:b@example.org", None),
        ("mailto:", None),
        ("https://example.org", None),
    ],
)
def test_a_mail_target_is_one_good_address(uri: str, address: str | None) -> None:
    assert mail_target(uri) == address


def count(result: str, sessions: int, **values: Any) -> SessionCount:
    facts = {"kind": "sts", "policy": STS, "sending_address": "", "mx_host": "", "receiving_address": "", **values}
    return SessionCount(result=result, sessions=sessions, **facts)


def test_a_report_has_a_policy_with_its_sums_and_what_failed() -> None:
    failed = {"sending_address": "192.0.2.9", "mx_host": "mx.example.org", "receiving_address": "192.0.2.1"}
    counts = [count("success", 40), count("certificate-expired", 2, **failed), count("sts-policy-fetch-error", 1)]
    assert json.loads(gzip.decompress(make_report(FACTS, counts))) == {
        "organization-name": "relay.test",
        "date-range": {"start-datetime": "2026-03-01T00:00:00Z", "end-datetime": "2026-03-01T23:59:59Z"},
        "contact-info": "tls@relay.test",
        "report-id": "2026-03-01.example.org@relay.test",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": STS.split("\n"),
                    "policy-domain": "example.org",
                    "mx-host": ["mx.example.org", "*.example.net"],
                },
                "summary": {"total-successful-session-count": 40, "total-failure-session-count": 3},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "192.0.2.9",
                        "receiving-mx-hostname": "mx.example.org",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 2,
                    },
                    {"result-type": "sts-policy-fetch-error", "failed-session-count": 1},
                ],
            }
        ],
    }


def test_each_policy_of_the_day_has_its_own_part() -> None:
    records = {"kind": "tlsa", "policy": "3 1 1 abcd"}
    counts = [
        count("success", 1),
        count("success", 2, kind="no-policy-found", policy=""),
        count("success", 3, mx_host="mx1.example.org", **records),
        count("success", 4, mx_host="mx2.example.org", **records),
    ]
    parts = json.loads(gzip.decompress(make_report(FACTS, counts)))["policies"]
    assert [(part["policy"]["policy-type"], part["policy"]["policy-domain"]) for part in parts] == [
        ("sts", "example.org"),
        ("no-policy-found", "example.org"),
        ("tlsa", "mx1.example.org"),
        ("tlsa", "mx2.example.org"),
    ]
    assert [part["summary"]["total-successful-session-count"] for part in parts] == [1, 2, 3, 4]
    assert not any("failure-details" in part for part in parts)


def test_the_same_counts_give_the_same_bytes() -> None:
    assert make_report(FACTS, [count("success", 1)]) == make_report(FACTS, [count("success", 1)])


def test_the_mail_is_what_a_receiver_looks_for() -> None:
    report = make_report(FACTS, [count("success", 1)])
    moment = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)
    raw = report_message(FACTS, report, recipient="tls@example.org", moment=moment)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    assert message["TLS-Report-Domain"] == "example.org"
    assert message["TLS-Report-Submitter"] == "relay.test"
    assert message["TLS-Required"] == "No"
    assert message["Subject"] == report_subject(FACTS)
    assert message["Subject"] == (
        "Report Domain: example.org Submitter: relay.test Report-ID: <2026-03-01.example.org@relay.test>"
    )
    text, attached = message.iter_parts()
    assert "2026-03-01" in text.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == "relay.test!example.org!1772323200!1772409599.json.gz"
    assert attached.get_content() == report
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(len(line) for line in raw.split(b"\r\n")) <= 200
