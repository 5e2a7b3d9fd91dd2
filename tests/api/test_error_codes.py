"""Does the page about errors name every code, and say what to do about it?"""

import re

import httpx2
import pytest

from plunk_relay import errors
from plunk_relay.errors import FIELD_CODES, RelayError, SetupError
from plunk_relay.web.error_codes import UNSENT, list_codes

DOCUMENTED = """
UNAUTHORIZED INVALID_CREDENTIALS MISSING_AUTH INVALID_API_KEY FORBIDDEN PROJECT_ACCESS_DENIED PROJECT_DISABLED
EMAIL_VERIFICATION_REQUIRED RESOURCE_NOT_FOUND CONTACT_NOT_FOUND TEMPLATE_NOT_FOUND CAMPAIGN_NOT_FOUND WORKFLOW_NOT_FOUND
CONFLICT IDEMPOTENCY_KEY_REUSED BAD_REQUEST VALIDATION_ERROR INVALID_EMAIL INVALID_REQUEST_BODY MISSING_REQUIRED_FIELD
RATE_LIMIT_EXCEEDED BILLING_LIMIT_EXCEEDED UPGRADE_REQUIRED INTERNAL_SERVER_ERROR DATABASE_ERROR EXTERNAL_SERVICE_ERROR
""".split()
OURS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RelayError) and not issubclass(kind, SetupError)
]


def test_every_documented_code_is_sent_or_reserved_and_there_is_no_other() -> None:
    sent = [row.code for row in list_codes()]
    assert sorted([*sent, *UNSENT]) == sorted(DOCUMENTED)


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_a_case_that_says_when_and_what_to_do(kind: type[RelayError]) -> None:
    [row] = [row for row in list_codes() if row.code == kind.code]
    meaning = (kind.__doc__ or "").partition("\n")[0]
    cases = [case for case in row.cases if case.status == kind.status and (kind is RelayError or case.meaning == meaning)]
    assert len(cases) == 1
    assert cases[0].repair.endswith((".", "`."))


async def test_the_page_shows_them_all_with_an_error_as_it_is_sent(http: httpx2.AsyncClient) -> None:
    page = await http.get("/docs/errors")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(r'<section id="([A-Z_]+)">', page.text) == [row.code for row in list_codes()]
    assert [code for code in (*UNSENT, *FIELD_CODES) if f"<code>{code}</code>" not in page.text] == []
    assert "&#34;code&#34;: &#34;VALIDATION_ERROR&#34;" in page.text
    assert page.headers["x-request-id"] in page.text


async def test_the_reference_leads_to_it_and_it_leads_back(http: httpx2.AsyncClient) -> None:
    assert 'href="docs/errors"' in (await http.get("/docs")).text
    assert 'href="../docs"' in (await http.get("/docs/errors")).text
