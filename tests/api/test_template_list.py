"""Which templates are listed, and in which order? Page by page, searched in any case, never another project's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import templates
from plunk_relay.projects.actions import create_project
from tests.api.conftest import Shared
from tests.kit.relay import Tenant
from tests.kit.store import add_template, change

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(shared: Shared) -> AsyncIterator[Tenant]:
    """Make a project with four templates, one a minute: beta, Alpha, gamma, Überblick."""
    project, keys = await create_project(shared.relay, "reader", owner_id=None)
    assert isinstance(shared.relay.clock, ManualClock)
    for name, fields in {
        "beta": {"description": "Second LETTER", "subject": "Hello", "type": "MARKETING"},
        "Alpha": {"subject": "100% sure_", "type": "HEADLESS"},
        "gamma": {"subject": "Третье письмо"},
        "Überblick": {"subject": "Hello", "body": "hidden"},
    }.items():
        template_id = await add_template(shared.relay, project.id, name=name, **fields)
        shared.relay.clock.advance(minutes=1)
        if name == "gamma":
            gamma = template_id
    await change(shared.relay, templates, gamma, updated_at=shared.relay.clock.now())
    await add_template(shared.relay, shared.rival.id, name="theirs")
    yield Tenant(project.id, keys.public, keys.secret, "")


async def _list(shared: Shared, reader: Tenant, **query: Any) -> dict[str, Any]:
    response = await shared.http.get("/templates", headers=reader.headers, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def _names(shared: Shared, reader: Tenant, **query: Any) -> list[str]:
    return [template["name"] for template in (await _list(shared, reader, **query))["data"]]


async def test_newest_templates_come_first_in_a_page_envelope(shared: Shared, reader: Tenant) -> None:
    answer = await _list(shared, reader)
    assert [template["name"] for template in answer.pop("data")] == ["Überblick", "gamma", "Alpha", "beta"]
    assert answer == {"total": 4, "page": 1, "pageSize": 20, "totalPages": 1}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"dir": "asc"}, ["beta", "Alpha", "gamma", "Überblick"]),
        ({"sort": "createdAt", "dir": "desc"}, ["Überblick", "gamma", "Alpha", "beta"]),
        ({"sort": "name", "dir": "asc"}, ["Alpha", "beta", "gamma", "Überblick"]),
        ({"sort": "name"}, ["Überblick", "gamma", "beta", "Alpha"]),
        ({"sort": "updatedAt"}, ["gamma", "Überblick", "Alpha", "beta"]),
        ({"sort": "body", "dir": "sideways"}, ["Überblick", "gamma", "Alpha", "beta"]),
    ],
)
async def test_order_is_as_asked_for_else_newest_first(
    shared: Shared, reader: Tenant, query: dict[str, str], names: list[str]
) -> None:
    assert await _names(shared, reader, **query) == names


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("ALPHA", ["Alpha"]),
        ("letter", ["beta"]),
        ("a", ["gamma", "Alpha", "beta"]),
        ("über", ["Überblick"]),
        ("ÜBER", ["Überblick"]),
        ("Третье", ["gamma"]),
        ("0%", ["Alpha"]),
        ("%", ["Alpha"]),
        ("e_", ["Alpha"]),
        ("hidden", []),
        ("", ["Überblick", "gamma", "Alpha", "beta"]),
        ("theirs", []),
    ],
)
async def test_search_looks_into_name_description_and_subject(
    shared: Shared, reader: Tenant, search: str, names: list[str]
) -> None:
    answer = await _list(shared, reader, search=search)
    assert [template["name"] for template in answer["data"]] == names
    assert answer["total"] == len(names)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("MARKETING", ["beta"]),
        ("HEADLESS", ["Alpha"]),
        ("TRANSACTIONAL", ["Überblick", "gamma"]),
        ("anything", ["Überblick", "gamma", "Alpha", "beta"]),
    ],
)
async def test_one_type_alone_can_be_asked_for(shared: Shared, reader: Tenant, kind: str, names: list[str]) -> None:
    assert await _names(shared, reader, type=kind) == names


async def test_search_and_type_go_together(shared: Shared, reader: Tenant) -> None:
    assert await _names(shared, reader, search="hello", type="TRANSACTIONAL") == ["Überblick"]


@pytest.mark.parametrize(
    ("query", "size", "count"),
    [
        ({"pageSize": 3}, 3, 3),
        ({"limit": 3}, 3, 3),
        ({"pageSize": 2, "limit": 3}, 2, 2),
        ({"pageSize": 3, "page": 2}, 3, 1),
        ({"limit": 3, "page": 2}, 3, 1),
        ({"pageSize": 3, "page": 3}, 3, 0),
        ({"page": 10**9, "pageSize": 100}, 100, 0),
        ({"pageSize": 1000}, 100, 4),
        ({"limit": 1000}, 100, 4),
        ({"pageSize": -5}, 1, 1),
        ({"limit": 0}, 20, 4),
        ({"limit": "many", "page": "first"}, 20, 4),
    ],
)
async def test_pages_have_the_size_asked_for(
    shared: Shared, reader: Tenant, query: dict[str, Any], size: int, count: int
) -> None:
    answer = await _list(shared, reader, **query)
    assert (answer["pageSize"], len(answer["data"]), answer["total"]) == (size, count, 4)
    assert answer["totalPages"] == -(-4 // size)


async def test_pages_put_together_are_the_whole_list(shared: Shared, reader: Tenant) -> None:
    for sort in ("name", "createdAt", "updatedAt"):
        pages = [await _names(shared, reader, sort=sort, pageSize=1, page=number) for number in (1, 2, 3, 4)]
        assert [name for page in pages for name in page] == await _names(shared, reader, sort=sort)


async def test_project_without_templates_has_an_empty_page(shared: Shared) -> None:
    answer = await _list(shared, shared.acme)
    assert answer == {"data": [], "total": 0, "page": 1, "pageSize": 20, "totalPages": 0}
