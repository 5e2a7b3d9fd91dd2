"""What would a template say? The same as the mail that is sent of it; and what its author may not have meant is told."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import httpx2
import pytest

from plunk_relay.contacts.actions import ContactChange, upsert_contact
from plunk_relay.contacts.queries import Contact
from plunk_relay.db.tables import captured, contacts, contents, deliveries, emails, events
from plunk_relay.delivery.worker import Deliverer
from tests.api.conftest import Shared
from tests.kit.api import faults, refusal, sent
from tests.kit.relay import Tenant
from tests.kit.store import add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = """<p>Hello {{name ?? there}}</p><ul>{% for item in items %}<li>{{item.title | upcase}}</li>{% endfor %}</ul>
<p><a href="{{manageUrl}}">settings</a> {{email}} {{subscribed}} {{locale}} {{data.plan}}</p>"""
DATA = {"items": [{"title": "one"}, {"title": "two"}], "name": "Ann"}
EXAMPLE_PAGE = "http://relay.test/{}/00000000-0000-4000-8000-000000000000?e="


async def _preview(shared: Shared, template_id: str, body: dict[str, Any], tenant: Tenant | None = None) -> httpx2.Response:
    headers = (tenant or shared.acme).headers
    return await shared.http.post(f"/templates/{template_id}/preview", headers=headers, json=body)


async def _seen(shared: Shared, fields: dict[str, str], **body: Any) -> dict[str, Any]:
    """Preview a new template."""
    template_id = await add_template(shared.relay, shared.acme.id, **fields)
    response = await _preview(shared, template_id, body)
    assert response.status_code == 200, response.text
    seen: dict[str, Any] = response.json()
    return seen


async def _warnings(shared: Shared, fields: dict[str, str], **body: Any) -> list[str]:
    warnings: list[str] = (await _seen(shared, fields, **body))["warnings"]
    return warnings


async def _contact(shared: Shared, email: str, project_id: str | None = None, **fields: Any) -> Contact:
    change = ContactChange(email, **fields)
    now = shared.relay.clock.now()
    contact, _ = await shared.relay.db.write(upsert_contact, project_id or shared.acme.id, change, now=now)
    return contact


async def _deliver(shared: Shared, mail_id: str) -> EmailMessage:
    """Return the message as it left."""
    async with Deliverer(shared.relay) as deliverer:
        await deliverer.run_once()
        await deliverer.settle()
    [delivery] = await rows(shared.relay, deliveries, email_id=mail_id)
    [kept] = await rows(shared.relay, captured, delivery_id=delivery["id"])
    return message_from_bytes(kept["message"], policy=default)


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n").strip()


@pytest.mark.parametrize("kind", ["MARKETING", "TRANSACTIONAL", "HEADLESS"])
async def test_preview_is_the_mail_that_is_sent(shared: Shared, kind: str) -> None:
    data = {"plan": "pro", "locale": "de-AT"}
    contact = await _contact(shared, f"{kind.lower()}@example.net", data=data, subscribed=True)
    fields = {"subject": "For {{name}}\nof {{data.plan}}", "body": BODY, "type": kind}
    template_id = await add_template(shared.relay, shared.acme.id, **fields)
    seen = (await _preview(shared, template_id, {"data": DATA, "contactId": contact.id.upper()})).json()
    request = {"to": contact.email, "subject": ..., "body": ..., "template": template_id, "data": DATA}
    [mail] = await sent(shared.http, shared.acme, request)
    message = await _deliver(shared, mail["email"])
    assert seen["subject"] == message["Subject"] == "For Ann of pro"
    example_id = seen["html"].partition("?e=")[2][:36]
    assert seen["html"].replace(example_id, mail["email"]).strip() == _part(message, "html")
    assert seen["text"].replace(example_id, mail["email"]).strip() == _part(message, "plain")
    assert ("Abmelden" in seen["html"]) == (kind == "MARKETING")
    assert "<li>TWO</li>" in seen["html"]
    assert f"{contact.email} true de-AT pro" in seen["text"]


async def test_preview_stores_and_sends_nothing(shared: Shared) -> None:
    contact = await _contact(shared, "still@example.net", data={"plan": "free"})
    template_id = await add_template(shared.relay, shared.acme.id)
    tables = (contacts, contents, deliveries, emails, events)
    before = [await rows(shared.relay, table) for table in tables]
    body = {"data": {"plan": "pro", "new": 1}, "contactId": contact.id}
    assert (await _preview(shared, template_id, body)).status_code == 200
    assert [await rows(shared.relay, table) for table in tables] == before


async def test_without_a_contact_there_is_an_example_of_one(shared: Shared) -> None:
    body = "<p>{{email}} {{id}} {{subscribed}}</p><a href='{{unsubscribeUrl}}'>a</a><a href='{{subscribeUrl}}'>b</a>"
    seen = await _seen(shared, {"body": body, "type": "HEADLESS"})
    assert "ann@example.com 00000000-0000-4000-8000-000000000000 true" in seen["text"]
    assert EXAMPLE_PAGE.format("unsubscribe") in seen["html"]
    assert EXAMPLE_PAGE.format("subscribe") in seen["html"]
    assert seen["warnings"] == []


async def test_values_of_the_request_win_over_the_stored_ones_and_wrappers_are_opened(shared: Shared) -> None:
    contact = await _contact(shared, "values@example.net", data={"a": "stored", "b": "stored"})
    data = {"a": {"value": "given", "persistent": False}, "email": "forged@example.net"}
    seen = await _seen(shared, {"body": "{{a}} {{b}} {{email}}"}, data=data, contactId=contact.id)
    assert seen["text"] == "given stored values@example.net"


@pytest.mark.parametrize(("data", "word"), [({"locale": "fr"}, "Se désabonner"), ({}, "Unsubscribe")])
async def test_footer_speaks_the_language_that_the_mail_would_have(shared: Shared, data: dict[str, str], word: str) -> None:
    assert word in (await _seen(shared, {"type": "MARKETING"}, data=data))["html"]


async def test_value_with_placeholders_is_not_rendered_again(shared: Shared) -> None:
    seen = await _seen(shared, {"body": "{{a}}"}, data={"a": "{{email}}"})
    assert seen["text"] == "{{email}}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"subject": "Hi {{name}}", "body": "{{name}} {{order.total | round}} {{name}}"}, ["name", "order.total"]),
        ({"body": "{{ name ?? you }} {{ name | default: 'you' }}"}, []),
        ({"body": "{% if name %}x{% endif %}{% for a in list %}{{a}}{% endfor %}"}, []),
        ({"body": "{% for a in items %}{{a.title}}{{a.price}}{% endfor %}"}, ["a.price"]),
        ({"body": "{{first name}} {{ data['last name'] }} {{}}"}, ["first name", "data['last name']"]),
        ({"body": "{{ 'Dear ' | append: name }}"}, ["name"]),
        ({"body": "{{ nothing }} {{ unset }}"}, ["nothing", "unset"]),
    ],
)
async def test_variables_without_a_value_are_told_once(shared: Shared, fields: dict[str, str], expected: list[str]) -> None:
    data = {"items": [{"title": "one"}, {"title": "two"}], "nothing": None}
    warnings = await _warnings(shared, fields, data=data)
    assert [one for one in warnings if "value" in one] == [f"No value: {{{{{name}}}}}" for name in expected]


async def test_not_every_one_of_very_many_variables_is_told(shared: Shared) -> None:
    warnings = await _warnings(shared, {"body": " ".join(f"{{{{v{number}}}}}" for number in range(60)) + "x"})
    assert len(warnings) == 51
    assert warnings[-1] == "No value: 10 more variables"


@pytest.mark.parametrize(
    ("kind", "body", "warned"),
    [
        ("HEADLESS", "<p>x</p>", True),
        ("HEADLESS", "<a href='{{unsubscribeUrl}}'>out</a>", False),
        ("HEADLESS", "<a href='{{manageUrl}}'>out</a>", False),
        ("HEADLESS", "<a href='{{subscribeUrl}}'>in</a>", True),
        ("MARKETING", "<p>x</p>", False),
        ("TRANSACTIONAL", "<p>x</p>", False),
    ],
)
async def test_headless_mail_without_a_way_out_is_told(shared: Shared, kind: str, body: str, warned: bool) -> None:
    warnings = await _warnings(shared, {"type": kind, "body": body})
    assert any("unsubscribe" in warning for warning in warnings) == warned


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"subject": "{{nothing ?? ''}}"}, "The subject is empty"),
        ({"subject": "x" * 79}, "The subject has 79 characters"),
        ({"body": "{{nothing ?? ''}}"}, "The body is empty"),
        ({"body": "<a href='http://shop.test/a'>x</a>"}, "1 link to an address without https://: http://shop.test/a"),
        ({"body": f"<p>{'x' * 104_448}</p>"}, "The HTML has 10"),
        (
            {"body": "{% for a in (1..50000) %}{% for b in (1..50000) %}x{% endfor %}{% endfor %}"},
            "The body runs into a limit",
        ),
    ],
)
async def test_what_is_likely_not_meant_is_told(shared: Shared, fields: dict[str, str], warning: str) -> None:
    warnings = await _warnings(shared, fields)
    assert [one[: len(warning)] for one in warnings] == [warning]


async def test_contact_must_be_of_the_project(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    theirs = await _contact(shared, "ann@example.net", shared.rival.id, data={"secret": "theirs"})
    for contact_id in (theirs.id, "00000000-0000-4000-8000-000000000001"):
        response = await _preview(shared, template_id, {"contactId": contact_id})
        assert refusal(response) == (404, "CONTACT_NOT_FOUND")
        assert "theirs" not in response.text


async def test_template_must_be_of_the_project(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    assert refusal(await _preview(shared, template_id, {}, shared.rival)) == (404, "TEMPLATE_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"contactId": "ann"}, [("contactId", "invalid_string")]),
        ({"contactId": 5}, [("contactId", "invalid_type")]),
        ({"data": []}, [("data", "invalid_type")]),
        ({"data": "x"}, [("data", "invalid_type")]),
    ],
)
async def test_bad_fields_are_named(shared: Shared, body: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    assert faults(await _preview(shared, template_id, body)) == expected


async def test_null_is_as_good_as_nothing(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    assert (await _preview(shared, template_id, {"data": None, "contactId": None})).status_code == 200


async def test_locale_that_is_no_text_is_refused_as_it_is_when_sending(shared: Shared) -> None:
    template_id = await add_template(shared.relay, shared.acme.id)
    assert refusal(await _preview(shared, template_id, {"data": {"locale": 5}})) == (400, "BAD_REQUEST")
