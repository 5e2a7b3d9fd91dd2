"""Does the seeding command of the bench make what it says? Small numbers, the same code."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from plunk_relay.db.migrate import list_migrations
from tests.bench.audience_data import (
    COMMON_EVENT,
    MAIL_EVERY,
    PROJECT,
    RARE_EVENT,
    SMALL_PROJECTS,
    Seeded,
    Size,
    seed,
)

SIZE = Size(contacts=2_000, events=5_000)
FIELDS = {"firstName", "plan", "age", "city", "signupDate", "locale", "company"}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """Make the data, once for all tests here."""
    return seed(tmp_path_factory.mktemp("bench") / "audience", SIZE)


@pytest.fixture
def db(seeded: Seeded) -> Iterator[sqlite3.Connection]:
    """Open the file that was made."""
    with closing(sqlite3.connect(seeded.home / "data" / "relay.db")) as opened:
        yield opened


def test_there_are_as_many_contacts_and_events_as_were_asked_for(db: sqlite3.Connection) -> None:
    assert _all(db, "SELECT count(*) FROM contacts") == [(SIZE.contacts,)]
    assert _all(db, "SELECT count(*) FROM events") == [(SIZE.events,)]


def test_one_project_is_large_and_the_others_are_small(db: sqlite3.Connection) -> None:
    by_project = "SELECT name, count(*) FROM contacts JOIN projects ON projects.id = project_id GROUP BY 1"
    numbers = dict(_all(db, by_project))
    assert numbers.pop(PROJECT) == SIZE.contacts * 9 // 10
    assert numbers == dict.fromkeys(SMALL_PROJECTS, SIZE.contacts // 40)


def test_the_kept_numbers_of_contacts_are_right(db: sqlite3.Connection) -> None:
    counted = "SELECT project_id, count(*), sum(subscribed) FROM contacts GROUP BY 1 ORDER BY 1"
    kept = "SELECT project_id, contacts, subscribed FROM contact_counts ORDER BY 1"
    assert _all(db, kept) == _all(db, counted)


def test_contacts_have_fields_and_one_in_a_hundred_lacks_one(db: sqlite3.Connection) -> None:
    fields = [json.loads(row[0]) for row in _all(db, "SELECT data FROM contacts")]
    lacking = [one for one in fields if len(one) == len(FIELDS) - 1]
    assert all(one.keys() <= FIELDS for one in fields)
    assert 5 < len(lacking) < 40
    assert {type(value) for one in fields for value in one.values()} == {str, int, dict}


def test_names_of_events_are_distributed_by_zipf(db: sqlite3.Connection) -> None:
    numbers = Counter(dict(_all(db, "SELECT name, count(*) FROM events WHERE name != 'email.sent' GROUP BY 1")))
    [(name, most), (_, next_to_most)] = numbers.most_common(2)
    assert name == COMMON_EVENT
    assert 1.5 < most / next_to_most < 2.5
    assert numbers[RARE_EVENT] < most / 50


def test_each_mail_has_its_event(db: sqlite3.Connection) -> None:
    of_mails = (
        "SELECT count(*) FROM events JOIN emails ON emails.id = email_id AND emails.contact_id = events.contact_id"
        " AND emails.project_id = events.project_id WHERE name = 'email.sent'"
    )
    assert _all(db, of_mails) == _all(db, "SELECT count(*) FROM emails") == [(SIZE.events // MAIL_EVERY,)]


@pytest.mark.parametrize("table", ["contacts", "events", "emails"])
def test_rows_are_spread_over_two_years_in_the_order_of_their_ids(db: sqlite3.Connection, table: str) -> None:
    times = [row[0] for row in _all(db, f"SELECT created_at FROM {table} ORDER BY id")]
    assert times == sorted(times)
    assert 728 < (times[-1] - times[0]) / 86_400_000 <= 730


def test_nothing_happens_to_a_contact_before_it_is_there(db: sqlite3.Connection) -> None:
    early = (
        "SELECT count(*) FROM events JOIN contacts ON contacts.id = contact_id WHERE events.created_at < contacts.created_at"
    )
    assert _all(db, early) == [(0,)]


def test_the_file_is_sound_and_has_all_indexes(db: sqlite3.Connection) -> None:
    assert _all(db, "PRAGMA integrity_check") == [("ok",)]
    assert _all(db, "PRAGMA foreign_key_check") == []
    assert _all(db, "PRAGMA journal_mode") == [("wal",)]
    with closing(sqlite3.connect(":memory:")) as fresh:
        for _, text in list_migrations():
            fresh.executescript(text)
        schema = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
        assert _all(db, schema) == _all(fresh, schema)


def test_what_is_there_is_used_again_while_it_fits(seeded: Seeded, tmp_path: Path) -> None:
    again = seed(seeded.home, SIZE)
    assert again.seconds == 0
    home = tmp_path / "audience"
    assert seed(home, Size(20, 20)).seconds > 0
    assert seed(home, Size(20, 40)).seconds > 0
    with closing(sqlite3.connect(home / "data" / "relay.db")) as opened:
        assert _all(opened, "SELECT count(*) FROM events") == [(40,)]


def _all(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return db.execute(query).fetchall()
