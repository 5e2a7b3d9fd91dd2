"""What happens to suppressed addresses and rules? Entered and removed; and asked whether a recipient may be written to.

An address comes onto a project's list by a permanent failure that is about the recipient (BOUNCE), a spam report
(COMPLAINT) or by hand (MANUAL), and leaves it only by being removed: a contact who subscribes again does not lift an
entry, since no form makes a dead mailbox live.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from plunk_relay.errors import BadRequest, FieldError, NotFound, ValidationFailed
from plunk_relay.ids import new_id
from plunk_relay.mail.address import check_address, normalize_address
from plunk_relay.relay import Relay
from plunk_relay.suppressions import queries
from plunk_relay.suppressions.queries import Kind, Rule, Suppression
from plunk_relay.suppressions.rules import explain_misfit

if TYPE_CHECKING:
    import sqlalchemy as sa

Policy = Literal["all", "marketing", "off"]
MOST_RULES = 100
_RULES = "suppression rules"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What a request says about a rule."""

    name: str
    kind: Kind
    pattern: str
    enabled: bool


def is_held(reason: str, *, marketing: bool, policy: Policy) -> bool:
    """Tell whether the list holds a mail: BOUNCE and MANUAL hold every mail, COMPLAINT what is `marketing`.

    `marketing` are mails of the marketing class and of campaigns. The policy `marketing` lets the list hold nothing
    else, `off` lets it hold nothing at all.
    """
    if policy == "off":
        return False
    return marketing or (policy == "all" and reason != "COMPLAINT")


async def add_addresses(
    relay: Relay, project_id: str, addresses: Sequence[str], *, note: str | None = None
) -> list[Suppression]:
    """Enter addresses by hand, all or none; one that is there already keeps a cause that is as strong.

    Raises ValidationFailed, which names the addresses that are none.
    """
    bad = [address for address in addresses if check_address(address.strip()) is not None]
    if bad:
        raise ValidationFailed([FieldError("email", f"Invalid email: {address}", "invalid_string") for address in bad])
    now = relay.clock.now()

    def store(tx: "sa.Connection") -> list[Suppression]:
        for address in addresses:
            queries.suppress(tx, project_id, address, reason="MANUAL", detail=note or None, email_id=None, now=now)
        return [found for address in addresses if (found := queries.find_suppression(tx, project_id, address))]

    return await relay.db.write(store)


async def get_address(relay: Relay, project_id: str, address: str) -> Suppression:
    """Return the entry of an address; raises NotFound."""
    found = await relay.db.read(queries.find_suppression, project_id, address)
    if found is None:
        raise NotFound.of("Suppression", address)
    return found


async def remove_addresses(relay: Relay, project_id: str, addresses: Sequence[str]) -> None:
    """Take addresses off the list, all or none; raises NotFound for one that is not there.

    Mail that was suppressed stays so.
    """

    def remove(tx: "sa.Connection") -> None:
        for address in dict.fromkeys(map(normalize_address, addresses)):
            if not queries.remove_suppression(tx, project_id, address):
                raise NotFound.of("Suppression", address)

    await relay.db.write(remove)


async def remembered_rules(relay: Relay, project_id: str) -> Sequence[Rule]:
    """Return a project's rules, oldest first; remembered for a few seconds."""

    async def load() -> Sequence[Rule]:
        return tuple(await relay.db.read(queries.list_rules, project_id))

    return await relay.memory.remember(_RULES, project_id, load)


async def add_rule(relay: Relay, project_id: str, change: RuleChange) -> Rule:
    """Make a rule; raises ValidationFailed for a pattern that catches nothing, BadRequest when there are too many."""
    _check_pattern(change)
    now = relay.clock.now()
    rule = Rule(new_id(), project_id, change.name, change.kind, change.pattern.strip(), change.enabled, now, now)

    def store(tx: "sa.Connection") -> None:
        if queries.count_rules(tx, project_id) >= MOST_RULES:
            raise BadRequest(f"A project has at most {MOST_RULES} suppression rules: delete one first.")
        queries.insert_rule(tx, rule)

    await relay.db.write(store)
    relay.memory.forget(_RULES)
    return rule


async def replace_rule(relay: Relay, project_id: str, rule_id: str, change: RuleChange) -> None:
    """Set all that a rule is, but its place in the order; raises ValidationFailed, NotFound."""
    _check_pattern(change)
    values = _values(change, relay.clock.now())
    if not await relay.db.write(queries.replace_rule, project_id, rule_id, values):
        raise NotFound.of("Suppression rule", rule_id)
    relay.memory.forget(_RULES)


async def delete_rule(relay: Relay, project_id: str, rule_id: str) -> None:
    """Remove a rule; raises NotFound. Mail that it caught stays so."""
    if not await relay.db.write(queries.delete_rule, project_id, rule_id):
        raise NotFound.of("Suppression rule", rule_id)
    relay.memory.forget(_RULES)


def _check_pattern(change: RuleChange) -> None:
    misfit = explain_misfit(change.kind, change.pattern.strip())
    if misfit is not None:
        raise ValidationFailed([FieldError("pattern", misfit, "invalid_string")])


def _values(change: RuleChange, now: datetime) -> dict[str, Any]:
    return {
        "name": change.name,
        "kind": change.kind,
        "pattern": change.pattern.strip(),
        "enabled": change.enabled,
        "updated_at": now,
    }
