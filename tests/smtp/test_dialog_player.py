"""Does a dialog fail when the server does not keep to it? Checked with a server that says whatever the test wants."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.kit.dialog import DialogError, play, read_dialog

VARIABLES = {"SECRET": "sk_1"}


@asynccontextmanager
async def parrot(answers: Sequence[str], heard: list[bytes]) -> AsyncIterator[int]:
    """Greet, then give one answer to each packet; close after the last."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[0].encode())
        for answer in answers[1:]:
            heard.append(await reader.read(65536))
            writer.write(answer.encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def run(text: str, *answers: str, stored: int = 0) -> bytes:
    heard: list[bytes] = []

    async def count_stored() -> int:
        return stored

    async with parrot(answers, heard) as port:
        await play(
            read_dialog(text, VARIABLES, name="x.dialog"),
            port,
            tls=ssl.create_default_context(),
            count_stored=count_stored,
        )
    return b"".join(heard)


GREETING = "220 hello\r\n"
BYE = "221 2.0.0 bye\r\n"


async def test_a_dialog_that_is_kept_passes() -> None:
    said = await run("# why\n\nS: 220 *\nC: NOOP\nS: 250 *\n", GREETING, "250 2.0.0 ok\r\n", BYE)
    assert said == b"NOOP\r\nQUIT\r\n"


@pytest.mark.parametrize(
    ("text", "answers", "complaint"),
    [
        pytest.param("S: 220 *\nC: NOOP\nS: 250 *", ["250 2.0.0 ok\r\n"], "x.dialog:1", id="another code"),
        pytest.param("S: 220 hi\n", [GREETING], "220 hello", id="another text"),
        pytest.param("S: 220 *\nC: NOOP\nS: 250 *", [GREETING, "250 ok\r\n"], "without an enhanced", id="no status"),
        pytest.param("S: 220 *\nC: NOOP\nS: 250 *", [GREETING, "250 5.0.0 x\r\n"], "of its class", id="another class"),
        pytest.param("S: 220 *\nC: NOOP\nS: 250 *", [GREETING, ""], "closed", id="no reply"),
        pytest.param("S: 220 *\n", [GREETING + "250 2.0.0 ok\r\n", BYE], "`250 2.0.0 ok`", id="a reply too many"),
        pytest.param("S: 220 *\nStored: 1", [GREETING], "0 mails are stored", id="nothing stored"),
        pytest.param("S: 220 *\nS: <CLOSED>", [GREETING + BYE], "221", id="not closed"),
        pytest.param("S: 220 *\nC: EHLO x\nS: 250-B\nS: 250 C", [GREETING, "250-A\r\n250 C\r\n"], "250-A", id="keyword"),
    ],
)
async def test_a_dialog_that_is_not_kept_fails_with_its_line(text: str, answers: list[str], complaint: str) -> None:
    with pytest.raises(DialogError, match=re.escape(complaint)):
        await run(text, *answers)


async def test_a_long_reply_may_be_named_by_its_last_line() -> None:
    await run("S: 220 *\nC: EHLO x\nS: 250 C\nC: NOOP\nS: 250 *", GREETING, "250-A\r\n250 C\r\n", "250 2.0.0 ok\r\n", BYE)


async def test_lines_of_the_client_go_out_together() -> None:
    assert await run("S: 220 *\nC: A\nC: B\nS: 250 *", GREETING, "250 2.0.0 ok\r\n", BYE) == b"A\r\nB\r\nQUIT\r\n"


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (r"C-raw: a\r\n\0\t\\n\xff\x41", b"a\r\n\0\t\\n\xffA"),
        ("C: AUTH PLAIN base64(\\0plunk\\0$SECRET)", b"AUTH PLAIN AHBsdW5rAHNrXzE=\r\n"),
        ("C: repeat(ab, 3)", b"ababab\r\n"),
        ("C:", b"\r\n"),
        ("C: ü", "ü\r\n".encode()),
    ],
)
async def test_what_the_client_says(line: str, sent: bytes) -> None:
    assert await run(f"S: 220 *\n{line}\nS: 250 *", GREETING, "250 2.0.0 ok\r\n", BYE) == sent + b"QUIT\r\n"


@pytest.mark.parametrize("text", ["X: what", "S 220", "S: 220 *\nSet: host = 1", "C: $NOBODY"])
def test_a_line_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(DialogError, match=r"x\.dialog:"):
        read_dialog(text, VARIABLES, name="x.dialog")


def test_settings_are_toml_and_the_door_is_named() -> None:
    dialog = read_dialog('Door: submissions\nSet: a = 1\nSet: b = ["x"]\nS: 220 *', VARIABLES, name="x")
    assert (dialog.settings, dialog.door) == ({"a": 1, "b": ["x"]}, "submissions")
