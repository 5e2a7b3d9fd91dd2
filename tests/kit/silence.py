"""How does a test get a host that does not answer, without leaving the machine? A listener whose queue is full.

The kernel drops what knocks at it, as a firewall does; whoever knocks waits.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

_KNOCKS = 3


@contextmanager
def silent_listener(address: str, port: int) -> Iterator[Callable[[], None]]:
    """Hold an address where connecting takes for ever; the value, when called, lets those who wait in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(_KNOCKS):
            knock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            knock.setblocking(False)
            knock.connect_ex((address, port))

        def let_in() -> None:
            listener.listen(16)
            stack.enter_context(listener.accept()[0])

        yield let_in
