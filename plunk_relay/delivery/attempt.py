"""How is one group of mails delivered? Read `Courier`: gather, compose and sign, find peers, connect, send, finish.

While one group is on the wire the next ones are made ready: composed, signed and marked as about to be sent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from plunk_relay.delivery.answers import (
    asks_for_less,
    closed_on_us,
    is_left_over,
    milder,
    preferred_address,
    wants_us_back,
)
from plunk_relay.delivery.hosts import PeerFinder
from plunk_relay.delivery.lanes import Group, Lane
from plunk_relay.delivery.local import deliver_here
from plunk_relay.delivery.outcomes import Failed, Finished, Postponed, Result, Uncounted
from plunk_relay.delivery.prepare import gather_draft, sign_draft
from plunk_relay.delivery.return_path import find_return_path
from plunk_relay.delivery.traffic import Traffic
from plunk_relay.emails.queue import Claimed, clear_dots, keep_captured, mark_dots
from plunk_relay.errors import NotFound, RelayError
from plunk_relay.log import get_logger
from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.dial import dial
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Reply, Unknown
from plunk_relay.mail.session import ConnectionFailed, Peer, Timeouts
from plunk_relay.mail.transport import Connection, Envelope, Transaction
from plunk_relay.relay import Relay

log = get_logger("delivery")
_READY_AHEAD = 3
_STOPPING = "the relay is stopping"
_NO_ANSWER = "4.4.1"
"""Status of a host that could not be connected to, or said nothing (RFC 3463 3.5)."""


@dataclass(frozen=True, slots=True)
class Office:
    """What all couriers share."""

    relay: Relay
    peers: PeerFinder
    finish: Callable[[Finished], None]
    traffic: Traffic
    staff: Callable[[], None]
    """More couriers may be of use."""
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
    deadline: asyncio.Timeout | None = None
    """When the attempt has taken too long."""

    @property
    def large(self) -> bool:
        """Whether its content was not read with the claim: then it is made ready when its turn comes, not ahead."""
        return self.group[0].content is None


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
        self.is_surplus = False
        """The peer wants fewer connections than there are: this one is not to try again."""

    async def next_trip(self, idle_seconds: float) -> Trip | None:
        """Begin the lane's next group, and a few more ahead; None when no group came for a while."""
        trip = self._ahead.popleft() if self._ahead else None
        if trip is None:
            group = await self._lane.take(idle_seconds)
            if group is None:
                return None
            trip = self._begin(group)
        last = trip
        while len(self._ahead) < _READY_AHEAD and not last.large and (following := self._lane.take_ahead()) is not None:
            last = self._begin(following)
            self._ahead.append(last)
        return trip

    async def carry(self, trip: Trip) -> None:
        """Deliver a group; every mail of it ends with a result, whatever happens."""
        task = asyncio.current_task()
        if task is not None:
            self._office.active.add(task)
        try:
            async with asyncio.timeout(self._settings.attempt_seconds) as trip.deadline:
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
            trip.ready = None  # a large message must not stay while the courier waits for the next one
            if task is not None:
                self._office.active.discard(task)

    async def put_back(self) -> None:
        """Give up the groups that were begun and not carried."""
        await self._drop_ahead(Uncounted(_STOPPING))

    async def hand_over(self) -> None:
        """Leave the groups that were begun to other couriers of the lane."""
        await self._clear_dots(self._ahead)
        while self._ahead:
            trip = self._ahead[-1]
            if trip.ready is not None:
                await _ended(trip.ready)
            self._lane.put_first(self._ahead.pop().group)

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
        built = draft if isinstance(draft, Failed) else await sign_draft(draft)
        connection = self._connection
        exact = any(one.never_twice for one in trip.group)  # a mark is its end when we die: not before it must be
        if isinstance(built, bytes) and connection is not None and connection.usable and not exact:
            await self._mark_dot(trip, connection.peer.address)
        return built

    async def _mark_dot(self, trip: Trip, address: str) -> None:
        """Store that the final dot may go out, before it does (delivery promise 4)."""
        if trip.mark is None:
            now = self._relay.clock.now()
            trip.mark = asyncio.gather(
                *(self._relay.db.write_joint(mark_dots, (one.id, now, address)) for one in trip.group)
            )
        await asyncio.shield(trip.mark)

    async def _clear_dots(self, trips: Iterable[Trip]) -> None:
        """Take marks back when the connection is gone before they came true: another one may take long to come."""
        cleared = []
        for trip in trips:
            if trip.mark is not None:
                await _ended(trip.mark)
                trip.mark = None
                cleared += [self._relay.db.write_joint(clear_dots, one.id) for one in trip.group]
        await asyncio.gather(*cleared)

    async def _carry(self, trip: Trip) -> None:
        assert trip.ready is not None  # noqa: S101  _begin() set it
        message = await asyncio.shield(trip.ready)
        if isinstance(message, Failed):
            self._finish_all(trip, message)
            return
        if self._lane.plan.kind == "capture":
            await self._keep(trip, message)
            return
        if self._lane.plan.kind == "local":
            await self._deliver_here(trip, message)
            return
        recipients = tuple(one.recipient for one in trip.group)
        postponed = await self._office.traffic.admit(self._lane, trip.group) if self._lane.provider else None
        if postponed is not None:
            self._finish_all(trip, postponed)
            return
        sender = await find_return_path(self._relay, trip.group[0])
        require_tls = trip.group[0].tls_wish == "REQUIRED"
        transaction = await self._transmit(trip, Envelope(sender, recipients, message, require_tls))
        if transaction is not None:
            self._finish_transaction(trip, transaction)

    async def _keep(self, trip: Trip, message: bytes) -> None:
        now = self._relay.clock.now()
        rows = [{"delivery_id": one.id, "message": message, "created_at": now} for one in trip.group]
        await self._relay.db.write(keep_captured, rows)
        reply = Reply(250, "2.0.0", "captured: kept here, not sent")
        self._finish_all(trip, Delivered(reply), host="capture")

    async def _deliver_here(self, trip: Trip, message: bytes) -> None:
        results = await deliver_here(self._relay, trip.group, message)
        for one, result in zip(trip.group, results, strict=True):
            self._finish_one(trip, one, result, host=self._relay.hostname)

    async def _transmit(self, trip: Trip, envelope: Envelope) -> Transaction | None:
        """Send on the open connection, or on a new one to the first peer that takes it; None: finished already."""
        refused: Transaction | None = None
        prefer = preferred_address(trip.group[0]) if self._lane.plan.kind == "mx" else None
        if self._connection is not None and self._fits(self._connection, prefer) and self._may_send(trip, self._connection):
            transaction = await self._send(trip, self._connection, envelope)
            if transaction.host_refused is not None:
                refused = transaction
            elif not closed_on_us(transaction, self._connection):
                return transaction
        await self._clear_dots([trip, *self._ahead])
        first = trip.group[0]
        found = await self._office.peers.find(self._lane.plan, first.domain, prefer=prefer, tls_wish=first.tls_wish)
        peers = self._office.traffic.assign_sources(self._lane, trip.group, found) if isinstance(found, list) else found
        if refused is not None and self._connection is not None:
            asked = self._connection.peer.address
            others = [peer for peer in peers if peer.address != asked] if isinstance(peers, list) else []
            return await self._try_peers(trip, envelope, others, refused) if others else refused
        await self.go_home()
        if isinstance(peers, Deferred | Bounced):
            await self._finish_lane(trip, peers)
            return None
        if isinstance(peers, Postponed):
            self._finish_all(trip, peers)
            return None
        return await self._try_peers(trip, envelope, peers, None)

    async def _try_peers(
        self, trip: Trip, envelope: Envelope, peers: list[Peer], refused: Transaction | None
    ) -> Transaction | None:
        """Ask one host after the other; `refused` is what a host said that was asked before."""
        transaction, verdict = refused, refused.host_refused if refused else None
        waiting, silent, full = deque(peers), refused is None, False
        while waiting:
            await self.go_home()
            await self._clear_dots([trip, *self._ahead])
            try:
                self._connection = await self._open(waiting, trip.conversation)
            except ConnectionFailed as failure:
                verdict = milder(verdict, failure.outcome)
                silent = silent and failure.outcome.reply.enhanced == _NO_ANSWER
                continue
            self._note_session()
            if not self._may_send(trip, self._connection):
                full = True
                continue
            transaction = await self._send(trip, self._connection, envelope)
            if transaction.host_refused is None:
                return transaction
            verdict = milder(verdict, transaction.host_refused)
        if transaction is not None and isinstance(verdict, Bounced):
            return transaction  # every host was asked, and one refused this very mail
        unreachable = Deferred(Reply(451, "4.4.1", "no host could be reached"))
        if transaction is not None:
            self._finish_all(trip, verdict or unreachable)
            return None
        if full:
            self._finish_all(trip, self._office.traffic.postpone_for_warmup(self._lane, trip.group))
            return None
        self._lane.slow_down()
        self._note_no_session(trip, silent=silent)
        await self._finish_lane(trip, verdict or unreachable)
        return None

    def _may_send(self, trip: Trip, connection: Connection) -> bool:
        """Tell whether the connection's source address may send one message more today, and count it."""
        return self._office.traffic.reserve(self._lane, trip.group, connection.peer.source_address)

    def _note_session(self) -> None:
        """A host took us in: its lane may have more connections now."""
        was_proven = self._lane.proven
        self._office.traffic.note_session(self._lane)
        if not was_proven:
            self._office.staff()

    def _note_no_session(self, trip: Trip, *, silent: bool) -> None:
        """All hosts were asked; `silent`: not one of them could be connected to."""
        if silent:
            self._office.traffic.note_silence(self._lane, trip.group[0].domain)
        else:
            self._office.traffic.note_answer(self._lane)

    async def _open(self, waiting: deque[Peer], conversation: Conversation) -> Connection:
        """Begin a session with the first host of `waiting`, and take out what was tried; raises ConnectionFailed."""
        timeouts = self._timeouts()
        peer, sock = await dial(waiting, conversation, timeouts)
        return await self._office.peers.connect(peer, conversation, timeouts, sock)

    async def _send(self, trip: Trip, connection: Connection, envelope: Envelope) -> Transaction:
        trip.connection = connection
        await self._mark_dot(trip, connection.peer.address)
        if not connection.takes(envelope.message):
            envelope = await self._convert(trip, envelope)
        transaction = await connection.send(envelope, trip.conversation, before_dot=lambda: self._note_dot(trip))
        trip.dot_sent = False
        return transaction

    def _note_dot(self, trip: Trip) -> None:
        """From here on nothing is known until the reply comes: it is waited for, however late it is by now."""
        trip.dot_sent = True
        last_word = self._loop.time() + self._settings.reply_seconds + self._settings.final_reply_seconds
        if trip.deadline is not None and not trip.deadline.expired() and last_word > (trip.deadline.when() or last_word):
            trip.deadline.reschedule(last_word)

    async def _convert(self, trip: Trip, envelope: Envelope) -> Envelope:
        """Compose the mail anew without 8-bit octets; one that cannot be stays, and is refused by `Connection`."""
        draft = await gather_draft(self._relay, trip.group[0])
        if isinstance(draft, Failed):
            return envelope
        built = await sign_draft(replace(draft, seven_bit=True))
        trip.conversation.remark("the peer takes no 8-bit octets: converted" if isinstance(built, bytes) else built.text)
        return replace(envelope, message=built) if isinstance(built, bytes) else envelope

    def _finish_transaction(self, trip: Trip, transaction: Transaction) -> None:
        results = transaction.outcomes
        if any(isinstance(result, Delivered) for result in results.values()):
            self._lane.speed_up()
        elif any(isinstance(result, Deferred) and asks_for_less(result.reply) for result in results.values()):
            self._lane.slow_down()
        left_over: Group = []
        for one in trip.group:
            result = results.get(one.recipient)
            if result is None or is_left_over(result, results):
                left_over.append(one)
            else:
                self._finish_one(trip, one, result)
        if left_over:
            self._lane.put_first(left_over)

    async def _finish_lane(self, trip: Trip, verdict: Deferred | Bounced) -> None:
        """End the group, and for a dead destination everything that waits for it, without waiting out each time-out."""
        rest: Result | None = verdict if isinstance(verdict, Deferred) else None
        if self._lane.provider:
            rest = self._office.traffic.respond_for_lane(self._lane, trip.group[0], verdict)
            self.is_surplus = rest is None and isinstance(verdict, Deferred)
        if rest is not None:
            await self._drop_ahead(rest, conversation=trip.conversation)
            for group in self._lane.take_all():
                self._finish_all(Trip(group, trip.started_at, trip.started, trip.conversation), rest)
        self._finish_all(trip, verdict)

    def _finish_all(self, trip: Trip, result: Result, *, host: str | None = None) -> None:
        for one in trip.group:
            self._finish_one(trip, one, result, host=host)

    def _finish_one(self, trip: Trip, one: Claimed, result: Result, *, host: str | None = None) -> None:
        connection, retry_at = trip.connection, None
        if self._lane.provider:
            result, retry_at = self._office.traffic.respond(self._lane, one, result)
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
                provider=self._lane.provider or None,
                retry_at=retry_at,
                address=connection.peer.address if connection and wants_us_back(result) else None,
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
                await _ended(work)
        trip.conversation = conversation or trip.conversation
        self._finish_all(trip, result)

    def _fits(self, connection: Connection, prefer: str | None) -> bool:
        """Tell whether an open connection may carry one more message, and leads to where this one belongs."""
        most = self._office.traffic.messages_per_connection(self._lane)
        worn_out = connection.exhausted or connection.messages_sent >= most
        return connection.usable and not worn_out and prefer in (None, connection.peer.address)

    def _timeouts(self) -> Timeouts:
        settings = self._settings
        return Timeouts(settings.connect_seconds, settings.reply_seconds, settings.final_reply_seconds)


async def _ended(work: asyncio.Future[Any]) -> None:
    """Wait until something has ended, and look at its exception, if nobody else does."""
    await asyncio.wait([work])
    _ = work.cancelled() or work.exception()
