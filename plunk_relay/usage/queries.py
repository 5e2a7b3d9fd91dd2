"""What names a field, an event or a segment? Conditions of segments and campaigns, triggers and steps of workflows.

These are few and small: a project's are read whole. Conditions are stored as they were checked, but settings of steps may
hold anything, so both are walked as plain JSON.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from plunk_relay.db.tables import campaigns, segments, workflow_steps, workflows


@dataclass(frozen=True, slots=True)
class User:
    """What uses something."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Who uses something, each once."""

    segments: tuple[User, ...]
    campaigns: tuple[User, ...]
    workflows: tuple[User, ...]

    def __bool__(self) -> bool:
        """Tell whether anybody does."""
        return bool(self.segments or self.campaigns or self.workflows)

    def describe(self) -> str:
        """Name the users, for people: `segment VIPs, workflow Welcome`."""
        kinds = (("segment", self.segments), ("campaign", self.campaigns), ("workflow", self.workflows))
        return ", ".join(f"{kind} {one.name}" for kind, found in kinds for one in found)


def find_field_usage(tx: sa.Connection, project_id: str, field: str) -> Usage:
    """Return who names a field, such as `data.plan`, as one to compare; and the workflows that set it.

    Who names `data.plan.price` uses `data.plan`, too: that may be the object with the price.
    """
    inside, within = field.removeprefix("data."), f"{field}."

    def is_meant(name: str) -> bool:
        return name == field or (field.startswith("data.") and name.startswith(within))

    def fits_step(kind: str, config: Any) -> bool:
        if kind == "UPDATE_CONTACT":
            return field.startswith("data.") and inside in _updated_keys(config)
        return kind == "CONDITION" and any(is_meant(name.removeprefix("contact.")) for name in _named_fields(config))

    return Usage(
        segments=_users_by_condition(tx, segments, segments.c.condition, project_id, is_meant),
        campaigns=_users_by_condition(tx, campaigns, campaigns.c.audience_condition, project_id, is_meant),
        workflows=_workflows(tx, project_id, fits_step),
    )


def _updated_keys(config: Any) -> set[str]:
    """Return the keys of custom data that an UPDATE_CONTACT step sets; `data` is an alias of `updates`."""
    parts = [config.get("updates"), config.get("data")] if isinstance(config, dict) else []
    return {key for part in parts if isinstance(part, dict) for key in part}


def find_event_usage(tx: sa.Connection, project_id: str, name: str) -> Usage:
    """Return who names an event: in a filter, as a trigger, to wait for it, or in a condition."""
    field = f"event.{name}"

    def fits_step(kind: str, config: Any) -> bool:
        if kind in ("TRIGGER", "WAIT_FOR_EVENT"):
            return isinstance(config, dict) and config.get("eventName") == name
        return kind == "CONDITION" and field in _named_fields(config)

    return Usage(
        segments=_users_by_condition(tx, segments, segments.c.condition, project_id, field.__eq__),
        campaigns=_users_by_condition(tx, campaigns, campaigns.c.audience_condition, project_id, field.__eq__),
        workflows=_workflows(tx, project_id, fits_step, trigger=name),
    )


def _users_by_condition(
    tx: sa.Connection, table: sa.Table, condition: sa.Column[Any], project_id: str, is_meant: Callable[[str], bool]
) -> tuple[User, ...]:
    found = sa.select(table.c.id, table.c.name, condition).where(table.c.project_id == project_id, condition.is_not(None))
    rows = tx.execute(found.order_by(table.c.created_at, table.c.id))
    return tuple(User(row[0], row[1]) for row in rows if any(map(is_meant, _named_fields(row[2]))))


def _workflows(
    tx: sa.Connection, project_id: str, fits_step: Callable[[str, Any], bool], *, trigger: str | None = None
) -> tuple[User, ...]:
    steps = workflows.outerjoin(workflow_steps, workflow_steps.c.workflow_id == workflows.c.id)
    found = sa.select(
        workflows.c.id, workflows.c.name, workflows.c.trigger_event, workflow_steps.c.type, workflow_steps.c.config
    ).select_from(steps)
    users: dict[str, User] = {}
    of_project = found.where(workflows.c.project_id == project_id).order_by(workflows.c.created_at, workflows.c.id)
    for identifier, name, event, kind, config in tx.execute(of_project):
        if (trigger is not None and event == trigger) or (kind is not None and fits_step(kind, config)):
            users[identifier] = User(identifier, name)
    return tuple(users.values())


def _named_fields(value: Any) -> Iterator[str]:
    """Go through whatever a condition holds as `field`, at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("field"), str):
                yield one["field"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
