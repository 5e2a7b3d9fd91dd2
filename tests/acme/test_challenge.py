"""What does the HTTP door say to an authority that looks? The answer of a challenge that is under way, to anybody."""

import httpx2
import pytest

from plunk_relay.relay import Relay

PATH = "/.well-known/acme-challenge"


async def test_answer_is_plain_text_for_anybody(relay: Relay, http: httpx2.AsyncClient) -> None:
    relay.acme_answers["token-1"] = "token-1.thumbprint"
    response = await http.get(f"{PATH}/token-1")
    assert (response.status_code, response.text) == (200, "token-1.thumbprint")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_looking_often_is_not_limited(relay: Relay, http: httpx2.AsyncClient) -> None:
    relay.acme_answers["token-1"] = "token-1.thumbprint"
    for _ in range(60):  # an authority looks from several places, without a key that a limit could be counted for
        assert (await http.get(f"{PATH}/token-1")).status_code == 200


@pytest.mark.parametrize("path", ["/token-2", "/", "", "/token-1/", "/token-1/more", "/..%2Ftoken-1", "/%00"])
async def test_everything_else_there_is_404(relay: Relay, http: httpx2.AsyncClient, path: str) -> None:
    relay.acme_answers["token-1"] = "token-1.thumbprint"
    assert (await http.get(f"{PATH}{path}")).status_code == 404


async def test_it_is_no_part_of_the_api_that_is_documented(http: httpx2.AsyncClient) -> None:
    assert [path for path in (await http.get("/openapi.json")).json()["paths"] if "acme" in path] == []
