"""How does one connection carry many transactions, whatever the peer answers?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Bounced, Deferred, Delivered, Outcome, Reply, Unknown
from plunk_relay.mail.session import Peer as Target
from plunk_relay.mail.session import Timeouts
from plunk_relay.mail.transport import Connection, Envelope, Transaction
from tests.kit.peer import KEYWORDS, Peer, Script, running_peer

ANN, BOB, CID = "ann@example.org", "bob@example.org", "cid@example.org"
MESSAGE = b"Subject: Hello\r\n\r\nHi\r\n"
ONE_BY_ONE = tuple(word for word in KEYWORDS if word != "PIPELINING")
TAKEN = Delivered(Reply(250, "2.0.0", "taken"))


@dataclass(slots=True)
class Talk:
    """An open connection, and all that was said on it."""

    peer: Peer
    connection: Connection
    conversation: Conversation = field(default_factory=Conversation)

    async def send(self, *recipients: str, sender: str = "app@acme.test", message: bytes = MESSAGE) -> Transaction:
        """Carry one transaction."""
        return await self.connection.send(Envelope(sender, recipients or (ANN,), message), self.conversation)

    async def outcomes(self, *recipients: str) -> list[Outcome]:
        """Carry one transaction; return its outcomes in the order of the recipients."""
        outcomes = (await self.send(*recipients)).outcomes
        return [outcomes[recipient] for recipient in recipients or (ANN,)]


@asynccontextmanager
async def talking(script: Script, *, timeouts: Timeouts | None = None) -> AsyncIterator[Talk]:
    """Connect to a peer with a script."""
    async with running_peer(script) as peer:
        target = Target("mx.test", peer.host, peer.port)
        connection = await Connection.open(target, Conversation(), local_hostname="relay.test", timeouts=timeouts)
        yield Talk(peer, connection)
        connection.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("keywords", "verbs"),
    [(KEYWORDS, "EHLO MAIL RCPT RCPT DATA MAIL RCPT DATA QUIT"), ((), "EHLO MAIL RCPT RCPT DATA MAIL RCPT DATA QUIT")],
    ids=["pipelined", "one by one"],
)
async def test_one_connection_carries_many_transactions(keywords: tuple[str, ...], verbs: str) -> None:
    async with talking(Script(keywords=keywords)) as talk:
        assert await talk.outcomes(ANN, BOB) == [TAKEN, TAKEN]
        assert await talk.outcomes(CID) == [TAKEN]
        assert talk.connection.usable
        assert talk.connection.messages_sent == 2
        await talk.connection.close()
        await talk.peer.until(lambda peer: "QUIT" in peer.commands)
        [session] = talk.peer.sessions
        assert session.verbs() == verbs
        assert [received.recipients for received in session.received] == [(ANN, BOB), (CID,)]


async def test_with_pipelining_mail_rcpt_and_data_go_out_together() -> None:
    async with talking(Script(mail="wait + 250 2.1.0 ok")) as talk:
        sending = asyncio.create_task(talk.send(ANN, BOB))
        await talk.peer.until(lambda peer: any(command.startswith("MAIL") for command in peer.commands))
        lines = str(talk.conversation).split("\n")
        assert [line.partition("C: ")[2].partition(" ")[0] for line in lines] == ["MAIL", "RCPT", "RCPT", "DATA"]
        talk.peer.let_go()
        assert (await sending).outcomes == {ANN: TAKEN, BOB: TAKEN}


async def test_without_pipelining_every_reply_is_waited_for() -> None:
    async with talking(Script(keywords=ONE_BY_ONE, mail="wait + 250 2.1.0 ok")) as talk:
        sending = asyncio.create_task(talk.send(ANN))
        await talk.peer.until(lambda peer: any(command.startswith("MAIL") for command in peer.commands))
        assert str(talk.conversation).count("C: ") == 1
        talk.peer.let_go()
        assert (await sending).outcomes == {ANN: TAKEN}


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_after_a_refusal_the_next_transaction_begins_with_rset(keywords: tuple[str, ...]) -> None:
    async with talking(Script(keywords=keywords, rcpt={ANN: "550 5.1.1 no such user"})) as talk:
        assert await talk.outcomes(ANN) == [Bounced(Reply(550, "5.1.1", "no such user"))]
        assert talk.connection.usable
        assert await talk.outcomes(BOB) == [TAKEN]
        assert await talk.outcomes(CID) == [TAKEN]
        [session] = talk.peer.sessions
        assert session.verbs().count("RSET") == 1
        assert [received.recipients for received in session.received] == [(BOB,), (CID,)]


@pytest.mark.parametrize("dot", ["554 5.5.1 no recipients", "250 2.0.0 taken, for nobody"])
async def test_data_let_through_without_a_recipient_is_ended_with_a_lone_dot(dot: str) -> None:
    script = Script(rcpt={ANN: "550 5.1.1 no such user"}, careless=True, dot=[dot, "250 2.0.0 taken"])
    async with talking(script) as talk:
        assert await talk.outcomes(ANN) == [Bounced(Reply(550, "5.1.1", "no such user"))]
        assert await talk.outcomes(BOB) == [TAKEN]
        nothing, message = talk.peer.received
        assert (nothing.recipients, nothing.message) == ((), b"")
        assert (message.recipients, message.message) == ((BOB,), MESSAGE)


@pytest.mark.parametrize("reply", ["450 4.7.1 greylisted", "550 5.7.1 not you"])
async def test_a_peer_that_refuses_mail_and_waits_for_a_message_is_left_without_a_word(reply: str) -> None:
    async with talking(Script(mail=reply, careless=True)) as talk:
        [outcome] = await talk.outcomes(ANN)
        assert isinstance(outcome, Bounced | Deferred)
        assert str(outcome.reply) == reply
        assert not talk.connection.usable
        await talk.connection.close()
        assert talk.peer.received == []
        assert talk.peer.sessions[0].verbs() == "EHLO MAIL RCPT DATA"


@pytest.mark.parametrize(
    ("reply", "refused"), [("550 5.7.1 not you", True), ("451 4.7.1 greylisted", False), ("421 4.7.0 later", False)]
)
async def test_5xx_at_mail_is_the_host_s_refusal(reply: str, refused: bool) -> None:
    async with talking(Script(mail=reply)) as talk:
        transaction = await talk.send(ANN, BOB)
        assert (transaction.host_refused is not None) == refused
        assert {str(o.reply) for o in transaction.outcomes.values() if isinstance(o, Bounced | Deferred)} == {reply}
        assert talk.connection.usable == (not reply.startswith("421"))


@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_recipients_answered_before_the_connection_broke_keep_their_answers(keywords: tuple[str, ...]) -> None:
    script = Script(keywords=keywords, rcpt={ANN: "550 5.1.1 no such user", CID: "close"})
    async with talking(script) as talk:
        ann, bob, cid = await talk.outcomes(ANN, BOB, CID)
        assert ann == Bounced(Reply(550, "5.1.1", "no such user"))
        for lost in (bob, cid):
            assert isinstance(lost, Deferred)
            assert (lost.reply.code, lost.reply.enhanced) == (421, "4.4.2")
        assert not talk.connection.usable


@pytest.mark.parametrize("ending", ["close", "reset", "gibberish", "250-2.0.0 mixed\n550 5.0.0 codes", "flood"])
async def test_no_clear_reply_to_the_final_dot_is_unknown(ending: str) -> None:
    async with talking(Script(dot=ending)) as talk:
        [outcome] = await talk.outcomes(ANN)
        assert isinstance(outcome, Unknown)
        assert not talk.connection.usable


async def test_no_reply_to_the_final_dot_in_time_is_unknown() -> None:
    async with talking(Script(dot="hang"), timeouts=Timeouts(final_reply=0.05)) as talk:
        assert await talk.outcomes(ANN) == [Unknown("no reply to the final dot: no reply in time")]
        assert not talk.connection.usable


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
async def test_no_reply_to_a_command_in_time_is_a_deferral(step: str, keywords: tuple[str, ...]) -> None:
    script = Script(keywords=keywords, **{step: "hang"})  # type: ignore[arg-type]  # a step's name
    async with talking(script, timeouts=Timeouts(reply=0.05)) as talk:
        [outcome] = await talk.outcomes(ANN)
        assert isinstance(outcome, Deferred)
        assert outcome.reply.enhanced == "4.4.2"
        assert not talk.connection.usable


async def test_the_dot_is_announced_before_it_is_written_and_only_then() -> None:
    announced: list[int] = []
    async with talking(Script(rcpt={BOB: "550 5.1.1 no"}, data=["451 4.3.0 not now", "wait + 354 go"])) as talk:

        def note() -> None:
            announced.append(len(talk.peer.received))

        for recipient in (BOB, ANN):
            await talk.connection.send(Envelope("a@b.test", (recipient,), MESSAGE), talk.conversation, before_dot=note)
        assert announced == []
        talk.peer.let_go()
        await talk.connection.send(Envelope("a@b.test", (ANN,), MESSAGE), talk.conversation, before_dot=note)
        assert announced == [0]


@pytest.mark.parametrize(
    "after",
    ["250 2.0.0 taken + 421 4.3.2 going down", "250 2.0.0 taken + close", "250 2.0.0 taken + 250 2.0.0 once more"],
)
async def test_a_connection_that_ends_or_babbles_after_a_message_is_not_used_again(after: str) -> None:
    async with talking(Script(dot=after)) as talk:
        assert await talk.outcomes(ANN) == [TAKEN]
        with pytest.raises(ConnectionError):
            await talk.connection._pipeline.read(1, 5)
        assert not talk.connection.usable


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: x\r\n\r\n.\r\n..\r\n.leading\r\nin.side\r\n.\r\n",
        b".first: line\r\n\r\nbody\r\n",
        b"Subject: x\r\n\r\n.",
        b"Subject: x\r\n\r\nno end",
        b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n" * 50,
        b"Subject: x\r\n\r\n" + b"line\r\n" * 100_000,
    ],
    ids=["dots", "first line", "last dot", "no line end", "long line", "large"],
)
async def test_the_peer_gets_the_very_bytes(message: bytes) -> None:
    async with talking(Script()) as talk:
        assert (await talk.send(ANN, message=message)).outcomes == {ANN: TAKEN}
        [received] = talk.peer.taken
        assert received.message == (message if message.endswith(b"\r\n") else message + b"\r\n")


@pytest.mark.parametrize(
    ("missing", "mail", "reply"),
    [
        (
            "8BITMIME",
            {"message": "Subject: é\r\n\r\n".encode()},
            Reply(554, "5.6.3", "mx.test does not support 8-bit messages"),
        ),
        (
            "SMTPUTF8",
            {"sender": "jörg@acme.test"},
            Reply(553, "5.6.7", "mx.test does not support internationalised addresses"),
        ),
    ],
)
async def test_what_the_peer_cannot_take_is_not_sent(missing: str, mail: dict[str, object], reply: Reply) -> None:
    async with talking(Script(keywords=[word for word in KEYWORDS if word != missing])) as talk:
        transaction = await talk.send(ANN, **mail)  # type: ignore[arg-type]  # one of two arguments
        assert transaction.outcomes == {ANN: Bounced(reply)}
        assert transaction.host_refused == Bounced(reply)
        assert await talk.outcomes(BOB) == [TAKEN]


async def test_a_message_larger_than_the_peer_s_size_is_not_sent() -> None:
    async with talking(Script(keywords=["SIZE 100"])) as talk:
        [outcome] = (await talk.send(ANN, message=b"x" * 101)).outcomes.values()
        assert isinstance(outcome, Bounced)
        assert (outcome.reply.code, outcome.reply.enhanced) == (552, "5.3.4")
        assert await talk.outcomes(ANN) == [TAKEN]


@pytest.mark.parametrize("size", ["SIZE 0", "SIZE", "SIZE many"])
async def test_a_size_without_a_limit_is_none(size: str) -> None:
    async with talking(Script(keywords=[size])) as talk:
        assert await talk.outcomes(ANN) == [TAKEN]
        assert f"MAIL FROM:<app@acme.test> SIZE={len(MESSAGE)}" in talk.peer.commands


async def test_only_the_address_that_needs_smtputf8_bounces_where_it_is_missing() -> None:
    async with talking(Script(keywords=["PIPELINING"])) as talk:
        ann, jorg = await talk.outcomes(ANN, "jörg@example.org")
        assert ann == TAKEN
        assert isinstance(jorg, Bounced)
        assert jorg.reply.enhanced == "5.6.7"


async def test_parameters_say_what_the_message_needs() -> None:
    eight_bit = "Subject: é\r\n\r\n".encode()
    async with talking(Script(keywords=["8BITMIME", "SMTPUTF8"])) as talk:
        await talk.send(ANN)
        await talk.send(ANN, message=eight_bit)
        await talk.send(ANN, message="Subject: e\r\n\r\né\r\n".encode())
        await talk.send("jörg@example.org")
        assert [command for command in talk.peer.commands if command.startswith("MAIL")] == [
            "MAIL FROM:<app@acme.test>",
            "MAIL FROM:<app@acme.test> BODY=8BITMIME SMTPUTF8",
            "MAIL FROM:<app@acme.test> BODY=8BITMIME",
            "MAIL FROM:<app@acme.test> SMTPUTF8",
        ]


async def test_an_international_domain_is_written_in_a_labels_where_the_local_part_is_ascii() -> None:
    async with talking(Script(keywords=["PIPELINING"])) as talk:
        assert await talk.outcomes("ann@Bücher.example") == [TAKEN]
        assert "RCPT TO:<ann@xn--bcher-kva.example>" in talk.peer.commands


async def test_a_peer_that_does_not_answer_quit_is_left() -> None:
    async with talking(Script(quit="hang"), timeouts=Timeouts(farewell=0.05)) as talk:
        await talk.send(ANN)
        async with asyncio.timeout(5):
            await talk.connection.close()
        assert not talk.connection.usable


async def test_a_peer_that_reads_nothing_does_not_hold_the_connection() -> None:
    async with talking(Script(keywords=(), data="354 go + hang"), timeouts=Timeouts(reply=0.1)) as talk:
        [outcome] = (await talk.send(ANN, message=(b"x" * 70 + b"\r\n") * 300_000)).outcomes.values()
        assert isinstance(outcome, Deferred)
        transport = talk.connection._pipeline._transport
        assert transport.is_closing()
        assert transport.get_write_buffer_size() == 0


def test_the_event_loop_of_the_server_behaves_the_same() -> None:
    async def scenario() -> list[Outcome]:
        script = Script(rcpt={BOB: "550 5.1.1 no such user"}, dot=["250 2.0.0 taken", "close"])
        async with talking(script) as talk:
            return [*await talk.outcomes(ANN, BOB), *await talk.outcomes(CID)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ann, bob, cid = runner.run(scenario())
    assert (ann, bob) == (TAKEN, Bounced(Reply(550, "5.1.1", "no such user")))
    assert isinstance(cid, Unknown)
