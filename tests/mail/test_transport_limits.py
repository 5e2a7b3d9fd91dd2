"""Are the limits kept that a peer announces (RFC 9422), and what does it get when it takes no 8-bit octets?"""

import pytest

from plunk_relay.mail.outcome import Bounced, Delivered, Reply
from tests.kit.peer import KEYWORDS, Script
from tests.mail.test_transport import ANN, BOB, CID, Talk, talking

TAKEN = Delivered(Reply(250, "2.0.0", "taken"))
UTF8_HEAD = "Subject: é\r\n\r\nHi\r\n".encode()
LATIN_HEAD = b"Subject: \xe9\r\n\r\nHi\r\n"
UTF8_BODY = "Subject: e\r\n\r\né\r\n".encode()


def _without(*missing: str) -> list[str]:
    return [word for word in KEYWORDS if word not in missing]


@pytest.mark.parametrize("limits", ["LIMITS RCPTMAX=2", "limits mailmax=50 rcptmax=2 X=y"])
async def test_no_more_recipients_are_named_than_the_peer_announced(limits: str) -> None:
    async with talking(Script(keywords=[*KEYWORDS, limits], most_recipients=2)) as talk:
        transaction = await talk.send(ANN, BOB, CID)
        assert transaction.outcomes == {ANN: TAKEN, BOB: TAKEN}
        assert talk.peer.taken[0].recipients == (ANN, BOB)


async def test_a_connection_is_used_up_after_as_many_transactions_as_the_peer_announced() -> None:
    async with talking(Script(keywords=[*KEYWORDS, "LIMITS MAILMAX=2"], rcpt={ANN: "550 5.1.1 no"})) as talk:
        used_up = [talk.connection.exhausted]
        for recipient in (ANN, BOB):  # one that came to nothing is one too
            await talk.send(recipient)
            used_up.append(talk.connection.exhausted)
        assert used_up == [False, False, True]


@pytest.mark.parametrize(
    "limits", ["LIMITS", "LIMITS RCPTMAX=0 MAILMAX=0", "LIMITS RCPTMAX=many MAILMAX=-1", "LIMITS MAILMAX=1234567"]
)
async def test_limits_that_make_no_sense_are_none(limits: str) -> None:
    async with talking(Script(keywords=[*KEYWORDS, limits])) as talk:
        assert await _takes_all(talk)
        assert not talk.connection.exhausted


@pytest.mark.parametrize(
    ("missing", "message", "taken"),
    [
        ((), UTF8_BODY, True),
        ((), UTF8_HEAD, True),
        ((), LATIN_HEAD, False),
        (("SMTPUTF8",), UTF8_BODY, True),
        (("SMTPUTF8",), UTF8_HEAD, False),
        (("8BITMIME",), UTF8_BODY, False),
        (("8BITMIME",), UTF8_HEAD, False),
        (("8BITMIME", "SMTPUTF8"), b"Subject: x\r\n\r\nHi\r\n", True),
    ],
)
async def test_what_the_peer_offers_decides_which_octets_it_takes(
    missing: tuple[str, ...], message: bytes, taken: bool
) -> None:
    async with talking(Script(keywords=_without(*missing))) as talk:
        assert talk.connection.takes(message) is taken
        outcome = (await talk.send(message=message)).outcomes[ANN]
        assert isinstance(outcome, Delivered if taken else Bounced)
        assert len(talk.peer.received) == taken


async def test_headers_that_the_peer_does_not_take_are_not_sent_raw() -> None:
    async with talking(Script(keywords=_without("SMTPUTF8"))) as talk:
        transaction = await talk.send(message=UTF8_HEAD)
        refusal = Bounced(Reply(554, "5.6.9", "mx.test does not support internationalised headers"))
        assert transaction.outcomes == {ANN: refusal}
        assert transaction.host_refused == refusal


async def _takes_all(talk: Talk) -> bool:
    outcomes = (await talk.send(ANN, BOB, CID)).outcomes
    return list(outcomes.values()) == [TAKEN] * 3
