"""Where are uploaded images? In a directory or in an S3 store; a row is never without its file, nor a file left behind."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plunk_relay.db.tables import uploads
from plunk_relay.errors import SetupError, UsageError
from plunk_relay.projects.actions import create_project
from plunk_relay.relay import Relay
from tests.kit.api import refusal
from tests.kit.http import running_http
from tests.kit.images import PNG
from tests.kit.relay import Tenant, make_settings, running_relay
from tests.kit.s3 import BUCKET, S3Server, StoredObject, running_s3
from tests.kit.store import rows
from tests.kit.volume import small_volume


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """Run a store."""
    with running_s3() as store:
        yield store


@asynccontextmanager
async def _serving(data_dir: Path, **settings: Any) -> AsyncIterator[tuple[Relay, httpx2.AsyncClient, Tenant]]:
    """Serve a relay with these settings of uploads, and make a project."""
    async with running_relay(data_dir, uploads=settings) as relay, running_http(relay) as http:
        project, keys = await create_project(relay, "acme", owner_id=None)
        yield relay, http, Tenant(project.id, keys.public, keys.secret, "")


async def _upload(http: httpx2.AsyncClient, tenant: Tenant, data: bytes = PNG) -> httpx2.Response:
    files = {"image": ("logo.png", data, "image/png")}
    return await http.post("/uploads/image", headers=tenant.headers, files=files)


async def _refuse_rows(relay: Relay) -> None:
    """Let the database take no upload any more."""

    def make(raw: sqlite3.Connection) -> None:
        raw.execute("CREATE TRIGGER full BEFORE INSERT ON uploads BEGIN SELECT RAISE(ABORT, 'no more'); END")

    await relay.db.migrate(make)


def _files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


async def test_directory_prefix_and_public_url_are_settings(tmp_path: Path) -> None:
    chosen = {"directory": tmp_path / "a" / "b", "prefix": "mail/img", "public_url": "https://cdn.test/x/"}
    async with _serving(tmp_path, **chosen) as (_, http, tenant):
        answer = (await _upload(http, tenant)).json()
        assert answer["key"].startswith(f"mail/img/{tenant.id}/")
        assert answer["url"] == f"https://cdn.test/x/{answer['key']}"
        assert _files(tmp_path / "a" / "b") == [answer["key"]]
        assert (await http.get(f"/uploads/files/{answer['key']}")).content == PNG


async def test_images_are_there_after_a_restart(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (_, http, tenant):
        key = (await _upload(http, tenant)).json()["key"]
    async with _serving(tmp_path, prefix="new/") as (_, http, tenant):
        assert (await http.get(f"/uploads/files/{key}")).content == PNG


async def test_what_a_kill_left_unfinished_is_dropped_at_the_start(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (_, http, tenant):
        key = (await _upload(http, tenant)).json()["key"]
        (tmp_path / "uploads" / ".unfinished" / "half").write_bytes(PNG[:20])
    async with _serving(tmp_path):
        assert _files(tmp_path / "uploads") == [key]


async def test_directory_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SetupError, match=r"`uploads\.directory`: cannot prepare .*taken"):
        async with running_relay(tmp_path, uploads={"directory": tmp_path / "taken"}):
            pass


async def test_file_without_a_row_is_taken_away(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (relay, http, tenant):
        await _refuse_rows(relay)
        assert (await _upload(http, tenant)).status_code == 500
        assert _files(tmp_path / "uploads") == []


async def test_below_the_reserve_of_the_disk_nothing_is_stored(tmp_path: Path) -> None:
    async with running_relay(tmp_path, limits={"minimum_free_megabytes": 10**9}) as relay, running_http(relay) as http:
        project, keys = await create_project(relay, "acme", owner_id=None)
        response = await _upload(http, Tenant(project.id, keys.public, keys.secret, ""))
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert _files(tmp_path / "uploads") == []


@pytest.mark.slow
async def test_full_disk_is_a_503_and_leaves_no_half_file(tmp_path: Path) -> None:
    with small_volume(tmp_path / "volume", megabytes=2) as volume:
        async with _serving(tmp_path, directory=volume / "uploads") as (relay, http, tenant):
            key = (await _upload(http, tenant)).json()["key"]
            response = await _upload(http, tenant, PNG + bytes(3_000_000))
            assert refusal(response) == (503, "INTERNAL_SERVER_ERROR")
            assert "full" in response.json()["error"]["message"]
            assert _files(volume / "uploads") == [key]
            assert [row["key"] for row in await rows(relay, uploads)] == [key]
            assert (await _upload(http, tenant, PNG + bytes(1_000_000))).status_code == 200


async def test_object_is_put_with_its_type_and_read_by_everybody(tmp_path: Path, s3: S3Server) -> None:
    async with _serving(tmp_path, **s3.settings, prefix="mail") as (relay, http, tenant):
        answer = (await _upload(http, tenant)).json()
        assert answer["key"].startswith(f"mail/{tenant.id}/")
        assert answer["url"] == f"http://127.0.0.1:{s3.port}/{BUCKET}/{answer['key']}"
        assert s3.objects == {answer["key"]: StoredObject(PNG, "image/png", "public, max-age=31536000, immutable")}
        assert s3.requests == [f"PUT {answer['key']}"]
        async with httpx2.AsyncClient() as anybody:
            assert (await anybody.get(answer["url"])).content == PNG
        assert [row["key"] for row in await rows(relay, uploads)] == [answer["key"]]
        assert not (tmp_path / "uploads").exists()


async def test_largest_object_is_put_at_once(tmp_path: Path, s3: S3Server) -> None:
    async with _serving(tmp_path, **s3.settings) as (_, http, tenant):
        largest = PNG + bytes(10 * 1024 * 1024 - len(PNG))
        key = (await _upload(http, tenant, largest)).json()["key"]
        assert s3.requests == [f"PUT {key}"]
        assert s3.objects[key].data == largest


async def test_public_url_stands_before_the_key(tmp_path: Path, s3: S3Server) -> None:
    async with _serving(tmp_path, **s3.settings, public_url="https://img.test/") as (_, http, tenant):
        answer = (await _upload(http, tenant)).json()
        assert answer["url"] == f"https://img.test/{answer['key']}"


async def test_relay_leads_to_an_object_and_shows_what_is_still_on_its_disk(tmp_path: Path, s3: S3Server) -> None:
    async with _serving(tmp_path) as (_, http, tenant):
        old = (await _upload(http, tenant)).json()["key"]
    async with _serving(tmp_path, **s3.settings) as (_, http, tenant):
        new = (await _upload(http, tenant)).json()
        assert (await http.get(f"/uploads/files/{old}")).content == PNG
        response = await http.get(f"/uploads/files/{new['key']}")
        assert (response.status_code, response.headers["location"]) == (302, new["url"])
        assert (await http.get(f"/uploads/files/{tenant.id}/1-0000000000000000.png")).status_code == 404


async def test_refusal_of_the_store_is_a_failure_and_no_row(tmp_path: Path, s3: S3Server) -> None:
    wrong = s3.settings | {"s3_secret_key": "wrong"}
    async with _serving(tmp_path, **wrong) as (relay, http, tenant):
        response = await _upload(http, tenant)
        assert refusal(response) == (500, "EXTERNAL_SERVICE_ERROR")
        assert "SignatureDoesNotMatch" in response.json()["error"]["message"]
        assert await rows(relay, uploads) == []


async def test_store_that_fails_once_is_asked_again(tmp_path: Path, s3: S3Server) -> None:
    s3.script = [503]
    async with _serving(tmp_path, **s3.settings) as (_, http, tenant):
        assert (await _upload(http, tenant)).status_code == 200
        assert len(s3.objects) == 1


@pytest.mark.parametrize("script", [[500, 500], ["silent", "silent"], [404], [301]])
async def test_store_that_fails_is_a_failure_and_no_row(tmp_path: Path, s3: S3Server, script: list[int | str]) -> None:
    s3.script = script
    async with _serving(tmp_path, **s3.settings, s3_seconds=0.2) as (relay, http, tenant):
        response = await _upload(http, tenant)
        assert refusal(response) == (500, "EXTERNAL_SERVICE_ERROR")
        assert s3.settings["s3_secret_key"] not in response.text
        assert await rows(relay, uploads) == []
        assert (await _upload(http, tenant)).status_code == 200


async def test_store_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with running_s3() as gone:
        nowhere = gone.settings
    async with _serving(tmp_path, **nowhere) as (relay, http, tenant):
        assert refusal(await _upload(http, tenant)) == (500, "EXTERNAL_SERVICE_ERROR")
        assert await rows(relay, uploads) == []


async def test_object_without_a_row_is_taken_away(tmp_path: Path, s3: S3Server) -> None:
    async with _serving(tmp_path, **s3.settings) as (relay, http, tenant):
        await _refuse_rows(relay)
        assert (await _upload(http, tenant)).status_code == 500
        assert [request.partition(" ")[0] for request in s3.requests] == ["PUT", "DELETE"]
        assert s3.objects == {}


@pytest.mark.parametrize("missing", ["s3_endpoint", "s3_bucket", "s3_access_key", "s3_secret_key"])
def test_half_a_store_is_refused_with_what_is_missing(tmp_path: Path, missing: str) -> None:
    half = {key: value for key, value in S3Server(port=1).settings.items() if key != missing}
    with pytest.raises(UsageError, match=rf"`uploads`: .* go together: set all or none; missing: {missing}$"):
        make_settings(tmp_path, uploads=half)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("s3_endpoint", "s3.test"),
        ("s3_endpoint", "https://s3.test/path"),
        ("s3_endpoint", "https://user:secret@s3.test"),
        ("s3_bucket", "Images"),
        ("s3_bucket", "a/b"),
        ("prefix", "../up"),
        ("prefix", "/top"),
        ("prefix", "a//b"),
        ("prefix", ".hidden"),
        ("public_url", "cdn.test"),
        ("public_url", "https://cdn.test/\r\nX: y"),
    ],
)
def test_setting_that_makes_no_url_is_refused_by_its_name(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"`uploads\.{key}`"):
        make_settings(tmp_path, uploads=S3Server(port=1).settings | {key: value})
