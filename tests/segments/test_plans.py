"""Does a segment walk over its own project's contacts, and find history by the index made for it? SQLite's own plans.

The file of a relay has no statistics, so a plan here is the plan for a million contacts.
"""

import re

import pytest
import sqlalchemy as sa

from plunk_relay.conditions import ACTIVITIES, OPERATORS, check_condition
from plunk_relay.db.tables import contacts
from plunk_relay.segments.filters import Among, match
from tests.segments.audience import NOW, Audience, Json, Person, a, one

WALK = "contacts USING PRIMARY KEY (project_id=?)"
LOOK_UPS = "contacts USING PRIMARY KEY (project_id=? AND id=?)"
COVERING_WALK = "contacts USING COVERING INDEX contacts_created (project_id=?)"
BY_NAME = "events USING COVERING INDEX events_name (project_id=? AND name=? AND contact_id>?)"
BY_NAME_AND_CONTACT = "events USING COVERING INDEX events_name (project_id=? AND name=? AND contact_id=?)"

PLAN = [
    (a("data.plan", "equals", "pro"), [WALK]),
    (a("data.plan", "notEquals", "pro"), [WALK]),
    (a("data.company.size", "greaterThan", 5), [WALK]),
    (a("createdAt", "olderThan", 7, "days"), [COVERING_WALK]),
    (a("createdAt", "greaterThan", "2026-01-01"), [COVERING_WALK]),
    (a("updatedAt", "within", 1, "days"), [WALK]),
    (a("subscribed", "equals", True), [COVERING_WALK]),
    (a("email", "contains", "@example"), [COVERING_WALK]),
    (a("email", "equals", "ann@example.com"), ["contacts USING COVERING INDEX contacts_email (project_id=? AND email=?)"]),
    (a("event.signup", "triggered"), [LOOK_UPS, BY_NAME]),
    (a("event.signup", "triggeredWithin", 700, "days"), [LOOK_UPS, BY_NAME]),
    (a("event.signup", "triggeredOlderThan", 7, "days"), [LOOK_UPS, BY_NAME, BY_NAME]),
    (a("event.signup", "notTriggered"), [COVERING_WALK, BY_NAME]),
    (a("event.signup", "notTriggeredWithin", 7, "days"), [COVERING_WALK, BY_NAME]),
    (a("email.opened", "triggered"), [LOOK_UPS, "emails USING COVERING INDEX emails_opened (project_id=?)"]),
    (
        a("email.click", "triggeredWithin", 7, "days"),
        [LOOK_UPS, "emails USING COVERING INDEX emails_clicked (project_id=?)"],
    ),
    (a("email.bounced", "notTriggered"), [COVERING_WALK, "emails USING COVERING INDEX emails_bounced (project_id=?)"]),
    (a("email.complaint", "triggered"), [LOOK_UPS, "emails USING COVERING INDEX emails_complained (project_id=?)"]),
    (a("email.sent", "triggered"), [LOOK_UPS, "emails USING INDEX emails_project (project_id=?)"]),
    (a("segment.static", "memberOfSegment"), [LOOK_UPS, "segment_memberships USING PRIMARY KEY (segment_id=?)"]),
    (a("segment.static", "notMemberOfSegment"), [COVERING_WALK, "segment_memberships USING PRIMARY KEY (segment_id=?)"]),
]

FEW = [
    (a("event.signup", "triggered"), [BY_NAME_AND_CONTACT]),
    (a("event.signup", "notTriggeredWithin", 7, "days"), [BY_NAME_AND_CONTACT]),
    (
        a("email.opened", "triggered"),
        ["emails USING COVERING INDEX emails_opened (project_id=? AND contact_id=? AND opened_at>?)"],
    ),
    (a("email.delivered", "triggered"), ["emails USING INDEX emails_contact (contact_id=?)"]),
    (
        a("segment.static", "notMemberOfSegment"),
        ["segment_memberships USING PRIMARY KEY (segment_id=? AND contact_id=?)"],
    ),
]


@pytest.fixture
def engine(sqlite: sa.Engine) -> sa.Engine:
    """Ask SQLite alone."""
    return sqlite


