"""Must a mail stay here? Asked before any attempt: the project's list of addresses, then its rules."""

from collections.abc import Sequence
from typing import Any

from plunk_relay.clock import format_time
from plunk_relay.delivery.outcomes import Suppressed
from plunk_relay.emails.queue import Claimed
from plunk_relay.mail.address import normalize_address
from plunk_relay.projects.queries import RELAY_PROJECT_ID
from plunk_relay.relay import Relay
from plunk_relay.suppressions.actions import is_held, remembered_rules
from plunk_relay.suppressions.queries import Rule, Suppression, find_suppressions
from plunk_relay.suppressions.rules import find_match


async def find_suppressed(relay: Relay, claimed: Sequence[Claimed]) -> dict[str, Suppressed]:
    """Return why mails must not be sent, by queue id; those that may are missing. What the relay itself writes may."""
    asked = [one for one in claimed if one.project_id != RELAY_PROJECT_ID]
    held = await _find_listed(relay, asked)
    for project_id in {one.project_id for one in asked}:
        rules = await remembered_rules(relay, project_id)
        mine = (one for one in asked if one.project_id == project_id and one.id not in held) if rules else ()
        caught = {one.id: find_match(rules, one.recipient) for one in mine}
        held |= {queue_id: _by_rule(rule) for queue_id, rule in caught.items() if rule is not None}
    return held


async def _find_listed(relay: Relay, claimed: Sequence[Claimed]) -> dict[str, Suppressed]:
    """Look up the entries of those mails that the list holds; one that was removed since the claim holds nothing."""
    asked = {
        one.id: (one, (one.project_id, normalize_address(one.recipient)))
        for one in claimed
        if one.suppressed is not None or not one.recipient.isascii()
    }
    if not asked:
        return {}
    entries = await relay.db.read(find_suppressions, [pair for _, pair in asked.values()])
    found = {queue_id: (one, entries[pair]) for queue_id, (one, pair) in asked.items() if pair in entries}
    policy = relay.settings.delivery.suppress
    return {
        queue_id: _by_entry(entry)
        for queue_id, (one, entry) in found.items()
        if is_held(entry.reason, marketing=_is_marketing(one), policy=policy)
    }


def _is_marketing(one: Claimed) -> bool:
    return one.email.mail_class == "marketing" or one.email.campaign_id is not None


def _by_entry(entry: Suppression) -> Suppressed:
    cause = f"{entry.reason}, {entry.created_at:%Y-%m-%d}"
    detail = f": {entry.detail}" if entry.detail else ""
    removal = f"`plunk-relay suppressions remove {entry.address} --project {entry.project_id}`"
    text = f"{entry.address} is on the suppression list ({cause}){detail}; remove it with {removal}"
    since = format_time(entry.created_at)
    return Suppressed(text, {"source": "LIST", "reason": entry.reason, "detail": entry.detail, "since": since})


def _by_rule(rule: Rule) -> Suppressed:
    shown: dict[str, Any] = {"id": rule.id, "name": rule.name, "kind": rule.kind, "pattern": rule.pattern}
    text = f"Caught by the suppression rule {rule.name} ({rule.kind} {rule.pattern}): the mail is kept, not sent"
    return Suppressed(text, {"source": "RULE", **shown})
