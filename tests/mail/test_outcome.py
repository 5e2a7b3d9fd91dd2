"""What is kept of a server's answer? Its code, its enhanced status, and a short printable text; and of a whole talk?"""

import pytest

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Reply, read_reply, sanitize


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (250, "2.1.0 ok", Reply(250, "2.1.0", "ok")),
        (250, "ok", Reply(250, None, "ok")),
        (550, "5.1.1", Reply(550, "5.1.1", "")),
        (550, "5.7.515 Access denied", Reply(550, "5.7.515", "Access denied")),
        (550, "4.1.1 classes differ", Reply(550, None, "4.1.1 classes differ")),
        (550, "5.1 short", Reply(550, None, "5.1 short")),
        (450, "", Reply(450, None, "")),
    ],
)
def test_an_enhanced_status_counts_when_its_class_is_the_code_s(code: int, text: str, reply: Reply) -> None:
    assert read_reply(code, text) == reply


@pytest.mark.parametrize(
    ("reply", "text"),
    [(Reply(550, "5.1.1", "no"), "550 5.1.1 no"), (Reply(250, None, "ok"), "250 ok"), (Reply(250, None, ""), "250")],
)
def test_a_reply_is_written_as_it_came(reply: Reply, text: str) -> None:
    assert str(reply) == text


@pytest.mark.parametrize(
    "bad",
    ["\x00", "\x07", "\x1b[2J", "\r\n", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\u2066", "\ud800"],
    ids=ascii,
)
def test_what_could_break_a_log_line_becomes_a_space(bad: str) -> None:
    clean = sanitize(f"before{bad}after")
    assert clean.startswith("before ")
    assert clean.endswith("after")
    assert clean.isprintable()
    clean.encode()


def test_letters_of_every_script_stay() -> None:
    assert sanitize("Grüße 你好 שלום 🙂") == "Grüße 你好 שלום 🙂"


def test_a_text_is_cut() -> None:
    assert len(sanitize("x" * 10_000)) == 500


async def test_every_line_of_a_conversation_has_its_milliseconds_and_its_side() -> None:
    conversation = Conversation()
    conversation.remark("connecting")
    conversation.client("EHLO relay.test")
    conversation.server("250 mx.test\r\n\x07")
    lines = str(conversation).split("\n")
    assert [line.partition(" ")[2] for line in lines] == ["*: connecting", "C: EHLO relay.test", "S: 250 mx.test"]
    assert all(line.startswith("+") and line[1:].partition(" ")[0].isdigit() for line in lines)


async def test_a_conversation_is_cut() -> None:
    conversation = Conversation()
    for _ in range(1000):
        conversation.server("x" * 400)
    text = str(conversation)
    assert len(text) < 20_000
    assert text.endswith("... (cut)")
