"""How does a large message go to a peer that is slow, does not want it, or goes away?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown
from plunk_relay.mail.pipeline import PeerLate, PipelineProtocol
from plunk_relay.mail.session import Peer as Target
from plunk_relay.mail.session import Timeouts
from plunk_relay.mail.transport import Connection, Envelope
from tests.kit.peer import Peer, Script, running_peer

ANN = "ann@example.org"
LARGE = b"Subject: large\r\n\r\n" + b".dots and text to fill the line up to its end\r\n" * 450_000
TAKEN = Delivered(Reply(250, "2.0.0", "taken"))


@dataclass(slots=True)
class Talk:
    """An open connection, and what was noted on the way."""

    peer: Peer
    connection: Connection
    conversation: Conversation = field(default_factory=Conversation)
    dots: int = 0

    async def send(self, message: bytes = LARGE) -> Outcome:
        """Carry one transaction."""
        envelope = Envelope("app@acme.test", (ANN,), message)
        transaction = await self.connection.send(envelope, self.conversation, before_dot=self._note_dot)
        return transaction.outcomes[ANN]

    def _note_dot(self) -> None:
        self.dots += 1


@asynccontextmanager
async def talking(script: Script, **timeouts: float) -> AsyncIterator[Talk]:
    async with running_peer(script) as peer:
        target = Target("mx.test", peer.host, peer.port)
        chosen = Timeouts(**timeouts)
        yield Talk(peer, await Connection.open(target, Conversation(), local_hostname="relay.test", timeouts=chosen))
        await asyncio.sleep(0)


async def test_a_large_message_arrives_as_it_is() -> None:
    async with talking(Script(keywords=["PIPELINING", "SIZE 30000000"])) as talk:
        assert await talk.send() == TAKEN
        assert talk.peer.taken[0].message == LARGE
        assert await talk.send(b"Subject: small\r\n\r\n.\r\n") == TAKEN
        assert (talk.dots, len(talk.peer.sessions)) == (2, 1)
        talk.connection.abort()


def test_the_server_s_own_loop_sends_it_the_same() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_large_message_arrives_as_it_is())


async def test_a_peer_that_takes_no_more_of_it_did_not_take_the_message() -> None:
    async with talking(Script(keywords=(), data="354 go + hang"), reply=0.2) as talk:
        outcome = await talk.send()
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.enhanced, talk.dots) == ("4.4.2", 0)
        assert "takes no more" in outcome.reply.text
        assert not talk.connection.usable


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_peer_that_leaves_before_the_final_dot_did_not_take_the_message(end: str) -> None:
    async with talking(Script(keywords=(), data=f"354 go + {end}")) as talk:
        outcome = await talk.send()
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.enhanced, talk.dots) == ("4.4.2", 0)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("552 5.3.4 too large", Bounced(Reply(552, "5.3.4", "too large"))),
        ("452 4.3.1 disk full", Deferred(Reply(452, "4.3.1", "disk full"))),
        ("250 2.0.0 thanks", Deferred(Reply(451, "4.5.0", "unexpected reply: 250 2.0.0 thanks"))),
    ],
)
async def test_a_peer_that_answers_before_the_final_dot_is_listened_to_and_left(
    answer: str, outcome: Deferred | Bounced
) -> None:
    async with talking(Script(keywords=(), data=f"354 go + wait + {answer} + hang")) as talk:
        sending = asyncio.create_task(talk.send())
        async with asyncio.timeout(10):
            while "octets]" not in str(talk.conversation):  # noqa: ASYNC110  a conversation tells nobody
                await asyncio.sleep(0)
        talk.peer.let_go()
        assert await sending == outcome
        assert talk.dots == 0
        assert not talk.connection.usable


async def test_the_time_for_the_reply_begins_with_the_final_dot_and_not_with_the_message() -> None:
    async with (
        talking(Script(keywords=(), data="354 go + wait"), final_reply=0.3) as slow,
        talking(Script(dot="hang"), final_reply=0.3) as measure,
    ):
        sending = asyncio.create_task(slow.send())
        await slow.peer.until(lambda peer: "DATA" in peer.commands)
        assert isinstance(await measure.send(b"Subject: small\r\n\r\n"), Unknown)  # so the time is over for both
        slow.peer.let_go()
        assert await sending == TAKEN
        slow.connection.abort()


class SlowTransport(asyncio.WriteTransport):
    """Takes what is written in portions, one a look at what is left."""

    def __init__(self, *left: int) -> None:
        super().__init__()
        self._left = list(left)
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        """Return what is left by now."""
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    def abort(self) -> None:
        """Note that it is over."""
        self.aborted = True


async def test_a_peer_that_takes_a_little_now_and_then_may_take_its_time() -> None:
    transport = SlowTransport(50, 40, 30, 20, 20)
    pipeline = PipelineProtocol(transport)
    pipeline.pause_writing()
    with pytest.raises(PeerLate):
        await _failing_drain(pipeline)
    assert transport.aborted
    assert transport.get_write_buffer_size() == 20  # it was asked four times, and given up when nothing had moved


async def test_waiting_for_room_ends_when_all_has_left() -> None:
    pipeline = PipelineProtocol(SlowTransport(50))
    pipeline.pause_writing()
    waiting = asyncio.create_task(pipeline.drain(1000))
    await asyncio.sleep(0)
    pipeline.resume_writing()
    await waiting
    assert pipeline.failure is None


async def _failing_drain(pipeline: PipelineProtocol) -> None:
    await pipeline.drain(0.02)
    if pipeline.failure is not None:
        raise pipeline.failure
