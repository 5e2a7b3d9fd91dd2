"""Which fields may a request to `/v1/send` have, and how is each wrong value told?"""

import json
from typing import Any

import pytest

from plunk_relay.db.tables import contacts, emails
from tests.api.conftest import Shared
from tests.kit.api import MAIL, faults, refusal, send, sent
from tests.kit.store import add_template, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE: dict[str, Any] = {"filename": "a.pdf", "content": "aGVsbG8=", "contentType": "application/pdf"}
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def attach(**changes: object) -> dict[str, Any]:
    """Return the field `attachments` with one file; `...` leaves a key out."""
    return {"attachments": [{name: value for name, value in (FILE | changes).items() if value is not ...}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"to": ...}, [("to", "invalid_type")], id="to is missing"),
        pytest.param({"to": []}, [("to", "too_small")], id="to is an empty array"),
        pytest.param({"to": "nobody"}, [("to", "invalid_string")], id="to is no address"),
        pytest.param({"to": ""}, [("to", "invalid_string")], id="to is empty"),
        pytest.param({"to": " ann@example.net"}, [("to", "invalid_string")], id="to has a blank before"),
        pytest.param({"to": "ann@example.net "}, [("to", "invalid_string")], id="to has a blank after"),
        pytest.param({"to": "ann@example.net, bob@example.net"}, [("to", "invalid_string")], id="to is a list in a string"),
        pytest.param({"to": "Ann <ann@example.net>"}, [("to", "invalid_string")], id="to has a name in a string"),
        pytest.param(
            {"to": "ann@example.net\r\nBcc: eve@example.net"}, [("to", "invalid_string")], id="to with a line break"
        ),
        pytest.param({"to": 7}, [("to", "invalid_union")], id="to is a number"),
        pytest.param({"to": None}, [("to", "invalid_union")], id="to is null"),
        pytest.param({"to": ["ann@example.net", "bad"]}, [("to.1", "invalid_string")], id="one of many is no address"),
        pytest.param(
            {"to": ["bad", "ann@example.net", 7]},
            [("to.0", "invalid_string"), ("to.2", "invalid_union")],
            id="every bad one is listed",
        ),
        pytest.param({"to": {"name": "Ann"}}, [("to.email", "invalid_type")], id="to has a name alone"),
        pytest.param({"to": {"email": None}}, [("to.email", "invalid_type")], id="the address of to is null"),
        pytest.param({"to": {"email": "bad"}}, [("to.email", "invalid_string")], id="the address of to is none"),
        pytest.param(
            {"to": [{"email": "bad"}]}, [("to.0.email", "invalid_string")], id="the address of one of many is none"
        ),
        pytest.param(
            {"to": {"email": "ann@example.net", "name": 7}}, [("to.name", "invalid_type")], id="to.name is a number"
        ),
        pytest.param(
            {"to": {"email": "ann@example.net", "name": "A\r\nBcc: eve@example.net"}},
            [("to.name", "invalid_string")],
            id="to.name has a line break",
        ),
        pytest.param({"subject": ""}, [("subject", "too_small")], id="subject is empty"),
        pytest.param({"subject": "x" * 999}, [("subject", "too_big")], id="subject has 999 characters"),
        pytest.param({"subject": "a\nb"}, [("subject", "invalid_string")], id="subject has a line feed"),
        pytest.param({"subject": "a\rb"}, [("subject", "invalid_string")], id="subject has a carriage return"),
        pytest.param({"subject": 7}, [("subject", "invalid_type")], id="subject is a number"),
        pytest.param({"subject": ...}, [("template", "custom")], id="neither subject nor template"),
        pytest.param({"body": ""}, [("body", "too_small")], id="body is empty"),
        pytest.param({"body": ["x"]}, [("body", "invalid_type")], id="body is an array"),
        pytest.param({"body": ...}, [("template", "custom")], id="neither body nor template"),
        pytest.param({"template": "welcome"}, [("template", "invalid_string")], id="template is no id"),
        pytest.param({"template": 7}, [("template", "invalid_type")], id="template is a number"),
        pytest.param({"from": "nobody"}, [("from", "invalid_string")], id="from is no address"),
        pytest.param({"from": "a@acme.test@acme.test"}, [("from", "invalid_string")], id="from has two @"),
        pytest.param({"from": 7}, [("from", "invalid_union")], id="from is a number"),
        pytest.param({"from": ["a@acme.test"]}, [("from", "invalid_union")], id="from is an array"),
        pytest.param({"from": {"name": "Acme"}}, [("from.email", "invalid_type")], id="from has a name alone"),
        pytest.param({"from": {"email": "bad"}}, [("from.email", "invalid_string")], id="the address of from is none"),
        pytest.param(
            {"from": {"email": "a@acme.test", "name": "A\nB"}},
            [("from.name", "invalid_string")],
            id="from.name has a line break",
        ),
        pytest.param({"name": "A\r\nB"}, [("name", "invalid_string")], id="name has a line break"),
        pytest.param({"name": 7}, [("name", "invalid_type")], id="name is a number"),
        pytest.param({"reply": "bad"}, [("reply", "invalid_string")], id="reply is no address"),
        pytest.param({"reply": {"email": "a@b.test"}}, [("reply", "invalid_type")], id="reply is an object"),
        pytest.param({"subscribed": "true"}, [("subscribed", "invalid_type")], id="subscribed is a string"),
        pytest.param({"subscribed": 1}, [("subscribed", "invalid_type")], id="subscribed is a number"),
        pytest.param({"tracking": "off"}, [("tracking", "invalid_type")], id="tracking is a string"),
        pytest.param({"expiresIn": 29}, [("expiresIn", "too_small")], id="a lifetime of 29 seconds"),
        pytest.param({"expiresIn": 0}, [("expiresIn", "too_small")], id="no lifetime"),
        pytest.param({"expiresIn": -60}, [("expiresIn", "too_small")], id="a lifetime before birth"),
        pytest.param({"expiresIn": 345601}, [("expiresIn", "too_big")], id="a lifetime of more than four days"),
        pytest.param({"expiresIn": 90.5}, [("expiresIn", "invalid_type")], id="a lifetime with half a second"),
        pytest.param({"expiresIn": "300"}, [("expiresIn", "invalid_type")], id="a lifetime in a string"),
        pytest.param({"expiresIn": True}, [("expiresIn", "invalid_type")], id="a lifetime that is true"),
        pytest.param({"data": ["x"]}, [("data", "invalid_type")], id="data is an array"),
        pytest.param({"data": "x"}, [("data", "invalid_type")], id="data is a string"),
        pytest.param({"headers": ["X: y"]}, [("headers", "invalid_type")], id="headers are an array"),
        pytest.param({"headers": {"X-A": 7}}, [("headers.X-A", "invalid_type")], id="a header is a number"),
        pytest.param({"headers": {"": "x"}}, [("headers", "invalid_string")], id="a header has no name"),
        pytest.param(
            {"headers": {"X-A\r\nBcc": "x"}}, [("headers.X-A\r\nBcc", "invalid_string")], id="line break in a name"
        ),
        pytest.param(
            {"headers": {"X-A": "x\nBcc: e@x.test"}}, [("headers.X-A", "invalid_string")], id="line break in a header"
        ),
        pytest.param({"headers": {"X-A": "x" * 999}}, [("headers.X-A", "too_big")], id="a header has 999 characters"),
        pytest.param({"headers": {"x-plunk-tag": "x"}}, [("headers.x-plunk-tag", "custom")], id="a header is ours"),
        pytest.param({"attachments": FILE}, [("attachments", "invalid_type")], id="attachments are an object"),
        pytest.param({"attachments": [FILE] * 11}, [("attachments", "custom")], id="11 attachments"),
        pytest.param(attach(filename=...), [("attachments.0.filename", "invalid_type")], id="no filename"),
        pytest.param(attach(filename=""), [("attachments.0.filename", "too_small")], id="filename is empty"),
        pytest.param(attach(filename="x" * 256), [("attachments.0.filename", "too_big")], id="filename has 256 characters"),
        pytest.param(attach(filename='a".pdf'), [("attachments.0.filename", "invalid_string")], id="filename has a quote"),
        pytest.param(
            attach(filename="a\r\n.pdf"), [("attachments.0.filename", "invalid_string")], id="filename has a line break"
        ),
        pytest.param(attach(content=...), [("attachments.0.content", "invalid_type")], id="no content"),
        pytest.param(attach(content=""), [("attachments.0.content", "too_small")], id="content is empty"),
        pytest.param(attach(content="%%%"), [("attachments.0.content", "invalid_string")], id="content is no base64"),
        pytest.param(attach(contentType=...), [("attachments.0.contentType", "invalid_type")], id="no contentType"),
        pytest.param(attach(contentType=""), [("attachments.0.contentType", "too_small")], id="contentType is empty"),
        pytest.param(attach(contentType="x" * 256), [("attachments.0.contentType", "too_big")], id="contentType is long"),
        pytest.param(attach(disposition="hidden"), [("attachments.0.disposition", "invalid_enum_value")], id="disposition"),
        pytest.param(attach(disposition="inline"), [("attachments.0.contentId", "custom")], id="inline without contentId"),
        pytest.param(attach(contentId=""), [("attachments.0.contentId", "too_small")], id="contentId is empty"),
        pytest.param(
            attach(contentId="x" * 256), [("attachments.0.contentId", "too_big")], id="contentId has 256 characters"
        ),
        pytest.param(
            attach(contentId="<logo>"), [("attachments.0.contentId", "invalid_string")], id="contentId has brackets"
        ),
        pytest.param(
            attach(contentId="a\r\nb"), [("attachments.0.contentId", "invalid_string")], id="contentId has a line break"
        ),
    ],
)
async def test_wrong_field_is_told_by_path_and_code(
    shared: Shared, fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert faults(await send(shared.http, shared.acme, fields)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"to": ["ann@example.net", {"email": "bob@example.net", "name": "Bob"}]}, id="both forms in one array"),
        pytest.param({"to": {"email": "ann@example.net", "name": None}}, id="no name"),
        pytest.param({"to": "ann+tag@sub.example.net"}, id="a tag"),
        pytest.param({"to": "jörg@example.net"}, id="letters beyond ASCII"),
        pytest.param({"subject": "x" * 998}, id="998 characters of subject"),
        pytest.param({"from": "Hello@ACME.test"}, id="capitals in the sender"),
        pytest.param({"from": {"email": "hello@acme.test"}}, id="a sender without a name"),
        pytest.param({"headers": {"X-A": "x" * 998}}, id="998 characters of header"),
        pytest.param({"attachments": [FILE] * 10}, id="10 attachments"),
        pytest.param(attach(content="aGVs\r\nbG8="), id="base64 in lines"),
        pytest.param(attach(contentId="logo"), id="a contentId that is not needed"),
        pytest.param({"data": {"a": [1, 2.5, None, {"b": True}]}}, id="all JSON types"),
        pytest.param({"data": {}}, id="empty data"),
        pytest.param({"tracking": False}, id="tracking off"),
        pytest.param({"unknown": 1, "sender": "eve@evil.test", "cc": "bad"}, id="unknown keys"),
    ],
)
async def test_right_fields_are_taken(shared: Shared, fields: dict[str, Any]) -> None:
    await sent(shared.http, shared.acme, fields)


