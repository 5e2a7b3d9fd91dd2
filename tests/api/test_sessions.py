"""Who may use the API with a session? Members of the project they name, and nobody by another site's hand."""

from datetime import timedelta
from pathlib import Path

import httpx2
import jwt
import pytest

from plunk_relay.accounts.actions import create_user
from plunk_relay.accounts.queries import User
from plunk_relay.accounts.sessions import LIFETIME, issue_session
from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import api_requests, memberships, projects, users
from plunk_relay.ids import new_id
from plunk_relay.projects.actions import create_project
from plunk_relay.relay import Relay
from tests.kit.api import refusal
from tests.kit.http import running_http
from tests.kit.relay import Tenant, running_relay
from tests.kit.store import change, delete, insert, rows

PATH = "/contacts"
OWN = "http://relay.test"


@pytest.fixture
async def user(relay: Relay, owner: Tenant) -> User:
    """Make a person who is a member of the project."""
    made = await create_user(relay, "ann@example.net", password="password")
    await _join(relay, made, owner)
    return made


async def _join(relay: Relay, user: User, project: Tenant) -> None:
    now = relay.clock.now()
    ids = {"user_id": user.id, "project_id": project.id}
    await insert(relay, memberships, **ids, role="MEMBER", created_at=now, updated_at=now)


def _signed_in(relay: Relay, user: User, project: Tenant | None, **more: str) -> dict[str, str]:
    headers = {"Cookie": f"other=1; next_token={issue_session(relay, user.id)}; last=2"}
    return headers | ({"X-Project-Id": project.id} if project else {}) | more


async def test_a_member_reads_and_writes(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User) -> None:
    headers = _signed_in(relay, user, owner)
    made = await http.post(PATH, headers=headers, json={"email": "bob@example.net"})
    assert made.status_code == 201
    assert made.json()["projectId"] == owner.id
    assert (await http.get(PATH, headers=headers)).json()["total"] == 1


async def test_the_project_must_be_named(http: httpx2.AsyncClient, relay: Relay, user: User) -> None:
    assert refusal(await http.get(PATH, headers=_signed_in(relay, user, None))) == (400, "BAD_REQUEST")


async def test_who_is_no_member_is_kept_out(http: httpx2.AsyncClient, relay: Relay, other: Tenant, user: User) -> None:
    headers = _signed_in(relay, user, other)
    assert refusal(await http.get(PATH, headers=headers)) == (403, "PROJECT_ACCESS_DENIED")
    unknown = headers | {"X-Project-Id": new_id()}
    assert refusal(await http.get(PATH, headers=unknown)) == (403, "PROJECT_ACCESS_DENIED")


async def test_an_authorization_header_counts_alone(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant, user: User
) -> None:
    headers = _signed_in(relay, user, owner)
    theirs = await http.post(PATH, headers=headers | other.headers, json={"email": "bob@example.net"})
    assert theirs.json()["projectId"] == other.id
    wrong = headers | {"Authorization": "Bearer sk_wrong"}
    assert refusal(await http.get(PATH, headers=wrong)) == (401, "INVALID_API_KEY")
    assert refusal(await http.get(PATH, headers=headers | {"Authorization": "x"})) == (401, "MISSING_AUTH")


@pytest.mark.parametrize("path", ["/v1/send", "/v1/track", "/v1/verify"])
async def test_the_public_api_takes_keys_alone(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User, path: str
) -> None:
    response = await http.post(path, headers=_signed_in(relay, user, owner), json={})
    assert refusal(response) == (401, "MISSING_AUTH")


async def test_a_session_ends_after_a_week(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, user: User
) -> None:
    headers = _signed_in(relay, user, owner)
    clock.advance(seconds=(LIFETIME - timedelta(seconds=1)).total_seconds())
    assert (await http.get(PATH, headers=headers)).status_code == 200
    clock.advance(seconds=1)
    assert refusal(await http.get(PATH, headers=headers)) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("fault", ["none", "empty", "nonsense", "other key", "no algorithm", "no id", "no end", "odd end"])
async def test_a_token_that_is_not_ours_is_nobodys(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User, fault: str
) -> None:
    key, end = relay.secrets.mac_key("session"), relay.clock.now() + LIFETIME
    tokens = {
        "none": "",
        "empty": "next_token=",
        "nonsense": "next_token=a.b.c",
        "other key": f"next_token={jwt.encode({'id': user.id, 'exp': end}, b'x' * 32, algorithm='HS256')}",
        "no algorithm": f"next_token={jwt.encode({'id': user.id, 'exp': end}, '', algorithm='none')}",
        "no id": f"next_token={jwt.encode({'exp': end}, key, algorithm='HS256')}",
        "no end": f"next_token={jwt.encode({'id': user.id}, key, algorithm='HS256')}",
        "odd end": f"next_token={jwt.encode({'id': user.id, 'exp': 1e300}, key, algorithm='HS256')}",
    }
    headers = {"Cookie": tokens[fault], "X-Project-Id": owner.id}
    assert refusal(await http.get(PATH, headers=headers)) == (401, "UNAUTHORIZED")


