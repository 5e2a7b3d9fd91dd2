"""How is one group of mails delivered? Read `Courier`: gather, compose and sign, find peers, connect, send, finish.

While one group is on the wire the next one is made ready: composed, signed and marked as about to be sent.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from plunk_relay.batcher import Batcher
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Group, Lane
from plunk_relay.delivery.outcomes import Failed, Finished, Result, Uncounted
from plunk_relay.delivery.prepare import Draft, gather_draft
from plunk_relay.emails.queue import keep_captured, mark_dots
from plunk_relay.errors import RelayError
from plunk_relay.log import get_logger
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply, Unknown
from plunk_relay.mail.transport import Connection, ConnectionFailed, Envelope, Peer, Timeouts, Transaction
from plunk_relay.relay import Relay

log = get_logger("delivery")
_STOPPING = "the relay is stopping"
_TOO_MANY_RECIPIENTS = ("4.5.3", "5.5.3")


@dataclass(frozen=True, slots=True)
class Office:
    """What all couriers share."""

    relay: Relay
    peers: PeerFinder
    builder: Batcher[Draft, bytes | Failed]
    finish: Callable[[Finished], None]
    active: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class Trip:
    """One group on its way; `ready` becomes its signed bytes, or why it must not be sent."""

    group: Group
    started_at: datetime
    started: float
    ready: asyncio.Future[bytes | Failed] | None = None
    dot_sent: bool = False


class Courier:
    """One connection's carrier: takes groups of one lane, one after the other."""

    def __init__(self, office: Office, lane: Lane) -> None:
        self._loop = asyncio.get_running_loop()
        self._office = office
        self._relay = office.relay
        self._settings = office.relay.settings.delivery
        self._lane = lane
        self._connection: Connection | None = None

    def begin(self, group: Group) -> Trip:
        """Start to make a group ready."""
        return Trip(
            group,
            self._relay.clock.now(),
            self._loop.time(),
            ready=self._loop.create_task(self._make_ready(group), name="make ready"),
        )

    def put_back(self, trip: Trip) -> None:
        """Give up a group that was begun and not carried."""
        if trip.ready is not None:
            trip.ready.cancel()
        self._finish_all(trip, Uncounted(_STOPPING))

    async def carry(self, trip: Trip) -> None:
        """Deliver a group; every mail of it ends with a result, whatever happens."""
        task = asyncio.current_task()
        if task is not None:
            self._office.active.add(task)
        try:
            async with asyncio.timeout(self._settings.attempt_seconds):
                await self._carry(trip)
        except TimeoutError:
            await self._abort(trip, "the attempt took too long")
        except asyncio.CancelledError:
            await self._abort(trip, _STOPPING)
            raise
        except Exception:  # a fault of ours must not stop the other mails
            log.exception("delivery attempt failed", queue_ids=[one.id for one in trip.group])
            await self._abort(trip, "internal error; the operator's log tells more")
        finally:
            if task is not None:
                self._office.active.discard(task)

    async def go_home(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _carry(self, trip: Trip) -> None:
        assert trip.ready is not None  # noqa: S101  begin() set it
        message = await trip.ready
        if isinstance(message, Failed):
            self._finish_all(trip, message)
            return
        if self._lane.plan.kind == "capture":
            await self._keep(trip, message)
            return
        recipients = tuple(one.recipient for one in trip.group)
        envelope = Envelope(trip.group[0].sender, recipients, message)
        transaction = await self._transmit(trip, envelope)
        if transaction is not None:
            self._finish_transaction(trip, transaction)

    async def _make_ready(self, group: Group) -> bytes | Failed:
        """Return the signed bytes; that the final dot may go out is stored before (delivery promise 4)."""
        try:
            draft = await gather_draft(self._relay, group[0])
        except RelayError as error:
            return Failed(error.message)
        built = draft if isinstance(draft, Failed) else await self._office.builder.add(draft)
        if isinstance(built, Failed) or self._lane.plan.kind == "capture":
            return built
        now = self._relay.clock.now()
        for mark in [self._relay.db.write_joint(mark_dots, (one.id, now)) for one in group]:
            await mark
        return built

    async def _keep(self, trip: Trip, message: bytes) -> None:
        now = self._relay.clock.now()
        rows = [{"delivery_id": one.id, "message": message, "created_at": now} for one in trip.group]
        await self._relay.db.write(keep_captured, rows)
        reply = Reply(250, "2.0.0", "captured: kept here, not sent")
        self._finish_all(trip, Delivered(reply), host="capture")

    async def _transmit(self, trip: Trip, envelope: Envelope) -> Transaction | None:
        """Send on the open connection, or on a new one to the first peer that takes it; None: finished already."""
        if self._connection is not None and self._connection.usable and not self._worn_out(self._connection):
            transaction = await self._send(trip, self._connection, envelope)
            if not _closed_on_us(transaction, self._connection):
                return transaction
        await self.go_home()
        peers = await self._office.peers.find(self._lane.plan, trip.group[0].domain)
        if isinstance(peers, Deferred | Bounced):
            self._finish_lane(trip, peers, conversation="")
            return None
        return await self._try_peers(trip, envelope, peers)

    async def _try_peers(self, trip: Trip, envelope: Envelope, peers: list[Peer]) -> Transaction | None:
        said: list[str] = []
        verdict: Deferred | Bounced | None = None
        for index, peer in enumerate(peers):
            try:
                self._connection = await Connection.open(
                    peer, local_hostname=self._relay.hostname, timeouts=self._timeouts()
                )
            except ConnectionFailed as failure:
                said.append(failure.conversation)
                verdict = _milder(verdict, failure.outcome)
                continue
            transaction = await self._send(trip, self._connection, envelope)
            if transaction.sender_refused and index + 1 < len(peers):
                said.append(transaction.conversation)
                verdict = next(o for o in transaction.outcomes.values() if isinstance(o, Bounced | Deferred))
                await self.go_home()
                continue
            return Transaction(transaction.outcomes, "\n".join([*said, transaction.conversation]))
        self._lane.slow_down()
        unreachable = Deferred(Reply(451, "4.4.1", "no host could be reached"))
        self._finish_lane(trip, verdict or unreachable, conversation="\n".join(said))
        return None

    async def _send(self, trip: Trip, connection: Connection, envelope: Envelope) -> Transaction:
        def note_dot() -> None:
            trip.dot_sent = True

        return await connection.send(envelope, before_dot=note_dot)

    def _finish_transaction(self, trip: Trip, transaction: Transaction) -> None:
        results = transaction.outcomes
        if any(isinstance(result, Delivered) for result in results.values()):
            self._lane.speed_up()
        elif any(isinstance(r, Deferred) and r.reply.code == 421 for r in results.values()):
            self._lane.slow_down()
        left_over = [one for one in trip.group if _is_left_over(results[one.recipient], results)]
        for one in trip.group:
            if one not in left_over:
                self._finish_one(
                    trip, one_index=trip.group.index(one), result=results[one.recipient], transaction=transaction
                )
        if left_over:
            self._lane.put_first(left_over)

    def _finish_one(self, trip: Trip, *, one_index: int, result: Result, transaction: Transaction) -> None:
        connection = self._connection
        self._office.finish(
            Finished(
                trip.group[one_index],
                result,
                confirmed=self._lane.plan.kind != "smarthost",
                started_at=trip.started_at,
                milliseconds=self._elapsed(trip),
                host=str(connection.peer) if connection else None,
                tls=connection.tls_description if connection else None,
                conversation=transaction.conversation,
            )
        )

    def _finish_lane(self, trip: Trip, verdict: Deferred | Bounced, *, conversation: str) -> None:
        """End the group, and for a dead destination everything that waits for it, without waiting out each time-out."""
        self._finish_all(trip, verdict, conversation=conversation)
        if isinstance(verdict, Deferred):
            for group in self._lane.take_all():
                self._finish_all(Trip(group, trip.started_at, trip.started), verdict, conversation=conversation)

    def _finish_all(self, trip: Trip, result: Result, *, host: str | None = None, conversation: str = "") -> None:
        for one in trip.group:
            self._office.finish(
                Finished(
                    one,
                    result,
                    confirmed=self._lane.plan.kind != "smarthost",
                    started_at=trip.started_at,
                    milliseconds=self._elapsed(trip),
                    host=host,
                    conversation=conversation,
                )
            )

    async def _abort(self, trip: Trip, reason: str) -> None:
        """End a trip that broke off: after the dot nobody knows, before it nothing has happened."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if trip.dot_sent:
            self._finish_all(trip, Unknown(reason))
        elif reason == _STOPPING:
            self._finish_all(trip, Uncounted(reason))
        else:
            self._finish_all(trip, Deferred(Reply(451, "4.3.0", reason)))

    def _worn_out(self, connection: Connection) -> bool:
        return connection.messages_sent >= self._settings.messages_per_connection

    def _timeouts(self) -> Timeouts:
        settings = self._settings
        return Timeouts(settings.connect_seconds, settings.reply_seconds, settings.final_reply_seconds)

    def _elapsed(self, trip: Trip) -> int:
        return int((self._loop.time() - trip.started) * 1000)


def _closed_on_us(transaction: Transaction, connection: Connection) -> bool:
    """Tell whether a used connection just ended (421, or closed while idle): a new one is tried at once."""
    return not connection.usable and all(
        isinstance(outcome, Deferred) and outcome.reply.code == 421 for outcome in transaction.outcomes.values()
    )


def _is_left_over(result: Result, results: Mapping[str, Result]) -> bool:
    """Tell a recipient beyond the peer's limit (RFC 5321 4.5.3.1.10): it goes in the next transaction at once."""
    if not isinstance(result, Deferred | Bounced) or result.reply.code not in (452, 552):
        return False
    too_many = result.reply.enhanced in _TOO_MANY_RECIPIENTS or (result.reply.enhanced is None and result.reply.code == 452)
    return too_many and any(isinstance(other, Delivered) for other in results.values())


def _milder(first: Deferred | Bounced | None, second: Deferred | Bounced) -> Deferred | Bounced:
    """Prefer a temporary failure: while one host may still take the mail, it is not bounced."""
    return first if isinstance(first, Deferred) else second
