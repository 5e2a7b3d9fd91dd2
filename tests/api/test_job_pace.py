"""How fast are jobs done? At full speed alone; beside others in small units, with rests."""

import asyncio

import pytest
import sqlalchemy as sa

from plunk_relay.clock import ManualClock
from plunk_relay.db.tables import contacts
from plunk_relay.jobs import imports
from plunk_relay.jobs.csv_file import CsvFile
from plunk_relay.jobs.imports import BEGINNING, ImportRun
from plunk_relay.jobs.pace import Pace
from plunk_relay.relay import Relay
from tests.kit.relay import Tenant
from tests.kit.store import rows

ALONE, BESIDE_OTHERS = imports._ROWS, imports._ROWS_BESIDE_OTHERS
FILE = "email\n" + "".join(f"c{number}@x.test\n" for number in range(600))


class Rests:
    """How long was rested, instead of doing it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def take(self, seconds: float) -> None:
        """Note a rest."""
        self.seconds.append(seconds)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> Rests:
    """Let nobody rest."""
    taken = Rests()
    monkeypatch.setattr("plunk_relay.jobs.pace.asyncio.sleep", taken.take)
    return taken


def _nothing(_tx: sa.Connection) -> None:
    """Be a unit."""


async def test_who_writes_alone_never_rests(relay: Relay, clock: ManualClock, rests: Rests) -> None:
    pace = Pace(relay.db, clock)
    await pace.write(_nothing)  # what was written before is somebody else's
    clock.advance(seconds=1)
    rests.seconds.clear()
    for _ in range(5):
        await pace.write(_take, clock, 20)
        assert not pace.gives_way
    assert rests.seconds == [0] * 5


async def test_beside_somebody_else_it_rests_as_long_as_it_worked_and_for_a_while_after(
    relay: Relay, clock: ManualClock, rests: Rests
) -> None:
    pace = Pace(relay.db, clock)
    await relay.db.write(_nothing)
    for milliseconds in (20, 20, 20, 20):
        await pace.write(_take, clock, milliseconds)
    assert not pace.gives_way
    await relay.db.write(_nothing)
    await pace.write(_take, clock, 3000)
    assert [round(seconds, 3) for seconds in rests.seconds] == [0.02, 0.02, 0.02, 0, 0.1]


def _take(_tx: sa.Connection, clock: ManualClock, milliseconds: int) -> None:
    clock.advance(milliseconds=milliseconds)


async def test_an_import_is_done_in_large_units_alone_and_in_small_ones_beside_others(
    relay: Relay, owner: Tenant, clock: ManualClock
) -> None:
    run = ImportRun(owner.id, CsvFile(FILE.encode()), pace := Pace(relay.db, clock))
    assert await _rows_of_a_unit(relay, run, 0) == ALONE
    await relay.db.write(_nothing)
    await pace.write(_nothing)
    assert await _rows_of_a_unit(relay, run, ALONE) == BESIDE_OTHERS


async def test_jobs_do_not_give_way_to_each_other(relay: Relay, clock: ManualClock) -> None:
    pace = Pace(relay.db, clock)
    await pace.write(_nothing)
    clock.advance(seconds=1)
    await asyncio.gather(*(pace.write(_nothing) for _ in range(5)))
    await pace.write(_nothing)
    assert not pace.gives_way


async def test_rows_are_imported_once_although_units_end_elsewhere_after_a_restart(
    relay: Relay, owner: Tenant, clock: ManualClock
) -> None:
    """Done in small units to the middle of a large one, then in large ones."""
    stopped = BESIDE_OTHERS * 2 + 3
    run = ImportRun(owner.id, CsvFile(FILE.encode()), Pace(relay.db, clock))
    last = 1 + stopped  # rows are counted as the file's lines: the columns are the first
    assert await _rows_of_a_unit(relay, run, last, created=stopped) == ALONE - stopped
    assert await rows(relay, contacts, email=f"c{stopped - 1}@x.test") == []
    assert len(await rows(relay, contacts)) == ALONE - stopped


async def _rows_of_a_unit(relay: Relay, run: ImportRun, row: int, created: int = 0) -> int:
    """Do the unit behind a row; return how many contacts it made."""
    batch = await run.prepare({**BEGINNING, "row": row, "created": created})
    assert batch is not None
    step = await relay.db.write(batch.apply, relay.clock.now())
    made: int = step.cursor["created"] - created
    return made
