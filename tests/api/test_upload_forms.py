"""Which file is found in a form? The part that is asked for, whatever stands around it; else one clear 400."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.errors import BadRequest
from plunk_relay.web.multipart import UploadedFile, UploadField, read_upload

FIELD = UploadField("file", 100)
FORM = "multipart/form-data; boundary=edge"


def _part(disposition: str, data: bytes, kind: str = "") -> bytes:
    content_type = f"Content-Type: {kind}\r\n" if kind else ""
    return f"--edge\r\nContent-Disposition: form-data; {disposition}\r\n{content_type}\r\n".encode() + data + b"\r\n"


def _form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--edge--\r\n"


def test_the_part_that_is_asked_for_is_found_among_others() -> None:
    wanted = _part('name="file"; filename="a.csv"', b"email\r\n--edge?\r\n", "Text/CSV; charset=utf-8")
    raw = _form(_part('name="note"', b"hello"), wanted, _part('name="last"', b"x"))
    assert read_upload(raw, FORM, FIELD) == UploadedFile("a.csv", "text/csv", b"email\r\n--edge?\r\n")


def test_the_first_of_two_parts_of_that_name_counts() -> None:
    raw = _form(_part('name="file"', b"one"), _part('name="file"', b"two"))
    assert read_upload(raw, FORM, FIELD).data == b"one"


def test_a_name_in_letters_of_the_world_is_kept() -> None:
    raw = _form(_part('name="file"; filename="Überblick 会議.csv"', b"x"))
    assert read_upload(raw, FORM, FIELD).filename == "Überblick 会議.csv"


@pytest.mark.parametrize("quoted", ['"file"', "file"])
def test_a_name_may_stand_without_quotes(quoted: str) -> None:
    assert read_upload(_form(_part(f"name={quoted}", b"x")), FORM, FIELD) == UploadedFile("", "", b"x")


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"", ""),
        (b"{}", "application/json"),
        (_form(_part('name="file"', b"x")), "multipart/form-data"),
        (_form(_part('name="file"', b"x")), "multipart/mixed; boundary=edge"),
        (_form(_part('name="other"', b"x")), FORM),
        (_form(), FORM),
        (_part('name="file"', b"cut off"), FORM),
    ],
)
def test_a_body_without_the_file_says_how_to_send_one(raw: bytes, content_type: str) -> None:
    with pytest.raises(BadRequest, match="Send the file as `file` of a multipart/form-data request"):
        read_upload(raw, content_type, FIELD)


@pytest.mark.parametrize("raw", [b"nonsense", b"--edge\r\nno colon\r\n\r\nx\r\n--edge--", b"--edge\r\n" + b"a" * 70_000])
def test_a_form_that_is_none_is_malformed(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="malformed"):
        read_upload(raw, FORM, FIELD)


def test_a_boundary_that_is_too_long_is_malformed() -> None:
    with pytest.raises(BadRequest, match="malformed"):
        read_upload(b"--", f"multipart/form-data; boundary={'x' * 1000}", FIELD)


@given(st.binary(max_size=300), st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_body_is_a_file_or_a_bad_request(raw: bytes, content_type: str) -> None:
    for kind in (FORM, content_type):
        with suppress(BadRequest):
            assert isinstance(read_upload(raw, kind, FIELD), UploadedFile)


@given(st.binary(max_size=2000))
def test_any_bytes_come_through(data: bytes) -> None:
    if b"\r\n--edge" not in data and not data.startswith(b"--edge"):
        assert read_upload(_form(_part('name="file"', data)), FORM, FIELD).data == data