async def test_all_field_errors_are_listed_at_once(shared: Shared) -> None:
    response = await send(
        shared.http, shared.acme, {"to": "bad", "subject": "", "headers": {"X-A": 1, "X-B": "\n"}, "name": 7}
    )
    assert set(faults(response)) == {
        ("to", "invalid_string"),
        ("subject", "too_small"),
        ("headers.X-A", "invalid_type"),
        ("headers.X-B", "invalid_string"),
        ("name", "invalid_type"),
    }


async def test_attachments_are_limited_by_their_size_together(shared: Shared) -> None:
    most = 10 * 1024 * 1024 * 4 // 3 - 1  # of base64, rounded down to whole groups of four
    half = {**FILE, "content": "A" * (most // 2 // 4 * 4)}
    assert (await send(shared.http, shared.acme, {"attachments": [half, half]})).status_code == 200
    response = await send(shared.http, shared.acme, {"attachments": [half, half, FILE]})
    assert faults(response) == [("attachments", "custom")]


@pytest.mark.parametrize("opener", ['{"a":', "["], ids=["objects", "arrays"])
async def test_data_beyond_a_hundred_levels_is_refused(shared: Shared, opener: str) -> None:
    closer = "}" if opener.startswith("{") else "]"
    deep = opener * 300 + "1" + closer * 300
    body = json.dumps(MAIL).removesuffix("}") + f', "data": {{"x": {deep}}}}}'
    response = await shared.http.post("/v1/send", headers=shared.acme.headers, content=body)
    assert faults(response) == [("data", "custom")]


@pytest.mark.parametrize(
    ("fields", "received"),
    [
        ({"to": ...}, "undefined"),
        ({"to": {"name": "Ann"}}, "undefined"),
        ({"to": {"email": 7}}, "number"),
        ({"subject": 7}, "number"),
        ({"subject": True}, "boolean"),
        ({"subject": []}, "array"),
        ({"subject": {}}, "object"),
        ({"data": "x"}, "string"),
        ({"attachments": [None]}, "null"),
        ({"headers": {"X-A": 1.5}}, "number"),
    ],
)
async def test_a_wrong_type_names_what_was_received(shared: Shared, fields: dict[str, Any], received: str) -> None:
    response = await send(shared.http, shared.acme, fields)
    assert [fault["received"] for fault in response.json()["error"]["errors"]] == [received]
    assert "incorrect types" in response.json()["error"]["suggestion"]


@pytest.mark.parametrize("fields", [{"subject": ""}, {"to": "bad"}, {"template": "x"}])
async def test_only_wrong_types_name_what_was_received(shared: Shared, fields: dict[str, Any]) -> None:
    response = await send(shared.http, shared.acme, fields)
    assert ["received" in fault for fault in response.json()["error"]["errors"]] == [False]


async def test_a_missing_field_is_called_required(shared: Shared) -> None:
    response = await send(shared.http, shared.acme, {"to": ...})
    assert response.json()["error"]["errors"][0]["message"] == "Required"


async def test_a_refused_request_writes_nothing(shared: Shared) -> None:
    before = len(await rows(shared.relay, emails)), len(await rows(shared.relay, contacts))
    await send(shared.http, shared.acme, {"to": ["new@example.net", "bad"]})
    await send(shared.http, shared.acme, {"to": "new@example.net", "from": "new@unknown.test"})
    await send(shared.http, shared.acme, {"to": "new@example.net", "template": UNKNOWN_ID})
    assert (len(await rows(shared.relay, emails)), len(await rows(shared.relay, contacts))) == before


@pytest.mark.parametrize("domain", ["unknown.test", "rival.test", "mail.acme.test", "test"])
async def test_sender_domain_must_be_a_verified_one_of_the_project_exactly(shared: Shared, domain: str) -> None:
    response = await send(shared.http, shared.acme, {"from": f"hello@{domain}"})
    assert refusal(response) == (403, "FORBIDDEN")


@pytest.mark.parametrize("of", ["nobody", "rival"])
async def test_template_must_be_of_the_project(shared: Shared, of: str) -> None:
    template = UNKNOWN_ID if of == "nobody" else await add_template(shared.relay, shared.rival.id)
    response = await send(shared.http, shared.acme, {"template": template})
    assert refusal(response) == (404, "TEMPLATE_NOT_FOUND")
    assert response.json()["error"]["details"] == {"resource": "Template", "id": template}
    assert "suggestion" in response.json()["error"]


async def test_template_sender_without_exactly_one_at_sign_is_a_bad_request(shared: Shared) -> None:
    template = await add_template(shared.relay, shared.acme.id, from_address='"a@b"@acme.test')
    assert refusal(await send(shared.http, shared.acme, {"template": template})) == (400, "BAD_REQUEST")


async def test_locale_must_be_a_string(shared: Shared) -> None:
    assert refusal(await send(shared.http, shared.acme, {"data": {"locale": 7}})) == (400, "BAD_REQUEST")
