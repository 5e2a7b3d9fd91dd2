"""How does a message choose options? By X-Plunk-* headers: tag, tracking, template, never twice, lifetime."""

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from plunk_relay.db.tables import deliveries, templates
from plunk_relay.ids import new_id
from tests.kit.relay import Tenant
from tests.kit.smtp import Site, message, submit
from tests.kit.store import rows


@pytest.mark.parametrize(
    ("header", "attribute", "value"),
    [
        ("X-Plunk-Tag: welcome", "tag", "welcome"),
        ("x-plunk-tag:  welcome ", "tag", "welcome"),
        ("X-Plunk-Track: off", "tracked", False),
        ("X-Plunk-Track: No", "tracked", False),
        ("X-Plunk-Track: on", "tracked", True),
        ("X-Plunk-Track: sometimes", "tracked", None),
        ("X-Plunk-Never-Twice: yes", "never_twice", True),
        ("X-Plunk-Never-Twice: no", "never_twice", False),
        ("X-Other: 1", "tag", None),
        ("X-Other: 1", "tracked", None),
        ("X-Other: 1", "never_twice", False),
    ],
)
async def test_a_header_sets_an_option(site: Site, header: str, attribute: str, value: object) -> None:
    assert await submit(site, message(headers=f"{header}\r\n")) == (250, "")
    [mail] = await site.stored()
    assert getattr(mail, attribute) == value


@pytest.mark.parametrize(("header", "seconds"), [("X-Plunk-Expires-In: 300\r\n", 300), ("", 345600)])
@pytest.mark.parametrize("with_template", [False, True], ids=["message", "template"])
async def test_a_header_sets_the_lifetime_in_seconds(site: Site, header: str, seconds: int, with_template: bool) -> None:
    template = f"X-Plunk-Template: {await _add_template(site, site.acme)}\r\n" if with_template else ""
    assert await submit(site, message(headers=header + template)) == (250, "")
    [delivery] = await rows(site.relay, deliveries)
    assert (delivery["expires_at"] - delivery["created_at"]).total_seconds() == seconds


@pytest.mark.parametrize("value", ["29", "0", "345601", "-5", "5 min", "abc", "", "30.5", "\u0663\u0660\u0660", "9" * 900])
async def test_a_lifetime_out_of_bounds_is_refused(site: Site, value: str) -> None:
    code, text = await submit(site, message(headers=f"X-Plunk-Expires-In: {value}\r\n"))
    assert (code, text.split(" ")[0]) == (554, "5.6.0")
    assert "X-Plunk-Expires-In: Must be whole seconds from 30 to 345600" in text
    assert await site.stored() == []


async def test_options_hold_for_every_recipient(site: Site) -> None:
    await submit(site, message(headers="X-Plunk-Tag: a\r\n"), recipients=["ann@example.net", "bob@example.net"])
    assert [mail.tag for mail in await site.stored()] == ["a", "a"]


async def test_a_template_takes_the_place_of_the_body(site: Site) -> None:
    template_id = await _add_template(site, site.acme, body="<p>Hello {{email}}</p>", subject="From the template")
    sent = message("Acme <app@acme.test>", headers=f"X-Plunk-Template: {template_id}\r\nX-Plunk-Track: off\r\n")
    assert await submit(site, sent, recipients=["ann@example.net", "bob@example.net"]) == (250, "")
    mails = await site.stored()
    assert [mail.template_id for mail in mails] == [template_id, template_id]
    assert [mail.content for mail in mails] == [b"<p>Hello ann@example.net</p>", b"<p>Hello bob@example.net</p>"]
    assert {(mail.subject, mail.from_address, mail.from_name, mail.tracked) for mail in mails} == {
        ("Hello", "app@acme.test", "Acme", False)
    }


async def test_the_other_options_hold_beside_a_template(site: Site) -> None:
    template_id = await _add_template(site, site.acme)
    headers = f"X-Plunk-Template: {template_id}\r\nX-Plunk-Tag: welcome\r\nX-Plunk-Never-Twice: yes\r\n"
    assert await submit(site, message(headers=headers)) == (250, "")
    [mail] = await site.stored()
    assert (mail.template_id, mail.tag, mail.never_twice) == (template_id, "welcome", True)


async def test_without_a_subject_the_template_gives_it(site: Site) -> None:
    template_id = await _add_template(site, site.acme, subject="From the template")
    await submit(site, message(subject="", headers=f"X-Plunk-Template: {template_id}\r\n"))
    [mail] = await site.stored()
    assert mail.subject == "From the template"


async def test_the_template_of_another_project_is_not_found(site: Site) -> None:
    template_id = await _add_template(site, site.stage.rival)
    code, text = await submit(site, message(headers=f"X-Plunk-Template: {template_id}\r\n"))
    assert (code, text) == (554, "5.6.0 Template not found")
    assert await site.stored() == []


async def test_a_template_that_is_no_id_is_refused_with_the_reason(site: Site) -> None:
    code, text = await submit(site, message(headers="X-Plunk-Template: welcome\r\n"))
    assert (code, text) == (554, "5.6.0 Request validation failed: template: Invalid uuid")


async def _add_template(site: Site, tenant: Tenant, *, subject: str = "Subject", body: str = "<p>Body</p>") -> str:
    template_id = new_id()

    values: dict[str, Any] = {
        "id": template_id,
        "project_id": tenant.id,
        "name": "Welcome",
        "type": "TRANSACTIONAL",
        "subject": subject,
        "body": body,
        "from_address": f"app@{tenant.domain}",
    }

    def insert(tx: sa.Connection, now: datetime) -> None:
        tx.execute(sa.insert(templates), values | {"created_at": now, "updated_at": now})

    await site.relay.db.write(insert, site.relay.clock.now())
    return template_id
