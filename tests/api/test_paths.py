"""Which endpoint does a path mean? Literal segments go before parameters, and %2F is part of a name."""

from collections.abc import Sequence

import pytest

from plunk_relay.relay import Relay
from plunk_relay.web.access import Auth
from plunk_relay.web.endpoint import Answer, Endpoint, aliases, endpoint
from tests.kit.http import running_http


@endpoint("GET", "/things/{name}", tag="Tests", auth=Auth.NONE)
async def show(name: str) -> Answer:
    """Show one."""
    return Answer(f"show {name}".encode())


@endpoint("GET", "/things/{name}/usage", tag="Tests", auth=Auth.NONE)
async def usage(name: str) -> Answer:
    """Show where one is used."""
    return Answer(f"usage {name}".encode())


@endpoint("GET", "/things/names", tag="Tests", auth=Auth.NONE)
async def names() -> Answer:
    """List the names."""
    return Answer(b"names")


@endpoint("GET", "/things/names/{name}", tag="Tests", auth=Auth.NONE)
async def named(name: str) -> Answer:
    """Show what has a name."""
    return Answer(f"named {name}".encode())


PAGES: Sequence[Endpoint] = [show, usage, named, names]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/things/a", "show a"),
        ("/things/a.b%20c", "show a.b c"),
        ("/things/a%2Fb", "show a/b"),
        ("/things/a%2fb%2Fc/usage", "usage a/b/c"),
        ("/things/usage", "show usage"),
        ("/things/a%2Fusage", "show a/usage"),
        ("/things/100%25/usage", "usage 100%"),
        ("/things/a%252Fb", "show a%2Fb"),
        ("/things/%C3%BC%2F%E4%BC%9A", "show ü/会"),
        ("/things/names", "names"),
        ("/things/names/usage", "named usage"),
        ("/v1/things/a%2Fb", "show a/b"),
    ],
)
async def test_a_path_leads_to_its_endpoint(relay: Relay, path: str, said: str) -> None:
    async with running_http(relay, pages=[*PAGES, *aliases(PAGES, "/v1")]) as http:
        assert (await http.get(path)).text == said


@pytest.mark.parametrize("path", ["/things", "/things/", "/things/a/b", "/things/a/usage/", "/things/%2F/x/y"])
async def test_a_path_of_another_shape_leads_nowhere(relay: Relay, path: str) -> None:
    async with running_http(relay, pages=PAGES) as http:
        response = await http.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "RESOURCE_NOT_FOUND")


def test_an_alias_has_a_name_of_its_own() -> None:
    [alias] = aliases([show], "/v1")
    assert (alias.path, alias.name, alias.handler) == ("/v1/things/{name}", "show_below_v1", show.handler)
