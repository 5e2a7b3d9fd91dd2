"""Which bytes leave? What was submitted as it was kept, what came by the API composed; the same at every attempt."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import orjson
import pytest

from plunk_relay.db.tables import emails
from plunk_relay.delivery.outcomes import Failed
from plunk_relay.delivery.prepare import Draft, build_message, gather_draft, sign_draft
from plunk_relay.domains.actions import Identity, rotate_keys
from plunk_relay.domains.queries import list_domains
from plunk_relay.emails.actions import PRIORITY_TRANSACTIONAL
from plunk_relay.emails.queries import Email
from plunk_relay.emails.queue import Claim, Claimed, claim_due
from plunk_relay.mail.dkim import DkimKey, generate_ed25519_pem, load_key, public_record, verify
from plunk_relay.mail.footer import footer_html
from plunk_relay.projects.actions import disable_project
from plunk_relay.projects.queries import Project
from tests.kit.outbox import MESSAGE, Outbox
from tests.kit.relay import NOON
from tests.kit.store import add_template, change

EMAIL = Email(
    id="mail-1",
    project_id="project-1",
    contact_id="contact-1",
    recipient="ann@example.org",
    to_name=None,
    subject="Hello",
    from_address="news@acme.test",
    from_name=None,
    reply_to=None,
    headers=None,
    content_id="content-1",
    attachments_id=None,
    message_id="mail-1@acme.test",
    mail_class="transactional",
    tag=None,
    tracked=None,
    source_type="TRANSACTIONAL",
    template_id=None,
    campaign_id=None,
    status="SENDING",
    error=None,
    sent_at=None,
    delivered_at=None,
    created_at=NOON,
)
ATTACHMENT = {
    "filename": "a.txt",
    "content": "eA==",
    "contentType": "text/plain",
    "disposition": "attachment",
    "contentId": None,
}
UNSUBSCRIBE = "http://relay.test/unsubscribe/contact-1?e=mail-1"


@pytest.fixture(scope="module")
def key() -> DkimKey:
    return load_key("e1", "ed25519-sha256", generate_ed25519_pem())


def test_a_submitted_message_is_sent_as_it_was_kept_and_signed(key: DkimKey) -> None:
    kept = b"Received: x\r\nFrom: news@acme.test\r\nX-Odd:  kept  as\tit is\r\n\r\nnot HTML <p>\r\n.\r\n"
    built = build_message(_draft(key, kind="MIME", content=kept))
    assert built.endswith(b"\r\n" + kept)
    assert built.removesuffix(kept).startswith(b"DKIM-Signature: ")
    assert verify(built, find_txt=_record(key)) == [True]


def test_an_api_mail_is_composed_from_its_row_and_signed(key: DkimKey) -> None:
    email = replace(
        EMAIL, to_name="Ann Lee", from_name="News", reply_to="help@acme.test", subject="Grüße", headers={"X-A": "b"}
    )
    draft = _draft(key, email=email, content="<p>Hi Zoë</p>".encode())
    message = _read(build_message(draft))
    assert message["To"] == "Ann Lee <ann@example.org>"
    assert message["From"] == "News <news@acme.test>"
    assert message["Reply-To"] == "help@acme.test"
    assert message["Subject"] == "Grüße"
    assert message["X-A"] == "b"
    assert message["Message-ID"] == "<mail-1@acme.test>"
    assert message["Date"].datetime == NOON
    assert "Hi Zoë" in _html(message)
    assert verify(build_message(draft), find_txt=_record(key)) == [True]


def test_a_mail_without_a_senders_name_is_from_the_project(key: DkimKey) -> None:
    assert _read(build_message(_draft(key)))["From"] == "Acme <news@acme.test>"


def test_attachments_go_along(key: DkimKey) -> None:
    inline = {"filename": "b.png", "content": base64.b64encode(b"\x89").decode(), "contentType": "image/png"}
    data = orjson.dumps([ATTACHMENT, inline | {"disposition": "inline", "contentId": "logo"}])
    message = _read(build_message(_draft(key, attachments=data)))
    assert message.get_content_type() == "multipart/mixed"
    [file] = message.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("a.txt", "x")
    assert [part["Content-ID"] for part in message.walk() if part.get_content_type() == "image/png"] == ["<logo>"]


def test_each_key_of_the_domain_signs(key: DkimKey) -> None:
    other = load_key("e2", "ed25519-sha256", generate_ed25519_pem())
    built = build_message(_draft(key, other))
    assert verify(built, find_txt=_record(key, other)) == [True, True]


@pytest.mark.parametrize("kind", ["HTML", "MIME"])
def test_another_attempt_sends_the_same_bytes(kind: str, key: DkimKey) -> None:
    draft = _draft(key, kind=kind, content=MESSAGE, attachments=orjson.dumps([ATTACHMENT]))
    later = replace(draft.claimed, attempts=7, unknown_outcomes=1, expires_at=NOON + timedelta(days=9))
    assert build_message(draft) == build_message(replace(draft, claimed=later))


def test_a_plain_fragment_becomes_a_document_and_a_document_stays(key: DkimKey) -> None:
    assert _html(_read(build_message(_draft(key, content=b"<p>x</p>")))).startswith("<!doctype html>")
    own = "<html><body>own</body></html>\n"
    assert _html(_read(build_message(_draft(key, content=own.encode())))) == own


def test_marketing_mail_has_a_footer_and_says_that_it_is_bulk(key: DkimKey) -> None:
    message = _read(build_message(_draft(key, email=replace(EMAIL, mail_class="marketing"))))
    html, text = _html(message), _text(message)
    assert f'href="{UNSUBSCRIBE}"' in html
    assert html.startswith("<!doctype html>")
    assert html.index("Hi") < html.index("Acme") < html.index("</body>")
    assert f"Unsubscribe ({UNSUBSCRIBE})" in text
    assert message["List-Unsubscribe"] == f"<{UNSUBSCRIBE}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Precedence"] == "bulk"


@pytest.mark.parametrize("mail_class", ["transactional", "headless"])
def test_other_mail_has_no_footer_and_says_how_to_leave_only_when_its_text_does(mail_class: str, key: DkimKey) -> None:
    email = replace(EMAIL, mail_class=mail_class)
    plain = _read(build_message(_draft(key, email=email)))
    assert "unsubscribe" not in _html(plain).lower()
    assert plain["List-Unsubscribe"] is None
    linked = _draft(key, email=email, content=f"<p><a href='{UNSUBSCRIBE}'>leave</a></p>".encode())
    assert _read(build_message(linked))["List-Unsubscribe"] == f"<{UNSUBSCRIBE}>"


def test_a_campaigns_mail_is_bulk_whatever_its_class(key: DkimKey) -> None:
    message = _read(build_message(_draft(key, email=replace(EMAIL, campaign_id="campaign-1", mail_class="headless"))))
    assert (message["Precedence"], message["List-Unsubscribe"]) == ("bulk", None)


@pytest.mark.parametrize(
    ("chosen", "mailing"),
    [
        ({}, "transactional"),
        ({"template_id": "template-1"}, "template-1"),
        ({"template_id": "template-1", "campaign_id": "campaign-1"}, "campaign-1"),
    ],
)
def test_providers_can_count_complaints_by_mailing_kind_and_sender(
    key: DkimKey, chosen: dict[str, str], mailing: str
) -> None:
    email = replace(EMAIL, project_id="01890a5d-ac96-774b-bcce-b302099a8057", **chosen)  # type: ignore[arg-type]  # texts
    built = build_message(_draft(key, email=email))
    assert _read(built)["Feedback-ID"] == f"{mailing}:transactional:b302099a8057"
    assert b"feedback-id" in built.partition(b"\r\n\r\n")[0].partition(b"h=")[2].partition(b";")[0]


def test_a_feedback_id_of_the_caller_is_kept(key: DkimKey) -> None:
    email = replace(EMAIL, headers={"Feedback-ID": "a:b:c:sender"})
    assert _read(build_message(_draft(key, email=email)))["Feedback-ID"] == "a:b:c:sender"


@pytest.mark.parametrize(
    ("language", "link"),
    [
        ("en", "Unsubscribe"),
        ("de", "Abmelden"),
        ("de-AT", "Abmelden"),
        ("pt_BR", "Cancelar subscrição"),
        ("FR", "Se désabonner"),
        ("tlh", "Unsubscribe"),
        ("", "Unsubscribe"),
    ],
)
def test_the_footer_speaks_the_readers_language(language: str, link: str) -> None:
    assert f">{link}</a>" in footer_html(project_name="Acme", language=language, url="http://x.test")


def test_a_projects_name_is_text_in_the_footer() -> None:
    footer = footer_html(project_name="<b>{0} & Co", language="en", url='http://x.test/?a="b"&c')
    assert "&lt;b&gt;{0} &amp; Co" in footer
    assert 'href="http://x.test/?a=&quot;b&quot;&amp;c"' in footer


@pytest.mark.parametrize(
    "fault",
    [
        {"content": b"\xff\xfe not UTF-8"},
        {"attachments": b"not JSON"},
        {"attachments": b'[{"filename": "only"}]'},
        {"attachments": b'["text"]'},
        {"attachments": b"5"},
        {"attachments": orjson.dumps([ATTACHMENT | {"content": "not base64"}])},
        {"attachments": orjson.dumps([ATTACHMENT | {"filename": None}])},
    ],
)
async def test_one_that_cannot_be_built_has_failed(fault: dict[str, Any], key: DkimKey) -> None:
    bad = await sign_draft(_draft(key, **fault))
    assert isinstance(bad, Failed)
    assert bad.text.startswith("The message cannot be composed")


async def test_a_large_one_is_signed_like_a_small_one_in_a_thread(key: DkimKey) -> None:
    for size in (10, 200_000):
        draft = _draft(key, content=b"<p>" + b"word " * size + b"</p>")
        assert await sign_draft(draft) == build_message(draft)


async def test_a_draft_has_what_the_claim_did_not_read(outbox: Outbox) -> None:
    body = "<p>" + "long " * 30_000 + "</p>"
    file = {"filename": "a.txt", "content": "eA==", "contentType": "text/plain"}
    await outbox.send(body=body, attachments=[file])
    claimed = await _claim(outbox)
    assert claimed.content is None
    draft = await gather_draft(outbox.relay, claimed)
    assert isinstance(draft, Draft)
    message = _read(build_message(draft))
    assert message["Subject"] == "Hello"
    assert body in _html(message).replace("=\n", "")
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]


async def test_marketing_mail_is_in_the_contacts_language_else_the_projects(outbox: Outbox) -> None:
    template = await add_template(outbox.relay, outbox.acme.id, type="MARKETING")
    for data in ({"locale": "de"}, {}):
        await outbox.send(template=template, subscribed=True, data=data, to=[f"a{len(data)}@example.org"])
    drafts = [await gather_draft(outbox.relay, await _claim(outbox)) for _ in range(2)]
    assert sorted(draft.language for draft in drafts if isinstance(draft, Draft)) == ["de", "en"]


async def test_mail_of_a_disabled_project_is_not_sent(outbox: Outbox) -> None:
    await outbox.send()
    claimed = await _claim(outbox)
    await disable_project(outbox.relay, outbox.acme.id)
    assert await gather_draft(outbox.relay, claimed) == Failed("Project is disabled")


@pytest.mark.parametrize("domain", ["rival.test", "unknown.test", "sub.acme.test"])
async def test_mail_from_what_is_not_a_verified_domain_of_the_project_is_not_sent(domain: str, outbox: Outbox) -> None:
    [mail] = await outbox.send()
    await change(outbox.relay, emails, mail.email_id, from_address=f"app@{domain}")
    draft = await gather_draft(outbox.relay, await _claim(outbox))
    assert draft == Failed(f"The sender's domain {domain} is not verified")


async def test_mail_whose_content_is_gone_is_not_sent(outbox: Outbox) -> None:
    [mail] = await outbox.send()
    await change(outbox.relay, emails, mail.email_id, content_id=None)
    assert await gather_draft(outbox.relay, await _claim(outbox)) == Failed("The content of this mail is gone")


async def test_the_keys_that_sign_are_those_of_the_moment(outbox: Outbox) -> None:
    await outbox.send()
    claimed = await _claim(outbox)
    before = await gather_draft(outbox.relay, claimed)
    [domain] = await outbox.relay.db.read(list_domains, outbox.acme.id)
    await rotate_keys(outbox.relay, domain)
    after = await gather_draft(outbox.relay, claimed)
    assert isinstance(before, Draft)
    assert isinstance(after, Draft)
    assert {key.selector for key in before.identity.keys}.isdisjoint(key.selector for key in after.identity.keys)
    assert verify(build_message(after), find_txt=_record(*after.identity.keys)) == [True] * len(after.identity.keys)


def _draft(
    *keys: DkimKey,
    email: Email = EMAIL,
    kind: str = "HTML",
    content: bytes = b"<p>Hi</p>",
    attachments: bytes | None = None,
) -> Draft:
    claimed = Claimed(
        id="delivery-1",
        project_id="project-1",
        sender="news@acme.test",
        recipient="ann@example.org",
        domain="example.org",
        attempts=0,
        dot_sent_at=None,
        unknown_outcomes=0,
        never_twice=False,
        expires_at=NOON + timedelta(days=4),
        created_at=NOON,
        email=email,
        kind=kind,
        content=content,
        priority=PRIORITY_TRANSACTIONAL,
        tls_wish=None,
        notify=False,
        delay_notified_at=None,
        last_address=None,
        suppressed=None,
    )
    project = Project("project-1", "Acme", "", "", False, None, "ENABLED", "en", None, NOON, NOON)
    identity = Identity("domain-1", "acme.test", True, keys)
    return Draft(claimed, project, identity, content, attachments, "en", "http://relay.test")


async def _claim(outbox: Outbox) -> Claimed:
    now = outbox.relay.clock.now()
    [claimed] = await outbox.relay.db.write(claim_due, Claim("test", now, now + timedelta(hours=1), 1))
    return claimed


def _record(*keys: DkimKey) -> Callable[[bytes], bytes | None]:
    """Publish keys."""
    return {f"{key.selector}._domainkey.acme.test.".encode(): public_record(key).encode() for key in keys}.get


def _read(message: bytes) -> EmailMessage:
    return message_from_bytes(message, policy=default)


def _html(message: EmailMessage) -> str:
    return _body(message, "html")


def _text(message: EmailMessage) -> str:
    return _body(message, "plain")


def _body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")
