"""Which files are taken as images, and how are they shown? By what they are, to everybody, and never as a page."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plunk_relay.db.tables import uploads
from plunk_relay.uploads.api import MOST_BYTES
from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.kit.images import GIF, JPEG, PNG, WEBP
from tests.kit.store import rows

pytestmark = pytest.mark.asyncio(loop_scope="module")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
TYPES = ["image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"]


async def _upload(
    shared: Shared, data: bytes = PNG, content_type: str = "image/png", name: str = "logo.png", *, field: str = "image"
) -> httpx2.Response:
    files = {field: (name, data, content_type)}
    return await shared.http.post("/uploads/image", headers=shared.acme.headers, files=files)


async def _stored(shared: Shared, *given: Any) -> dict[str, Any]:
    response = await _upload(shared, *given)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _path(answer: dict[str, Any]) -> str:
    """Return the URL as the test's own server has it."""
    assert answer["url"].startswith("http://relay.test/")
    return str(answer["url"]).removeprefix("http://relay.test")


def _directory(shared: Shared) -> Path:
    return shared.relay.settings.server.data_dir / "uploads"


def _files(shared: Shared) -> list[Path]:
    return sorted(path for path in _directory(shared).rglob("*") if path.is_file())


async def test_image_is_answered_with_its_place(shared: Shared) -> None:
    answer = await _stored(shared)
    milliseconds = int(shared.relay.clock.now().timestamp() * 1000)
    assert re.fullmatch(rf"{shared.acme.id}/{milliseconds}-[0-9a-f]{{16}}\.png", answer["key"])
    assert answer == {
        "url": f"http://relay.test/uploads/files/{answer['key']}",
        "key": answer["key"],
        "filename": "logo.png",
        "contentType": "image/png",
        "size": len(PNG),
    }


async def test_everybody_may_see_it_and_nothing_in_it_can_run(shared: Shared) -> None:
    response = await shared.http.get(_path(await _stored(shared)))
    assert (response.status_code, response.content) == (200, PNG)
    told = {
        name: response.headers.get(name)
        for name in (
            "content-type",
            "content-length",
            "x-content-type-options",
            "content-security-policy",
            "cache-control",
            "cross-origin-resource-policy",
            "content-disposition",
        )
    }
    assert told == {
        "content-type": "image/png",
        "content-length": str(len(PNG)),
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "public, max-age=31536000, immutable",
        "cross-origin-resource-policy": "cross-origin",
        "content-disposition": None,
    }


@pytest.mark.parametrize(
    ("data", "declared", "content_type", "ending"),
    [
        (JPEG, "image/jpeg", "image/jpeg", "jpg"),
        (JPEG, "image/jpg", "image/jpeg", "jpg"),
        (PNG, "image/png", "image/png", "png"),
        (PNG, "Image/PNG; charset=x", "image/png", "png"),
        (GIF, "image/gif", "image/gif", "gif"),
        (GIF.replace(b"89a", b"87a"), "image/gif", "image/gif", "gif"),
        (WEBP, "image/webp", "image/webp", "webp"),
    ],
)
async def test_type_and_ending_are_those_of_the_declared_kind_whatever_the_name_says(
    shared: Shared, data: bytes, declared: str, content_type: str, ending: str
) -> None:
    answer = await _stored(shared, data, declared, "page.html")
    assert (answer["contentType"], answer["key"].rpartition(".")[2]) == (content_type, ending)
    response = await shared.http.get(_path(answer))
    assert (response.headers["content-type"], response.content) == (content_type, data)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        *((PNG, kind) for kind in TYPES if kind != "image/png"),
        (JPEG, "image/png"),
        (GIF.replace(b"89a", b"90a"), "image/gif"),
        (b"RIFF\x22\x00\x00\x00AVI LIST", "image/webp"),
        (b"RIFF", "image/webp"),
        (PNG[:7], "image/png"),
        *((b"", kind) for kind in TYPES),
        *((SVG, kind) for kind in TYPES),
        (SVG, "image/svg+xml"),
        (PNG, "image/svg+xml"),
        (PNG, "text/html"),
        (PNG, "application/octet-stream"),
        (PNG, "image/bmp"),
    ],
)
async def test_file_that_is_not_the_image_it_is_declared_as_is_refused(shared: Shared, data: bytes, declared: str) -> None:
    before = _files(shared)
    assert refusal(await _upload(shared, data, declared)) == (400, "BAD_REQUEST")
    assert _files(shared) == before


