"""How are secrets kept, and who owns the directory they are in?"""

from pathlib import Path

import pytest

from plunk_relay.datadir import DirectoryLock, load_secret_key, prepare_directory
from plunk_relay.errors import SetupError
from plunk_relay.secretbox import SecretBox

KEY = "k" * 40


@pytest.mark.parametrize("secret", ["", "sk_123", "-----BEGIN PRIVATE KEY-----\nÄ\n" * 100])
def test_a_sealed_secret_is_opened_again(secret: str) -> None:
    box = SecretBox(KEY)
    sealed = box.seal(secret, purpose="api key")
    assert SecretBox(KEY).open(sealed, purpose="api key") == secret
    assert not secret or secret not in sealed


def test_the_same_secret_is_never_sealed_the_same_way() -> None:
    assert len({SecretBox(KEY).seal("secret", purpose="api key") for _ in range(50)}) == 50


@pytest.mark.parametrize("case", ["another key", "another purpose", "changed", "cut", "empty", "no base64"])
def test_what_was_not_sealed_so_is_not_opened(case: str) -> None:
    box = SecretBox(KEY)
    sealed = box.seal("secret", purpose="api key")
    other = "B" if sealed[-6] == "A" else "A"
    texts = {"changed": sealed[:-6] + other + sealed[-5:], "cut": sealed[:12], "empty": "", "no base64": "1.x"}
    opener = SecretBox("o" * 40) if case == "another key" else box
    purpose = "dkim key" if case == "another purpose" else "api key"
    with pytest.raises(SetupError, match=r"server.secret_key does not fit this database"):
        opener.open(texts.get(case, sealed), purpose=purpose)


def test_the_first_start_makes_a_key_that_stays(tmp_path: Path) -> None:
    key = load_secret_key(tmp_path, None)
    assert len(key) == 64
    assert load_secret_key(tmp_path, None) == key
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def test_every_relay_makes_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert load_secret_key(tmp_path / "a", None) != load_secret_key(tmp_path / "b", None)


def test_a_configured_key_is_taken_and_not_written(tmp_path: Path) -> None:
    assert load_secret_key(tmp_path, KEY) == KEY
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_broke_off_while_the_key_was_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_text("half a k")
    assert len(load_secret_key(tmp_path, None)) == 64


@pytest.mark.parametrize("content", [b"", b"\n", b"half a key", b"\xff" * 64])
def test_a_kept_key_that_is_not_whole_is_not_used_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"secret\.key"):
        load_secret_key(tmp_path, None)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot read or make the secret key .*No such file or directory"):
        load_secret_key(tmp_path / "absent", None)


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a" / "data")
    assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700
    prepare_directory(tmp_path / "a" / "data")


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    second.release()
