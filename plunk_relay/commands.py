"""What may an operator do to the data? The commands behind the command line, each a function of the Relay."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from plunk_relay.accounts import actions as accounts
from plunk_relay.accounts import queries as account_queries
from plunk_relay.accounts.queries import User
from plunk_relay.domains import actions as domains
from plunk_relay.domains import queries as domain_queries
from plunk_relay.domains.queries import Domain
from plunk_relay.emails import queue_admin
from plunk_relay.emails.ledger import queries as ledger
from plunk_relay.emails.providers import queries as provider_queries
from plunk_relay.emails.queries import list_attempts, load_captured
from plunk_relay.errors import NotFound
from plunk_relay.mail.address import normalize_address, to_ascii_domain
from plunk_relay.projects import actions as projects
from plunk_relay.projects import queries as project_queries
from plunk_relay.projects.queries import Project
from plunk_relay.relay import Relay
from plunk_relay.suppressions import actions as suppressions
from plunk_relay.suppressions import queries as suppression_queries
from plunk_relay.suppressions.queries import Suppression

Json = dict[str, Any]
Command = Callable[..., Awaitable[Any]]


async def setup(
    relay: Relay,
    *,
    email: str,
    project: str,
    password: str | None = None,
    domain: str | None = None,
    trust: bool = False,
) -> Json:
    """Make the first user, project and domain; what is there already is left as it is."""
    user = await relay.db.read(account_queries.find_user_by_email, normalize_address(email))
    if user is None:
        user = await accounts.create_user(relay, email, password=password or secrets.token_urlsafe(18))
    found = await relay.db.read(project_queries.find_owned_project, user.id, project)
    if found is None:
        found, _ = await projects.create_project(relay, project, owner_id=user.id)
    added = await _setup_domain(relay, found.id, domain, trust=trust) if domain else None
    keys = projects.open_keys(relay, found)
    return {
        "user": {"id": user.id, "email": user.email},
        "project": {"id": found.id, "name": found.name, "public": keys.public, "secret": keys.secret},
        "domain": await _show_domain(relay, added) if added else None,
    }


async def _setup_domain(relay: Relay, project_id: str, name: str, *, trust: bool) -> Domain:
    found = await relay.db.read(domain_queries.find_domain_named, to_ascii_domain(name))
    if found is None or found.project_id != project_id:
        found = await domains.add_domain(relay, project_id, name)
    return await domains.trust_domain(relay, found) if trust else found


async def users_list(relay: Relay) -> list[Json]:
    """List accounts."""
    return [_show_user(user) for user in await relay.db.read(account_queries.list_users)]


async def users_create(relay: Relay, *, email: str, password: str) -> Json:
    """Make an account."""
    return _show_user(await accounts.create_user(relay, email, password=password))


async def users_password(relay: Relay, *, email: str, password: str) -> Json:
    """Set a password."""
    return _show_user(await accounts.change_password(relay, email, password=password))


async def projects_list(relay: Relay) -> list[Json]:
    """List projects, without keys."""
    return [_show_project(project) for project in await relay.db.read(project_queries.list_projects)]


async def projects_create(relay: Relay, *, name: str, owner: str | None = None) -> Json:
    """Make a project and show its keys."""
    owner_id = None
    if owner is not None:
        user = await relay.db.read(account_queries.find_user_by_email, normalize_address(owner))
        if user is None:
            raise NotFound.of("User", owner)
        owner_id = user.id
    project, keys = await projects.create_project(relay, name, owner_id=owner_id)
    return _show_project(project) | {"public": keys.public, "secret": keys.secret}


async def projects_keys(relay: Relay, *, project: str, rotate: bool = False) -> Json:
    """Show a project's keys, or replace both."""
    found = await projects.resolve_project(relay, project)
    keys = await projects.regenerate_keys(relay, found.id) if rotate else projects.open_keys(relay, found)
    return _show_project(found) | {"public": keys.public, "secret": keys.secret}


async def projects_disable(relay: Relay, *, project: str) -> Json:
    """Refuse a project's writes."""
    found = await projects.resolve_project(relay, project)
    await projects.disable_project(relay, found.id)
    return _show_project(await projects.get_project(relay, found.id))


async def projects_enable(relay: Relay, *, project: str) -> Json:
    """Accept a project's writes again."""
    found = await projects.resolve_project(relay, project)
    await projects.enable_project(relay, found.id)
    return _show_project(await projects.get_project(relay, found.id))


