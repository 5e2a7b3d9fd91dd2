"""What if a peer does not answer as a server should? Nothing bounces, and the log and what is stored stay readable."""

import pytest
import structlog

from tests.kit.outbox import Outbox
from tests.kit.peer import KEYWORDS, Peer, Script

ONE_BY_ONE = tuple(word for word in KEYWORDS if word != "PIPELINING")
STEPS = ["banner", "ehlo", "mail", "rcpt", "data", "dot"]
NASTY = {
    "control bytes": "550 5.1.1 \x00\x07\x1b[2Jgone\x7f",
    "control bytes in a later line": "550-5.1.1 no\n550 5.1.1 \x1b[31mgone",
    "a megabyte": "flood",
    "mixed codes": "250-fine\n550 5.1.1 gone",
    "mixed codes, the other way": "550-5.1.1 gone\n250 fine",
    "another protocol": "HTTP/1.1 400 Bad Request",
    "a code that is none": "650 5.1.1 gone",
    "nothing": "close",
    "bytes": "\xff\xfe\xfd\x00",
}


REFUSALS = [answer for what, answer in NASTY.items() if what.startswith("control")]
"""These say at least that the message was not taken."""


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("answer", NASTY.values(), ids=NASTY)
async def test_what_is_no_reply_is_a_temporary_error_and_never_breaks_the_log(
    outbox: Outbox, peer: Peer, keywords: tuple[str, ...], step: str, answer: str
) -> None:
    peer.script = Script(keywords=keywords, helo=answer if step == "ehlo" else "250 mx.test", **{step: answer})  # type: ignore[arg-type]  # a step's name
    with structlog.testing.capture_logs() as logs:
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
    assert await outbox.state(delivery_id) == ("QUEUED", "PENDING")
    row, [attempt] = await outbox.delivery(delivery_id), await outbox.attempts(delivery_id)
    assert row["unknown_outcomes"] == (step == "dot" and answer not in REFUSALS)
    for text in (row["last_reply"], attempt["reply"], attempt["conversation"]):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 20_000
    assert "deferred" in [entry["event"] for entry in logs]
    assert all(str(value).isprintable() for entry in logs for value in entry.values())
    assert await outbox.events() == []
    await outbox.check_ledger()


@pytest.mark.parametrize("step", ["banner", "ehlo"])
async def test_a_greeting_is_not_judged_by_its_last_line_alone(outbox: Outbox, peer: Peer, step: str) -> None:
    welcome = "220" if step == "banner" else "250"
    peer.script = Script(**{step: f"554-5.7.1 go away\n{welcome} welcome"})  # type: ignore[arg-type]  # a step's name
    [delivery_id] = await outbox.submit("ann@example.org")
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert (row["state"], row["attempts"]) == ("QUEUED", 1)
    assert f"a reply with mixed codes: 554 and {welcome}" in row["last_reply"]
    assert not any(command.startswith("MAIL") for command in peer.commands)
