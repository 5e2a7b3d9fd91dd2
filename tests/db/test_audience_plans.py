"""Are contacts found by the index that suits the question, in the order asked for? SQLite's own plans.

The file of a relay has no statistics, so a plan here is the plan for a million contacts. Segments:
tests/segments/test_plans.py.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from plunk_relay.contacts.fields.queries import count_keys, list_having, list_values
from plunk_relay.contacts.queries import (
    Contact,
    ContactFilter,
    Direction,
    Place,
    SortColumn,
    Stretch,
    count_contacts,
    count_ids,
    delete_contacts,
    delete_mails,
    delete_some_events,
    find_any_contact,
    find_contact,
    find_contacts_by_email,
    find_stretch,
    has_long_history,
    list_contacts,
    list_ids,
    list_some_mails,
    update_contacts,
)
from plunk_relay.contents.queries import list_contents_of_contacts, list_contents_of_mails
from plunk_relay.db.engine import Database
from plunk_relay.jobs.queries import count_unfinished, find_input, find_job
from tests.db.plans import Query, explain_query, find_scans

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANN = Contact("id", "project", "ann@example.com", None, True, NOW, NOW)
ALL = ContactFilter()
STRETCH = Stretch("project", "a", "b")

FOUND: dict[str, tuple[Query, str]] = {
    "contacts by address": (
        lambda tx: find_contacts_by_email(tx, "project", ["a@example.com", "b@example.com"]),
        "contacts USING INDEX contacts_email (project_id=? AND email=?)",
    ),
    "a contact by id": (
        lambda tx: find_contact(tx, "project", "id"),
        "contacts USING PRIMARY KEY (project_id=? AND id=?)",
    ),
    "the contact of a link": (
        lambda tx: find_any_contact(tx, "id"),
        "contacts USING INDEX sqlite_autoindex_contacts_2 (id=?)",
    ),
    "contacts that change": (
        lambda tx: update_contacts(tx, [(ANN, ANN)]),
        "contacts USING INDEX sqlite_autoindex_contacts_2",
    ),
    "contacts that go": (
        lambda tx: delete_contacts(tx, "project", ["id", "other"]),
        "contacts USING PRIMARY KEY (project_id=? AND id=?)",
    ),
    "what the mails of contacts contain": (
        lambda tx: list_contents_of_contacts(tx, "project", ["id", "other"]),
        "emails USING INDEX emails_contact (contact_id=?)",
    ),
    "what mails contain": (
        lambda tx: list_contents_of_mails(tx, "project", ["id", "other"]),
        "emails USING PRIMARY KEY (id=?)",
    ),
    "whether contacts have many events": (
        lambda tx: has_long_history(tx, "project", ["id"], limit=1),
        "events USING INDEX events_contact (contact_id=?)",
    ),
    "some events of contacts": (
        lambda tx: delete_some_events(tx, "project", ["id"], limit=1),
        "events USING INDEX events_contact (contact_id=?)",
    ),
    "some mails of contacts": (
        lambda tx: list_some_mails(tx, "project", ["id"], limit=1),
        "emails USING INDEX emails_contact (contact_id=?)",
    ),
    "mails that go": (lambda tx: delete_mails(tx, "project", ["id"]), "emails USING PRIMARY KEY (id=?)"),
    "the values of neighbours": (
        lambda tx: list_values(tx, STRETCH, "plan", limit=9),
        "contacts USING PRIMARY KEY (project_id=? AND id>? AND id<?)",
    ),
    "neighbours that have a field": (
        lambda tx: list_having(tx, STRETCH, "plan"),
        "contacts USING PRIMARY KEY (project_id=? AND id>? AND id<?)",
    ),
    "neighbours": (
        lambda tx: find_stretch(tx, "project", "a", limit=100),
        "contacts USING PRIMARY KEY (project_id=? AND id>?)",
    ),
    "the fields of neighbours": (
        lambda tx: count_keys(tx, STRETCH),
        "contacts USING PRIMARY KEY (project_id=? AND id>? AND id<?)",
    ),
    "ids of all": (lambda tx: list_ids(tx, "project", ALL, below="m"), "contacts USING PRIMARY KEY (project_id=? AND id<?)"),
    "how many there are": (lambda tx: count_contacts(tx, "project", ALL), "contact_counts USING PRIMARY KEY (project_id=?)"),
    "how many contain a text": (
        lambda tx: count_contacts(tx, "project", ContactFilter(search="ann")),
        "contacts USING COVERING INDEX contacts_created (project_id=?)",
    ),
    "how many begin so": (
        lambda tx: count_contacts(tx, "project", ContactFilter(prefix="ann")),
        "contacts USING COVERING INDEX contacts_email (project_id=? AND email>? AND email<?)",
    ),
    "how many subscribed ones contain a text": (
        lambda tx: count_contacts(tx, "project", ContactFilter(search="ann", subscribed=True)),
        "contacts USING COVERING INDEX contacts_created (project_id=?)",
    ),
    "a project's jobs": (
        lambda tx: count_unfinished(tx, "project", "IMPORT"),
        "jobs USING INDEX jobs_unfinished (project_id=? AND kind=?)",
    ),
    "a job": (lambda tx: find_job(tx, "project", "IMPORT", "id"), "jobs USING PRIMARY KEY (id=?)"),
    "the file of a job": (lambda tx: find_input(tx, "project", "id"), "job_inputs USING INDEX"),
}

LISTS: list[tuple[ContactFilter, SortColumn, str]] = [
    (ALL, "createdAt", "COVERING INDEX contacts_created (project_id=?)"),
    (ALL, "email", "COVERING INDEX contacts_email (project_id=?)"),
    (ContactFilter(subscribed=False), "createdAt", "COVERING INDEX contacts_created (project_id=?)"),
    (ContactFilter(search="ann"), "createdAt", "COVERING INDEX contacts_created (project_id=?)"),
    (ContactFilter(search="ann"), "email", "COVERING INDEX contacts_email (project_id=?)"),
    (ContactFilter(search="ann", subscribed=True), "createdAt", "COVERING INDEX contacts_created (project_id=?)"),
    (ContactFilter(prefix="ann"), "email", "COVERING INDEX contacts_email (project_id=? AND email>? AND email<?)"),
]


@pytest.mark.parametrize("name", FOUND)
async def test_contacts_and_jobs_are_found_by_the_index_that_suits(db: Database, name: str) -> None:
    query, step = FOUND[name]
    steps = await explain_query(db, query)
    assert any(step in one for one in steps), steps
    assert _scans(steps) == []


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("chosen", "sort", "index"), LISTS, ids=str)
async def test_a_page_of_contacts_is_read_from_an_index_in_its_order(
    db: Database, chosen: ContactFilter, sort: SortColumn, index: str, direction: Direction
) -> None:
    """All that is asked about is in the index, too: only what is shown is looked up."""
    steps = await explain_query(db, lambda tx: list_contacts(tx, "project", chosen, Place(sort, direction)))
    assert f"SEARCH contacts USING {index}" in steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_those_with_a_flag_are_searched_where_the_flag_stands_beside_the_address(
    db: Database, direction: Direction
) -> None:
    """Sorting what was found is less work than looking up whether each of a million is subscribed."""
    chosen = ContactFilter(search="ann", subscribed=True)
    steps = await explain_query(db, lambda tx: list_contacts(tx, "project", chosen, Place("email", direction)))
    assert steps.count("SEARCH contacts USING COVERING INDEX contacts_created (project_id=?)") == 2


@pytest.mark.parametrize("sort", ["email", "createdAt"])
async def test_few_addresses_that_begin_so_are_found_by_address(db: Database, sort: SortColumn) -> None:
    chosen = ContactFilter(prefix="ann", subscribed=True)
    steps = await explain_query(db, lambda tx: list_contacts(tx, "project", chosen, Place(sort, "asc")))
    assert "SEARCH contacts USING INDEX contacts_email (project_id=? AND email>? AND email<?)" in steps
    assert not any("contacts_created" in step for step in steps), steps


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(
    ("sort", "step"),
    [
        ("createdAt", "COVERING INDEX contacts_created (project_id=? AND (created_at,id){}(?,?))"),
        ("email", "COVERING INDEX contacts_email (project_id=? AND email{}?)"),
    ],
)
async def test_the_next_page_begins_where_the_last_one_ended(
    db: Database, sort: SortColumn, step: str, direction: Direction
) -> None:
    steps = await explain_query(db, lambda tx: list_contacts(tx, "project", ALL, Place(sort, direction, ANN)))
    assert f"SEARCH contacts USING {step.format('>' if direction == 'asc' else '<')}" in steps
    assert not any("TEMP B-TREE" in one for one in steps), steps


async def test_what_is_left_of_a_selection_is_counted_by_ids(db: Database) -> None:
    steps = await explain_query(db, lambda tx: count_ids(tx, "project", ALL, below="m", without=["n"]))
    assert _scans(steps) == []


async def test_a_walk_over_a_whole_project_would_be_noticed(db: Database) -> None:
    """As with addresses in a list beside the project, which SQLite does not look up one by one."""
    by_list = "SELECT data FROM contacts WHERE project_id = 'a' AND email IN ('b', 'c')"
    steps = await explain_query(db, lambda tx: tx.execute(sa.text(by_list)))
    assert find_scans(steps) == ["SEARCH contacts USING PRIMARY KEY (project_id=?)"]


def _scans(steps: Sequence[str]) -> list[str]:
    """Return the scans, but of the one row of a project's counts and of rows that were chosen by a step before."""
    return [step for step in find_scans(steps) if "contact_counts" not in step and "anon_" not in step]
