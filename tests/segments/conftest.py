"""What do the tests of conditions ask? A database with the tables, SQLite and PostgreSQL in turn, emptied after each."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from plunk_relay.db.engine import dump_json, load_json
from plunk_relay.db.migrate import list_migrations
from plunk_relay.db.tables import metadata
from tests.kit.postgresql import PostgreSQL
from tests.segments.audience import Audience


@pytest.fixture(scope="session")
def sqlite() -> Iterator[sa.Engine]:
    """Open a database of this version."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, json_serializer=dump_json, json_deserializer=load_json)
    with engine.connect() as tx:
        for _, text in list_migrations():
            tx.connection.driver_connection.executescript(text)  # type: ignore[union-attr]  # it is connected
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[sa.Engine]:
    """Start a server and make the tables."""
    with PostgreSQL() as server:
        metadata.create_all(server.engine)
        yield server.engine


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> sa.Engine:
    """Return the one database, then the other."""
    engine: sa.Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def audience(engine: sa.Engine) -> Iterator[Audience]:
    """Make a project without contacts."""
    with engine.connect() as tx, tx.begin() as transaction:
        yield Audience(tx)
        transaction.rollback()
