"""How does a test make segments? Conditions of one filter, contacts with a plan, and requests that must succeed."""

from typing import Any

import httpx2

from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.db.tables import contacts
from plunk_relay.relay import Relay
from tests.kit.relay import Tenant
from tests.kit.store import rows

Condition = dict[str, Any]


def where(field: str, operator: str, value: Any = None, **more: Any) -> Condition:
    """Return a condition of one filter."""
    return {"logic": "AND", "groups": [{"filters": [{"field": field, "operator": operator, "value": value} | more]}]}


PRO = where("data.plan", "equals", "pro")


async def put_contacts(relay: Relay, owner: Tenant, **plans: str | None) -> dict[str, str]:
    """Make or change contacts: a name and a plan each; return their ids by name."""
    for name, plan in plans.items():
        change = ContactChange(f"{name}@example.net", {"plan": plan})
        await relay.db.write(upsert_contacts, [(owner.id, change)], now=relay.clock.now())
    return {row["email"].partition("@")[0]: row["id"] for row in await rows(relay, contacts, project_id=owner.id)}


async def make_segment(http: httpx2.AsyncClient, owner: Tenant, **fields: Any) -> dict[str, Any]:
    """Make a segment; what is not said of it does not matter."""
    response = await http.post("/segments", headers=owner.headers, json={"name": "It"} | fields)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def ask(http: httpx2.AsyncClient, owner: Tenant, method: str, path: str, **body: Any) -> Any:
    """Ask something of a segment; return the answer."""
    response = await http.request(method, f"/segments/{path}", headers=owner.headers, json=body or None)
    assert response.status_code == 200, response.text
    return response.json()
