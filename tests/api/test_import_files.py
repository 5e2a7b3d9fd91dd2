"""Which files are read, and how? Encodings, delimiters, ragged rows and typed cells, as spreadsheets write them."""

import codecs
import csv
import io
import itertools
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plunk_relay.db.tables import contacts
from plunk_relay.jobs.batches import Refused
from plunk_relay.jobs.cells import Cell, read_cell, read_subscribed
from plunk_relay.jobs.csv_file import LONGEST_ROW, CsvFile
from plunk_relay.jobs.encodings import find_encoding
from tests.api.conftest import Shared
from tests.kit.jobs import finish, imported, upload
from tests.kit.store import rows

_ADDRESSES = itertools.count()
GERMAN = "email,name\nann@x.test,Jürgen Groß\nbob@x.test,Zoë\n"


async def _import_row(shared: Shared, columns: str, cells: str) -> Any:
    """Import one row of a new contact; return the custom fields it has then."""
    email = f"row{next(_ADDRESSES)}@x.test"
    result = await imported(shared.relay, shared.http, shared.acme, f"email,{columns}\n{email},{cells}\n")
    assert result["createdCount"] == 1
    [row] = await rows(shared.relay, contacts, project_id=shared.acme.id, email=email)
    return row["data"]


def _read(data: bytes | str) -> list[dict[str, Any]]:
    """Return what the rows of a file say, or the error of a row."""
    file = CsvFile(data if isinstance(data, bytes) else data.encode())
    return [{"error": row.error} if row.error else {"email": row.email, **row.data} for row in file.rows()]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("true", True),
        ("Yes", True),
        ("FALSE", False),
        ("no", False),
        ("0", 0),
        ("42", 42),
        ("-7", -7),
        ("12.50", 12.5),
        ("-0.25", -0.25),
        ("0.1", 0.1),
        ("9007199254740992", 9007199254740992),
        ("-9007199254740992", -9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("12345678901234567890", "12345678901234567890"),
        ("1234567890.12345", 1234567890.12345),
        ("0.1234567890123456", "0.1234567890123456"),
        ("007", "007"),
        ("-", "-"),
        ("+49", "+49"),
        ("1e3", "1e3"),
        ("1.", "1."),
        (".5", ".5"),
        ("1,5", "1,5"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("1\n", "1\n"),
        ("NaN", "NaN"),
        ("yes!", "yes!"),
        ("null", "null"),
        ("2026-03-01", "2026-03-01"),
    ],
)
def test_a_cell_becomes_what_it_says(text: str, cell: Cell) -> None:
    read = read_cell(text)
    assert (type(read), read) == (type(cell), cell)


@given(st.integers(-(2**60), 2**60) | st.decimals(-(10**6), 10**6, places=4) | st.text(max_size=30))
def test_no_digit_is_lost(written: object) -> None:
    """A cell that becomes a number says, as a number, the same as the text."""
    text = str(written)
    read = read_cell(text)
    if isinstance(read, float):
        assert f"{read:.{len(text.partition('.')[2])}f}" == text or read == 0
    elif not isinstance(read, bool):
        assert str(read) == text or read == 0


@pytest.mark.parametrize(
    ("text", "said"), [("", None), ("True", True), ("1", True), ("yes", True), ("0", False), ("on", False), ("x", False)]
)
def test_the_column_subscribed_knows_three_words_for_true(text: str, said: bool | None) -> None:
    assert read_subscribed(text) is said


@pytest.mark.asyncio(loop_scope="module")
async def test_cells_are_stored_with_their_types(shared: Shared) -> None:
    data = await _import_row(shared, "a,b,c,d,e", "yes,12.5,007, text ,")
    assert data == {"a": True, "b": 12.5, "c": "007", "d": "text"}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_language_stays_a_text_although_it_reads_no(shared: Shared) -> None:
    assert await _import_row(shared, "locale,newsletter", "no,no") == {"locale": "no", "newsletter": False}


