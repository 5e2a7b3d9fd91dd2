"""What does the import of a CSV file do to contacts, and what is told of it?"""

from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from plunk_relay.contacts.queries import ContactFilter, count_contacts
from plunk_relay.db.tables import contacts, events, job_inputs
from plunk_relay.jobs.actions import start_import
from plunk_relay.jobs.worker import run_once
from plunk_relay.relay import Relay
from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.kit.jobs import finish, imported, status, upload
from tests.kit.relay import Tenant
from tests.kit.store import rows

NOBODY = "import-00000000-0000-4000-8000-000000000000-1"


async def test_an_import_waits_then_is_completed_with_counts(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    started = await upload(http, owner, "email,firstName\nann@x.test,Ann\n")
    assert started.status_code == 202
    assert set(started.json()) == {"message", "jobId"}
    milliseconds = int(relay.clock.now().timestamp() * 1000)
    assert started.json()["jobId"] == f"import-{owner.id}-{milliseconds}"
    waiting = await status(http, owner, started.json()["jobId"])
    data = {"projectId": owner.id, "filename": "people.csv"}
    assert waiting == {"id": started.json()["jobId"], "state": "waiting", "progress": 0, "result": None, "data": data}
    done = await finish(relay, http, owner, started)
    counts = {"totalRows": 1, "successCount": 1, "createdCount": 1, "updatedCount": 0, "failureCount": 0}
    assert (done["state"], done["progress"], done["data"]) == ("completed", 100, data)
    assert done["result"] == {**counts, "errors": [], "encoding": "UTF-8"}


async def test_two_imports_of_one_millisecond_have_ids_of_their_own(http: httpx2.AsyncClient, owner: Tenant) -> None:
    ids = {(await upload(http, owner, "email\n")).json()["jobId"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(("name", "kind"), [("people.txt", "text/csv"), ("People.CSV", "application/octet-stream")])
async def test_type_or_name_says_that_a_file_is_csv(http: httpx2.AsyncClient, owner: Tenant, name: str, kind: str) -> None:
    assert (await upload(http, owner, "email\n", name=name, kind=kind)).status_code == 202


async def test_a_file_of_another_kind_is_refused(http: httpx2.AsyncClient, owner: Tenant) -> None:
    response = await upload(http, owner, "email\n", name="people.xlsx", kind="application/vnd.ms-excel")
    assert refusal(response) == (400, "BAD_REQUEST")
    assert ".csv" in response.json()["error"]["message"]


async def test_a_request_without_the_file_is_refused(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    other_part = {"document": ("people.csv", b"email\n", "text/csv")}
    response = await http.post("/contacts/import", headers=owner.headers, files=other_part)
    assert refusal(response) == (400, "BAD_REQUEST")
    response = await http.post("/contacts/import", headers=owner.headers, json={"file": "email"})
    assert refusal(response) == (400, "BAD_REQUEST")
    assert not await run_once(relay)


async def test_a_file_of_5_megabytes_is_taken_and_a_larger_one_is_not(http: httpx2.AsyncClient, owner: Tenant) -> None:
    largest = b"email\n" + b"\n" * (5 * 1024 * 1024 - 6)
    assert (await upload(http, owner, largest)).status_code == 202
    assert refusal(await upload(http, owner, largest + b"\n")) == (413, "BAD_REQUEST")


async def test_the_alias_below_v1_is_the_same(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    file = {"file": ("people.csv", b"email\nann@x.test\n", "text/csv")}
    started = await http.post("/v1/contacts/import", headers=owner.headers, files=file)
    done = await finish(relay, http, owner, started)
    below = await http.get(f"/v1/contacts/import/{done['id']}", headers=owner.headers)
    assert below.json() == done


async def test_a_job_of_another_project_or_kind_is_not_found(http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    job_id = (await upload(http, owner, "email\n")).json()["jobId"]
    paths = [(other, f"import/{job_id}"), (owner, f"bulk/{job_id}"), (owner, f"import/{NOBODY}"), (owner, "import/x")]
    for tenant, path in paths:
        response = await http.get(f"/contacts/{path}", headers=tenant.headers)
        assert refusal(response) == (404, "RESOURCE_NOT_FOUND"), path


async def test_the_file_is_never_shown_and_forgotten_when_it_is_imported(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    started = await upload(http, owner, "email,secret\nann@x.test,hush\n")
    assert "hush" not in str(await status(http, owner, started.json()["jobId"]))
    assert len(await rows(relay, job_inputs)) == 1
    assert "hush" not in str(await finish(relay, http, owner, started))
    assert await rows(relay, job_inputs) == []


async def test_rows_make_contacts_and_merge_into_those_that_are_there(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    await http.post("/contacts", headers=owner.headers, json={"email": "ann@x.test", "data": {"plan": "free", "age": 7}})
    result = await imported(relay, http, owner, "email,plan,city\n ANN@X.test ,pro,\nbob@x.test,,Rome\n")
    assert (result["createdCount"], result["updatedCount"], result["successCount"]) == (1, 1, 2)
    found = {row["email"]: row["data"] for row in await rows(relay, contacts, project_id=owner.id)}
    assert found == {"ann@x.test": {"plan": "pro", "age": 7}, "bob@x.test": {"city": "Rome"}}


async def test_of_equal_addresses_the_last_row_wins(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    lines = [f"ann@x.test,{number}" for number in range(70)]  # more than are stored at once
    result = await imported(relay, http, owner, "email,visit\n" + "\n".join(lines))
    assert (result["totalRows"], result["createdCount"], result["updatedCount"]) == (70, 1, 69)
    [ann] = await rows(relay, contacts, project_id=owner.id)
    assert ann["data"] == {"visit": 69}


async def test_the_column_subscribed_sets_the_subscription(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    """Empty: new contacts are subscribed, and others stay as they are."""
    cells = {"true": True, "YES": True, "1": True, "no": False, "0": False, "unsubscribed": False, "": None, "  ": None}
    for number, _ in enumerate(cells):
        body = {"email": f"known{number}@x.test", "subscribed": False}
        await http.post("/contacts", headers=owner.headers, json=body)
    lines = [f"{cell},{name}{number}@x.test" for number, cell in enumerate(cells) for name in ("new", "known")]
    await imported(relay, http, owner, "\n".join(["Subscribed,email", *lines]))
    found = {row["email"]: row["subscribed"] for row in await rows(relay, contacts, project_id=owner.id)}
    for number, (cell, said) in enumerate(cells.items()):
        assert found[f"new{number}@x.test"] is (said is not False), cell
        assert found[f"known{number}@x.test"] is (said is True), cell


async def test_only_flips_of_known_contacts_are_events(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    for name, subscribed in (("off", False), ("on", True)):
        body = {"email": f"{name}@x.test", "subscribed": subscribed}
        await http.post("/contacts", headers=owner.headers, json=body)
    lines = "off@x.test,yes\non@x.test,yes\nnew@x.test,no\non@x.test,no\non@x.test,yes\n"
    await imported(relay, http, owner, "email,subscribed\n" + lines)
    emails = {row["id"]: row["email"] for row in await rows(relay, contacts)}
    names = [(row["name"], emails[row["contact_id"]]) for row in await rows(relay, events)]
    assert names == [
        ("contact.subscribed", "off@x.test"),
        ("contact.unsubscribed", "on@x.test"),
        ("contact.subscribed", "on@x.test"),
    ]


async def test_contacts_are_counted_as_they_are_imported(relay: Relay, http: httpx2.AsyncClient, owner: Tenant) -> None:
    await imported(relay, http, owner, "email,subscribed\na@x.test,no\nb@x.test,yes\nb@x.test,yes\nc@x.test,\n")
    numbers = [
        await relay.db.read(count_contacts, owner.id, ContactFilter(subscribed=subscribed))
        for subscribed in (None, True, False)
    ]
    assert numbers == [3, 2, 1]


async def test_a_bad_row_is_told_with_its_number_and_the_others_are_imported(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    text = 'email,note\nnobody,x\nann@x.test,"two\nlines"\n\n,y\nbob@intranet,z\n"Ann <ann@x.test>",\ncy@x.test,\n'
    result = await imported(relay, http, owner, text)
    assert (result["totalRows"], result["successCount"], result["failureCount"]) == (6, 2, 4)
    told = [(error["row"], error["email"]) for error in result["errors"]]
    assert told == [(2, "nobody"), (5, ""), (6, "bob@intranet"), (7, "Ann <ann@x.test>")]
    assert all(error["error"] for error in result["errors"])


async def test_the_first_thousand_bad_rows_are_told_and_all_are_counted(
    relay: Relay, http: httpx2.AsyncClient, owner: Tenant
) -> None:
    result = await imported(relay, http, owner, "email\n" + "nobody\n" * 1200 + "ann@x.test\n")
    assert (result["totalRows"], result["successCount"], result["failureCount"]) == (1201, 1, 1200)
    assert [error["row"] for error in result["errors"]] == list(range(2, 1002))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no rows"),
        ("\n \n\n", "no rows"),
        ("email,name\n", "no rows"),
        ("email,name\n\n  \n", "no rows"),
        ("mail,name\nann@x.test,Ann\n", "mail, name"),
        ("e-mail\tname\nann@x.test\tAnn\n", "`email`"),
        (",,\n,,\n", "nothing"),
        ("email" + ",x" * 1000, "1001 columns"),
    ],
)
async def test_a_file_that_cannot_be_imported_fails_with_the_reason(shared: Shared, text: str, reason: str) -> None:
    started = await upload(shared.http, shared.acme, text)
    job = await finish(shared.relay, shared.http, shared.acme, started)
    assert (job["state"], job["result"]) == ("failed", None)
    assert reason in job["failedReason"]
    assert await rows(shared.relay, contacts) == []
    assert await rows(shared.relay, job_inputs) == []


async def test_an_import_keeps_to_its_project(relay: Relay, http: httpx2.AsyncClient, owner: Tenant, other: Tenant) -> None:
    await http.post("/contacts", headers=other.headers, json={"email": "ann@x.test", "data": {"plan": "free"}})
    before = await rows(relay, contacts, project_id=other.id)
    await imported(relay, http, owner, f"email,projectId,id,plan\nann@x.test,{other.id},{before[0]['id']},pro\n")
    assert await rows(relay, contacts, project_id=other.id) == before
    [mine] = await rows(relay, contacts, project_id=owner.id)
    assert mine["id"] != before[0]["id"]


async def test_a_project_that_is_deleted_takes_its_jobs_along(relay: Relay, owner: Tenant) -> None:
    await start_import(relay, owner.id, "people.csv", b"email\nann@x.test\n")
    await relay.db.write(_delete_project, owner.id)
    assert not await run_once(relay)
    assert await rows(relay, job_inputs) == []


def _delete_project(tx: sa.Connection, project_id: str) -> Any:
    tx.execute(sa.text("DELETE FROM projects WHERE id = :id"), {"id": project_id})
