"""What does the DNS of a test say? What the test writes into a table; over UDP and TCP, with faults on demand.

A name and type has records, or one fault: SERVFAIL, REFUSED, NXDOMAIN, "silent" (no answer at all), "late" (none to the
first question, as when a packet is lost), "truncated" (the UDP answer is cut, TCP tells all). Aliases of aliases are
followed, as a recursive server does.
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

Fault = Literal["SERVFAIL", "REFUSED", "NXDOMAIN", "silent", "late", "truncated"]
_LONGEST_CHAIN = 20


class DnsTable:
    """Records by name and type; a name that is not in the table does not exist."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str]] = []
        """Every question asked, in order: (name, type)."""
        self._records: dict[tuple[str, str], list[str]] = {}
        self._faults: dict[tuple[str, str], Fault] = {}
        self._ttl: dict[tuple[str, str], int] = {}
        self._signed: set[str] = set()

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

    def sign(self, *zones: str) -> None:
        """Let zones be signed: answers that come from them alone are validated (AD)."""
        self._signed.update(zones)

    def answer(self, wire: bytes, *, over_udp: bool) -> bytes | None:
        """Return the answer to a query in wire format; None: say nothing."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind))
        response = dns.message.make_response(query, recursion_available=True)
        fault = self._faults.get((name, kind))
        if fault == "late":
            del self._faults[(name, kind)]
        if fault in ("silent", "late"):
            return None
        if fault in ("SERVFAIL", "REFUSED", "NXDOMAIN"):
            response.set_rcode(dns.rcode.from_text(fault))
            return response.to_wire()
        if fault == "truncated" and over_udp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        self._fill(response, name, kind)
        owners = [rrset.name.to_text(omit_final_dot=True).lower() for rrset in response.answer]
        if all(self._is_signed(owner) for owner in [name, *owners]):
            response.flags |= dns.flags.AD
        return response.to_wire()

    def _is_signed(self, name: str) -> bool:
        return any(name == zone or name.endswith(f".{zone}") for zone in self._signed)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        links = 0
        while (alias := self._records.get((name, "CNAME"))) and kind != "CNAME" and links < _LONGEST_CHAIN:
            ttl = self._ttl[(name, "CNAME")]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", alias[0]))
            name, links = alias[0].rstrip(".").lower(), links + 1
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
