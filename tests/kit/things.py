"""What is there in a project? One thing of each kind that a path may name, made over HTTP where that is possible."""

import re
from typing import Any

import httpx2

from plunk_relay.db.tables import domains, emails, events, jobs, segments, suppression_rules, templates, uploads
from plunk_relay.delivery.worker import Deliverer
from plunk_relay.relay import Relay
from plunk_relay.web.endpoint import Endpoint
from tests.kit.api import sent
from tests.kit.images import PNG
from tests.kit.jobs import bulk, upload
from tests.kit.relay import Tenant
from tests.kit.store import add_template, rows

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
RULE = {"name": "Staging", "kind": "DOMAIN", "pattern": "example.com"}


def name_of(endpoint: Endpoint) -> str:
    """Return what an endpoint is called in tables and in the names of tests."""
    return f"{endpoint.method} {endpoint.path}"


def path_of(endpoint: Endpoint, **ids: str) -> str:
    """Return the path with these ids, by the name of the parameter; others are those of nothing."""
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: ids.get(found[1], UNKNOWN_ID), endpoint.path)


async def make_things(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> dict[str, str]:
    """Return an id of each kind of thing of a project, by the name of the path parameter; make what is missing."""
    address = f"held@{owner.domain}"
    await http.post("/suppressions/addresses", headers=owner.headers, json={"email": address})
    person = {"email": f"ann@{owner.domain}", "data": {f"field-{owner.id}": "x"}}
    contact = await http.post("/contacts", headers=owner.headers, json=person)
    event = {"event": f"seen-{owner.id}", "email": f"ann@{owner.domain}"}
    if not await rows(relay, events, name=event["event"]):
        await http.post("/v1/track", headers=owner.headers, json=event)
    return {
        "project_id": owner.id,
        "event_name": event["event"],
        "field": f"data.field-{owner.id}",
        "contact_id": contact.json()["id"],
        "segment_id": await _make_segment(relay, http, owner),
        "template_id": await _make_template(relay, owner),
        "domain_id": await _make_domain(relay, http, owner),
        "key": await _make_upload(relay, http, owner),
        "email": address,
        **await _make_caught_mail(relay, http, owner, address),
        **await _make_jobs(relay, http, owner),
    }


async def _make_domain(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> str:
    """Make a domain that nothing is sent from."""
    name = f"more.{owner.domain}"
    if not await rows(relay, domains, project_id=owner.id, domain=name):
        await http.post("/domains", headers=owner.headers, json={"domain": name})
    return _id((await rows(relay, domains, project_id=owner.id, domain=name))[0])


async def _make_caught_mail(relay: Relay, http: httpx2.AsyncClient, owner: Tenant, address: str) -> dict[str, str]:
    if not await rows(relay, suppression_rules, project_id=owner.id):
        await http.post("/suppressions", headers=owner.headers, json=RULE)
    if not await rows(relay, emails, project_id=owner.id, status="SUPPRESSED"):
        await sent(http, owner, {"to": address, "from": f"app@{owner.domain}"})
        async with Deliverer(relay) as deliverer:
            await deliverer.run_once()
            await deliverer.settle()
    rule = (await rows(relay, suppression_rules, project_id=owner.id))[0]
    held = (await rows(relay, emails, project_id=owner.id, status="SUPPRESSED"))[0]
    return {"rule_id": rule["id"], "email_id": held["id"]}


async def _make_segment(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> str:
    if not await rows(relay, segments, project_id=owner.id, type="STATIC"):
        body = {"name": "It", "type": "STATIC", "trackMembership": True}
        await http.post("/segments", headers=owner.headers, json=body)
    return _id((await rows(relay, segments, project_id=owner.id, type="STATIC"))[0])


async def _make_template(relay: Relay, owner: Tenant) -> str:
    if not await rows(relay, templates, project_id=owner.id):
        await add_template(relay, owner.id, from_address=f"app@{owner.domain}")
    return _id((await rows(relay, templates, project_id=owner.id))[0])


async def _make_upload(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> str:
    if not await rows(relay, uploads, project_id=owner.id):
        await http.post("/uploads/image", headers=owner.headers, files={"image": ("a.png", PNG, "image/png")})
    return str((await rows(relay, uploads, project_id=owner.id))[0]["key"])


async def _make_jobs(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> dict[str, str]:
    if not await rows(relay, jobs, project_id=owner.id):
        await upload(http, owner, "email\n")
        await bulk(http, owner, "delete", {"contactIds": [UNKNOWN_ID]})
    [of_bulk, *_] = await rows(relay, jobs, project_id=owner.id, kind="BULK")
    [of_import, *_] = await rows(relay, jobs, project_id=owner.id, kind="IMPORT")
    return {"job_id": of_import["id"], "bulk_job_id": of_bulk["id"]}


def _id(row: dict[str, Any]) -> str:
    return str(row["id"])
