"""Which tests are about what? By file, so that `pytest -m tls` runs, and lists, all that is known about TLS.

A test may be in several groups. Dialogs and peer files are tests of their own, and stand here with their own names.
"""

from fnmatch import fnmatch
from pathlib import Path

import pytest

GROUPS = {
    "protocol": (
        "smtp/dialogs/protocol-*.dialog",
        "smtp/dialogs/pipelining-*.dialog",
        "smtp/dialogs/proxy-*.dialog",
        "smtp/dialogs/inbound-ehlo.dialog",
        "smtp/dialogs/inbound-receiving.dialog",
        "smtp/test_dialog_player.py",
        "smtp/test_message_reader.py",
        "smtp/test_options.py",
        "smtp/test_proxy.py",
        "smtp/test_receiving.py",
        "smtp/test_sessions.py",
        "smtp/test_submission.py",
        "delivery/peers/banner-*.peer",
        "delivery/peers/ehlo-*.peer",
        "delivery/peers/mail-*.peer",
        "delivery/peers/data-*.peer",
        "delivery/test_conversion.py",
        "mail/test_address.py",
        "mail/test_compose.py",
        "mail/test_line_length.py",
        "mail/test_outcome.py",
        "mail/test_pipeline.py",
        "mail/test_seven_bit.py",
        "mail/test_submitted.py",
        "mail/test_transport*.py",
        "interop/test_clients.py",
        "interop/test_peers.py",
    ),
    "smuggling": (
        "smtp/dialogs/smuggling-*.dialog",
        "smtp/dialogs/inbound-smuggling.dialog",
        "smtp/dialogs/tls-injected-command.dialog",
        "smtp/dialogs/protocol-http-*.dialog",
        "smtp/dialogs/proxy-from-a-stranger.dialog",
        "smtp/dialogs/proxy-version-2-from-a-stranger.dialog",
        "smtp/dialogs/relay-malformed-headers.dialog",
        "smtp/test_message_reader.py",
        "delivery/peers/rcpt-control-bytes.peer",
        "delivery/peers/starttls-with-words-for-after-it.peer",
        "delivery/peers/banner-that-speaks-too-early.peer",
        "mail/test_safe_html.py",
        "mail/test_pipeline.py",
    ),
    "relaying": (
        "smtp/dialogs/auth-*.dialog",
        "smtp/dialogs/relay-*.dialog",
        "smtp/dialogs/trusted-*.dialog",
        "smtp/dialogs/inbound-never-a-relay.dialog",
        "smtp/dialogs/inbound-no-auth.dialog",
        "smtp/dialogs/inbound-forged-token.dialog",
        "smtp/dialogs/inbound-postmaster*.dialog",
        "smtp/test_guard.py",
        "mail/test_verdicts.py",
        "mail/test_dkim*.py",
        "mail/test_verp.py",
        "process/test_guessing.py",
    ),
    "tls": (
        "smtp/dialogs/tls-*.dialog",
        "smtp/dialogs/proxy-and-starttls.dialog",
        "smtp/dialogs/auth-needs-tls.dialog",
        "smtp/dialogs/trusted-network-after-starttls.dialog",
        "smtp/dialogs/protocol-ehlo-with-certificate.dialog",
        "smtp/test_requiretls.py",
        "smtp/test_tls.py",
        "delivery/peers/starttls-*.peer",
        "delivery/test_dane.py",
        "delivery/test_mta_sts.py",
        "delivery/test_requiretls.py",
        "delivery/test_tls_*.py",
        "mail/test_dane.py",
        "mail/test_https.py",
        "mail/test_mta_sts.py",
        "mail/test_tls_report.py",
        "mail/test_transport_tls.py",
        "process/test_tls_results.py",
        "acme/test_*.py",
        "interop/test_dnssec.py",
    ),
    "dns": (
        "delivery/peers/dns-*.peer",
        "delivery/test_exchangers.py",
        "delivery/test_own_addresses.py",
        "delivery/test_same_host.py",
        "mail/test_dial.py",
        "mail/test_dns.py",
        "mail/test_hosts.py",
        "mail/test_providers.py",
        "interop/test_dnssec.py",
        "interop/test_routes.py",
    ),
    "retry": (
        "delivery/peers/rcpt-*.peer",
        "delivery/peers/dot-*.peer",
        "delivery/peers/retry-*.peer",
        "delivery/test_peer_player.py",
        "delivery/test_connections.py",
        "delivery/test_dot.py",
        "delivery/test_fallback.py",
        "delivery/test_lifetime.py",
        "delivery/test_local.py",
        "delivery/test_outcomes.py",
        "delivery/test_pac*.py",
        "delivery/test_prepare.py",
        "delivery/test_provider_routes.py",
        "delivery/test_queue_admin.py",
        "delivery/test_refusals.py",
        "delivery/test_replies.py",
        "delivery/test_retry*.py",
        "delivery/test_routes.py",
        "delivery/test_same_host.py",
        "delivery/test_suppress*.py",
        "delivery/test_warmup.py",
        "mail/test_classify.py",
        "interop/test_peers.py",
    ),
    "reports": (
        "smtp/dialogs/inbound-bounce*.dialog",
        "smtp/dialogs/inbound-forged-token.dialog",
        "smtp/test_inbound.py",
        "delivery/test_bounces.py",
        "delivery/test_complaints.py",
        "delivery/test_notices.py",
        "delivery/test_return_path.py",
        "mail/test_arf.py",
        "mail/test_dsn.py",
        "mail/test_forwarded.py",
        "mail/test_notices.py",
        "mail/test_verp.py",
        "interop/test_reports.py",
    ),
    "crash": (
        "smtp/dialogs/protocol-client-gone-in-the-middle-of-a-message.dialog",
        "smtp/dialogs/protocol-half-closed.dialog",
        "delivery/peers/*-closed.peer",
        "delivery/peers/*-reset.peer",
        "delivery/peers/dot-no-reply-*.peer",
        "delivery/test_dot.py",
        "delivery/test_deleted_contacts.py",
        "delivery/test_ledger.py",
        "delivery/test_stop.py",
        "db/test_failures.py",
        "floor/test_spool.py",
        "process/test_disk.py",
        "process/test_guessing.py",
        "process/test_kill.py",
        "process/test_start.py",
        "process/test_stop.py",
        "process/test_tls_results.py",
    ),
    "load": (
        "smtp/dialogs/limits-*.dialog",
        "smtp/dialogs/inbound-limits*.dialog",
        "smtp/dialogs/protocol-recipients-limit.dialog",
        "smtp/dialogs/protocol-size-*.dialog",
        "smtp/dialogs/protocol-long-line.dialog",
        "smtp/test_crowd.py",
        "smtp/test_large.py",
        "smtp/test_memory.py",
        "smtp/test_patience.py",
        "delivery/peers/*megabyte*.peer",
        "delivery/test_black_holes.py",
        "delivery/test_fairness.py",
        "delivery/test_large_messages.py",
        "mail/test_transport_limits.py",
        "mail/test_transport_upload.py",
    ),
}
TESTS = Path(__file__).parent
FILE_TESTS = {"smtp/test_dialogs.py": "smtp/dialogs/{}.dialog", "delivery/test_peer_files.py": "delivery/peers/{}.peer"}
"""Modules with one test a file, which is its parameter `name`."""


def groups_of(path: str) -> list[str]:
    """Return the groups of a file, given as a path below tests/."""
    return [group for group, patterns in GROUPS.items() if any(fnmatch(path, pattern) for pattern in patterns)]


def put_into_groups(items: list[pytest.Item]) -> None:
    """Mark each collected test with its groups."""
    for item in items:
        for group in groups_of(_file_of(item)):
            item.add_marker(group)


def _file_of(item: pytest.Item) -> str:
    module = item.path.relative_to(TESTS).as_posix()
    if module in FILE_TESTS and isinstance(item, pytest.Function) and "name" in item.fixturenames:
        return FILE_TESTS[module].format(item.callspec.params["name"])
    return module