@pytest.fixture
def audience(audience: Audience) -> Audience:
    """Have a static segment."""
    audience.add_segment(None, segment_id="static")
    return audience


@pytest.mark.parametrize(("chosen", "steps"), PLAN, ids=lambda part: str(part)[:70])
def test_a_filter_is_found_by_its_index(audience: Audience, chosen: Json, steps: list[str]) -> None:
    assert sorted(_explain(audience, [chosen])) == sorted(f"SEARCH {step}" for step in steps)


@pytest.mark.parametrize(("chosen", "steps"), FEW, ids=lambda part: str(part)[:70])
def test_history_of_few_is_looked_up_for_each(audience: Audience, chosen: Json, steps: list[str]) -> None:
    found = _explain(audience, [chosen, a("data.plan", "exists")], among="few")
    assert sorted(found) == sorted(f"SEARCH {step}" for step in [WALK, *steps])


def test_history_decides_where_a_walk_is_not_needed(audience: Audience) -> None:
    filters = [a("data.plan", "equals", "pro"), a("subscribed", "equals", True), a("event.signup", "triggered")]
    assert _explain(audience, filters) == [f"SEARCH {LOOK_UPS}", f"SEARCH {BY_NAME}"]


def test_only_a_short_time_is_found_by_the_index_of_times(audience: Audience) -> None:
    """A look-up for each contact of a long time would take longer than a walk over all."""
    plan = a("data.plan", "equals", "pro")
    by_time = ["SEARCH contacts USING INDEX contacts_created (project_id=? AND created_at>?)"]
    assert _explain(audience, [plan, a("createdAt", "within", 2, "days")]) == by_time
    assert _explain(audience, [plan, a("createdAt", "within", 3, "days")]) == [f"SEARCH {WALK}"]


@pytest.mark.parametrize("among", ["all", "few"])
def test_no_condition_scans_a_table(audience: Audience, among: Among) -> None:
    """One of every operator, joined by OR, where no index can decide alone."""
    filters = [
        *(
            a("data.x.y", operator, 1 if operator in ("within", "olderThan") else "1", "days")
            for operator in OPERATORS["data"]
        ),
        *(a("event.signup", operator, 1, "days") for operator in OPERATORS["event"]),
        *(a(f"email.{activity}", operator, 1, "days") for activity in ACTIVITIES for operator in OPERATORS["activity"]),
        *(a("segment.static", operator) for operator in OPERATORS["segment"]),
    ]
    groups = [{"filters": [chosen]} for chosen in filters]
    steps = _explain(audience, [], nested={"logic": "OR", "groups": groups}, among=among)
    assert [step for step in steps if not step.startswith("SEARCH ")] == []
    assert len(steps) > 50


def test_a_condition_is_one_statement(audience: Audience) -> None:
    """Segments that are named are read before it; contacts are read once, however many they are."""
    statements: list[str] = []
    audience.add(*(Person(data={"plan": "pro"}) for _ in range(20)))
    untracked = audience.add_segment(one("data.plan", "equals", "pro"))
    sa.event.listen(audience.tx, "before_cursor_execute", lambda *about: statements.append(about[2]))
    assert len(audience.find(one(f"segment.{untracked}", "memberOfSegment"))) == 20
    assert [re.findall(r"FROM (\w+)", text) for text in statements] == [["segments"], ["contacts"]]


def _explain(audience: Audience, filters: list[Json], *, nested: Json | None = None, among: Among = "all") -> list[str]:
    """Return the steps that read a table, of the statement that counts who fits."""
    condition = check_condition({"logic": "AND", "groups": [{"filters": filters, "conditions": nested}]})
    fits = match(audience.tx, audience.project_id, condition, now=NOW, among=among)
    counting = sa.select(sa.func.count()).select_from(contacts).where(contacts.c.project_id == audience.project_id, fits)
    compiled = counting.compile(audience.tx, compile_kwargs={"render_postcompile": True})
    nothing = (None,) * len(compiled.positiontup or [])
    rows = audience.tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", nothing)
    return [row[3] for row in rows if not re.match(r"LIST|CORRELATED|SCAN .* VIRTUAL", row[3])]