@pytest.mark.parametrize("field", ["file", "images", "Image"])
async def test_form_without_the_image_is_refused(shared: Shared, field: str) -> None:
    response = await _upload(shared, field=field)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert "`image`" in response.json()["error"]["message"]


async def test_body_that_is_no_form_is_refused(shared: Shared) -> None:
    for body in ({"json": {"image": "x"}}, {"content": PNG}, {}):
        response = await shared.http.post("/uploads/image", headers=shared.acme.headers, **body)
        assert refusal(response) == (400, "BAD_REQUEST")


async def test_image_may_have_10_megabytes_and_no_more(shared: Shared) -> None:
    largest = PNG + bytes(MOST_BYTES - len(PNG))
    answer = await _stored(shared, largest)
    assert answer["size"] == 10 * 1024 * 1024
    assert (await shared.http.get(_path(answer))).content == largest
    before = _files(shared)
    assert refusal(await _upload(shared, largest + b"x")) == (413, "BAD_REQUEST")
    assert refusal(await _upload(shared, largest * 2)) == (413, "BAD_REQUEST")
    assert _files(shared) == before


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("logo.png", "logo.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\fakepath\\logo.png", "logo.png"),
        ("folder/", "image.png"),
        ("", "image.png"),
        ("Grüße 会議.png", "Grüße 会議.png"),
        ("x" * 300, "x" * 255),
    ],
)
async def test_name_is_kept_without_folders(shared: Shared, sent: str, kept: str) -> None:
    response = await _upload_raw(shared, sent.replace("\\", "\\\\"), "image/png", PNG)
    assert response.json()["filename"] == kept


async def _upload_raw(shared: Shared, name: str, kind: str, data: bytes) -> httpx2.Response:
    """Upload with texts that a client would not write."""
    head = f'--edge-of-it\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    headers = shared.acme.headers | {"Content-Type": "multipart/form-data; boundary=edge-of-it"}
    content = head.encode() + data + b"\r\n--edge-of-it--\r\n"
    return await shared.http.post("/uploads/image", headers=headers, content=content)


async def test_one_image_uploaded_twice_is_two_files(shared: Shared) -> None:
    first, second = await _stored(shared), await _stored(shared)
    assert first["key"] != second["key"]


@pytest.mark.parametrize("way", ["bare", "weak", "listed", "star"])
async def test_who_has_it_already_gets_nothing_again(shared: Shared, way: str) -> None:
    path = _path(await _stored(shared))
    tag = (await shared.http.get(path)).headers["etag"]
    known = {"bare": tag, "weak": f"W/{tag}", "listed": f'"other", {tag}', "star": "*"}[way]
    response = await shared.http.get(path, headers={"If-None-Match": known})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == tag
    assert response.headers["cache-control"].endswith("immutable")
    assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": "Sun, 01 Mar 2099 12:00:00 GMT"}, 200),
        ({"If-Modified-Since": "Sun, 01 Mar 2099 12:00:00 GMT"}, 304),
        ({"If-Modified-Since": "Sun, 01 Mar 2099 12:00:00 -0000"}, 304),
        ({"If-Modified-Since": "Sun, 01 Mar 2020 12:00:00 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Sun, 99 Mar 2099 99:00:00 GMT"}, 200),
    ],
)
async def test_condition_that_does_not_hold_gets_the_image(shared: Shared, headers: dict[str, str], status: int) -> None:
    response = await shared.http.get(_path(await _stored(shared)), headers=headers)
    assert response.status_code == status