async def domains_list(relay: Relay, *, project: str | None = None) -> list[Json]:
    """List domains of one project or of all."""
    project_id = (await projects.resolve_project(relay, project)).id if project else None
    return [await _show_domain(relay, one) for one in await relay.db.read(domain_queries.list_domains, project_id)]


async def domains_add(relay: Relay, *, project: str, domain: str, trust: bool = False) -> Json:
    """Add a domain and show the records to publish."""
    found = await projects.resolve_project(relay, project)
    added = await domains.add_domain(relay, found.id, domain)
    return await _show_domain(relay, await domains.trust_domain(relay, added) if trust else added)


async def domains_verify(relay: Relay, *, domain: str) -> Json:
    """Look a domain's records up now."""
    checked, _ = await domains.verify_domain(relay, await _find_domain(relay, domain))
    return await _show_domain(relay, checked)


async def domains_trust(relay: Relay, *, domain: str) -> Json:
    """Count a domain as verified by the operator's word."""
    return await _show_domain(relay, await domains.trust_domain(relay, await _find_domain(relay, domain)))


async def domains_receive(relay: Relay, *, domain: str, receiving: bool) -> Json:
    """Accept mail to a domain, or stop that."""
    changed = await domains.set_receiving(relay, await _find_domain(relay, domain), receiving=receiving)
    return await _show_domain(relay, changed)


async def domains_rotate(relay: Relay, *, domain: str) -> Json:
    """Give a domain new DKIM keys."""
    return await _show_domain(relay, await domains.rotate_keys(relay, await _find_domain(relay, domain)))


async def queue_list(relay: Relay, **filters: Any) -> list[Json]:
    """List deliveries, newest first."""
    chosen = await _queue_filter(relay, filters)
    return [queue_admin.show(entry) for entry in await relay.db.read(queue_admin.list_entries, chosen)]


async def queue_show(relay: Relay, *, delivery: str, message: bool = False) -> Json:
    """Show a delivery with its attempts, and the captured message when asked for."""
    entry = await relay.db.read(queue_admin.find_entry, delivery)
    if entry is None:
        raise NotFound(f"no delivery or mail has the id {delivery}")
    tries = await relay.db.read(list_attempts, entry.id)
    shown = queue_admin.show(entry) | {"attempts": [queue_admin.show_attempt(one) for one in tries]}
    captured = await relay.db.read(load_captured, entry.id)
    if captured is not None and message:
        shown["message"] = captured.decode("utf-8", "replace")
    return shown


async def queue_retry(relay: Relay, *, deliveries: list[str]) -> Json:
    """Try deliveries now."""
    return await _change(relay, queue_admin.retry, deliveries=deliveries)


async def queue_hold(relay: Relay, **filters: Any) -> Json:
    """Put queued deliveries on hold."""
    return await _change(relay, queue_admin.hold, **filters)


async def queue_release(relay: Relay, **filters: Any) -> Json:
    """Queue held deliveries again."""
    return await _change(relay, queue_admin.release, **filters)


async def queue_cancel(relay: Relay, **filters: Any) -> Json:
    """Give queued or held deliveries up."""
    return await _change(relay, queue_admin.cancel, **filters)


async def queue_stats(relay: Relay) -> Json:
    """Count by state, and tell the oldest queued."""
    return await relay.db.read(queue_admin.read_stats, now=relay.clock.now())


async def queue_providers(relay: Relay) -> list[Json]:
    """List the providers that are slowed down, paused, or reached by the smarthost."""
    now = relay.clock.now()
    return [_show_provider(row, now) for row in await relay.db.read(provider_queries.load_provider_states)]


async def queue_resume(relay: Relay, *, provider: str) -> Json:
    """Send to a provider directly and at full pace again, what waits for it at once."""
    due = await relay.db.write(provider_queries.resume_provider, provider.lower(), now=relay.clock.now())
    if due is None:
        raise NotFound(f"nothing is wrong with {provider}; `queue providers` lists those that are slowed down or paused")
    relay.wakes.providers.set()
    relay.wakes.deliveries.set()
    return {"resumed": provider.lower(), "due": due}


