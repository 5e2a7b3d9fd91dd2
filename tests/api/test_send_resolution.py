"""From whom, with which text and of which class is a mail? Request before template, template before default."""

from typing import Any

import orjson
import pytest

from plunk_relay.db.tables import contents, emails
from tests.api.conftest import Shared
from tests.kit.api import sent
from tests.kit.store import add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"from": "a@acme.test"}, ("a@acme.test", None)),
        ({"from": "a@acme.test", "name": "Outer"}, ("a@acme.test", "Outer")),
        ({"from": {"email": "a@acme.test", "name": "Inner"}}, ("a@acme.test", "Inner")),
        ({"from": {"email": "a@acme.test", "name": "Inner"}, "name": "Outer"}, ("a@acme.test", "Inner")),
        ({"from": {"email": "a@acme.test"}, "name": "Outer"}, ("a@acme.test", "Outer")),
        ({"name": "Outer"}, ("no-reply@acme.test", "Outer")),
        ({"from": "A@ACME.test"}, ("A@ACME.test", None)),
    ],
)
async def test_sender_is_the_address_given_with_the_innermost_name(
    shared: Shared, fields: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    mail = await _send_one(shared, fields)
    assert (mail["from_address"], mail["from_name"]) == expected


TEMPLATE = {
    "subject": "Template subject",
    "body": "<p>Template body</p>",
    "from_address": "template@acme.test",
    "from_name": "Template",
    "reply_to": "reply@acme.test",
}


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, {}),
        ({"subject": "Mine"}, {"subject": "Mine"}),
        ({"body": "<p>Mine</p>"}, {"body": "<p>Mine</p>"}),
        ({"from": "mine@acme.test"}, {"from_address": "mine@acme.test"}),
        ({"from": {"email": "mine@acme.test", "name": "Mine"}}, {"from_address": "mine@acme.test", "from_name": "Mine"}),
        ({"name": "Mine"}, {"from_name": "Mine"}),
        ({"reply": "mine@acme.test"}, {"reply_to": "mine@acme.test"}),
    ],
)
async def test_request_overrides_the_template_field_by_field(
    shared: Shared, fields: dict[str, Any], changed: dict[str, str]
) -> None:
    template = await add_template(shared.relay, shared.acme.id, **TEMPLATE)
    mail = await _send_one(shared, {"subject": ..., "body": ..., "template": template.upper()} | fields)
    body = (await _load(shared, mail["content_id"])).decode()
    shown = {name: mail[name] for name in TEMPLATE if name != "body"} | {"body": body}
    assert shown == TEMPLATE | changed
    assert mail["template_id"] == template


@pytest.mark.parametrize(
    ("template_type", "mail_class"),
    [("TRANSACTIONAL", "transactional"), ("HEADLESS", "headless"), ("MARKETING", "marketing"), (None, "transactional")],
)
async def test_template_type_decides_the_class_of_the_mail(
    shared: Shared, template_type: str | None, mail_class: str
) -> None:
    fields = {"template": await add_template(shared.relay, shared.acme.id, type=template_type)} if template_type else {}
    mail = await _send_one(shared, {"subscribed": True, **fields})
    assert (mail["mail_class"], mail["source_type"]) == (mail_class, "TRANSACTIONAL")


@pytest.mark.parametrize("template_type", ["TRANSACTIONAL", "HEADLESS"])
async def test_only_marketing_asks_for_a_subscription(shared: Shared, template_type: str) -> None:
    template = await add_template(shared.relay, shared.acme.id, type=template_type)
    await _send_one(shared, {"to": "bob@example.net", "template": template, "subscribed": False})


async def test_headers_reply_and_tracking_are_kept_for_delivery(shared: Shared) -> None:
    mail = await _send_one(shared, {"headers": {"X-A": "b"}, "reply": "r@example.org", "tracking": False})
    assert (mail["headers"], mail["reply_to"], mail["tracked"]) == ({"X-A": "b"}, "r@example.org", False)


async def test_what_all_recipients_share_is_stored_once(shared: Shared) -> None:
    file = {"filename": "logo.png", "content": "aGk=", "contentType": "image/png", "disposition": "inline", "contentId": "l"}
    done = await sent(shared.http, shared.acme, {"to": ["ann@example.net", "bob@example.net"], "attachments": [file]})
    ann, bob = [(await rows(shared.relay, emails, id=one["email"]))[0] for one in done]
    assert (ann["content_id"], ann["attachments_id"]) == (bob["content_id"], bob["attachments_id"])
    assert orjson.loads(await _load(shared, ann["attachments_id"])) == [file]


async def test_message_id_is_of_the_sender_domain(shared: Shared) -> None:
    mail = await _send_one(shared, {})
    assert mail["message_id"] == f"{mail['id']}@acme.test"


async def _send_one(shared: Shared, fields: dict[str, Any]) -> dict[str, Any]:
    """Send to one recipient and return the row of the mail."""
    [done] = await sent(shared.http, shared.acme, fields)
    [mail] = await rows(shared.relay, emails, id=done["email"])
    return mail


async def _load(shared: Shared, content_id: str) -> bytes:
    [content] = await rows(shared.relay, contents, id=content_id)
    data: bytes = content["data"]
    return data