async def test_last_change_is_told_and_known_again(shared: Shared) -> None:
    path = _path(await _stored(shared))
    changed = (await shared.http.get(path)).headers["last-modified"]
    assert (await shared.http.get(path, headers={"If-Modified-Since": changed})).status_code == 304


async def test_head_tells_what_get_would(shared: Shared) -> None:
    path = _path(await _stored(shared))
    whole, head = await shared.http.get(path), await shared.http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PNG)))
    assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "../relay.db",
        "..%2Frelay.db",
        "%2e%2e/relay.db",
        "%2e%2e%2frelay.db",
        "..%5crelay.db",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "{project}/../../secret.key",
        "{project}",
        "{project}/",
        "{key}/",
        "{key}%00",
        "{key}%00.png",
        "{key}.",
        "{upper}",
        "./{key}",
        "x/../{key}",
        ".unfinished",
        "",
    ],
)
async def test_nothing_but_uploads_is_shown(shared: Shared, path: str) -> None:
    key = (await _stored(shared))["key"]
    chosen = path.format(project=shared.acme.id, key=key, upper=key.upper())
    answer = await _ask_literally(shared, f"/uploads/files/{chosen}")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"RESOURCE_NOT_FOUND" in answer


async def _ask_literally(shared: Shared, target: str) -> bytes:
    """GET a path as it is written: a client would tidy it up first."""
    url = shared.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_file_that_nobody_uploaded_is_not_shown(shared: Shared) -> None:
    stray = _directory(shared) / shared.acme.id / "1-0000000000000000.png"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(PNG)
    response = await shared.http.get(f"/uploads/files/{shared.acme.id}/{stray.name}")
    assert refusal(response) == (404, "RESOURCE_NOT_FOUND")
    stray.unlink()


async def test_upload_whose_file_is_gone_is_not_found(shared: Shared) -> None:
    answer = await _stored(shared)
    (_directory(shared) / answer["key"]).unlink()
    assert refusal(await shared.http.get(_path(answer))) == (404, "RESOURCE_NOT_FOUND")


async def test_upload_that_cannot_be_read_is_a_failure_of_the_store(shared: Shared) -> None:
    answer = await _stored(shared)
    place = _directory(shared) / answer["key"]
    place.unlink()
    place.mkdir()
    assert refusal(await shared.http.get(_path(answer))) == (500, "EXTERNAL_SERVICE_ERROR")
    place.rmdir()


async def test_image_that_cannot_be_written_leaves_nothing(shared: Shared) -> None:
    before, known = _files(shared), await rows(shared.relay, uploads)
    project = _directory(shared) / shared.rival.id
    project.write_bytes(b"a file where the folder has to be")
    files = {"image": ("logo.png", PNG, "image/png")}
    response = await shared.http.post("/uploads/image", headers=shared.rival.headers, files=files)
    assert refusal(response) == (500, "EXTERNAL_SERVICE_ERROR")
    project.unlink()
    assert _files(shared) == before
    assert await rows(shared.relay, uploads) == known


async def test_another_project_does_not_see_it_in_its_keys_but_by_its_url(shared: Shared) -> None:
    answer = await _stored(shared)
    [row] = await rows(shared.relay, uploads, key=answer["key"])
    assert row["project_id"] == shared.acme.id
    assert (await shared.http.get(_path(answer), headers=shared.rival.headers)).status_code == 200


BYTES = st.one_of(
    st.binary(max_size=200), st.sampled_from([PNG, JPEG, GIF, WEBP]).flatmap(lambda data: st.binary().map(data.__add__))
)
HEADER_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=40)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=BYTES, name=HEADER_TEXT, kind=st.sampled_from(TYPES) | HEADER_TEXT)
async def test_any_file_of_any_name_is_refused_or_comes_back_as_it_was(
    shared: Shared, data: bytes, name: str, kind: str
) -> None:
    response = await _upload_raw(shared, name, kind, data)
    if response.status_code != 200:
        assert refusal(response) == (400, "BAD_REQUEST")
        return
    shown = await shared.http.get(_path(response.json()))
    assert (shown.status_code, shown.content) == (200, data)
    assert shown.headers["content-type"] in TYPES
