"""Which web pages may call the API? All below /v1, only our own elsewhere."""

import httpx2
import pytest

from tests.api.conftest import Shared
from tests.kit.api import MAIL

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN, FOREIGN = "http://relay.test", "https://elsewhere.test"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}


@pytest.mark.parametrize("path", ["/v1", "/v1/send", "/v1/unknown", "/v1/a/b"])
@pytest.mark.parametrize("origin", [OWN, FOREIGN, None])
async def test_preflight_below_v1_is_answered_with_200_for_every_origin(
    shared: Shared, path: str, origin: str | None
) -> None:
    response = await shared.http.options(path, headers=PREFLIGHT | ({"Origin": origin} if origin else {}))
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert _listed(response, "methods") >= {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    assert _listed(response, "headers") == {"Content-Type", "Authorization", "Idempotency-Key"}
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk_wrong"}])
async def test_answers_below_v1_can_be_read_by_every_page_errors_too(shared: Shared, headers: dict[str, str]) -> None:
    response = await shared.http.post("/v1/send", headers=headers | {"Origin": FOREIGN}, json=MAIL)
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "*"
    taken = await shared.http.post("/v1/send", headers=shared.acme.headers | {"Origin": FOREIGN}, json=MAIL)
    assert (taken.status_code, taken.headers["access-control-allow-origin"]) == (200, "*")
    assert _listed(taken, "headers", kind="expose") >= {"X-Request-ID", "Retry-After", "RateLimit-Remaining"}


@pytest.mark.parametrize("path", ["/domains/project/x", "/domains", "/v10/send", "/nothing"])
async def test_own_pages_may_call_the_rest_with_credentials(shared: Shared, path: str) -> None:
    response = await shared.http.options(path, headers=PREFLIGHT | {"Origin": OWN})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == OWN
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "X-Project-Id" in _listed(response, "headers")
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", [FOREIGN, "null", "http://relay.test.evil.test", "http://relay.test:81", "https://relay.test"]
)
async def test_foreign_pages_are_served_without_permission(shared: Shared, origin: str) -> None:
    response = await shared.http.get("/domains/project/x", headers=shared.acme.headers | {"Origin": origin})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_request_without_an_origin_is_served(shared: Shared) -> None:
    response = await shared.http.get("/domains/project/x", headers=shared.acme.headers)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


async def test_options_names_the_methods_of_the_path(shared: Shared) -> None:
    assert (await shared.http.options("/v1/send")).headers["allow"] == "OPTIONS, POST"
    assert (await shared.http.options("/health")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_options_names_the_methods_of_every_template_that_fits_the_path(shared: Shared) -> None:
    """At /events/stats, DELETE is about an event of that name; at /contacts/lookup, PATCH is about a contact of that id."""
    assert (await shared.http.options("/events/stats")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert (await shared.http.options("/contacts/lookup")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
    assert (await shared.http.options("/contacts/some-id")).headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


def _listed(response: httpx2.Response, name: str, *, kind: str = "allow") -> set[str]:
    return set(response.headers[f"access-control-{kind}-{name}"].split(", "))
