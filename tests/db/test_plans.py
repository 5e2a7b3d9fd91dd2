"""Does every statement that runs often find its rows by an index? Asked of SQLite itself: EXPLAIN QUERY PLAN."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

import plunk_relay
from plunk_relay.accounts.queries import find_user_by_email
from plunk_relay.bounces.queries import Sent, find_author, find_sent, is_recorded, is_shared, list_siblings, mark_bounced
from plunk_relay.contents.queries import load_content
from plunk_relay.db.engine import Database
from plunk_relay.db.prepared import Prepared
from plunk_relay.domains.queries import find_domain, find_domain_named, list_domains, list_keys, list_stale
from plunk_relay.emails.queries import Email, list_attempts, list_captured, load_captured
from plunk_relay.emails.queue import give_back, take_over
from plunk_relay.emails.queue_admin import QueueFilter, find_entry, hold, list_entries, release, retry
from plunk_relay.events.queries import (
    Span,
    count_named,
    count_names,
    count_names_by_time,
    count_up_to,
    delete_named,
    list_contact_events,
    list_events,
)
from plunk_relay.projects.queries import find_key_owner, find_owned_project, find_project, list_projects
from plunk_relay.segments.queries import (
    PageOf,
    Segment,
    count_members,
    delete_discarded,
    find_segment,
    find_stale,
    find_strangers,
    leave,
    list_active_campaigns,
    list_members,
    list_segments,
)
from plunk_relay.suppressions.queries import (
    ListFilter,
    Suppression,
    find_caught,
    find_suppression,
    list_caught,
    list_rules,
    list_suppressions,
    remove_suppression,
)
from plunk_relay.templates.queries import TemplateFilter, detach_mails, find_template, find_usage, list_templates
from plunk_relay.uploads.queries import find_any_upload
from plunk_relay.web.endpoint import KeyHold
from plunk_relay.web.queries import StoredClaim, claim_key, delete_expired_keys, release_key, settle_key
from tests.db.plans import Query, explain, explain_query, find_scans

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLAIM = StoredClaim("key", "request", "POST", "/v1/send", None, NOW)
ENTRY = Suppression("project", "a@example.com", "MANUAL", None, None, NOW)
MAIL = Email(**dict.fromkeys(Email.__dataclass_fields__, "x"))  # type: ignore[arg-type]  # any values will do
SENT = Sent("delivery", "bob@example.org", 1, None, "MIME", MAIL)
HOLD = KeyHold("project", "key", "request")
SEGMENT = Segment(**dict.fromkeys(Segment.__dataclass_fields__, "x"))  # type: ignore[arg-type]  # any values will do

QUERIES: dict[str, Query] = {
    "a person by address": lambda tx: find_user_by_email(tx, "a@example.com"),
    "a project by id": lambda tx: find_project(tx, "project"),
    "a project by key": lambda tx: find_key_owner(tx, "hash"),
    "a person's project": lambda tx: find_owned_project(tx, "user", "name"),
    "a page of projects": lambda tx: list_projects(tx, after_id="project"),
    "a project's domain": lambda tx: find_domain(tx, "project", "domain"),
    "a domain by name": lambda tx: find_domain_named(tx, "example.com"),
    "a project's domains": lambda tx: list_domains(tx, "project"),
    "a domain's keys": lambda tx: list_keys(tx, "domain"),
    "a template": lambda tx: find_template(tx, "project", "template"),
    "a page of templates": lambda tx: list_templates(tx, "project", TemplateFilter(search="x", sort="name"), offset=20),
    "what uses a template": lambda tx: find_usage(tx, "project", "template"),
    "some mails of a template": lambda tx: detach_mails(tx, "project", ["template"]),
    "an upload by its key": lambda tx: find_any_upload(tx, "key"),
    "a project's segments": lambda tx: list_segments(tx, "project"),
    "a segment": lambda tx: find_segment(tx, "project", "segment"),
    "the segment to count next": lambda tx: find_stale(tx, counted_before=NOW),
    "a piece of a deleted segment": lambda tx: delete_discarded(tx, limit=9),
    "campaigns that need a segment": lambda tx: list_active_campaigns(tx, "project", "segment", by_condition=["a"]),
    "how many members there are": lambda tx: count_members(tx, "project", "segment"),
    "a page of members": lambda tx: list_members(tx, "project", "segment", PageOf(2, 20)),
    "members who leave": lambda tx: leave(tx, SEGMENT, ["a"], now=NOW),
    "contacts who are no members": lambda tx: find_strangers(tx, SEGMENT, ["a"]),
    "a content": lambda tx: load_content(tx, "content"),
    "the attempts of a delivery": lambda tx: list_attempts(tx, "delivery"),
    "the delivery of a bounce": lambda tx: find_sent(tx, "delivery"),
    "the author of a delivery": lambda tx: find_author(tx, "delivery"),
    "a report that is known already": lambda tx: is_recorded(tx, "delivery", "text"),
    "a message's other recipients": lambda tx: list_siblings(tx, SENT, ["example.org"]),
    "whether a message has others": lambda tx: is_shared(tx, SENT),
    "a mail that bounced": lambda tx: mark_bounced(tx, SENT, error="550", now=NOW),
    "a captured mail": lambda tx: load_captured(tx, "delivery"),
    "a delivery by either id": lambda tx: find_entry(tx, "id"),
    "deliveries by id": lambda tx: list_entries(tx, QueueFilter(deliveries=["a", "b"])),
    "a project's deliveries in one state": lambda tx: list_entries(tx, QueueFilter(project_id="project", status="held")),
    "deliveries tried now": lambda tx: retry(tx, QueueFilter(deliveries=["a"]), now=NOW),
    "a project put on hold": lambda tx: hold(tx, QueueFilter(project_id="project"), now=NOW),
    "a project released": lambda tx: release(tx, QueueFilter(project_id="project"), now=NOW),
    "the leases of a worker that stops": lambda tx: give_back(tx, "owner", now=NOW),
    "the leases of workers that died": lambda tx: take_over(tx, "owner", now=NOW),
    "an address on a list": lambda tx: find_suppression(tx, "project", "a@example.com"),
    "an address off a list": lambda tx: remove_suppression(tx, "project", "a@example.com"),
    "a project's suppression rules": lambda tx: list_rules(tx, "project"),
    "a page of a list": lambda tx: list_suppressions(tx, "project", ListFilter(), after=ENTRY),
    "a page of caught mail": lambda tx: list_caught(tx, "project", after="email", limit=20),
    "a caught mail": lambda tx: find_caught(tx, "project", "email"),
    "an idempotency key claimed": lambda tx: claim_key(tx, "project", CLAIM, expires_at=NOW),
    "an idempotency key settled": lambda tx: settle_key(tx, HOLD, 200),
    "an idempotency key released": lambda tx: release_key(tx, HOLD, 409),
    "idempotency keys whose time is over": lambda tx: delete_expired_keys(tx, now=NOW),
}
THROUGH: dict[str, tuple[Query, str]] = {
    "a project's newest events": (lambda tx: list_events(tx, "project", limit=100), "INDEX events_created (project_id=?)"),
    "events of a name among the newest": (
        lambda tx: list_events(tx, "project", name="seen", limit=100),
        "INDEX events_created (project_id=?)",
    ),
    "all events of a name": (
        lambda tx: list_events(tx, "project", name="seen", limit=100),
        "COVERING INDEX events_name (project_id=? AND name=?)",
    ),
    "the events that were found": (
        lambda tx: list_events(tx, "project", name="seen", limit=100),
        "events USING PRIMARY KEY (id=?)",
    ),
    "a contact's newest events": (
        lambda tx: list_contact_events(tx, "project", "contact", limit=50),
        "INDEX events_contact (contact_id=?)",
    ),
    "whether there are many events": (lambda tx: count_up_to(tx, "project", 9), "COVERING INDEX"),
    "whether a time has many events": (
        lambda tx: count_up_to(tx, "project", 9, span=Span(NOW, NOW)),
        "COVERING INDEX events_created (project_id=? AND created_at>? AND created_at<?)",
    ),
    "names of a time with few events": (
        lambda tx: count_names_by_time(tx, "project", Span(NOW, NOW)),
        "INDEX events_created (project_id=? AND created_at>? AND created_at<?)",
    ),
    "names of a time with many events": (
        lambda tx: count_names(tx, "project", Span(NOW, NOW)),
        "COVERING INDEX events_name (project_id=?)",
    ),
    "a page of members": (
        lambda tx: list_members(tx, "project", "segment", PageOf(2, 20)),
        "INDEX segment_memberships_present (segment_id=?)",
    ),
    "how often a name is there": (
        lambda tx: count_named(tx, "project", "seen"),
        "COVERING INDEX events_name (project_id=? AND name=?)",
    ),
    "some events of a name to delete": (
        lambda tx: delete_named(tx, "project", "seen", until=NOW, limit=9),
        "COVERING INDEX events_name (project_id=? AND name=?)",
    ),
}
IN_ORDER: dict[str, tuple[Query, str]] = {
    "captured mails, newest first": (list_captured, "sqlite_autoindex_captured_1"),
    "domains to look up again": (lambda tx: list_stale(tx, checked_before=NOW, limit=20), "domains_checked"),
}


def _prepared() -> Iterator[tuple[str, Prepared]]:
    for module in pkgutil.walk_packages(plunk_relay.__path__, "plunk_relay."):
        if module.name.endswith((".queries", ".queue")):  # SQL is nowhere else: tests/contract/test_layers.py
            found = vars(importlib.import_module(module.name)).items()
            yield from ((f"{module.name}.{name}", value) for name, value in found if isinstance(value, Prepared))


@pytest.mark.parametrize(
    ("name", "statement"),
    [pytest.param(name, statement, id=name) for name, statement in _prepared()],
)
async def test_a_prepared_statement_searches_an_index(db: Database, name: str, statement: Prepared) -> None:
    assert find_scans(await explain(db, statement.sql)) == [], name


def test_the_statements_of_the_hot_path_are_among_them() -> None:
    found = {name.removeprefix("plunk_relay.") for name, _ in _prepared()}
    assert found >= {"emails.queue._LEASE_DUE", "emails.queue._CLAIMED", "contacts.queries._BY_EMAIL"}


async def test_a_claim_looks_each_recipient_up_by_the_key_of_the_list(db: Database) -> None:
    steps = await explain(db, dict(_prepared())["plunk_relay.emails.queue._CLAIMED"].sql)
    assert "SEARCH suppressions USING PRIMARY KEY (project_id=? AND address=?) LEFT-JOIN" in steps


async def test_the_next_job_is_found_among_those_that_are_not_over(db: Database) -> None:
    steps = await explain(db, dict(_prepared())["plunk_relay.jobs.queries._NEXT"].sql)
    assert any("jobs USING INDEX jobs_due" in step for step in steps), steps


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_searches_an_index(db: Database, name: str) -> None:
    assert find_scans(await explain_query(db, QUERIES[name])) == []


@pytest.mark.parametrize("name", IN_ORDER)
async def test_a_list_is_read_in_the_order_of_its_index(db: Database, name: str) -> None:
    query, index = IN_ORDER[name]
    steps = await explain_query(db, query)
    scans = find_scans(steps)
    assert all(index in step for step in scans), steps
    assert scans
    assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("name", THROUGH)
async def test_a_query_goes_through_the_index_that_suits_it(db: Database, name: str) -> None:
    query, index = THROUGH[name]
    steps = await explain_query(db, query)
    assert any(index in step for step in steps), steps
    assert [step for step in steps if re.match(r"SCAN (events|contacts)\b", step)] == []


async def test_a_scan_would_be_noticed(db: Database) -> None:
    steps = await explain_query(db, lambda tx: tx.execute(sa.text("SELECT id FROM emails WHERE subject = 'x'")))
    assert find_scans(steps) == ["SCAN emails"]
