"""What happens to templates? Written down when they are right, changed, copied, and deleted when no step needs them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plunk_relay.domains.actions import check_sender
from plunk_relay.errors import Conflict, TemplateFailed, TemplateNotFound
from plunk_relay.ids import new_id
from plunk_relay.mail.template import TemplateSyntaxError, check_template
from plunk_relay.relay import Relay
from plunk_relay.templates import queries
from plunk_relay.templates.queries import Template, TemplateUsage

if TYPE_CHECKING:
    import sqlalchemy as sa

LONGEST_NAME = 100
_COPY = " (Copy)"
_CHECKED = ("subject", "body")
_STEPS_SHOWN = 5


async def get_template(relay: Relay, project_id: str, template_id: str) -> Template:
    """Return the project's template; raises TemplateNotFound."""
    template = await relay.db.read(queries.find_template, project_id, template_id)
    if template is None:
        raise TemplateNotFound.of("Template", template_id)
    return template


async def create_template(relay: Relay, project_id: str, values: Mapping[str, Any]) -> Template:
    """Store a template; `values` are its columns as they come from the client.

    Raises TemplateFailed for Liquid that is none, Forbidden for a sender on a domain that is not verified.
    """
    await _check(relay, project_id, values)
    now = relay.clock.now()
    template = Template(id=new_id(), project_id=project_id, created_at=now, updated_at=now, **values)
    await relay.db.write(queries.insert_template, template)
    return template


async def change_template(relay: Relay, project_id: str, template_id: str, values: Mapping[str, Any]) -> Template:
    """Set the columns that are given, and check them as at the creation; raises TemplateNotFound too."""
    if not values:
        return await get_template(relay, project_id, template_id)
    if not await relay.db.read(queries.template_exists, project_id, template_id):
        raise TemplateNotFound.of("Template", template_id)
    await _check(relay, project_id, values)
    changed = {**values, "updated_at": relay.clock.now()}
    template = await relay.db.write(queries.update_template, project_id, template_id, changed)
    if template is None:
        raise TemplateNotFound.of("Template", template_id)
    return template


async def duplicate_template(relay: Relay, project_id: str, template_id: str) -> Template:
    """Store a copy, whose name says so; raises TemplateNotFound."""
    now = relay.clock.now()

    def copy(tx: "sa.Connection") -> Template:
        original = queries.find_template(tx, project_id, template_id)
        if original is None:
            raise TemplateNotFound.of("Template", template_id)
        name = original.name[: LONGEST_NAME - len(_COPY)] + _COPY
        made = replace(original, id=new_id(), name=name, created_at=now, updated_at=now)
        queries.insert_template(tx, made)
        return made

    return await relay.db.write(copy)


async def delete_templates(relay: Relay, project_id: str, template_ids: Sequence[str]) -> int:
    """Remove templates, all or none, and return how many; past mails forget them.

    Raises TemplateNotFound when the project has not all of them, Conflict when a workflow's step sends one.
    """
    wanted = list(dict.fromkeys(template_ids))
    while True:
        deleted = await relay.db.write(_delete_unless_used, project_id, wanted)
        if deleted is not None:
            return deleted


async def check_existence(relay: Relay, project_id: str, template_ids: Sequence[str]) -> None:
    """Raise TemplateNotFound when the project has not all of them."""
    _raise_missing(await relay.db.read(queries.find_missing, project_id, template_ids))


async def describe_usage(relay: Relay, project_id: str, template_id: str) -> TemplateUsage:
    """Return what uses a template; raises TemplateNotFound."""

    def find(tx: "sa.Connection") -> TemplateUsage | None:
        if not queries.template_exists(tx, project_id, template_id):
            return None
        return queries.find_usage(tx, project_id, template_id)

    usage = await relay.db.read(find)
    if usage is None:
        raise TemplateNotFound.of("Template", template_id)
    return usage


def _delete_unless_used(tx: "sa.Connection", project_id: str, template_ids: Sequence[str]) -> int | None:
    """Delete the templates; None when there are more of their mails than one unit of work should change."""
    _raise_missing(queries.find_missing(tx, project_id, template_ids))
    steps = queries.list_steps(tx, project_id, template_ids)
    if steps:
        users = [f"{step.name} of {step.workflow_name}" for step in steps[:_STEPS_SHOWN]]
        more = f" and {len(steps) - len(users)} more" if len(steps) > len(users) else ""
        raise Conflict(f"Workflow steps send this template: {', '.join(users)}{more}. Give them another one first.")
    if queries.detach_mails(tx, project_id, template_ids) == queries.DETACHED_AT_ONCE:
        return None
    return queries.delete_templates(tx, project_id, template_ids)


def _raise_missing(missing: Sequence[str]) -> None:
    if missing:
        raise TemplateNotFound.of("Template", missing[0])


async def _check(relay: Relay, project_id: str, values: Mapping[str, Any]) -> None:
    texts = {name: values[name] for name in _CHECKED if name in values}
    if texts:
        await asyncio.to_thread(check_texts, texts)  # the longest take 0.1 s
    if "from_address" in values:
        await check_sender(relay, project_id, values["from_address"])


def check_texts(texts: Mapping[str, str]) -> None:
    """Raise TemplateFailed, which tells field, line and column, for the first text that is not valid Liquid."""
    for field, text in texts.items():
        try:
            check_template(text)
        except TemplateSyntaxError as error:
            place = {"field": field, "line": error.line, "column": error.column}
            what = f"The {field} is no valid template: {error.message} (line {error.line}, column {error.column})."
            raise TemplateFailed(what, details=place) from None
