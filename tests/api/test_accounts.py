"""How are people and projects kept? Passwords as argon2id, names that may repeat, ids that do not."""

import pytest

from plunk_relay.accounts.actions import change_password, create_user
from plunk_relay.accounts.queries import find_user_by_email, list_users
from plunk_relay.db.tables import memberships, users
from plunk_relay.errors import BadRequest, Conflict, NotFound
from plunk_relay.projects.actions import create_project, resolve_project
from plunk_relay.projects.queries import find_owned_project, list_projects
from plunk_relay.relay import Relay
from tests.kit.store import rows


async def test_password_is_kept_as_argon2id_only(relay: Relay) -> None:
    await create_user(relay, "Ann@Example.net", password="correct horse")
    [user] = await rows(relay, users)
    assert (user["email"], user["type"], user["email_verified"]) == ("ann@example.net", "PASSWORD", True)
    assert user["password_hash"].startswith("$argon2id$")
    data = b"".join(path.read_bytes() for path in relay.settings.server.data_dir.glob("relay.db*"))
    assert b"correct horse" not in data


async def test_same_password_twice_has_two_hashes(relay: Relay) -> None:
    one = await create_user(relay, "one@example.net", password="correct horse")
    two = await create_user(relay, "two@example.net", password="correct horse")
    assert one.password_hash != two.password_hash


async def test_address_can_have_one_account(relay: Relay) -> None:
    await create_user(relay, "ann@example.net", password="correct horse")
    with pytest.raises(Conflict):
        await create_user(relay, "ANN@example.net", password="battery staple")
    assert len(await relay.db.read(list_users)) == 1


@pytest.mark.parametrize(("address", "password"), [("nobody", "correct horse"), ("ann@example.net", "12345")])
async def test_account_needs_an_address_and_six_characters(relay: Relay, address: str, password: str) -> None:
    with pytest.raises(BadRequest):
        await create_user(relay, address, password=password)
    assert await relay.db.read(list_users) == []


async def test_changed_password_replaces_the_hash(relay: Relay) -> None:
    before = await create_user(relay, "ann@example.net", password="correct horse")
    await change_password(relay, "ANN@example.net", password="battery staple")
    after = await relay.db.read(find_user_by_email, "ann@example.net")
    assert after is not None
    assert after.password_hash != before.password_hash


async def test_password_of_nobody_cannot_be_changed(relay: Relay) -> None:
    with pytest.raises(NotFound):
        await change_password(relay, "nobody@example.net", password="battery staple")


async def test_maker_of_a_project_owns_it(relay: Relay) -> None:
    user = await create_user(relay, "ann@example.net", password="correct horse")
    project, _ = await create_project(relay, "shop", owner_id=user.id)
    [membership] = await rows(relay, memberships)
    assert (membership["user_id"], membership["project_id"], membership["role"]) == (user.id, project.id, "OWNER")
    assert await relay.db.read(find_owned_project, user.id, "shop") == project
    assert await relay.db.read(find_owned_project, user.id, "other") is None


async def test_project_is_found_by_id_and_by_a_name_that_is_unique(relay: Relay) -> None:
    first, _ = await create_project(relay, "shop", owner_id=None)
    assert await resolve_project(relay, "shop") == await resolve_project(relay, first.id) == first
    await create_project(relay, "shop", owner_id=None)
    with pytest.raises(BadRequest, match=first.id):
        await resolve_project(relay, "shop")
    assert await resolve_project(relay, first.id) == first
    with pytest.raises(NotFound):
        await resolve_project(relay, "nothing")


async def test_projects_are_listed_oldest_first_in_pages(relay: Relay) -> None:
    made = [(await create_project(relay, name, owner_id=None))[0].id for name in ("a", "b", "c")]
    first = await relay.db.read(list_projects, limit=2)
    rest = await relay.db.read(list_projects, after_id=first[-1].id)
    assert [project.id for project in (*first, *rest)] == made
