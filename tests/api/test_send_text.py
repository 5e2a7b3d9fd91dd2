"""What does a mail of `/v1/send` say? Its placeholders, filled once for each recipient."""

from typing import Any

import pytest

from plunk_relay.db.tables import contents, emails
from plunk_relay.ids import new_id
from tests.api.conftest import Shared
from tests.kit.api import sent
from tests.kit.store import rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("body", "data", "expected"),
    [
        ("Hi {{name}}", {"name": "Ann"}, "Hi Ann"),
        ("Hi {{ name }}", {"name": "Ann"}, "Hi Ann"),
        ("Hi {{data.name}}", {"name": "Ann"}, "Hi Ann"),
        ("Hi {{name ?? there}}", {}, "Hi there"),
        ('Hi {{name ?? "you there"}}', {}, "Hi you there"),
        ("Hi {{name}}!", {}, "Hi !"),
        ("{% if pro %}pro{% else %}free{% endif %}", {"pro": {"value": True, "persistent": False}}, "pro"),
        ("{% for i in items %}<{{i}}>{% endfor %}", {"items": {"value": ["a", "b"], "persistent": False}}, "<a><b>"),
        ("{{a.b.c}}", {"a": {"b": {"c": 3}}}, "3"),
        ("{{email}}", {"email": "eve@evil.test"}, "<address>"),
        ("{{id}}{{plunk_id}}", {"id": "x", "plunk_id": "y"}, "<contact><contact>"),
        ("{{subscribed}}", {"subscribed": True}, "false"),
        ("{{locale ?? none}}", {}, "none"),
        ("{{locale}}", {"locale": "de-AT"}, "de-AT"),
        ("{{unsubscribeUrl}}", {"unsubscribeUrl": "x"}, "http://relay.test/unsubscribe/<contact>?e=<mail>"),
        ("{{subscribeUrl}}", {}, "http://relay.test/subscribe/<contact>?e=<mail>"),
        ("{{manageUrl}}", {}, "http://relay.test/manage/<contact>?e=<mail>"),
        ("{{unclosed", {}, "{{unclosed"),
        ("{% if x %}{{name}}", {"name": "Ann"}, "{% if x %}Ann"),
        ("{% nonsense %}{{name}}", {"name": "Ann"}, "{% nonsense %}Ann"),
    ],
)
async def test_placeholders_are_filled(shared: Shared, body: str, data: dict[str, Any], expected: str) -> None:
    assert (await _render(shared, {"body": body, "data": data}))[1] == expected


@pytest.mark.parametrize(
    "value",
    ["{{email}}", "{{unsubscribeUrl}}", "{% for i in (1..9) %}x{% endfor %}", "{{'a' | upcase}}", "{{{{email}}}}"],
)
async def test_placeholders_inside_values_are_text(shared: Shared, value: str) -> None:
    fields = {"subject": "{{note}}", "body": "{{note}}|{{data.note}}|{{name}}", "data": {"note": value}}
    subject, body = await _render(shared, fields | {"to": {"email": "inject@example.net", "name": value}})
    assert (subject, body) == (value, f"{value}|{value}|{value}")


async def test_values_stored_with_the_contact_are_text_too(shared: Shared) -> None:
    await sent(shared.http, shared.acme, {"to": "stored@example.net", "data": {"note": "{{email}}"}})
    assert (await _render(shared, {"to": "stored@example.net", "body": "{{note}}"}))[1] == "{{email}}"


@pytest.mark.parametrize("path", ["data.__class__", "email.__class__", "data.items", "email.upper", "data.keys"])
async def test_nothing_but_values_is_in_reach(shared: Shared, path: str) -> None:
    assert (await _render(shared, {"body": f"[{{{{{path}}}}}]"}))[1] == "[]"


async def test_endless_template_falls_back_to_plain_placeholders(shared: Shared) -> None:
    loops = "{% for a in (1..9999) %}{% for b in (1..9999) %}x{% endfor %}{% endfor %}{{name}}"
    assert (await _render(shared, {"body": loops, "data": {"name": "Ann"}}))[1].endswith("{% endfor %}{% endfor %}Ann")


async def test_each_recipient_reads_their_own_text(shared: Shared) -> None:
    await sent(shared.http, shared.acme, {"to": "one@example.net", "data": {"city": "Rome"}})
    await sent(shared.http, shared.acme, {"to": "two@example.net", "data": {"city": "Oslo"}})
    to = ["one@example.net", {"email": "two@example.net", "name": "Two"}]
    done = await sent(shared.http, shared.acme, {"to": to, "subject": "{{name ?? you}}", "body": "{{email}} in {{city}}"})
    assert [await _text(shared, one) for one in done] == [
        ("you", "one@example.net in Rome"),
        ("Two", "two@example.net in Oslo"),
    ]


async def test_data_of_the_request_goes_before_stored_data(shared: Shared) -> None:
    await sent(shared.http, shared.acme, {"to": "old@example.net", "data": {"city": "Rome", "plan": "pro"}})
    fields = {"to": "old@example.net", "body": "{{city}} {{plan}}", "data": {"city": "Oslo"}}
    assert (await _render(shared, fields))[1] == "Oslo pro"


@pytest.mark.parametrize("value", ["", None])
async def test_empty_values_override_stored_ones_for_this_mail(shared: Shared, value: str | None) -> None:
    await sent(shared.http, shared.acme, {"to": "void@example.net", "data": {"city": "Rome"}})
    fields = {"to": "void@example.net", "body": "[{{city}}]", "data": {"city": value}}
    assert (await _render(shared, fields))[1] == "[]"


async def test_new_contact_reads_the_consent_of_the_request(shared: Shared) -> None:
    fields = {"to": "yes@example.net", "body": "{{subscribed}}", "subscribed": True}
    assert (await _render(shared, fields))[1] == "true"


async def test_line_breaks_of_values_do_not_reach_the_subject(shared: Shared) -> None:
    fields = {"subject": "Hi {{name}}", "data": {"name": "Ann\r\nBcc: eve@evil.test\nX: y"}}
    subject, _ = await _render(shared, fields)
    assert "\n" not in subject
    assert "\r" not in subject


async def _render(shared: Shared, fields: dict[str, Any]) -> tuple[str, str]:
    """Send to one recipient, a new one unless `fields` name one; return subject and body, with words for address and ids."""
    [done] = await sent(shared.http, shared.acme, {"to": f"{new_id()}@example.net"} | fields)
    subject, body = await _text(shared, done)
    contact, mail = done["contact"], done["email"]
    body = body.replace(contact["email"], "<address>").replace(contact["id"], "<contact>").replace(mail, "<mail>")
    return subject, body


async def _text(shared: Shared, done: dict[str, Any]) -> tuple[str, str]:
    [mail] = await rows(shared.relay, emails, id=done["email"])
    [content] = await rows(shared.relay, contents, id=mail["content_id"])
    return mail["subject"], content["data"].decode()
