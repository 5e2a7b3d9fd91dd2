"""What templates are stored, and what uses them?"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from plunk_relay.db.engine import dump_json
from plunk_relay.db.json_values import text_position
from plunk_relay.db.portable import listed
from plunk_relay.db.tables import emails, templates, workflow_steps, workflows

SortColumn = Literal["name", "createdAt", "updatedAt"]
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
MOST_STEPS = 1000
DETACHED_AT_ONCE = 1000
"""Mails that lose their template in one unit of work."""


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
_COLUMNS = tuple(templates.c[name] for name in _NAMES)
_SELECT = sa.select(*_COLUMNS)


def find_template(tx: sa.Connection, project_id: str, template_id: str) -> Template | None:
    """Look a template up by id, inside the project."""
    row = tx.execute(_SELECT.where(_is(project_id, template_id))).one_or_none()
    return Template(*row) if row else None


def template_exists(tx: sa.Connection, project_id: str, template_id: str) -> bool:
    """Tell whether the project has the template, without reading it."""
    return tx.execute(sa.select(templates.c.id).where(_is(project_id, template_id))).one_or_none() is not None


def insert_template(tx: sa.Connection, template: Template) -> None:
    """Store a new template."""
    tx.execute(sa.insert(templates), {name: getattr(template, name) for name in _NAMES})


def update_template(tx: sa.Connection, project_id: str, template_id: str, values: Mapping[str, Any]) -> Template | None:
    """Set columns of a template; return it as it is then, None when the project has no such template."""
    changing = sa.update(templates).where(_is(project_id, template_id)).values(dict(values)).returning(*_COLUMNS)
    row = tx.execute(changing).one_or_none()
    return Template(*row) if row else None


def delete_templates(tx: sa.Connection, project_id: str, template_ids: Sequence[str]) -> int:
    """Remove templates; return how many there were. A step that uses one is an error of the database."""
    return tx.execute(sa.delete(templates).where(*_are(project_id)), _listed(template_ids)).rowcount


@dataclass(frozen=True, slots=True)
class TemplateFilter:
    """Which templates of a project, in which order; what is None does not matter."""

    search: str | None = None
    """What name, description or subject contains, in any case."""
    type: str | None = None
    sort: SortColumn = "createdAt"
    direction: Literal["asc", "desc"] = "desc"


def list_templates(
    tx: sa.Connection, project_id: str, chosen: TemplateFilter, *, offset: int = 0, limit: int = 20
) -> list[Template]:
    """Return templates that fit, in the order asked for and then by id."""
    order = _order(chosen)
    # ids first: bodies, which may be large, are not carried through the sorting
    page = sa.select(templates.c.id).where(*_fitting(project_id, chosen)).order_by(*order).limit(limit).offset(offset)
    return [Template(*row) for row in tx.execute(_SELECT.where(templates.c.id.in_(page)).order_by(*order))]


def count_templates(tx: sa.Connection, project_id: str, chosen: TemplateFilter) -> int:
    """Count templates that fit."""
    return tx.execute(sa.select(sa.func.count()).where(*_fitting(project_id, chosen))).scalar_one()


@dataclass(frozen=True, slots=True)
class TemplateStep:
    """A workflow's step that sends a template."""

    id: str
    name: str
    workflow_id: str
    workflow_name: str


@dataclass(frozen=True, slots=True)
class TemplateUsage:
    """What uses a template: how many steps and mails, and the first of the steps."""

    step_count: int
    mail_count: int
    steps: tuple[TemplateStep, ...]


def find_usage(tx: sa.Connection, project_id: str, template_id: str) -> TemplateUsage:
    """Return what uses a template, which must be the project's."""
    steps = list_steps(tx, project_id, [template_id])
    counted = sa.select(sa.func.count()).select_from(emails).where(emails.c.template_id == template_id)
    return TemplateUsage(
        step_count=len(steps) if len(steps) < MOST_STEPS else count_steps(tx, project_id, template_id),
        mail_count=tx.execute(counted).scalar_one(),  # by the index alone: mails of a template are its project's
        steps=tuple(steps),
    )


def list_steps(tx: sa.Connection, project_id: str, template_ids: Sequence[str]) -> list[TemplateStep]:
    """Return steps of the project's workflows that send one of the templates, by id; at most `MOST_STEPS`."""
    columns = (workflow_steps.c.id, workflow_steps.c.name, workflows.c.id, workflows.c.name)
    found = sa.select(*columns).select_from(_STEPS).where(*_sending(project_id)).order_by(workflow_steps.c.id)
    return [TemplateStep(*row) for row in tx.execute(found.limit(MOST_STEPS), _listed(template_ids))]


def count_steps(tx: sa.Connection, project_id: str, template_id: str) -> int:
    """Count the steps of the project's workflows that send a template."""
    counted = sa.select(sa.func.count()).select_from(_STEPS).where(*_sending(project_id))
    return tx.execute(counted, _listed([template_id])).scalar_one()


def find_missing(tx: sa.Connection, project_id: str, template_ids: Sequence[str]) -> list[str]:
    """Return the ids that no template of the project has."""
    there = set(tx.execute(sa.select(templates.c.id).where(*_are(project_id)), _listed(template_ids)).scalars())
    return [template_id for template_id in template_ids if template_id not in there]


def detach_mails(tx: sa.Connection, project_id: str, template_ids: Sequence[str]) -> int:
    """Take the templates off some of the mails that were made of them; return how many these were."""
    some = sa.select(emails.c.id).where(emails.c.template_id.in_(listed("ids"))).limit(DETACHED_AT_ONCE)
    where = (emails.c.project_id == project_id) & emails.c.id.in_(some)
    return tx.execute(sa.update(emails).where(where).values(template_id=None), _listed(template_ids)).rowcount


_STEPS = workflow_steps.join(workflows, workflows.c.id == workflow_steps.c.workflow_id)


def _sending(project_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return workflows.c.project_id == project_id, workflow_steps.c.template_id.in_(listed("ids"))


def _is(project_id: str, template_id: str) -> sa.ColumnElement[bool]:
    return (templates.c.project_id == project_id) & (templates.c.id == template_id)


def _are(project_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return templates.c.project_id == project_id, templates.c.id.in_(listed("ids"))


def _listed(ids: Sequence[str]) -> dict[str, str]:
    return {"ids": dump_json(list(ids))}


def _fitting(project_id: str, chosen: TemplateFilter) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = [templates.c.project_id == project_id]
    if chosen.type is not None:
        where.append(templates.c.type == chosen.type)
    if chosen.search:
        columns = (templates.c.name, sa.func.coalesce(templates.c.description, ""), templates.c.subject)
        spellings = _spellings(chosen.search)
        found = (text_position(sa.func.lower(column), text) > 0 for column in columns for text in spellings)
        where.append(sa.or_(*found))
    return where


def _spellings(text: str) -> list[str]:
    """Return what SQLite's `lower`, which knows ASCII alone, may have made of a text: other letters small or capital."""
    return list(dict.fromkeys(one.translate(_SMALL) for one in (text, text.lower(), text.upper())))


def _order(chosen: TemplateFilter) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    columns: dict[str, sa.ColumnElement[Any]] = {
        "name": sa.func.lower(templates.c.name),
        "createdAt": templates.c.created_at,
        "updatedAt": templates.c.updated_at,
    }
    column = columns[chosen.sort]
    if chosen.direction == "asc":
        return column.asc(), templates.c.id.asc()
    return column.desc(), templates.c.id.desc()
