"""Is the kept number of contacts the number of rows, whatever is done?"""

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from plunk_relay.contacts.actions import (
    ContactChange,
    ContactPatch,
    delete_contacts,
    patch_contact,
    set_subscriptions,
    upsert_contacts,
)
from plunk_relay.contacts.queries import ContactFilter, count_contacts
from plunk_relay.db.tables import contact_counts, contacts, metadata, projects
from tests.kit.relay import NOON


class CountedContacts(RuleBasedStateMachine):
    """Whatever is done to contacts, their kept number is the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = sa.create_engine("sqlite://")
        metadata.create_all(self.engine)
        self.tx = self.engine.connect()
        self.tx.exec_driver_sql("PRAGMA foreign_keys=ON")
        columns = {column.name: "" for column in projects.c if not column.nullable}
        for name in ("one", "two"):
            hashes = {"id": name, "public_hash": f"p{name}", "secret_hash": f"s{name}"}
            times = {"created_at": NOON, "updated_at": NOON, "disabled": False, "card_verification_attempts": 0}
            self.tx.execute(projects.insert(), columns | hashes | times)

    @rule(
        project=st.sampled_from(["one", "two"]),
        changes=st.lists(st.tuples(st.integers(0, 5), st.none() | st.booleans()), max_size=5),
    )
    def upsert(self, project: str, changes: list[tuple[int, bool | None]]) -> None:
        """Make and merge several at once, also the same one twice."""
        wanted = [(project, ContactChange(f"{number}@x.test", {"n": number}, flag)) for number, flag in changes]
        upsert_contacts(self.tx, wanted, now=NOON)

    @rule(project=st.sampled_from(["one", "two"]), subscribed=st.booleans(), most=st.integers(0, 4))
    def subscribe(self, project: str, subscribed: bool, most: int) -> None:
        """Set subscriptions, also of ids that are another project's."""
        set_subscriptions(self.tx, project, self._ids()[:most], subscribed=subscribed, now=NOON)

    @rule(project=st.sampled_from(["one", "two"]), flag=st.booleans(), place=st.integers(0, 9))
    def patch(self, project: str, flag: bool, place: int) -> None:
        """Change one."""
        mine = [row.id for row in self.tx.execute(contacts.select().where(contacts.c.project_id == project))]
        if mine:
            patch_contact(self.tx, project, mine[place % len(mine)], ContactPatch(subscribed=flag), now=NOON)

    @rule(project=st.sampled_from(["one", "two"]), most=st.integers(0, 3))
    def delete(self, project: str, most: int) -> None:
        """Delete some, and ids that are not there."""
        delete_contacts(self.tx, project, [*self._ids()[:most], "unknown"])

    @invariant()
    def the_numbers_are_right(self) -> None:
        """Count again."""
        for project in ("one", "two"):
            stored = self.tx.execute(contacts.select().where(contacts.c.project_id == project)).all()
            for flag in (None, True, False):
                fitting = sum(flag is None or bool(row.subscribed) is flag for row in stored)
                assert count_contacts(self.tx, project, ContactFilter(subscribed=flag)) == fitting
            assert len(self.tx.execute(contact_counts.select()).all()) <= 2

    def _ids(self) -> list[str]:
        return [row.id for row in self.tx.execute(contacts.select().order_by(contacts.c.id))]

    def teardown(self) -> None:
        """Close."""
        self.tx.close()
        self.engine.dispose()


TestCountedContacts = CountedContacts.TestCase
TestCountedContacts.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
