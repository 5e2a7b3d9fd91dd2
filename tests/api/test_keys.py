"""Who is let in? API keys: where they stand, which kind opens what, how they are replaced and kept."""

import re

import httpx2
import pytest

from plunk_relay.db.tables import emails, projects
from plunk_relay.projects.actions import disable_project, enable_project, open_keys, regenerate_keys
from plunk_relay.projects.queries import find_project
from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth, Caller
from plunk_relay.web.endpoint import endpoint
from tests.api.conftest import Shared
from tests.kit.api import MAIL, refusal, send, sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant
from tests.kit.store import rows

MODULE = pytest.mark.asyncio(loop_scope="module")
MALFORMED = [
    "",
    "Bearer",
    "{key}",
    "bearer {key}",
    "BEARER {key}",
    "Basic {key}",
    "Bearer  {key}",
    "Bearer {key} more",
    "Bearer\t{key}",
    "Bearer:{key}",
]


async def test_secret_key_opens_both_kinds_of_endpoints(http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme)
    assert (await http.get("/domains/project/x", headers=acme.headers)).status_code == 200


async def test_no_header_where_a_key_is_needed(http: httpx2.AsyncClient) -> None:
    response = await http.post("/v1/send", json=MAIL)
    assert refusal(response) == (401, "MISSING_AUTH")
    assert "Authorization: Bearer" in response.json()["error"]["suggestion"]


async def test_no_header_where_a_session_would_do(http: httpx2.AsyncClient) -> None:
    assert refusal(await http.get("/domains/project/x")) == (401, "UNAUTHORIZED")


@MODULE
@pytest.mark.parametrize("header", MALFORMED)
async def test_header_must_be_bearer_one_blank_and_the_key(shared: Shared, header: str) -> None:
    headers = {"Authorization": header.format(key=shared.acme.secret)}
    assert refusal(await shared.http.post("/v1/send", headers=headers, json=MAIL)) == (401, "MISSING_AUTH")
    assert refusal(await shared.http.get("/domains/project/x", headers=headers)) == (401, "MISSING_AUTH")


@MODULE
@pytest.mark.parametrize("key", ["sk_" + "0" * 64, "pk_" + "0" * 64, "sk_", "nonsense", "sk_%00", "' OR 1=1 --"])
async def test_unknown_key_is_invalid(shared: Shared, key: str) -> None:
    response = await shared.http.get("/domains/project/x", headers={"Authorization": f"Bearer {key.replace(' ', '')}"})
    assert refusal(response) == (401, "INVALID_API_KEY")


@MODULE
@pytest.mark.parametrize("change", [str.upper, lambda key: key[:-1], lambda key: key + "0", lambda key: "pk_" + key[3:]])
async def test_key_must_be_exact(shared: Shared, change: "type[str]") -> None:
    response = await shared.http.get("/domains/project/x", headers={"Authorization": f"Bearer {change(shared.acme.secret)}"})
    assert refusal(response) == (401, "INVALID_API_KEY")


async def test_public_key_does_not_open_secret_endpoints(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    headers = {"Authorization": f"Bearer {acme.public}"}
    response = await http.post("/v1/send", headers=headers, json=MAIL)
    assert refusal(response) == (401, "INVALID_API_KEY")
    assert "secret key" in response.json()["error"]["message"]
    assert refusal(await http.get("/domains/project/x", headers=headers)) == (401, "INVALID_API_KEY")
    assert await rows(relay, emails) == []


async def test_both_kinds_open_an_endpoint_for_any_key(relay: Relay, acme: Tenant) -> None:
    @endpoint("POST", "/any", tag="Test", auth=Auth.ANY_KEY)
    async def read_kind(caller: Caller) -> dict[str, str]:
        """Tell who asks."""
        return {"project": caller.project_id, "kind": caller.kind}

    async with running_http(relay, pages=[read_kind]) as http:
        for key, kind in ((acme.public, "public"), (acme.secret, "secret")):
            response = await http.post("/any", headers={"Authorization": f"Bearer {key}"})
            assert response.json() == {"project": acme.id, "kind": kind}
        assert refusal(await http.post("/any")) == (401, "MISSING_AUTH")


async def test_key_names_the_project_whatever_the_project_header_says(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    await send(http, acme, X_Project_Id=rival.id)
    assert [mail["project_id"] for mail in await rows(relay, emails)] == [acme.id]


async def test_key_is_checked_before_the_body(http: httpx2.AsyncClient, acme: Tenant) -> None:
    headers = {"Authorization": f"Bearer {acme.public}"}
    assert refusal(await http.post("/v1/send", headers=headers, content="{")) == (401, "INVALID_API_KEY")


async def test_rotation_is_felt_by_the_next_request(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme)
    fresh = await regenerate_keys(relay, acme.id)
    assert refusal(await send(http, acme)) == (401, "INVALID_API_KEY")
    await sent(http, Tenant(acme.id, fresh.public, fresh.secret, acme.domain))
    assert not {fresh.public, fresh.secret} & {acme.public, acme.secret}


async def test_rotation_leaves_other_projects_alone(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    await regenerate_keys(relay, acme.id)
    await sent(http, rival)


async def test_disabled_project_may_read_and_not_write(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    await sent(http, acme)
    await disable_project(relay, acme.id)
    response = await send(http, acme)
    assert refusal(response) == (403, "PROJECT_DISABLED")
    assert "suggestion" in response.json()["error"]
    assert (await http.get("/domains/project/x", headers=acme.headers)).status_code == 200
    await enable_project(relay, acme.id)
    await sent(http, acme)


async def test_disabling_touches_no_other_project(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    await disable_project(relay, acme.id)
    await sent(http, rival)


async def test_contacts_of_a_disabled_project_can_unsubscribe(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    [done] = await sent(http, acme, {"subscribed": True})
    await disable_project(relay, acme.id)
    assert (await http.post(f"/unsubscribe/{done['contact']['id']}")).status_code == 200


async def test_keys_have_a_prefix_and_256_random_bits(acme: Tenant, rival: Tenant) -> None:
    keys = [acme.secret, acme.public, rival.secret, rival.public]
    assert [bool(re.fullmatch(r"[sp]k_[0-9a-f]{64}", key)) for key in keys] == [True] * 4
    assert len({key[3:] for key in keys}) == 4


async def test_keys_are_nowhere_in_clear_in_the_database_file(relay: Relay, acme: Tenant) -> None:
    data = b"".join(path.read_bytes() for path in relay.settings.server.data_dir.glob("relay.db*"))
    assert acme.id.encode() in data
    for key in (acme.secret, acme.public):
        assert key.encode() not in data
        assert key[3:].encode() not in data
        assert bytes.fromhex(key[3:]) not in data


async def test_sealed_keys_can_be_shown_again(relay: Relay, acme: Tenant) -> None:
    project = await relay.db.read(find_project, acme.id)
    assert project is not None
    keys = open_keys(relay, project)
    assert (keys.public, keys.secret) == (acme.public, acme.secret)
    [row] = [row for row in await rows(relay, projects) if row["id"] == acme.id]
    assert row["secret_sealed"] != row["public_sealed"]
