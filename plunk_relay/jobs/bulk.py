"""How are many contacts subscribed, unsubscribed or deleted? Some at a time (contract section 14).

They are named by ids, or by a filter: then their number is counted first, and their ids are walked from the largest down,
beginning below those of contacts that are made after the request.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from plunk_relay.contacts.actions import delete_contacts, set_subscriptions, shorten_histories
from plunk_relay.contacts.queries import Contact, ContactFilter, count_ids, find_contacts, list_ids
from plunk_relay.jobs.batches import MOST_ERRORS, Batch, Cursor, Step, percent
from plunk_relay.relay import Relay

if TYPE_CHECKING:
    import sqlalchemy as sa

Operation = Literal["subscribe", "unsubscribe", "delete"]
_BATCH = 50
_DELETED_AT_ONCE = 20
_LISTED_AT_ONCE = 1000
_GONE = "The project has no such contact."
_CHANGED = "The contact was changed meanwhile and no longer fits the filter."


class IdSource(Protocol):
    """Where the ids come from; a place in them is what stands in the cursor."""

    async def count(self, place: Any) -> int:
        """Count the ids from a place on."""
        ...

    async def after(self, place: Any, limit: int) -> tuple[Sequence[str], Any]:
        """Return the next ids and the place behind them; no ids: that was all."""
        ...

    def fits(self, contact: Contact) -> bool:
        """Tell whether a contact with one of the ids is still meant."""
        ...


class GivenIds:
    """Ids that the client names; a place is a number of them."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    async def count(self, place: int) -> int:
        """Count the ids from a place on."""
        return len(self._ids) - place

    async def after(self, place: int, limit: int) -> tuple[Sequence[str], int]:
        """Return the next ids and the place behind them."""
        return self._ids[place : place + limit], place + limit

    def fits(self, contact: Contact) -> bool:
        """Say yes: who is named is meant."""
        return True


class FoundIds:
    """Ids of contacts that fit a filter, but for some; a place is the id above the next one."""

    def __init__(self, relay: Relay, project_id: str, chosen: ContactFilter, excluded: Sequence[str]) -> None:
        self._relay = relay
        self._project_id = project_id
        self._chosen = chosen
        self._excluded = frozenset(excluded)
        self._listed: list[str] = []
        self._lowest: str | None = None

    async def count(self, place: str) -> int:
        """Count the contacts below a place."""
        excluded = sorted(self._excluded)
        return await self._relay.db.scan(count_ids, self._project_id, self._chosen, below=place, without=excluded)

    async def after(self, place: str, limit: int) -> tuple[Sequence[str], str]:
        """Return the next ids and the place behind them."""
        while len(self._listed) < limit:
            below = self._lowest or place
            more = await self._relay.db.scan(list_ids, self._project_id, self._chosen, below=below, limit=_LISTED_AT_ONCE)
            if not more:
                break
            self._lowest = more[-1]
            self._listed += [one for one in more if one not in self._excluded]
        taken, self._listed = self._listed[:limit], self._listed[limit:]
        return taken, taken[-1] if taken else place

    def fits(self, contact: Contact) -> bool:
        """Compare once more: it was found some time ago."""
        chosen = self._chosen
        has_text = not chosen.search or chosen.search.lower() in contact.email
        return has_text and chosen.subscribed in (None, contact.subscribed)


class BulkRun:
    """An operation on contacts of a project; its cursor holds a place, and counts."""

    def __init__(self, relay: Relay, project_id: str, operation: Operation, source: IdSource) -> None:
        self._relay = relay
        self._project_id = project_id
        self._operation = operation
        self._source = source

    async def prepare(self, cursor: Cursor) -> Batch | None:
        """Find the next ids."""
        if "total" not in cursor:
            counts = {"total": await self._source.count(cursor["place"]), "changed": 0, "unchanged": 0, "failed": 0}
            cursor = {**cursor, **counts, "errors": []}
        ids, place = await self._source.after(cursor["place"], _DELETED_AT_ONCE if self._operation == "delete" else _BATCH)
        if not ids:
            return None
        if self._operation == "delete":
            await self._shorten_histories(ids)
        start = {**cursor, "place": place}
        return Batch(partial(self._act, start, ids), partial(_pass_over, start, ids))

    def result(self, cursor: Cursor) -> dict[str, Any]:
        """Return counts and errors."""
        return {
            "operation": self._operation,
            "totalRequested": cursor.get("total", 0),
            "successCount": cursor.get("changed", 0),
            "unchangedCount": cursor.get("unchanged", 0),
            "failureCount": cursor.get("failed", 0),
            "errors": cursor.get("errors", []),
        }

    def _act(self, start: Cursor, ids: Sequence[str], tx: "sa.Connection", now: datetime) -> Step:
        if self._operation == "delete":
            return self._delete(tx, start, ids)
        subscribed = self._operation == "subscribe"
        done = set_subscriptions(tx, self._project_id, ids, subscribed=subscribed, now=now)
        return _add(start, changed=done.changed, unchanged=done.unchanged, errors=[_error(one) for one in done.missing])

    async def _shorten_histories(self, ids: Sequence[str]) -> None:
        there = await self._relay.db.read(find_contacts, self._project_id, ids)
        meant = [contact.id for contact in there if self._source.fits(contact)]
        await shorten_histories(self._relay, self._project_id, meant)

    def _delete(self, tx: "sa.Connection", start: Cursor, ids: Sequence[str]) -> Step:
        there = {contact.id: contact for contact in find_contacts(tx, self._project_id, ids)}
        errors = [_error(one) for one in ids if one not in there]
        spared = [contact for contact in there.values() if not self._source.fits(contact)]
        errors += [_error(contact.id, contact.email, _CHANGED) for contact in spared]
        meant = there.keys() - {contact.id for contact in spared}
        return _add(start, changed=delete_contacts(tx, self._project_id, sorted(meant)), errors=errors)


def _error(contact_id: str, email: str = "", text: str = _GONE) -> dict[str, str]:
    return {"contactId": contact_id, "email": email, "error": text}


def _pass_over(start: Cursor, ids: Sequence[str]) -> Step:
    text = f"{len(ids)} contacts were left as they are by an internal error; the relay's log has more."
    return _add(start, errors=[_error("batch", text=text)], failed=len(ids))


def _add(
    start: Cursor, *, errors: Sequence[Mapping[str, str]], changed: int = 0, unchanged: int = 0, failed: int | None = None
) -> Step:
    """Return the step with the counts of a batch added; each error is a contact that failed, unless `failed` says more."""
    counts = {
        "changed": start["changed"] + changed,
        "unchanged": start["unchanged"] + unchanged,
        "failed": start["failed"] + (len(errors) if failed is None else failed),
    }
    told = [*start["errors"], *errors][:MOST_ERRORS]
    return Step({**start, **counts, "errors": told}, percent(sum(counts.values()), start["total"]))