async def suppressions_list(
    relay: Relay, *, project: str, search: str | None = None, reason: str | None = None, limit: int = 100
) -> list[Json]:
    """List a project's suppressed addresses, newest first."""
    found = await projects.resolve_project(relay, project)
    chosen = suppression_queries.ListFilter(search, reason.upper() if reason else None)
    entries = await relay.db.read(suppression_queries.list_suppressions, found.id, chosen, limit=limit)
    return [_show_suppression(entry) for entry in entries]


async def suppressions_add(relay: Relay, *, project: str, emails: list[str], note: str | None = None) -> list[Json]:
    """Enter addresses by hand, and show their entries."""
    found = await projects.resolve_project(relay, project)
    return [_show_suppression(entry) for entry in await suppressions.add_addresses(relay, found.id, emails, note=note)]


async def suppressions_remove(relay: Relay, *, project: str, emails: list[str]) -> Json:
    """Take addresses off the list."""
    found = await projects.resolve_project(relay, project)
    await suppressions.remove_addresses(relay, found.id, emails)
    return {"removed": len(set(map(normalize_address, emails)))}


async def audit(relay: Relay) -> Json:
    """Read the ledger and the rows that break it."""
    counts = await relay.db.read(ledger.read_ledger)
    broken = await relay.db.read(ledger.find_imbalances)
    shown: Json = dict(counts)
    shown["balanced"] = ledger.is_balanced(counts) and not broken
    if broken:
        shown["broken"] = [
            {"email": row.email_id, "delivery": row.delivery_id, "status": row.status, "state": row.state} for row in broken
        ]
    return shown


async def _change(relay: Relay, work: Callable[..., int], **filters: Any) -> Json:
    chosen = await _queue_filter(relay, filters)
    changed = await relay.db.write(work, chosen, now=relay.clock.now())
    relay.wakes.deliveries.set()
    return {"changed": changed}


async def _queue_filter(relay: Relay, filters: dict[str, Any]) -> queue_admin.QueueFilter:
    values = {key: value for key, value in filters.items() if value is not None}
    if "project" in values:
        values["project_id"] = (await projects.resolve_project(relay, values.pop("project"))).id
    if "older_than_minutes" in values:
        values["created_before"] = relay.clock.now() - timedelta(minutes=values.pop("older_than_minutes"))
    return queue_admin.QueueFilter(**values)


async def _find_domain(relay: Relay, name: str) -> Domain:
    found = await relay.db.read(domain_queries.find_domain_named, to_ascii_domain(name))
    if found is None:
        raise NotFound(f"the domain {name} is not registered")
    return found


async def _show_domain(relay: Relay, domain: Domain) -> Json:
    records = await domains.describe_records(relay, domain)
    return {
        "id": domain.id,
        "domain": domain.domain,
        "project": domain.project_id,
        "verified": domain.verified,
        "status": domain.status,
        "receiving": domain.receiving,
        "records": [
            {
                "type": record.type,
                "name": record.name,
                "value": record.value,
                "priority": record.priority,
                "required": record.required,
                "purpose": record.purpose,
                "status": record.status,
            }
            for record in records
        ],
    }


def _show_provider(row: Json, now: datetime) -> Json:
    paused_until = row["paused_until"]
    return {
        "provider": row["provider"],
        "pace": row["pace"],
        "paused_until": paused_until if paused_until is not None and now < paused_until else None,
        "fallback_since": row["fallback_since"],
        "probe_at": row["probe_at"],
        "reason": row["reason"],
        "changed": row["updated_at"],
    }


def _show_suppression(entry: Suppression) -> Json:
    return {
        "email": entry.address,
        "reason": entry.reason,
        "detail": entry.detail,
        "caused_by": entry.email_id,
        "created": entry.created_at,
    }


def _show_user(user: User) -> Json:
    return {"id": user.id, "email": user.email, "type": user.type, "created": user.created_at}


def _show_project(project: Project) -> Json:
    return {"id": project.id, "name": project.name, "disabled": project.disabled, "created": project.created_at}


COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        setup,
        users_list,
        users_create,
        users_password,
        projects_list,
        projects_create,
        projects_keys,
        projects_disable,
        projects_enable,
        domains_list,
        domains_add,
        domains_verify,
        domains_trust,
        domains_receive,
        domains_rotate,
        queue_list,
        queue_show,
        queue_retry,
        queue_hold,
        queue_release,
        queue_cancel,
        queue_stats,
        queue_providers,
        queue_resume,
        suppressions_list,
        suppressions_add,
        suppressions_remove,
        audit,
    )
}
