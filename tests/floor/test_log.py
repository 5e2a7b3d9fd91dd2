"""How does the relay speak: to a terminal in colour, to anything else in JSON, and never of secrets?"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pytest

from plunk_relay.log import LogFormat, configure_logging, get_logger
from tests.kit.cli import outside_kept

SECRET = "sk_not_for_the_log"


def test_json_is_one_line_a_fact() -> None:
    with _logging("json") as said:
        get_logger("smtp").info("accepted", queue_id="1", recipient="a@example.org", text="two\nlines \x1b[31m\x00 ü")
    [line] = said.lines()
    assert {key: line[key] for key in ("event", "level", "part", "queue_id")} == {
        "event": "accepted",
        "level": "info",
        "part": "smtp",
        "queue_id": "1",
    }
    assert line["text"] == "two\nlines \x1b[31m\x00 ü"
    assert line["timestamp"].endswith("Z")


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    with _logging("json") as said:
        get_logger("test").info("fact", value={1}, error=ValueError("x"))
    assert said.lines()[0]["error"] == "x"


@pytest.mark.parametrize(("terminal", "is_json"), [(False, True), (True, False)])
def test_the_format_is_console_on_a_terminal_and_else_json(terminal: bool, is_json: bool) -> None:
    with _logging("auto", terminal=terminal) as said:
        get_logger("test").info("fact", number=1)
    assert said.text.startswith("{") is is_json
    assert "fact" in said.text


@pytest.mark.parametrize(("log_format", "terminal"), [("json", True), ("console", False)])
def test_a_format_that_is_set_is_used_anywhere(log_format: LogFormat, terminal: bool) -> None:
    with _logging(log_format, terminal=terminal) as said:
        get_logger("test").info("fact")
    assert said.text.startswith("{") is (log_format == "json")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("key", ["password", "secret", "authorization", "token", "private_key", "api_key", "body"])
def test_a_secret_that_slipped_in_is_taken_out(log_format: LogFormat, key: str) -> None:
    with _logging(log_format) as said:
        get_logger("test").info("fact", **{key: SECRET})
    assert SECRET not in said.text
    assert "[redacted]" in said.text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_code_and_no_values(log_format: LogFormat) -> None:
    with _logging(log_format) as said:
        try:
            _fail(SECRET)
        except ValueError:
            get_logger("test").exception("failed")
    assert "ValueError: something" in said.text
    assert "_fail" in said.text
    assert SECRET not in said.text
    assert "UserWarning" not in said.text


def test_what_is_less_important_than_the_level_is_left_out() -> None:
    with _logging("json", level="warning") as said:
        get_logger("test").info("small")
        get_logger("test").warning("large")
    assert [line["event"] for line in said.lines()] == ["large"]


def test_warnings_of_libraries_come_in_the_same_format() -> None:
    with _logging("json") as said:
        logging.getLogger("library").warning("a %s", "warning")
        logging.getLogger("library").info("chatter")
    [line] = said.lines()
    assert {"event": "a warning", "level": "warning", "part": "library"}.items() <= line.items()


def test_an_exception_of_a_library_is_one_line_of_json() -> None:
    with _logging("json") as said:
        try:
            _fail(SECRET)
        except ValueError:
            logging.getLogger("library").exception("failed")
    [line] = said.lines()
    assert "ValueError: something" in line["exception"]


def _fail(secret: str) -> None:
    assert secret
    raise ValueError("something")


class Said:
    """What was written to stderr; complete when the block is over."""

    text = ""

    def lines(self) -> list[dict[str, Any]]:
        """Read it as a JSON line an entry."""
        return [json.loads(line) for line in self.text.splitlines()]


@contextmanager
def _logging(log_format: LogFormat, *, level: str = "info", terminal: bool = False) -> Iterator[Said]:
    """Configure logging with a stderr of its own: a pipe, or a terminal."""
    said, kept = Said(), sys.stderr
    reading, writing = os.openpty() if terminal else os.pipe()
    with outside_kept(), os.fdopen(writing, "w") as stream:
        sys.stderr = stream
        try:
            configure_logging(log_format, level)
            yield said
        finally:
            sys.stderr = kept
            stream.flush()
            said.text = _read(reading, stream)


def _read(descriptor: int, stream: TextIO) -> str:
    """Read what was written; a terminal forgets what was not read when its other end closes."""
    written = os.read(descriptor, 65536).decode() if stream.isatty() else ""
    if not stream.isatty():
        stream.close()
        while chunk := os.read(descriptor, 65536):
            written += chunk.decode()
    os.close(descriptor)
    return written
