"""What does `POST /v1/send` do with a right request? One mail a recipient, on disk before the answer, all or nothing."""

import asyncio

import httpx2
import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import api_requests, contacts, contents, deliveries, domains, emails, projects
from plunk_relay.domains.actions import add_domain, trust_domain
from plunk_relay.relay import Relay
from tests.kit.api import faults, refusal, send, sent
from tests.kit.http import running_http
from tests.kit.relay import Tenant, make_tenant
from tests.kit.store import add_template, change, rows

MANY = ["ann@example.net", {"email": "bob@example.net", "name": "Bob"}, "cem@example.net"]


async def test_answer_names_contacts_and_mails_in_the_order_of_the_recipients(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    response = await send(http, acme, {"to": MANY})
    body = response.json()
    assert (response.status_code, body["success"]) == (200, True)
    assert body["data"]["timestamp"] == "2026-03-01T12:00:00.000Z"
    stored = {row["email"]: row["id"] for row in await rows(relay, contacts)}
    mails = {row["recipient"]: row["id"] for row in await rows(relay, emails)}
    assert body["data"]["emails"] == [
        {"contact": {"id": stored[address], "email": address}, "email": mails[address]}
        for address in ("ann@example.net", "bob@example.net", "cem@example.net")
    ]


async def test_each_recipient_gets_a_mail_and_a_due_delivery_of_their_own(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await sent(http, acme, {"to": MANY})
    assert [(row["recipient"], row["to_name"], row["status"]) for row in await rows(relay, emails)] == [
        ("ann@example.net", None, "PENDING"),
        ("bob@example.net", "Bob", "PENDING"),
        ("cem@example.net", None, "PENDING"),
    ]
    queued = await rows(relay, deliveries)
    assert [(row["recipient"], row["state"], row["priority"], row["due_at"]) for row in queued] == [
        (row["recipient"], "QUEUED", 1, relay.clock.now()) for row in queued
    ]
    assert len({row["message_id"] for row in await rows(relay, emails)}) == 3


async def test_same_address_twice_is_two_mails_to_one_contact(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    first, second = await sent(http, acme, {"to": ["ann@example.net", "Ann@Example.NET"]})
    assert first["contact"] == second["contact"]
    assert first["email"] != second["email"]
    assert [row["recipient"] for row in await rows(relay, emails)] == ["ann@example.net", "Ann@Example.NET"]


async def test_one_bad_recipient_among_many_stops_all(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    template = await add_template(relay, acme.id, type="MARKETING")
    await sent(http, acme, {"to": "ann@example.net", "subscribed": True})
    before = [len(await rows(relay, table)) for table in (contacts, contents, emails, deliveries)]
    response = await send(http, acme, {"to": ["ann@example.net", "stranger@example.net"], "template": template})
    assert refusal(response) == (400, "BAD_REQUEST")
    assert [len(await rows(relay, table)) for table in (contacts, contents, emails, deliveries)] == before


async def test_default_sender_is_no_reply_at_the_first_verified_domain(relay: Relay, http: httpx2.AsyncClient) -> None:
    tenant = await make_tenant(relay, domain="pending.test", verified=False)
    await trust_domain(relay, await add_domain(relay, tenant.id, "first.test"))
    await trust_domain(relay, await add_domain(relay, tenant.id, "second.test"))
    await sent(http, tenant)
    [mail] = await rows(relay, emails)
    assert mail["from_address"] == "no-reply@first.test"


async def test_without_a_verified_domain_a_sender_is_required(relay: Relay, http: httpx2.AsyncClient) -> None:
    tenant = await make_tenant(relay, domain="pending.test", verified=False)
    response = await send(http, tenant)
    assert faults(response) == [("from", "required")]
    error = response.json()["error"]
    assert error["details"] == {"errors": error["errors"]}
    assert "required fields are missing" in error["suggestion"]


async def test_unverified_domain_cannot_send(relay: Relay, http: httpx2.AsyncClient) -> None:
    tenant = await make_tenant(relay, domain="pending.test", verified=False)
    assert refusal(await send(http, tenant, {"from": "a@pending.test"})) == (403, "FORBIDDEN")


async def test_domain_that_lost_its_record_cannot_send_any_more(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await sent(http, acme)
    [domain] = await rows(relay, domains)
    await change(relay, domains, domain["id"], verified=False)
    relay.memory.forget("identities")
    assert refusal(await send(http, acme, {"from": "a@acme.test"})) == (403, "FORBIDDEN")


@pytest.mark.parametrize("known", [True, False], ids=["unsubscribed contact", "unknown address"])
async def test_marketing_template_to_somebody_not_subscribed_is_refused(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, known: bool
) -> None:
    if known:
        await sent(http, acme, {"subscribed": False})
    template = await add_template(relay, acme.id, type="MARKETING")
    before = await rows(relay, contacts), await rows(relay, emails)
    response = await send(http, acme, {"template": template, "data": {"name": "Ann"}})
    assert refusal(response) == (400, "BAD_REQUEST")
    assert (await rows(relay, contacts), await rows(relay, emails)) == before


async def test_marketing_template_with_consent_in_the_request_subscribes_and_sends(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await sent(http, acme, {"template": await add_template(relay, acme.id, type="MARKETING"), "subscribed": True})
    assert [row["subscribed"] for row in await rows(relay, contacts)] == [True]


async def test_mail_expires_after_the_lifetime(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock
) -> None:
    await sent(http, acme)
    [delivery] = await rows(relay, deliveries)
    clock.advance(hours=96)
    assert delivery["expires_at"] == clock.now()


async def test_sending_wakes_the_deliverer(relay: Relay, http: httpx2.AsyncClient, acme: Tenant) -> None:
    relay.wakes.deliveries.clear()
    await sent(http, acme)
    assert relay.wakes.deliveries.is_set()


async def test_billing_cap_counts_the_mails_of_the_month(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, clock: ManualClock
) -> None:
    await change(relay, projects, acme.id, billing_limit_transactional=2)
    relay.memory.forget("projects")
    await sent(http, acme, {"to": MANY[:2]})
    response = await send(http, acme)
    assert refusal(response) == (429, "BILLING_LIMIT_EXCEEDED")
    assert len(await rows(relay, emails)) == 2
    clock.advance(seconds=int(response.headers["retry-after"]))
    await sent(http, acme)


async def test_billing_cap_refuses_a_request_that_would_pass_it(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    await change(relay, projects, acme.id, billing_limit_transactional=2)
    relay.memory.forget("projects")
    assert refusal(await send(http, acme, {"to": MANY})) == (429, "BILLING_LIMIT_EXCEEDED")
    assert await rows(relay, emails) == []


async def test_mail_of_other_projects_does_not_count_for_the_billing_cap(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant, rival: Tenant
) -> None:
    await change(relay, projects, acme.id, billing_limit_transactional=1)
    relay.memory.forget("projects")
    await sent(http, rival, {"to": MANY})
    await sent(http, acme)


async def test_stopping_relay_takes_no_mail_and_says_when_to_come_back(
    relay: Relay, http: httpx2.AsyncClient, acme: Tenant
) -> None:
    relay.stopping.set()
    response = await send(http, acme)
    assert refusal(response) == (503, "INTERNAL_SERVER_ERROR")
    assert int(response.headers["retry-after"]) > 0
    assert await rows(relay, emails) == []


async def test_connection_that_breaks_off_inside_the_body_sends_nothing(relay: Relay, acme: Tenant) -> None:
    body = b'{"to": "ann@example.net", "subject": "Hello", "body": "Hi"}'
    async with running_http(relay) as http:
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        head = f"POST /v1/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {acme.secret}\r\nExpect: 100-continue\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % (len(body) + 100))
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        writer.write(body)
        await http.get("/health")  # until then the server has read what came
        writer.close()
    assert [row["status_code"] for row in await rows(relay, api_requests)] == [400]
    assert await rows(relay, emails) == []
