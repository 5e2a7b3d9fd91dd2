"""Is every row of a file imported once, although the server is killed in the middle of it?"""

import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kit.process import ServerProcess

ROWS = 20_000
CONTACTS = ROWS // 2
KILLED_AT = (10, 40, 75)
_DEADLINE_SECONDS = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Return a server that is not started, with a project."""
    with ServerProcess(tmp_path, delivery={"route": "capture"}) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_row_is_imported_once_although_the_server_is_killed_again_and_again(server: ServerProcess) -> None:
    key = server.setup()["project"]["secret"]
    server.start()
    job_id = _upload(server, key, _file())
    seen: list[int] = []
    for percent in KILLED_AT:
        _follow(server, key, job_id, seen, until=_reached(percent))
        server.kill()
        state, left = _look(server.directory / "data" / "relay.db", "SELECT state, progress FROM jobs")[0]
        assert state == "active", "it was not killed in the middle"
        seen.append(left)
        server.start()
    job = _follow(server, key, job_id, seen, until=lambda shown: shown["state"] not in ("waiting", "active"))
    assert seen == sorted(seen), "the progress went back"
    counts = {"totalRows": ROWS, "createdCount": CONTACTS, "updatedCount": ROWS - CONTACTS, "failureCount": 0}
    assert job["state"] == "completed"
    assert counts.items() <= job["result"].items()
    assert server.terminate() == 0
    _check_rows(server.directory / "data" / "relay.db")


def _file() -> bytes:
    """Name each contact twice: it is made, then unsubscribed, which is an event."""
    made = (f"c{number}@x.test,{number},yes" for number in range(CONTACTS))
    unsubscribed = (f"c{number}@x.test,,no" for number in range(CONTACTS))
    return "\n".join(["email,number,subscribed", *made, *unsubscribed]).encode()


def _upload(server: ServerProcess, key: str, data: bytes) -> str:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="people.csv"\r\n\r\n'
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "multipart/form-data; boundary=edge"}
    url = f"http://127.0.0.1:{server.http_port}/contacts/import"
    request = urllib.request.Request(url, data=head + data + b"\r\n--edge--\r\n", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
        job_id: str = json.load(answer)["jobId"]
        return job_id


def _reached(percent: int) -> Callable[[dict[str, Any]], bool]:
    return lambda shown: bool(shown["progress"] >= percent)


def _follow(
    server: ServerProcess, key: str, job_id: str, seen: list[int], *, until: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Ask for the job again and again, noting its progress; return what is told in the end."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        answered, shown = server.ask(f"/contacts/import/{job_id}", key=key)
        assert answered == 200
        seen.append(shown["progress"])
        if until(shown):
            return shown
        time.sleep(0.01)
    raise AssertionError(f"the import stands still at {seen[-1]} %")


def _look(database: Path, question: str) -> list[Any]:
    """Ask the file of a server that is not running."""
    with closing(sqlite3.connect(database)) as db:
        return db.execute(question).fetchall()


def _check_rows(database: Path) -> None:
    stored = _look(database, "SELECT email, json_extract(data, '$.number'), subscribed FROM contacts")
    assert sorted(stored) == sorted((f"c{number}@x.test", number, 0) for number in range(CONTACTS))
    assert _look(database, "SELECT contacts, subscribed FROM contact_counts") == [(CONTACTS, 0)]
    flips = "SELECT count(*), count(DISTINCT contact_id) FROM events WHERE name = 'contact.unsubscribed'"
    assert _look(database, flips) == [(CONTACTS, CONTACTS)]
