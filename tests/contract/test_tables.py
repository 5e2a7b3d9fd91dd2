"""Does the data model explain itself, and keep tenants apart?"""

import ast
import inspect
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from plunk_relay.db import tables
from plunk_relay.db.tables import metadata
from plunk_relay.db.types import Time

RELAY_WIDE = {"users", "user_tokens", "projects", "counters", "notes"} | {
    *("provider_states", "warmup_counts", "mta_sts_policies", "tls_results"),  # about other servers
}
SOURCE = inspect.getsource(tables)


def test_every_column_has_a_comment() -> None:
    columns = list(_columns())
    assert len(columns) > 150
    assert [name for name, _, comment in columns if not comment] == []


def test_a_column_that_may_be_null_says_when() -> None:
    silent = [
        name
        for name, definition, comment in _columns()
        if "nullable=False" not in definition and "primary_key" not in definition and "null" not in comment
    ]
    assert silent == ["billing_limit_campaigns", "billing_limit_transactional", "billing_limit_inbound"]  # "as above"


@pytest.mark.parametrize("name", sorted(set(metadata.tables) - RELAY_WIDE))
def test_a_row_belongs_to_a_project_and_goes_with_it(name: str) -> None:
    assert _belongs(metadata.tables[name])


@pytest.mark.parametrize("name", sorted(metadata.tables))
def test_times_are_kept_as_times(name: str) -> None:
    columns = [column for column in metadata.tables[name].columns if column.name.endswith(("_at", "_until"))]
    assert [column.name for column in columns if not isinstance(column.type, Time)] == []


def _columns() -> Iterator[tuple[str, str, str]]:
    """Find the columns that are written out: name, definition, and the comment behind it."""
    lines = SOURCE.splitlines()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Assign):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Column":
                    assert isinstance(call.args[0], ast.Constant)
                    yield str(call.args[0].value), ast.unparse(call), lines[(call.end_lineno or 0) - 1].partition("  # ")[2]


def _belongs(table: sa.Table) -> bool:
    """Tell whether deleting a project deletes the rows, at whatever distance, or makes them nobody's."""
    kept = {"CASCADE", "SET NULL"}
    parents = {key.column.table for column in table.columns for key in column.foreign_keys if key.ondelete in kept}
    return metadata.tables["projects"] in parents or any(_belongs(parent) for parent in parents)
