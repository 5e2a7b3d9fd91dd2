"""Which names may be added as a domain?"""

import pytest

from tests.api.conftest import Shared
from tests.kit.api import faults

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("example.com", "example.com"),
        ("Capital.Example.COM", "capital.example.com"),
        ("mail.example.com", "mail.example.com"),
        (" spaced.example.com ", "spaced.example.com"),
        ("dot.example.com.", "dot.example.com"),
        ("a-b.example.com", "a-b.example.com"),
        ("1.example.com", "1.example.com"),
        ("example.x1", "example.x1"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        (f"{'a' * 63}.example.com", f"{'a' * 63}.example.com"),
    ],
)
async def test_name_is_stored_in_lower_case_without_frills(shared: Shared, name: str, stored: str) -> None:
    response = await shared.http.post("/domains", headers=shared.acme.headers, json={"domain": name})
    assert (response.status_code, response.json()["domain"]) == (201, stored)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "https://example.com",
        "hello@example.com",
        "*.example.com",
        "under_score.example.com",
        "-a.example.com",
        "a-.example.com",
        "a..example.com",
        ".example.com",
        "example.c",
        "example.com/path",
        "example.com:25",
        "exa mple.com",
        "example.com\nevil.test",
        "127.0.0.1",
        f"{'a' * 64}.example.com",
        "a." * 126 + "com",
    ],
)
async def test_what_is_no_domain_name_is_refused(shared: Shared, name: str) -> None:
    response = await shared.http.post("/domains", headers=shared.acme.headers, json={"domain": name})
    assert [field for field, _ in faults(response)] == ["domain"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("domain", "invalid_type")]),
        ({"domain": 7}, [("domain", "invalid_type")]),
        ({"domain": "ab"}, [("domain", "too_small")]),
        ({"domain": "a" * 254}, [("domain", "too_big")]),
        ({"domain": "no_name.test"}, [("domain", "invalid_string")]),
    ],
)
async def test_wrong_body_is_told_by_field_and_code(
    shared: Shared, body: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    assert faults(await shared.http.post("/domains", headers=shared.acme.headers, json=body)) == expected


async def test_project_of_the_body_is_passed_over(shared: Shared) -> None:
    body = {"domain": "own.example.com", "projectId": shared.rival.id}
    response = await shared.http.post("/domains", headers=shared.acme.headers, json=body)
    assert response.json()["projectId"] == shared.acme.id
