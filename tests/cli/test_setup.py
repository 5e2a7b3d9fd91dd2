"""What does `setup` make, and print? The same with a running server and without one."""

import re

import pytest

from tests.cli.conftest import Typing

SETUP = ("setup", "--email", "Op@Example.com", "--project", "acme", "--password", "password", "--json")
DOMAIN = ("--domain", "example.com")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


async def test_setup_prints_the_first_user_project_and_domain(pr: Typing) -> None:
    made = (await pr(*SETUP, *DOMAIN, "--trust")).json()
    assert list(made) == ["user", "project", "domain"]
    assert list(made["user"]) == ["id", "email"]
    assert list(made["project"]) == ["id", "name", "public", "secret"]
    assert {"id", "domain", "verified", "records"} <= set(made["domain"])
    assert (made["user"]["email"], made["project"]["name"]) == ("op@example.com", "acme")
    assert re.fullmatch(r"pk_[0-9a-f]{64}", made["project"]["public"])
    assert re.fullmatch(r"sk_[0-9a-f]{64}", made["project"]["secret"])
    assert (made["domain"]["domain"], made["domain"]["verified"]) == ("example.com", True)
    assert all(re.fullmatch(UUID, made[part]["id"]) for part in made)
    assert {"type", "name", "value"} <= set(made["domain"]["records"][0])


async def test_setup_again_changes_nothing_and_prints_the_same(pr: Typing) -> None:
    first = await pr(*SETUP, *DOMAIN, "--trust")
    assert (await pr(*SETUP, *DOMAIN, "--trust")).out == first.out
    assert (await pr(*SETUP[:-3], "--password", "another one", "--json", *DOMAIN)).out == first.out


async def test_setup_without_a_domain_prints_null(pr: Typing) -> None:
    assert (await pr(*SETUP)).json()["domain"] is None


async def test_setup_adds_what_is_missing(pr: Typing) -> None:
    first = (await pr(*SETUP)).json()
    second = (await pr(*SETUP, *DOMAIN)).json()
    assert (second["user"], second["project"]) == (first["user"], first["project"])
    assert second["domain"]["verified"] is False
    third = (await pr(*SETUP, *DOMAIN, "--trust")).json()
    assert third["domain"]["verified"] is True
    assert third["domain"]["id"] == second["domain"]["id"]


async def test_setup_makes_its_user_the_owner_of_the_project(pr: Typing) -> None:
    made = (await pr(*SETUP)).json()
    other = (await pr("setup", "--email", "b@example.com", "--project", "acme", "--password", "password", "--json")).json()
    assert other["project"]["id"] != made["project"]["id"]  # a project of the same name, of another owner


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--email", "nobody", "--project", "acme", "--password", "password"), "email: "),
        (("--email", "a@example.com", "--project", "acme", "--password", "short"), "at least 6 characters"),
        (("--email", "a@example.com", "--project", "acme", "--domain", "no domain"), "domain: "),
    ],
)
async def test_setup_refuses_what_cannot_be(pr: Typing, arguments: tuple[str, ...], said: str) -> None:
    done = await pr("setup", *arguments)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.count("\n") == 1
