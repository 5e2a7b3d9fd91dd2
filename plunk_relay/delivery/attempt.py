"""How is one group of mails delivered? Read `Courier`: gather, compose and sign, find peers, connect, send, finish.

While one group is on the wire the next ones are made ready: composed, signed and marked as about to be sent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from plunk_relay.batcher import Batcher
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Group, Lane
from plunk_relay.delivery.outcomes import Failed, Finished, Result, Uncounted
from plunk_relay.delivery.prepare import Draft, gather_draft
from plunk_relay.emails.queue import Claimed, keep_captured, mark_dots
from plunk_relay.errors import NotFound, RelayError
from plunk_relay.log import get_logger
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply, Unknown
from plunk_relay.mail.session import ConnectionFailed, Peer, Timeouts
from plunk_relay.mail.transport import Connection, Envelope, Transaction
from plunk_relay.relay import Relay

log = get_logger("delivery")
_READY_AHEAD = 3
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
    """One group on its way."""

    group: Group
    started_at: datetime
    started: float
    conversation: Conversation
    ready: asyncio.Future[bytes | Failed] | None = None
    """The signed bytes, or why they must not be sent; None: nobody makes them ready."""
    mark: asyncio.Future[list[None]] | None = None
    """Storing that the final dot is about to go out; None: not asked for yet."""
    dot_sent: bool = False
    """The final dot may have left, and its reply did not come yet."""
    connection: Connection | None = None
    """What it was last tried on; None: no session came about."""


class Courier:
    """One connection's carrier: takes groups of one lane, one after the other."""

    def __init__(self, office: Office, lane: Lane) -> None:
        self._loop = asyncio.get_running_loop()
        self._office = office
        self._relay = office.relay
        self._settings = office.relay.settings.delivery
        self._lane = lane
        self._connection: Connection | None = None
        self._ahead: deque[Trip] = deque()

    async def next_trip(self, idle_seconds: float) -> Trip | None:
        """Begin the lane's next group, and a few more ahead; None when no group came for a while."""
        trip = self._ahead.popleft() if self._ahead else None
        if trip is None:
            group = await self._lane.take(idle_seconds)
            if group is None:
                return None
            trip = self._begin(group)
        while len(self._ahead) < _READY_AHEAD and (following := self._lane.take_ahead()) is not None:
            self._ahead.append(self._begin(following))
        return trip

    async def carry(self, trip: Trip) -> None:
        """Deliver a group; every mail of it ends with a result, whatever happens."""
        task = asyncio.current_task()
        if task is not None:
            self._office.active.add(task)
        try:
            async with asyncio.timeout(self._settings.attempt_seconds):
                await self._carry(trip)
        except TimeoutError:
            await self._abort(trip, Deferred(Reply(451, "4.3.0", "the attempt took too long")))
        except asyncio.CancelledError:
            await self._abort(trip, Uncounted(_STOPPING))
            raise
        except RelayError as error:  # the mark before the dot could not be stored
            await self._abort(trip, Deferred(Reply(451, "4.3.1", error.message)))
        except Exception:  # a fault of ours must not stop the other mails
            log.exception("delivery attempt failed", queue_ids=[one.id for one in trip.group])
            await self._abort(trip, Deferred(Reply(451, "4.3.0", "internal error; the operator's log tells more")))
        finally:
            if task is not None:
                self._office.active.discard(task)

    async def put_back(self) -> None:
        """Give up the groups that were begun and not carried."""
        await self._drop_ahead(Uncounted(_STOPPING))

    async def go_home(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _begin(self, group: Group) -> Trip:
        trip = Trip(group, self._relay.clock.now(), self._loop.time(), Conversation())
        trip.ready = self._loop.create_task(self._make_ready(trip), name="make ready")
        return trip

    async def _make_ready(self, trip: Trip) -> bytes | Failed:
        """Return the signed bytes; where they can go out at once, that is stored too: it waits for the disk."""
        try:
            draft = await gather_draft(self._relay, trip.group[0])
        except NotFound as error:
            return Failed(error.message)
        built = draft if isinstance(draft, Failed) else await self._office.builder.add(draft)
        if isinstance(built, bytes) and self._connection is not None and self._connection.usable:
            await self._mark_dot(trip)
        return built

    async def _mark_dot(self, trip: Trip) -> None:
        """Store that the final dot may go out, before it does (delivery promise 4)."""
        if trip.mark is None:
            now = self._relay.clock.now()
            trip.mark = asyncio.gather(*(self._relay.db.write_joint(mark_dots, (one.id, now)) for one in trip.group))
        await asyncio.shield(trip.mark)

    async def _carry(self, trip: Trip) -> None:
        assert trip.ready is not None  # noqa: S101  _begin() set it
        message = await asyncio.shield(trip.ready)
        if isinstance(message, Failed):
            self._finish_all(trip, message)
            return
        if self._lane.plan.kind == "capture":
            await self._keep(trip, message)
            return
        recipients = tuple(one.recipient for one in trip.group)
        transaction = await self._transmit(trip, Envelope(trip.group[0].sender, recipients, message))
        if transaction is not None:
            self._finish_transaction(trip, transaction)

    async def _keep(self, trip: Trip, message: bytes) -> None:
        now = self._relay.clock.now()
        rows = [{"delivery_id": one.id, "message": message, "created_at": now} for one in trip.group]
        await self._relay.db.write(keep_captured, rows)
        reply = Reply(250, "2.0.0", "captured: kept here, not sent")
        self._finish_all(trip, Delivered(reply), host="capture")

    async def _transmit(self, trip: Trip, envelope: Envelope) -> Transaction | None:
        """Send on the open connection, or on a new one to the first peer that takes it; None: finished already."""
        refused: Transaction | None = None
        if self._connection is not None and self._connection.usable and not self._worn_out(self._connection):
            transaction = await self._send(trip, self._connection, envelope)
            if transaction.host_refused is not None:
                refused = transaction
            elif not _closed_on_us(transaction, self._connection):
                return transaction
        peers = await self._office.peers.find(self._lane.plan, trip.group[0].domain)
        if refused is not None and self._connection is not None:
            asked = self._connection.peer.address
            others = [peer for peer in peers if peer.address != asked] if isinstance(peers, list) else []
            return await self._try_peers(trip, envelope, others, refused) if others else refused
        await self.go_home()
        if isinstance(peers, Deferred | Bounced):
            await self._finish_lane(trip, peers)
            return None
        return await self._try_peers(trip, envelope, peers, None)

    async def _try_peers(
        self, trip: Trip, envelope: Envelope, peers: list[Peer], refused: Transaction | None
    ) -> Transaction | None:
        """Ask one host after the other; `refused` is what a host said that was asked before."""
        transaction, verdict = refused, refused.host_refused if refused else None
        for peer in peers:
            await self.go_home()
            try:
                self._connection = await Connection.open(
                    peer, trip.conversation, local_hostname=self._relay.hostname, timeouts=self._timeouts()
                )
            except ConnectionFailed as failure:
                verdict = _milder(verdict, failure.outcome)
                continue
            transaction = await self._send(trip, self._connection, envelope)
            if transaction.host_refused is None:
                return transaction
            verdict = _milder(verdict, transaction.host_refused)
        if transaction is not None and isinstance(verdict, Bounced):
            return transaction  # every host was asked, and one refused this very mail
        unreachable = Deferred(Reply(451, "4.4.1", "no host could be reached"))
        if transaction is not None:
            self._finish_all(trip, verdict or unreachable)
            return None
        self._lane.slow_down()
        await self._finish_lane(trip, verdict or unreachable)
        return None

    async def _send(self, trip: Trip, connection: Connection, envelope: Envelope) -> Transaction:
        def note_dot() -> None:
            trip.dot_sent = True

        trip.connection = connection
        await self._mark_dot(trip)
        transaction = await connection.send(envelope, trip.conversation, before_dot=note_dot)
        trip.dot_sent = False
        return transaction

    def _finish_transaction(self, trip: Trip, transaction: Transaction) -> None:
        results = transaction.outcomes
        if any(isinstance(result, Delivered) for result in results.values()):
            self._lane.speed_up()
        elif any(isinstance(r, Deferred) and r.reply.code == 421 for r in results.values()):
            self._lane.slow_down()
        left_over: Group = []
        for one in trip.group:
            if _is_left_over(results[one.recipient], results):
                left_over.append(one)
            else:
                self._finish_one(trip, one, results[one.recipient])
        if left_over:
            self._lane.put_first(left_over)

    async def _finish_lane(self, trip: Trip, verdict: Deferred | Bounced) -> None:
        """End the group, and for a dead destination everything that waits for it, without waiting out each time-out."""
        if isinstance(verdict, Deferred):
            await self._drop_ahead(verdict, conversation=trip.conversation)
            for group in self._lane.take_all():
                self._finish_all(Trip(group, trip.started_at, trip.started, trip.conversation), verdict)
        self._finish_all(trip, verdict)

    def _finish_all(self, trip: Trip, result: Result, *, host: str | None = None) -> None:
        for one in trip.group:
            self._finish_one(trip, one, result, host=host)

    def _finish_one(self, trip: Trip, one: Claimed, result: Result, *, host: str | None = None) -> None:
        connection = trip.connection
        self._office.finish(
            Finished(
                one,
                result,
                confirmed=self._lane.plan.kind != "smarthost",
                started_at=trip.started_at,
                milliseconds=int((self._loop.time() - trip.started) * 1000),
                host=host or (str(connection.peer) if connection else None),
                tls=connection.tls_description if connection else None,
                conversation=str(trip.conversation),
            )
        )

    async def _abort(self, trip: Trip, otherwise: Result) -> None:
        """End a trip that broke off: after the dot nobody knows, before it nothing has happened. Not to be cancelled."""
        if (task := asyncio.current_task()) is not None:
            self._office.active.discard(task)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        reply = otherwise.reply.text if isinstance(otherwise, Deferred) else _STOPPING
        trip.conversation.remark(reply)
        await self._drop(trip, Unknown(reply) if trip.dot_sent else otherwise)

    async def _drop_ahead(self, result: Result, *, conversation: Conversation | None = None) -> None:
        while self._ahead:
            await self._drop(self._ahead[0], result, conversation=conversation)
            self._ahead.popleft()  # not before: what is cancelled here is put back later

    async def _drop(self, trip: Trip, result: Result, *, conversation: Conversation | None = None) -> None:
        """Finish a trip once nothing of it is under way: a mark must not be stored after its result."""
        for work in (trip.ready, trip.mark):
            if work is not None:
                await asyncio.wait([work])
                _ = work.cancelled() or work.exception()  # looked at, if nobody waited for it
        trip.conversation = conversation or trip.conversation
        self._finish_all(trip, result)

    def _worn_out(self, connection: Connection) -> bool:
        return connection.messages_sent >= self._settings.messages_per_connection

    def _timeouts(self) -> Timeouts:
        settings = self._settings
        return Timeouts(settings.connect_seconds, settings.reply_seconds, settings.final_reply_seconds)


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
