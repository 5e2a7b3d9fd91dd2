"""How does a test ask for a mail? With the smallest request that is taken, changed where the test is about."""

from typing import Any

import httpx2

from tests.kit.relay import Tenant

MAIL: dict[str, Any] = {"to": "ann@example.net", "subject": "Hello", "body": "<p>Hi</p>"}


async def send(
    http: httpx2.AsyncClient, tenant: Tenant, fields: dict[str, Any] | None = None, **headers: str
) -> httpx2.Response:
    """POST the mail with `fields` set; those that are given as `...` are left out. `headers` use `_` for `-`."""
    body = {name: value for name, value in (MAIL | (fields or {})).items() if value is not ...}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post("/v1/send", headers=tenant.headers | more, json=body)


async def sent(http: httpx2.AsyncClient, tenant: Tenant, fields: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Send, expect 200 and return the `emails` of the answer."""
    response = await send(http, tenant, fields)
    assert response.status_code == 200, response.text
    emails: list[dict[str, Any]] = response.json()["data"]["emails"]
    return emails


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """Return status and error code."""
    return response.status_code, response.json()["error"]["code"]


def faults(response: httpx2.Response) -> list[tuple[str, str]]:
    """Return (field, code) of every field error of a 422."""
    assert refusal(response) == (422, "VALIDATION_ERROR"), response.text
    return [(fault["field"], fault["code"]) for fault in response.json()["error"]["errors"]]
