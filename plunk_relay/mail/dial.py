"""How is a host with two addresses reached? The second is called too when the first has not answered for a moment.

Whichever connects first is taken (RFC 8305): a family that leads nowhere costs seconds, not a whole time-out.
"""

import asyncio
import socket
from collections import deque

from plunk_relay.mail.conversation import Conversation
from plunk_relay.mail.outcome import Deferred, Reply, sanitize
from plunk_relay.mail.session import ConnectionFailed, Peer, Timeouts, connect_socket

_Call = asyncio.Task[socket.socket]


async def dial(waiting: deque[Peer], conversation: Conversation, timeouts: Timeouts) -> tuple[Peer, socket.socket]:
    """Connect to the first host of `waiting`, whose addresses stand together; raises ConnectionFailed.

    Addresses that were called are taken out of `waiting`: what is left of the host can be tried when no session comes about.
    """
    calls: dict[_Call, Peer] = {}
    host, failure = waiting[0].host, Deferred(Reply(451, "4.4.1", "no address"))
    try:
        while calls or _more_of(host, waiting):
            if _more_of(host, waiting):
                peer = waiting.popleft()
                conversation.remark(f"connecting to {peer}")
                calls[asyncio.create_task(connect_socket(peer, timeouts.connect), name=f"call {peer}")] = peer
            patience = timeouts.head_start if _more_of(host, waiting) else None
            done, _ = await asyncio.wait(calls, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for call in done:
                error = call.exception()
                peer = calls[call]
                if error is None:
                    del calls[call]
                    return peer, call.result()
                failure = _explain(error, peer, conversation)
            calls = {call: peer for call, peer in calls.items() if call not in done}
    finally:
        await _hang_up(calls)
    raise ConnectionFailed(failure)


def _more_of(host: str, waiting: deque[Peer]) -> bool:
    return bool(waiting) and waiting[0].host == host


def _explain(error: BaseException, peer: Peer, conversation: Conversation) -> Deferred:
    reason = "connection timed out" if isinstance(error, TimeoutError) else error.args[-1] if error.args else error
    text = sanitize(str(reason)) or type(error).__name__
    conversation.remark(f"{peer.address}: {text}")
    return Deferred(Reply(451, "4.4.1", text))


async def _hang_up(calls: dict[_Call, Peer]) -> None:
    """End the calls that came too late."""
    for call in calls:
        call.cancel()
    for sock in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(sock, socket.socket):
            sock.close()
