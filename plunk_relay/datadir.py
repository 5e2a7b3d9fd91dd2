"""Who owns the data directory? One server at a time; its lock, its secret key and its admin socket live there."""

import fcntl
import os
import secrets
from pathlib import Path

from plunk_relay.errors import SetupError

_SHORTEST_KEY = 32


def prepare_directory(path: Path) -> None:
    """Make the directory (mode 700) when absent; raises SetupError when it cannot be made or written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cannot make the data directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise SetupError(f"the data directory {path} is not writable by this user")


class DirectoryLock:
    """An advisory lock on the directory; the kernel drops it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False when another process has it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(f"cannot open {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def load_secret_key(directory: Path, configured: str | None) -> str:
    """Return the configured key, else the one kept in the directory, made on the first start.

    Raises SetupError when the kept one cannot be read or is not whole.
    """
    if configured:
        return configured
    path = directory / "secret.key"
    try:
        if not path.exists():
            _write_new_key(path)
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read or make the secret key {path}: {getattr(error, 'strerror', error)}") from error
    if len(key) < _SHORTEST_KEY:
        raise SetupError(f"the secret key {path} is not whole: restore it from a copy, as stored secrets are sealed with it")
    return key


def _write_new_key(path: Path) -> None:
    # whole and on disk before anything is sealed: half a key would lock every stored secret for ever
    write_private_file(path, secrets.token_hex(32) + "\n")


def write_private_file(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all; when it returns it is on disk."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
