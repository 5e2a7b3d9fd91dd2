"""Which contacts are listed, in which order? By cursor, with filters; only those of the project."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.clock import ManualClock
from plunk_relay.contacts.actions import ContactChange, upsert_contacts
from plunk_relay.contacts.queries import ContactFilter, Place, list_contacts
from plunk_relay.relay import Relay
from tests.kit.relay import Tenant

if TYPE_CHECKING:
    import sqlalchemy as sa


async def _make(relay: Relay, owner: Tenant, emails: Sequence[str], **fields: Any) -> None:
    changes = [(owner.id, ContactChange(email, **fields)) for email in emails]
    await relay.db.write(upsert_contacts, changes, now=relay.clock.now())


async def _make_many(relay: Relay, clock: ManualClock, owner: Tenant) -> list[str]:
    """Make 120 contacts, always three in the same millisecond, every fourth unsubscribed."""
    emails = [f"{'cab'[number % 3]}{number:03d}@example.net" for number in range(120)]
    for start in range(0, 120, 3):
        clock.advance(seconds=1)
        for number in range(start, start + 3):
            await _make(relay, owner, [emails[number]], subscribed=number % 4 != 0)
    return emails


async def _walk(http: httpx2.AsyncClient, owner: Tenant, **query: Any) -> list[dict[str, Any]]:
    """Follow the cursors from the first page to the last; return the pages."""
    pages: list[dict[str, Any]] = []
    while not pages or pages[-1]["hasMore"]:
        cursor = {"cursor": pages[-1]["cursor"]} if pages else {}
        response = await http.get("/contacts", headers=owner.headers, params=query | cursor)
        assert response.status_code == 200, response.text
        pages.append(response.json())
    return pages


async def test_contacts_are_listed_newest_first_by_pages_of_twenty(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, other: Tenant
) -> None:
    emails = await _make_many(relay, clock, owner)
    await _make(relay, other, ["not-ours@example.net"])
    pages = await _walk(http, owner)
    listed = [one for page in pages for one in page["data"]]
    assert [len(page["data"]) for page in pages] == [20] * 6
    assert sorted(one["email"] for one in listed) == sorted(emails)
    assert listed == sorted(listed, key=lambda one: (one["createdAt"], one["id"]), reverse=True)


async def test_the_total_is_on_the_first_page_and_the_cursor_on_all_but_the_last(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    await _make_many(relay, clock, owner)
    pages = await _walk(http, owner, limit=50)
    assert [page["total"] for page in pages] == [120, 0, 0]
    assert [page["hasMore"] for page in pages] == [True, True, False]
    assert ["cursor" in page for page in pages] == [True, True, False]
    assert [page["cursor"] for page in pages[:2]] == [page["data"][-1]["id"] for page in pages[:2]]


@pytest.mark.parametrize("sort", ["email", "createdAt", None, "id"])
@pytest.mark.parametrize("direction", ["asc", "desc", None, "up"])
async def test_every_order_is_walked_without_a_gap(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant, sort: str | None, direction: str | None
) -> None:
    emails = await _make_many(relay, clock, owner)
    query = {name: value for name, value in {"sort": sort, "dir": direction}.items() if value}
    listed = [one for page in await _walk(http, owner, limit=7, **query) for one in page["data"]]
    key = "email" if sort == "email" else "createdAt"
    assert sorted(one["email"] for one in listed) == sorted(emails)
    assert listed == sorted(listed, key=lambda one: (one[key], one["id"]), reverse=direction != "asc")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"search": "ANN"}, ["ann@example.net", "joann@example.net"]),
        ({"search": "@EXAMPLE"}, ["ann@example.net", "bob@example.net", "joann@example.net"]),
        ({"search": "%"}, ["100%@other.test"]),
        ({"search": "_"}, ["a_b@other.test"]),
        ({"search": "nobody"}, []),
        ({"search": ""}, ["100%@other.test", "a_b@other.test", "ann@example.net", "bob@example.net", "joann@example.net"]),
        ({"prefix": "Jo"}, ["joann@example.net"]),
        ({"prefix": "a"}, ["a_b@other.test", "ann@example.net"]),
        ({"prefix": "a", "search": "net"}, ["ann@example.net"]),
        ({"prefix": "%"}, []),
        ({"subscribed": "true"}, ["100%@other.test", "a_b@other.test", "ann@example.net"]),
        ({"subscribed": "false"}, ["bob@example.net", "joann@example.net"]),
        ({"subscribed": "false", "search": "ann"}, ["joann@example.net"]),
        ({"subscribed": "maybe", "search": "bob"}, ["bob@example.net"]),
    ],
)
async def test_filters_choose(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant, query: dict[str, str], expected: list[str]
) -> None:
    await _make(relay, owner, ["ann@example.net", "100%@other.test", "a_b@other.test"], subscribed=True)
    await _make(relay, owner, ["bob@example.net", "joann@example.net"], subscribed=False)
    await _make(relay, other, ["ann@example.net", "anna@example.net"])
    [page] = await _walk(http, owner, **query)
    assert sorted(one["email"] for one in page["data"]) == expected
    assert page["total"] == len(expected)


async def test_a_prefix_lists_by_address_unless_another_order_is_asked_for(
    http: httpx2.AsyncClient, relay: Relay, clock: ManualClock, owner: Tenant
) -> None:
    for email in ("ab@example.net", "ac@example.net", "aa@example.net"):
        clock.advance(seconds=1)
        await _make(relay, owner, [email])
    [by_address] = await _walk(http, owner, prefix="a")
    [by_age] = await _walk(http, owner, prefix="a", sort="createdAt")
    assert [one["email"][:2] for one in by_address["data"]] == ["aa", "ab", "ac"]
    assert [one["email"][:2] for one in by_age["data"]] == ["aa", "ac", "ab"]


@pytest.mark.parametrize(("limit", "length"), [("0", 20), ("-5", 1), ("x", 20), ("1e3", 20), ("1000", 100), ("3", 3)])
async def test_the_limit_is_read_leniently(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, limit: str, length: int
) -> None:
    await _make(relay, owner, [f"{number}@example.net" for number in range(130)])
    response = await http.get("/contacts", headers=owner.headers, params={"limit": limit})
    assert len(response.json()["data"]) == length


async def test_a_cursor_that_is_unknown_or_foreign_gives_an_empty_page(
    http: httpx2.AsyncClient, relay: Relay, owner: Tenant, other: Tenant
) -> None:
    await _make(relay, owner, ["ann@example.net"])
    await _make(relay, other, ["bob@example.net"])
    foreign = (await http.get("/contacts", headers=other.headers)).json()["data"][0]["id"]
    for cursor in ("nonsense", foreign):
        page = (await http.get("/contacts", headers=owner.headers, params={"cursor": cursor})).json()
        assert page == {"data": [], "total": 0, "hasMore": False}


async def test_an_empty_cursor_is_none(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    await _make(relay, owner, ["ann@example.net"])
    page = (await http.get("/contacts", headers=owner.headers, params={"cursor": ""})).json()
    assert ([one["email"] for one in page["data"]], page["total"]) == (["ann@example.net"], 1)


async def test_the_list_is_below_v1_too(http: httpx2.AsyncClient, relay: Relay, owner: Tenant) -> None:
    await _make(relay, owner, ["ann@example.net"])
    [listed] = (await http.get("/v1/contacts", headers=owner.headers)).json()["data"]
    alias = await http.get(f"/v1/contacts/{listed['id']}", headers=owner.headers)
    assert alias.json() == listed == (await http.get(f"/contacts/{listed['id']}", headers=owner.headers)).json()


async def test_any_filter_chooses_what_python_would(relay: Relay, owner: Tenant, other: Tenant) -> None:
    emails = ["a'b@x.test", "100%@x.test", "üml@x.test", "a_b@x.test", "zz@x.test", "\\@x.test"]
    await _make(relay, owner, emails)
    await _make(relay, other, ["other@x.test", *emails])

    def check_all(tx: "sa.Connection") -> None:
        @settings(max_examples=100, deadline=None)
        @given(st.text(max_size=5), st.text(max_size=3), st.sampled_from(["email", "createdAt"]))
        def check(search: str, prefix: str, sort: Any) -> None:
            chosen = ContactFilter(search=search or None, prefix=prefix or None)
            found, total = list_contacts(tx, owner.id, chosen, Place(sort, "asc"), limit=100)
            fitting = {one for one in emails if search.lower() in one and one.startswith(prefix.lower())}
            assert {one.email for one in found} == fitting
            assert total == len(found)

        check()

    await relay.db.read(check_all)
