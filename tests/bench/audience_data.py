"""What does a large audience look like? A data directory with as many contacts and events as one likes, made in minutes.

    make bench ARGS="--loads seed --contacts 1000000 --events 5000000"

Nine tenths of the contacts are of the project `bench`, the others of four small ones. Contacts, events and mails are spread
over the last two years, in the order of their ids. Contacts have a first name, plan, age, city, day of sign-up, locale and
an object; one in a hundred lacks one of them. The names of events are distributed by Zipf's law, and every tenth event is
the `email.sent` of a mail. Rows go in by plain SQL, and the secondary indexes are made at the end; but not that of
addresses, so that its pages are as full as those of an index that has grown.
"""

import hashlib
import json
import random
import shutil
import sqlite3
import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from plunk_relay.db.migrate import list_migrations
from tests.bench.peers import SENDER_DOMAIN
from tests.kit.process import ServerProcess

PROJECT = "bench"
SMALL_PROJECTS = ("north", "south", "east", "west")
MAIL_EVERY = 10
"""One event in so many is the `email.sent` of a mail."""
RARE_EVENT = "event-200"
COMMON_EVENT = "event-1"
_SEED = 20_260_301
_SPAN = 730 * 86_400_000
_SMALL_SHARE = 10  # one contact in so many is of a small project
_SUBSCRIBED_SHARE = 0.8
_OPENED_AFTER = 3_600_000
_MAIL_DATA = '{"subject":"Hello","from":"bench@example.org","sourceType":"TRANSACTIONAL"}'
_EVENT_DATA = '{"amount":12,"source":"web"}'
_EVENT_NAMES = [f"event-{number}" for number in range(1, 201)]
_ZIPF = list(accumulate(1 / rank for rank in range(1, 201)))
_FIRST = (
    "Ada Alan Amelie Anna Ben Bruno Carla Chloe Clara Daniel David Elena Elif Emil Emma Eva Felix Finn Greta Hannah Hugo "
    "Ida Ines Jan Jonas Julia Karl Lara Lena Leo Lina Louis Lucas Luis Maja Marie Max Mia Nils Nora Olga Oskar Paul Pia Tom"
).split()
_LAST = (
    "Adler Bauer Becker Berg Bianchi Costa Dubois Eriksen Fischer Garcia Gruber Hansen Huber Ivanov Jansen Jones Keller "
    "Klein Kowalski Lang Larsen Lopez Martin Meyer Moreau Muller Nguyen Novak Olsen Petit Pichler Ricci Rossi Santos Silva "
    "Smith Steiner Vogel Wagner Weber Winter Wolf Yilmaz Zeman"
).split()
_HOSTS = "gmail.com gmail.com gmail.com outlook.com icloud.com gmx.at web.de acme.example orf.example".split()
_PLANS = ("free", "free", "free", "free", "free", "free", "pro", "pro", "pro", "enterprise")
_CITIES = ("Wien", "Graz", "Linz", "Berlin", "Paris", "Lisboa", "Oslo", "Praha", "Kraków", "Madrid", "Roma", "İstanbul")
_LOCALES = ("de-AT", "de", "en", "en-GB", "fr", "pt", "nb", "cs", "pl", "es", "it", "tr")
_BULK = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY", "threads=2", "foreign_keys=OFF")


@dataclass(frozen=True, slots=True)
class Size:
    """How much data there is to be, and of which schema."""

    contacts: int
    events: int

    def stamp(self) -> dict[str, Any]:
        """Return what tells whether a directory is what is asked for."""
        texts = "".join(text for _, text in list_migrations())
        own = Path(__file__).read_bytes()
        return asdict(self) | {"made_by": hashlib.sha256(texts.encode() + own).hexdigest()}


@dataclass(frozen=True, slots=True)
class Seeded:
    """What there is now."""

    home: Path
    seconds: float
    """How long it took; 0 when it was there."""
    megabytes: float


def seed(home: Path, size: Size) -> Seeded:
    """Make the data in `home`/data, or keep what is there when it is of this size and schema."""
    marker, database = home / "seed.json", home / "data" / "relay.db"
    began = time.monotonic()
    if not marker.exists() or json.loads(marker.read_text()) != size.stamp():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        server = ServerProcess(home)
        names = (PROJECT, *SMALL_PROJECTS)
        projects = [server.setup(project=name, domain=f"{name}.{SENDER_DOMAIN}")["project"]["id"] for name in names]
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            _fill(db, projects, size)
        marker.write_text(json.dumps(size.stamp()))
        return Seeded(home, time.monotonic() - began, database.stat().st_size / 1_000_000)
    return Seeded(home, 0.0, database.stat().st_size / 1_000_000)


def new_address(number: int, chosen: random.Random) -> str:
    """Return the address of a contact: names that repeat, and a number that does not."""
    first, last, host = chosen.choice(_FIRST), chosen.choice(_LAST), chosen.choice(_HOSTS)
    return f"{first}.{last}{number}@{host}".lower()


