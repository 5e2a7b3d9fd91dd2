"""Does every error of the tree have what the envelope shows?"""

import pytest

from plunk_relay.clock import ManualClock
from plunk_relay.errors import RelayError
from plunk_relay.web.envelope import error_answer


def _classes(root: type[RelayError]) -> list[type[RelayError]]:
    return [root, *(below for child in root.__subclasses__() for below in _classes(child))]


def test_every_error_has_a_status_and_a_code_of_the_documented_list() -> None:
    known = """UNAUTHORIZED INVALID_CREDENTIALS MISSING_AUTH INVALID_API_KEY FORBIDDEN PROJECT_ACCESS_DENIED PROJECT_DISABLED
        EMAIL_VERIFICATION_REQUIRED RESOURCE_NOT_FOUND CONTACT_NOT_FOUND TEMPLATE_NOT_FOUND CAMPAIGN_NOT_FOUND
        WORKFLOW_NOT_FOUND CONFLICT IDEMPOTENCY_KEY_REUSED BAD_REQUEST VALIDATION_ERROR RATE_LIMIT_EXCEEDED
        BILLING_LIMIT_EXCEEDED INTERNAL_SERVER_ERROR EXTERNAL_SERVICE_ERROR""".split()
    wrong = [error.__name__ for error in _classes(RelayError) if error.code not in known or not 400 <= error.status <= 503]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "MISSING_AUTH",
        "INVALID_API_KEY",
        "FORBIDDEN",
        "PROJECT_DISABLED",
        "TEMPLATE_NOT_FOUND",
        "IDEMPOTENCY_KEY_REUSED",
        "RATE_LIMIT_EXCEEDED",
    ],
)
def test_codes_that_can_be_repaired_carry_a_suggestion(code: str) -> None:
    assert [error.__name__ for error in _classes(RelayError) if error.code == code and not error.suggestion] == []


def test_time_of_the_envelope_is_the_clocks(clock: ManualClock) -> None:
    clock.advance(milliseconds=1234)
    answer = error_answer(RelayError("Oops."), request_id="x", clock=clock)
    assert b'"timestamp":"2026-03-01T12:00:01.234Z"' in answer.body
