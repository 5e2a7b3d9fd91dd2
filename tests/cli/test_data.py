"""What do `users`, `projects` and `domains` do? The same with a running server and without one."""

from typing import Any

import pytest

from tests.cli.conftest import Typing
from tests.kit.dns import DnsTable

pytestmark = pytest.mark.usefixtures("made")
Made = dict[str, Any]


async def test_a_user_is_made_and_listed(pr: Typing) -> None:
    new = (await pr("users", "create", "New@example.com", "--password", "password", "--json")).json()
    listed = (await pr("users", "list", "--json")).json()
    assert [user["email"] for user in listed] == ["op@example.com", "new@example.com"]
    assert listed[1] == new
    assert "password" not in str(listed[0])


async def test_a_user_is_made_once(pr: Typing) -> None:
    done = await pr("users", "create", "op@example.com", "--password", "password")
    assert (done.code, done.out) == (1, "")
    assert done.err == "plunk-relay: An account with the address op@example.com exists already.\n"


async def test_a_password_is_replaced(pr: Typing) -> None:
    assert (await pr("users", "password", "op@example.com", "--password", "another")).code == 0
    assert (await pr("users", "password", "op@example.com", "--password", "short")).code == 1


async def test_a_person_nobody_knows_is_named(pr: Typing) -> None:
    done = await pr("users", "password", "who@example.com", "--password", "password")
    assert (done.code, done.err) == (1, "plunk-relay: User not found: who@example.com\n")


async def test_a_password_may_come_from_standard_input(pr: Typing) -> None:
    new = await pr("users", "create", "new@example.com", "--json", stdin="from a file\n")
    assert new.json()["email"] == "new@example.com"


@pytest.mark.parametrize("command", ["create", "password"])
async def test_a_password_that_is_not_given_at_all_is_wrong_usage(pr: Typing, command: str) -> None:
    done = await pr("users", command, "op@example.com")
    assert (done.code, done.out) == (2, "")
    assert "give --password, or write the password to standard input" in done.err


async def test_projects_are_listed_without_their_keys(made: Made, pr: Typing) -> None:
    new = (await pr("projects", "create", "second", "--owner", "op@example.com", "--json")).json()
    assert {"id", "name", "disabled", "created", "public", "secret"} == set(new)
    listed = await pr("projects", "list", "--json")
    assert [project["name"] for project in listed.json()] == ["acme", "second"]
    assert made["project"]["secret"] not in listed.out
    assert new["secret"] not in listed.out


async def test_keys_are_shown_and_rotated(made: Made, pr: Typing) -> None:
    project = made["project"]
    shown = (await pr("projects", "keys", "acme", "--json")).json()
    assert (shown["public"], shown["secret"]) == (project["public"], project["secret"])
    rotated = (await pr("projects", "keys", project["id"], "--rotate", "--json")).json()
    assert not {rotated["public"], rotated["secret"]} & {project["public"], project["secret"]}
    assert (await pr("projects", "keys", "acme", "--json")).json() == rotated


async def test_a_project_is_disabled_and_enabled(pr: Typing) -> None:
    assert (await pr("projects", "disable", "acme", "--json")).json()["disabled"] is True
    assert (await pr("projects", "list", "--json")).json()[0]["disabled"] is True
    assert (await pr("projects", "enable", "acme", "--json")).json()["disabled"] is False


async def test_a_name_of_two_projects_is_refused(pr: Typing) -> None:
    await pr("projects", "create", "acme")
    done = await pr("projects", "disable", "acme")
    assert done.code == 1
    assert "2 projects are named acme: use the id, such as" in done.err


@pytest.mark.parametrize("command", [("keys",), ("disable",), ("enable",)])
async def test_a_project_nobody_knows_is_named(pr: Typing, command: tuple[str, ...]) -> None:
    done = await pr("projects", *command, "other")
    assert (done.code, done.out, done.err) == (1, "", "plunk-relay: Project not found: other\n")


async def test_an_owner_nobody_knows_is_named(pr: Typing) -> None:
    done = await pr("projects", "create", "second", "--owner", "who@example.com")
    assert (done.code, done.err) == (1, "plunk-relay: User not found: who@example.com\n")