def custom_fields(chosen: random.Random) -> dict[str, Any]:
    """Return the custom fields of a contact."""
    place = int(chosen.random() * 12)
    month, day = int(chosen.random() * 12) + 1, int(chosen.random() * 28) + 1
    fields = {
        "firstName": chosen.choice(_FIRST),
        "plan": chosen.choice(_PLANS),
        "age": 18 + int(chosen.random() * 70),
        "city": _CITIES[place],
        "signupDate": f"202{4 + day % 2}-{month:02}-{day:02}",
        "locale": _LOCALES[place],
        "company": {"name": f"{chosen.choice(_LAST)} Ltd", "size": int(chosen.random() * 500)},
    }
    if chosen.random() < 0.01:
        del fields[chosen.choice(list(fields))]
    return fields


def _fill(db: sqlite3.Connection, projects: list[str], size: Size) -> None:
    for pragma in _BULK:
        db.execute(f"PRAGMA {pragma}")
    indexes = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('contacts', 'events', 'emails') AND name != 'contacts_email'"
    ).fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    audience = _Audience(projects, size)
    db.execute("BEGIN")
    db.executemany(_INSERT_CONTACT, audience.contacts())
    db.executemany(_INSERT_EMAIL, audience.emails())
    db.executemany(_INSERT_EVENT, audience.events())
    db.execute(_COUNT_CONTACTS)
    db.execute("COMMIT")
    for _, sql in indexes:
        db.execute(sql)
    db.execute("PRAGMA journal_mode=WAL")


@dataclass(frozen=True, slots=True)
class _Person:
    id: str
    project_id: str
    email: str


class _Audience:
    """The rows, each a tuple for its statement; the same ones every time but for ids and times."""

    def __init__(self, projects: list[str], size: Size) -> None:
        self._size = size
        self._began = int(time.time() * 1000) - _SPAN
        self._chosen = random.Random(_SEED)
        self._people = [self._person(number, projects) for number in range(size.contacts)]

    def _person(self, number: int, projects: list[str]) -> _Person:
        small = number % _SMALL_SHARE == 0
        project_id = projects[1 + number // _SMALL_SHARE % len(SMALL_PROJECTS)] if small else projects[0]
        made_at = self._moment(number, self._size.contacts)
        return _Person(_id(made_at, self._chosen), project_id, new_address(number, self._chosen))

    def contacts(self) -> Iterator[tuple[Any, ...]]:
        for number, person in enumerate(self._people):
            at = self._moment(number, self._size.contacts)
            fields = json.dumps(custom_fields(self._chosen), ensure_ascii=False, separators=(",", ":"))
            yield person.project_id, person.id, person.email, fields, self._chosen.random() < _SUBSCRIBED_SHARE, at, at

    def emails(self) -> Iterator[tuple[Any, ...]]:
        for number, (person, at, mail_id) in enumerate(self._mails()):
            opened = at + _OPENED_AFTER if number % 3 == 0 else None
            status = "OPENED" if opened else "DELIVERED"
            yield mail_id, person.project_id, person.id, person.email, status, at, opened, int(opened is not None)

    def events(self) -> Iterator[tuple[Any, ...]]:
        mails, chosen = self._mails(), self._chosen
        for number in range(self._size.events):
            if number % MAIL_EVERY == 0:
                person, at, mail_id = next(mails)
                yield _id(at, chosen), person.project_id, "email.sent", _MAIL_DATA, person.id, mail_id, at, at
            else:
                at = self._moment(number, self._size.events)
                person = self._known_at(number, chosen)
                name = _EVENT_NAMES[bisect(_ZIPF, chosen.random() * _ZIPF[-1])]
                yield _id(at, chosen), person.project_id, name, _EVENT_DATA, person.id, None, at, at

    def _mails(self) -> Iterator[tuple[_Person, int, str]]:
        """Go through recipients, times and ids of the mails, the same in each call."""
        chosen = random.Random(_SEED + 1)
        for number in range(0, self._size.events, MAIL_EVERY):
            at = self._moment(number, self._size.events)
            yield self._known_at(number, chosen), at, _id(at, chosen)

    def _known_at(self, number: int, chosen: random.Random) -> _Person:
        """Choose one of the contacts that are there when an event happens."""
        known = 1 + (len(self._people) - 1) * number // self._size.events
        return self._people[int(chosen.random() * known)]

    def _moment(self, number: int, count: int) -> int:
        return self._began + _SPAN * number // count


def _id(moment: int, chosen: random.Random) -> str:
    """Make a UUIDv7 of a moment in the past."""
    stamp, rest = f"{moment:012x}", f"{chosen.getrandbits(72):018x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{rest[:3]}-a{rest[3:6]}-{rest[6:]}"


_INSERT_CONTACT = (
    "INSERT INTO contacts (project_id, id, email, data, subscribed, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_EMAIL = (
    "INSERT INTO emails (id, project_id, contact_id, recipient, subject, from_address, message_id, mail_class, source_type,"
    " status, sent_at, delivered_at, opened_at, opens, clicks, created_at, updated_at) VALUES"
    " (?1, ?2, ?3, ?4, 'Hello', 'bench@example.org', ?1, 'transactional', 'TRANSACTIONAL', ?5, ?6, ?6, ?7, ?8, 0, ?6, ?6)"
)
_INSERT_EVENT = (
    "INSERT INTO events (id, project_id, name, data, contact_id, email_id, processed_at, dispatch_attempts, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)"
)
_COUNT_CONTACTS = (
    "INSERT OR REPLACE INTO contact_counts (project_id, contacts, subscribed)"
    " SELECT project_id, count(*), sum(subscribed) FROM contacts GROUP BY project_id"
)