async def test_sessions_can_have_a_key_of_their_own(tmp_path: Path, clock: ManualClock) -> None:
    for secret, answer in (("a" * 40, 200), ("b" * 40, 401)):
        async with running_relay(tmp_path, clock=clock, accounts={"jwt_secret": secret}) as relay:
            if answer == 200:
                user = await create_user(relay, "ann@example.net", password="password")
                project, _ = await create_project(relay, "owner", owner_id=user.id)
                claims = {"id": user.id, "exp": clock.now() + LIFETIME}
                token = jwt.encode(claims, secret, algorithm="HS256")
            headers = {"Cookie": f"next_token={token}", "X-Project-Id": project.id}
            async with running_http(relay) as http:
                assert (await http.get(PATH, headers=headers)).status_code == answer


async def test_an_account_that_is_gone_is_nobody(http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User) -> None:
    headers = _signed_in(relay, user, owner)
    await delete(relay, memberships, user_id=user.id)
    await delete(relay, users, id=user.id)
    assert refusal(await http.get(PATH, headers=headers)) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(("kind", "answer"), [("PASSWORD", 403), ("GOOGLE_OAUTH", 200), ("GITHUB_OAUTH", 200)])
async def test_an_address_must_be_confirmed_where_a_password_was_set(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User, kind: str, answer: int
) -> None:
    await change(relay, users, user.id, email_verified=False, type=kind)
    response = await http.get(PATH, headers=_signed_in(relay, user, owner))
    assert response.status_code == answer
    if answer == 403:
        assert refusal(response) == (403, "EMAIL_VERIFICATION_REQUIRED")
    assert (await http.get(PATH, headers=owner.headers)).status_code == 200


async def test_an_import_asks_for_no_confirmed_address(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User
) -> None:
    await change(relay, users, user.id, email_verified=False)
    files = {"file": ("people.csv", b"email\nbob@example.net\n", "text/csv")}
    response = await http.post("/contacts/import", headers=_signed_in(relay, user, owner), files=files)
    assert response.status_code == 202


async def test_a_disabled_project_is_read_and_not_written(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User
) -> None:
    await change(relay, projects, owner.id, disabled=True)
    headers = _signed_in(relay, user, owner)
    assert (await http.get(PATH, headers=headers)).status_code == 200
    response = await http.post(PATH, headers=headers, json={"email": "bob@example.net"})
    assert refusal(response) == (403, "PROJECT_DISABLED")


async def test_that_a_project_is_disabled_is_told_before_an_unconfirmed_address(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User
) -> None:
    await change(relay, projects, owner.id, disabled=True)
    await change(relay, users, user.id, email_verified=False)
    headers = _signed_in(relay, user, owner)
    assert refusal(await http.post(PATH, headers=headers, json={})) == (403, "PROJECT_DISABLED")
    assert refusal(await http.get(PATH, headers=headers)) == (403, "EMAIL_VERIFICATION_REQUIRED")


async def test_a_write_that_another_site_makes_a_browser_send_is_refused(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, user: User
) -> None:
    body = {"email": "bob@example.net"}
    for origin in ("https://evil.test", "null", f"{OWN}.evil.test"):
        headers = _signed_in(relay, user, owner, Origin=origin)
        assert refusal(await http.post(PATH, headers=headers, json=body)) == (403, "FORBIDDEN")
    assert (await http.post(PATH, headers=_signed_in(relay, user, owner, Origin=OWN), json=body)).status_code == 201
    foreign = await http.post(PATH, headers=owner.headers | {"Origin": "https://app.test"}, json=body)
    assert foreign.status_code == 200


async def test_the_request_log_says_who_it_was(relay: Relay, owner: Tenant, user: User) -> None:
    async with running_http(relay) as http:
        await http.get(PATH, headers=_signed_in(relay, user, owner))
        await http.get(PATH, headers=owner.headers)
    logged = [(row["auth_type"], row["user_id"], row["project_id"]) for row in await rows(relay, api_requests)]
    assert logged == [("jwt", user.id, owner.id), ("apiKey", None, owner.id)]