async def test_a_domain_is_added_trusted_and_listed(made: Made, pr: Typing) -> None:
    added = (await pr("domains", "add", "Example.ORG", "--project", "acme", "--json")).json()
    assert (added["domain"], added["verified"], added["status"]) == ("example.org", False, "NotStarted")
    trusted = (await pr("domains", "trust", "example.org", "--json")).json()
    assert (trusted["id"], trusted["verified"], trusted["status"]) == (added["id"], True, "Success")
    for filters in ((), ("--project", "acme")):
        assert (await pr("domains", "list", *filters, "--json")).json() == [trusted, made["domain"]]


async def test_domains_of_one_project_are_listed_apart(pr: Typing) -> None:
    await pr("projects", "create", "empty")
    assert (await pr("domains", "list", "--project", "empty", "--json")).json() == []
    assert (await pr("domains", "list", "--project", "empty")).out == "(none)\n"


async def test_a_domain_is_verified_when_its_records_are_published(dns: DnsTable, pr: Typing) -> None:
    new = (await pr("domains", "add", "example.org", "--project", "acme", "--json")).json()
    assert (await pr("domains", "verify", "example.org", "--json")).json()["verified"] is False
    for record in new["records"]:
        if record["type"] == "TXT":
            dns.set(record["name"], "TXT", record["value"])
    verified = (await pr("domains", "verify", "example.org", "--json")).json()
    assert (verified["verified"], verified["status"]) == (True, "Success")


async def test_new_keys_of_a_domain_have_new_names(dns: DnsTable, made: Made, pr: Typing) -> None:
    after = (await pr("domains", "rotate", "example.com", "--json")).json()
    assert _key_names(after)
    assert not _key_names(after) & _key_names(made["domain"])


async def test_a_domain_whose_records_cannot_be_looked_up_is_not_verified(dns: DnsTable, pr: Typing) -> None:
    new = (await pr("domains", "add", "example.org", "--project", "acme", "--json")).json()
    for record in new["records"]:
        dns.fail(record["name"], record["type"], "SERVFAIL")
    verified = (await pr("domains", "verify", "example.org", "--json")).json()
    assert (verified["verified"], verified["status"]) == (False, "TemporaryFailure")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "no domain", "--project", "acme"), "domain: Enter a bare domain name such as example.com"),
        (("add", "example.com", "--project", "acme"), "The domain example.com is in this project already."),
        (("add", "example.net", "--project", "other"), "Project not found: other"),
        (("trust", "other.test"), "the domain other.test is not registered"),
        (("verify", "other.test"), "the domain other.test is not registered"),
        (("rotate", "other.test"), "the domain other.test is not registered"),
        (("receive", "other.test", "on"), "the domain other.test is not registered"),
    ],
)
async def test_a_domain_that_cannot_be_is_one_clear_line(pr: Typing, arguments: tuple[str, ...], said: str) -> None:
    done = await pr("domains", *arguments)
    assert (done.code, done.out, done.err) == (1, "", f"plunk-relay: {said}\n")


async def test_receiving_is_switched_on_and_off(pr: Typing) -> None:
    on = (await pr("domains", "receive", "example.com", "on", "--json")).json()
    [record] = [record for record in on["records"] if record["purpose"] == "inbound"]
    assert (on["receiving"], record["type"], record["name"]) == (True, "MX", "example.com")
    off = (await pr("domains", "receive", "example.com", "off", "--json")).json()
    assert off["receiving"] is False
    assert "inbound" not in [record["purpose"] for record in off["records"]]


async def test_receiving_is_on_or_off(pr: Typing) -> None:
    done = await pr("domains", "receive", "example.com", "maybe")
    assert (done.code, done.out) == (2, "")
    assert "maybe" in done.err


async def test_people_get_lines_and_scripts_get_json(pr: Typing) -> None:
    text = (await pr("domains", "list")).out
    assert "domain: example.com\n" in text
    assert "verified: yes\n" in text
    assert "records:\n  type: " in text


def _key_names(domain: dict[str, Any]) -> set[str]:
    return {record["name"] for record in domain["records"] if "_domainkey" in record["name"]}
