"""What does the DNS of a test say? What the test writes into a table; over UDP and TCP, with faults on demand.

A name and type has records, or one fault: SERVFAIL, REFUSED, NXDOMAIN, "silent" (no answer at all), "truncated" (the UDP
answer is cut, TCP tells all).
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Fault = Literal["SERVFAIL", "REFUSED", "NXDOMAIN", "silent", "truncated"]


class DnsTable:
    """Records by name and type; a name that is not in the table does not exist."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str]] = []
        """Every question asked, in order: (name, type)."""
        self._records: dict[tuple[str, str], list[str]] = {}
        self._faults: dict[tuple[str, str], Fault] = {}
        self._ttl: dict[tuple[str, str], int] = {}

    def set(self, name: str, kind: str, *values: str, ttl: int = 300) -> None:
        """Give a name records in presentation form, such as `10 mx.test.`; TXT is quoted here. None: an empty answer."""
        key = (name.lower(), kind)
        quoted = [" ".join(f'"{v[i : i + 255]}"' for i in range(0, max(len(v), 1), 255)) for v in values]
        self._records[key] = quoted if kind == "TXT" else list(values)
        self._faults.pop(key, None)
        self._ttl[key] = ttl

    def remove(self, name: str, kind: str) -> None:
        """Take the records of a name and type away."""
        self._records.pop((name.lower(), kind), None)
        self._faults.pop((name.lower(), kind), None)

    def fail(self, name: str, kind: str, fault: Fault) -> None:
        """Let questions for a name and type fail."""
        self._faults[(name.lower(), kind)] = fault

    def answer(self, wire: bytes, *, over_udp: bool) -> bytes | None:
        """Return the answer to a query in wire format; None: say nothing."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind))
        response = dns.message.make_response(query, recursion_available=True)
        fault = self._faults.get((name, kind))
        if fault == "silent":
            return None
        if fault in ("SERVFAIL", "REFUSED", "NXDOMAIN"):
            response.set_rcode(dns.rcode.from_text(fault))
            return response.to_wire()
        if fault == "truncated" and over_udp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        self._fill(response, name, kind)
        return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        alias = self._records.get((name, "CNAME"))
        if alias and kind != "CNAME":
            response.answer.append(dns.rrset.from_text(f"{name}.", 300, "IN", "CNAME", alias[0]))
            name = alias[0].rstrip(".").lower()
        values = self._records.get((name, kind), [])
        if values:
            response.answer.append(dns.rrset.from_text(f"{name}.", self._ttl[(name, kind)], "IN", kind, *values))
        elif not any(known == name for known, _ in {*self._records, *self._faults}):
            response.set_rcode(dns.rcode.NXDOMAIN)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, table: DnsTable) -> None:
        self._table = table

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._table.answer(data, over_udp=True)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def running_dns(table: DnsTable, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve a table; yield `IP:PORT` as `delivery.resolvers` takes it."""

    async def serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = table.answer(await reader.readexactly(length), over_udp=False)
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
        writer.close()

    tcp = await asyncio.start_server(serve_tcp, host, 0)
    port = tcp.sockets[0].getsockname()[1]
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Udp(table), local_addr=(host, port))
    try:
        yield f"{host}:{port}"
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()
