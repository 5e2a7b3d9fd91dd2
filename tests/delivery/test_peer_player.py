"""Does a `.peer` file fail when the relay does not do as it tells? And is a line that cannot be read an error?"""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.kit.outbox import Prepared
from tests.kit.peer_file import PeerFileError, read_peer_file
from tests.kit.peer_player import play

GREETING = "S: 220 mx\nC: EHLO relay.test\nS: 250 mx\n"
ENVELOPE = "C: MAIL FROM:<app@acme.test>\nS: 250 ok\nC: RCPT TO:<ann@example.org>\n"
CONTENT = "S: 250 ok\nC: DATA\nS: 354 go ahead\nC: <MESSAGE>\n"
TAKEN = f"Connection:\n{GREETING}{ENVELOPE}{CONTENT}S: 250 taken\n"
REFUSED = f"Connection:\n{GREETING}{ENVELOPE}S: 450 later\n"


async def _play(prepared: Prepared, directory: Path, text: str) -> None:
    await play(read_peer_file(text, name="x.peer"), prepared, directory)


async def test_a_story_that_goes_as_told_passes(prepared: Prepared, tmp_path: Path) -> None:
    text = f"# why\n\nRule: it is taken in the end -> ann DELIVERED DELIVERED\n{REFUSED}Expect: ann QUEUED\n"
    await _play(prepared, tmp_path, f"{text}Reply: ann 450 *\nLater: 2 minutes\n{TAKEN}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(f"-> ann BOUNCED\n{TAKEN}", "x.peer:1: expected `ann BOUNCED`", id="another state"),
        pytest.param(f"-> ann DELIVERED SENT\n{TAKEN}", "`ann DELIVERED DELIVERED`", id="another status"),
        pytest.param(f"-> ann DELIVERED maybe\n{TAKEN}", "expected `ann DELIVERED maybe`", id="no maybe"),
        pytest.param(f"-> bob DELIVERED\n{TAKEN}", "0 mails go to bob", id="nobody"),
        pytest.param(f"-> ann QUEUED\n{REFUSED}Expect: ann BOUNCED", "x.peer:10: expected `ann BOUNCED`", id="on the way"),
        pytest.param(f"-> ann QUEUED\n{REFUSED}Reply: ann 550 *", "but it is `450 later`", id="another reply"),
        pytest.param(
            f"-> ann QUEUED\nConnection:\n{GREETING}C: NOOP\nS: 450 x",
            "x.peer:6: expected `C: NOOP`, but the relay said `MAIL FROM:<app@acme.test>`",
            id="another command",
        ),
        pytest.param(f"-> ann QUEUED\nConnection:\n{GREETING}", "the relay went on", id="more is said"),
        pytest.param(f"-> ann QUEUED\n{REFUSED}C: DATA", "the relay said `QUIT`", id="less is said"),
        pytest.param(f"-> ann QUEUED\nConnection:\nS: 220 mx\nS: 250 x\n{TAKEN}", "did not connect", id="no connection"),
        pytest.param("-> ann QUEUED\nExpect: ann QUEUED", "connected to 127.0.0.1", id="a connection too many"),
        pytest.param(f"-> ann QUEUED\n{REFUSED}Connection: 127.0.0.2\nclose", "connect to 127.0.0.2", id="another host"),
        pytest.param(f"-> ann DELIVERED\n{TAKEN[:-13]}Has: Subject: Bye\nS: 250 x", "expected `Has: ", id="not in it"),
        pytest.param(f"-> ann DELIVERED\n{TAKEN[:-13]}Lacks: *Hello\nS: 250 x", "expected `Lacks: ", id="in it"),
    ],
)
async def test_a_story_that_goes_another_way_fails_with_its_line(
    prepared: Prepared, tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(PeerFileError, match=re.escape(complaint)):
        await _play(prepared, tmp_path, f"Rule: x {text}\n")


async def test_the_conversation_is_shown_where_it_went_wrong(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(PeerFileError) as raised:
        await _play(prepared, tmp_path, f"Rule: x -> ann QUEUED\n{REFUSED}C: DATA")
    assert "S: 220 mx\nC: EHLO relay.test\nS: 250 mx\nC: MAIL FROM:<app@acme.test>\nS: 250 ok\n" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Connection:", "the first line, and no other, is `Rule: "),
        ("Rule: x -> ann QUEUED\nRule: y -> ann QUEUED", "x.peer:2: cannot take `Rule`"),
        ("Rule: nothing comes of it", "a rule ends with its outcome"),
        ("Rule: x -> ann", "cannot read the outcome `ann`"),
        ("Rule: x -> ann QUEUED\nX: what", "x.peer:2: cannot read `X: what`"),
        ("Rule: x -> ann QUEUED\nclosed", "x.peer:2: cannot read `closed`"),
        ("Rule: x -> ann QUEUED\nS: 220 mx", "nothing is said without a connection"),
        ("Rule: x -> ann QUEUED\nConnection:\nclose\nS: 220 mx", "nothing is said after `close`"),
        ("Rule: x -> ann QUEUED\nConnection:\nSet: port = 1", "before the first connection"),
        ("Rule: x -> ann QUEUED\nExpect: ann QUEUED\nConnection:", "time must pass"),
        ("Rule: x -> ann QUEUED\nLater: soon", "write a number and seconds"),
        ("Rule: x -> ann QUEUED\nDNS: example.org", "write a name, a type and a value"),
        ("Rule: x -> ann QUEUED\nConnection:\nS: $NOBODY", "x.peer:3: nothing is called $NOBODY"),
    ],
)
def test_a_line_that_cannot_be_read_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(PeerFileError, match=re.escape(complaint)):
        read_peer_file(text, name="x.peer")


def test_the_stage_is_read_from_the_lines_before_the_first_connection() -> None:
    stage = "Set: port = 1\nSet: retry_minutes = [1]\nMail: a@b.test c@b.test never-twice\nBody: One\nBody:"
    rest = "DNS: b.test MX 10 mx.b.test.\nLater: 2 days\nConnection: 127.0.0.2\nwait"
    story = read_peer_file(f"Rule: x -> ann QUEUED\n{stage}\n{rest}", name="x")
    assert (story.rule, story.settings, story.body) == ("x", {"port": 1, "retry_minutes": [1]}, "One\r\n")
    [mail] = story.mails
    assert (mail.recipients, mail.never_twice) == (("a@b.test", "c@b.test"), True)
    assert story.records == [("b.test", "MX", "10 mx.b.test.")]
    first, second = story.rounds
    assert (first.calls, second.after, second.calls[0].address) == ([], timedelta(days=2), "127.0.0.2")


def test_without_a_mail_line_one_goes_to_ann() -> None:
    [mail] = read_peer_file("Rule: x -> ann QUEUED", name="x").mails
    assert (mail.recipients, mail.never_twice) == (("ann@example.org",), False)