@pytest.mark.asyncio(loop_scope="module")
async def test_reserved_names_are_no_fields_in_any_case(shared: Shared) -> None:
    columns = "id,plunk_id,unsubscribeUrl,createdAt,updatedAt,plunk_email,plan"
    assert await _import_row(shared, columns, "a,b,c,d,e,f,pro") == {"plan": "pro"}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_row_without_custom_fields_leaves_none(shared: Shared) -> None:
    assert await _import_row(shared, "a,b", ",") is None


def test_columns_are_named_in_lower_case_wherever_they_stand() -> None:
    assert _read(" First Name ,EMAIL,PLAN\nAnn,Ann@X.test,pro\n") == [
        {"email": "ann@x.test", "first name": "Ann", "plan": "pro"}
    ]


def test_ragged_rows_and_columns_without_a_name_are_taken() -> None:
    text = "email,,plan\na@x.test\nb@x.test,lost\nc@x.test,lost,pro,too,many\n"
    assert _read(text) == [{"email": "a@x.test"}, {"email": "b@x.test"}, {"email": "c@x.test", "plan": "pro"}]


def test_of_columns_with_one_name_the_last_that_says_something_counts() -> None:
    assert _read("email,plan,Plan\na@x.test,free,pro\nb@x.test,free,\n") == [
        {"email": "a@x.test", "plan": "pro"},
        {"email": "b@x.test", "plan": "free"},
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_of_all_spreadsheets_are_read(delimiter: str, ending: str) -> None:
    lines = [["name", '"email"'], ["Ann", "ann@x.test"], [f'"Bob{delimiter} ""Bobby"""', "bob@x.test"]]
    text = ending.join(delimiter.join(line) for line in lines)
    assert _read(text) == [
        {"email": "ann@x.test", "name": "Ann"},
        {"email": "bob@x.test", "name": f'Bob{delimiter} "Bobby"'},
    ]


def test_a_comma_in_the_header_beats_what_stands_in_the_rows() -> None:
    assert _read("email,note\nann@x.test,a;b;c\n") == [{"email": "ann@x.test", "note": "a;b;c"}]


def test_rows_are_numbered_as_a_spreadsheet_shows_them() -> None:
    text = '\nemail,note\n\na@x.test,"1\n2\n3"\n   \n,\nb@x.test,\n'
    assert [(row.number, row.error is None) for row in CsvFile(text.encode()).rows()] == [(4, True), (6, False), (7, True)]


def test_nul_bytes_are_left_out() -> None:
    assert _read(b"em\0ail,no\0te\na\0nn@x.test,x\0y\n") == [{"email": "ann@x.test", "note": "xy"}]


@pytest.mark.parametrize("cell", ["x" * LONGEST_ROW, "x" * 200_000, '"' + "x" * 200_000 + '"'])
def test_a_row_that_is_too_long_is_an_error_and_the_next_one_is_read(cell: str) -> None:
    found = _read(f"email,note\na@x.test,{cell}\nb@x.test,y\n")
    assert "quote" in found[0]["error"]
    assert found[-1] == {"email": "b@x.test", "note": "y"}


def test_a_quote_that_never_ends_spoils_its_row_and_no_more() -> None:
    text = 'email,note\na@x.test,"open\n' + "b@x.test,y\n" * 30_000
    found = [row.error is None for row in CsvFile(text.encode()).rows()]
    assert found[0] is False
    assert all(found[1:])
    assert len(found) > 15_000


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (GERMAN.encode(), "UTF-8"),
        (codecs.BOM_UTF8 + GERMAN.encode(), "UTF-8"),
        (GERMAN.encode("utf-16"), "UTF-16"),
        (codecs.BOM_UTF16_BE + GERMAN.encode("utf-16-be"), "UTF-16"),
        (GERMAN.encode("utf-32"), "UTF-32"),
        (GERMAN.encode("cp1252"), "windows-1252"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_encoding_is_found_and_told(shared: Shared, data: bytes, name: str) -> None:
    result = await imported(shared.relay, shared.http, shared.rival, data)
    assert (result["successCount"], result["encoding"]) == (2, name)
    found = {row["email"]: row["data"] for row in await rows(shared.relay, contacts, project_id=shared.rival.id)}
    assert found == {"ann@x.test": {"name": "Jürgen Groß"}, "bob@x.test": {"name": "Zoë"}}


@pytest.mark.parametrize(
    ("codec", "names"),
    [
        ("cp1252", "José García,François Lefèvre,Jürgen Groß,Åsa Öberg,“Ann”: 5 €"),
        ("cp1250", "Łukasz Żółć,Świętosława Gąsienica"),
        ("cp1251", "Иван Петров,Мария Смирнова"),
        ("shift_jis", "山田太郎,鈴木花子"),
        ("gb18030", "王小明,李四先生"),
        ("big5", "王小明,李四先生"),
        ("euc_kr", "김철수,이영희"),
        ("gb18030", "王小明"),
        ("euc_kr", "김철수"),
    ],
)
def test_what_spreadsheets_write_around_the_world_is_read(codec: str, names: str) -> None:
    text = "email,name\n" + "".join(f"a{number}@x.test,{name}\n" for number, name in enumerate(names.split(",")))
    assert [row["name"] for row in _read(text.encode(codec))] == names.split(",")


def test_one_broken_character_does_not_spoil_the_others() -> None:
    data = GERMAN.encode() * 10 + b"cy@x.test,\xff\n"
    assert find_encoding(data).name == "UTF-8"
    assert _read(data)[-1] == {"email": "cy@x.test", "name": "\ufffd"}


@settings(max_examples=300)
@given(st.binary(max_size=400) | st.builds(lambda end: b"email,a\n" + end, st.binary(max_size=400)))
def test_any_bytes_are_rows_or_refused_with_a_reason(data: bytes) -> None:
    with suppress(Refused):
        found = list(CsvFile(data).rows())
        assert all(row.error or (row.email and "email" not in row.data) for row in found)
        numbers = [row.number for row in found]
        assert numbers == sorted(set(numbers))


_names = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=12)
_tables = st.lists(st.lists(_names, max_size=4), max_size=8)


@settings(max_examples=200)
@given(_tables, st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_a_csv_writer_writes_is_read_back(table: list[list[str]], delimiter: str, codec: str) -> None:
    columns = ["email", "c1", "c2", "c3", "c4"]
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerows([columns, *([f"r{number}@x.test", *cells] for number, cells in enumerate(table))])
    expected: list[dict[str, Any]] = [
        {"email": f"r{number}@x.test"}
        | {name: read_cell(cell.strip()) for name, cell in zip(columns[1:], cells, strict=False) if cell.strip()}
        for number, cells in enumerate(table)
    ]
    assert _read(written.getvalue().encode(codec)) == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_any_file_is_imported_or_fails_with_a_reason(shared: Shared) -> None:
    tried: list[bytes] = []
    lines = st.lists(st.sampled_from([b"a@x.test", b"b@x.test,1,no", b"nobody", b"", b'"', b"c@x.test,\xff\0,", b",,,,"]))

    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=100) | st.builds(lambda rest: b"\n".join([b"email,a,subscribed", *rest]), lines))
    def collect(data: bytes) -> None:
        tried.append(data)

    collect()
    for data in tried:
        started = await upload(shared.http, shared.acme, data)
        job = await finish(shared.relay, shared.http, shared.acme, started)
        if job["state"] == "completed":
            result = job["result"]
            assert result["successCount"] == result["createdCount"] + result["updatedCount"]
            assert result["totalRows"] == result["successCount"] + result["failureCount"] > 0
            assert len(result["errors"]) == result["failureCount"]
        else:
            assert (job["state"], bool(job["failedReason"])) == ("failed", True), data
            assert "internal error" not in job["failedReason"], data
