"""What can every test of the database ask for? A migrated file, open."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plunk_relay.db.engine import Database
from plunk_relay.db.migrate import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of the `db` fixture is."""
    return tmp_path / "relay.db"


@pytest.fixture
async def db(path: Path) -> AsyncIterator[Database]:
    """Open an empty database of this version."""
    opened = await Database.open(path)
    try:
        await migrate(opened, path)
        yield opened
    finally:
        await opened.close()
