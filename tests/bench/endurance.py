"""What does a long queue cost, and does memory stay flat? The relay alone, with 100,000 mails.

`backlog`: a queue of that many due mails is written, then claims of it are timed, then a server is started on it and timed
until the sink has its first mail. `flat`: that many mails go through over kept sessions, and resident memory is read at
every tenth of the way.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from click import echo

from plunk_relay.contacts.actions import ContactChange
from plunk_relay.contents.queries import Content
from plunk_relay.db.engine import Database
from plunk_relay.emails.actions import NewMail, queue_mails
from plunk_relay.emails.queue import Claim, claim_due, give_back
from plunk_relay.ids import new_id
from tests.bench.load import SMTP_LOADS, submit
from tests.bench.measure import resident_bytes
from tests.bench.peers import SENDER_DOMAIN, BenchError, running_sink
from tests.bench.relay import running_relay, settings_of_relay, start_relay
from tests.kit.process import ServerProcess, free_port

MAILS = 100_000
_CHUNK = 1_000
_CLAIMS = 20
_CLAIMED_AT_ONCE = 375  # what an idle deliverer asks for
_PARTS = 10
_FIRST_MAIL_SECONDS = 60.0
_MESSAGE = b"From: bench@%b\r\nSubject: Hello\r\n\r\n" % SENDER_DOMAIN.encode() + b"A line of text.\r\n" * 60


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was measured on a long queue."""

    mails: int
    claim_milliseconds: float
    """Median of a claim."""
    slowest_claim_milliseconds: float
    first_delivery_seconds: float
    """From starting the process until the sink has a mail."""


def measure_backlog(home: Path, *, mails: int = MAILS) -> Backlog:
    """Fill a queue, claim from it, start a server on it."""
    with running_sink(free_port()) as sink:
        server = ServerProcess(home, **settings_of_relay(sink))
        project_id = server.setup(project="bench", domain=SENDER_DOMAIN)["project"]["id"]
        claims = asyncio.run(_fill_and_claim(home / "data" / "relay.db", project_id, mails))
        began = time.monotonic()
        with server:
            start_relay(server)
            while sink.count() == 0:
                if time.monotonic() - began > _FIRST_MAIL_SECONDS:
                    raise BenchError("the server delivered nothing of a long queue")
                time.sleep(0.005)
            first = time.monotonic() - began
    return Backlog(mails, statistics.median(claims), max(claims), first)


def measure_flat(home: Path, *, mails: int = MAILS, sessions: int = 10) -> list[int]:
    """Send mails through; return resident bytes after each tenth."""
    sizes = []
    with running_sink(free_port()) as sink, running_relay(home, sink) as relay:
        for part in range(_PARTS):
            submit(relay, SMTP_LOADS[0], mails=mails // _PARTS, sessions=sessions, tag=f"part{part}")
            sizes.append(sum(map(resident_bytes, relay.meter.tree.pids())))
    return sizes


def print_backlog(found: Backlog) -> None:
    """Say what came out."""
    echo(f"\nA queue of {found.mails:,} mails")
    milliseconds = f"{found.claim_milliseconds:.1f} ms, slowest {found.slowest_claim_milliseconds:.1f} ms"
    echo(f"  claim of {_CLAIMED_AT_ONCE}: {milliseconds}")
    echo(f"  start of the process to the first delivery: {found.first_delivery_seconds:.1f} s")


def print_flat(sizes: Sequence[int], *, mails: int = MAILS) -> None:
    """Say what came out."""
    shown = " ".join(f"{size / 1_000_000:.0f}" for size in sizes)
    echo(f"\nResident MB after each tenth of {mails:,} mails: {shown}")


async def _fill_and_claim(path: Path, project_id: str, mails: int) -> list[float]:
    """Queue mails that are due; return the milliseconds of each claim."""
    db = await Database.open(path)
    try:
        for start in range(0, mails, _CHUNK):
            await db.write(_queue_chunk, project_id, range(start, start + _CHUNK))
        now, owner = datetime.now(UTC), new_id()
        claim = Claim(owner, now, now + timedelta(minutes=30), _CLAIMED_AT_ONCE)
        durations = []
        for _ in range(_CLAIMS):
            began = time.perf_counter()
            await db.write(claim_due, claim)
            durations.append((time.perf_counter() - began) * 1000)
        await db.write(give_back, owner, now=now)
        return durations
    finally:
        await db.close()


def _queue_chunk(tx: sa.Connection, project_id: str, numbers: range) -> None:
    now = datetime.now(UTC)
    contents = [Content(new_id(), project_id, "MIME", _MESSAGE) for _ in numbers]
    mails = [_mail(project_id, f"backlog{n}@example.org", c.id, now) for n, c in zip(numbers, contents, strict=True)]
    queue_mails(tx, contents, mails, now=now)


def _mail(project_id: str, recipient: str, content_id: str, now: datetime) -> NewMail:
    delivery_id = new_id()
    return NewMail(
        email_id=new_id(),
        delivery_id=delivery_id,
        project_id=project_id,
        contact=ContactChange(recipient, subscribed_if_new=False),
        rendered_for=None,
        recipient=recipient,
        to_name=None,
        subject="Hello",
        from_address=f"bench@{SENDER_DOMAIN}",
        from_name=None,
        reply_to=None,
        headers=None,
        content_id=content_id,
        attachments_id=None,
        message_id=f"{delivery_id}@{SENDER_DOMAIN}",
        mail_class="transactional",
        source_type="TRANSACTIONAL",
        sender=f"bench@{SENDER_DOMAIN}",
        expires_at=now + timedelta(days=4),
    )
