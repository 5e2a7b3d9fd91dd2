"""What is in the tables? Rows as dictionaries, and rows that no endpoint of this version makes."""

from typing import Any

import sqlalchemy as sa

from plunk_relay.db.tables import workflow_steps, workflows
from plunk_relay.ids import new_id
from plunk_relay.relay import Relay
from plunk_relay.templates.queries import Template, insert_template


async def rows(relay: Relay, table: sa.Table, **equal: object) -> list[dict[str, Any]]:
    """Return the rows with these values, oldest first."""
    where = [table.c[name] == value for name, value in equal.items()]
    chosen = sa.select(table).where(*where).order_by(*table.primary_key)

    def select(tx: sa.Connection) -> list[dict[str, Any]]:
        return [dict(row) for row in tx.execute(chosen).mappings()]

    return await relay.db.read(select)


async def insert(relay: Relay, table: sa.Table, **values: object) -> None:
    """Store a row."""

    def execute(tx: sa.Connection) -> None:
        tx.execute(sa.insert(table).values(values))

    await relay.db.write(execute)


async def delete(relay: Relay, table: sa.Table, **equal: object) -> None:
    """Remove the rows with these values."""

    def execute(tx: sa.Connection) -> None:
        tx.execute(sa.delete(table).where(*(table.c[name] == value for name, value in equal.items())))

    await relay.db.write(execute)


async def change(relay: Relay, table: sa.Table, row_id: str, **values: object) -> None:
    """Set columns of one row."""

    def update(tx: sa.Connection) -> None:
        assert tx.execute(sa.update(table).where(table.c.id == row_id).values(values)).rowcount == 1

    await relay.db.write(update)


async def add_template(relay: Relay, project_id: str, **fields: str) -> str:
    """Store a template, TRANSACTIONAL and from acme.test unless `fields` say otherwise; return its id."""
    values: dict[str, Any] = {
        "name": "welcome",
        "description": None,
        "subject": "Template subject",
        "body": "<p>Template body</p>",
        "from_address": "template@acme.test",
        "from_name": None,
        "reply_to": None,
        "type": "TRANSACTIONAL",
        **fields,
    }
    now = relay.clock.now()
    template = Template(id=new_id(), project_id=project_id, created_at=now, updated_at=now, **values)
    await relay.db.write(insert_template, template)
    return template.id


async def add_step(relay: Relay, project_id: str, template_id: str, *, workflow: str = "Welcome", name: str = "Send") -> str:
    """Store a workflow with one step that sends a template; return the step's id."""
    now, workflow_id, step_id = relay.clock.now(), new_id(), new_id()
    times = {"created_at": now, "updated_at": now}
    settings = {"enabled": True, "trigger_type": "EVENT", "allow_reentry": False}
    await insert(relay, workflows, id=workflow_id, project_id=project_id, name=workflow, **settings, **times)
    shown = {"type": "SEND_EMAIL", "name": name, "position": {}, "config": {}}
    await insert(relay, workflow_steps, id=step_id, workflow_id=workflow_id, template_id=template_id, **shown, **times)
    return step_id
