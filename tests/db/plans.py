"""How does SQLite find the rows of a statement? It is asked itself: EXPLAIN QUERY PLAN (https://www.sqlite.org/eqp.html)."""

import re
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from plunk_relay.db.engine import Database
from tests.db.units import StatementTrace, pragma

Query = Callable[[sa.Connection], object]
_SCAN = re.compile(r"SCAN (?!.* VIRTUAL TABLE)|SEARCH \w+ USING PRIMARY KEY \(project_id=\?\)\Z")
_OF_GROUPS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def find_scans(steps: Sequence[str]) -> list[str]:
    """Return the steps that walk over a whole table, or over all of a project's rows in a table clustered by project."""
    return [step for step in steps if _SCAN.match(step)]


async def explain_query(db: Database, query: Query) -> list[str]:
    """Run a query and return the steps of every statement it ran."""
    await pragma(db, "foreign_keys=OFF")  # there are no rows to belong to
    trace = StatementTrace()
    await trace.watch(db)
    await db.write(query)
    own = [text for text in trace.begun if not text.startswith(_OF_GROUPS)]
    assert own
    return [step for text in own for step in await explain(db, text)]


async def explain(db: Database, sql: str) -> list[str]:
    """Return the steps of a statement."""
    nothing = [None] * sql.count("?")
    return await db.migrate(lambda raw: [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}", nothing)])
