"""What templates are stored?"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from plunk_relay.db.tables import templates


@dataclass(frozen=True, slots=True)
class Template:
    """A stored mail text; `type` is MARKETING, TRANSACTIONAL or HEADLESS."""

    id: str
    project_id: str
    name: str
    description: str | None
    subject: str
    body: str
    from_address: str
    from_name: str | None
    reply_to: str | None
    type: str
    created_at: datetime
    updated_at: datetime


_NAMES = tuple(Template.__dataclass_fields__)
_SELECT = sa.select(*(templates.c[name] for name in _NAMES))


def find_template(tx: sa.Connection, project_id: str, template_id: str) -> Template | None:
    """Look a template up by id, inside the project."""
    where = (templates.c.project_id == project_id) & (templates.c.id == template_id)
    row = tx.execute(_SELECT.where(where)).one_or_none()
    return Template(*row) if row else None


def insert_template(tx: sa.Connection, template: Template) -> None:
    """Store a new template."""
    tx.execute(sa.insert(templates), {name: getattr(template, name) for name in _NAMES})
