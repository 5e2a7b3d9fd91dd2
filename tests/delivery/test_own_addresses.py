"""Which addresses lead back to this process, so that mail to them would run in a circle?"""

from pathlib import Path
from typing import Any

import pytest

from plunk_relay.delivery.own_addresses import OwnAddresses
from tests.kit.outbox import Outbox, Prepared, running_outbox, set_exchangers
from tests.kit.peer import Peer
from tests.kit.relay import make_settings

DOORS = ["submission_port", "submissions_port", "inbound_port"]


def own(directory: Path, *, host: str, port: int = 2525, allow: tuple[str, ...] = (), **smtp: Any) -> OwnAddresses:
    """Return the addresses of a relay whose doors stand at 2525, and whose peers do so at `port`."""
    doors = smtp or {"inbound_port": 2525}
    return OwnAddresses(
        make_settings(directory, smtp={"host": host, **doors}, delivery={"port": port, "allow_networks": list(allow)})
    )


@pytest.mark.parametrize("door", DOORS)
def test_the_address_of_every_door_is_our_own(tmp_path: Path, door: str) -> None:
    smtp: dict[str, Any] = {door: 2525}
    addresses = own(tmp_path, host="127.0.0.1", **smtp)
    assert "127.0.0.1" in addresses
    assert "::ffff:127.0.0.1" in addresses
    assert "127.0.0.2" not in addresses
    assert "8.8.4.4" not in addresses


def test_the_http_door_is_one_too(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, http={"host": "::1", "port": 2525}, delivery={"port": 2525})
    assert "::1" in OwnAddresses(settings)


@pytest.mark.parametrize("smtp", [{"inbound_port": 2526}, {"inbound_port": 0}])
def test_another_port_or_a_closed_door_leads_nowhere(tmp_path: Path, smtp: dict[str, Any]) -> None:
    assert "127.0.0.1" not in own(tmp_path, host="127.0.0.1", **smtp)


def test_a_door_at_all_addresses_is_at_every_address_of_this_machine(tmp_path: Path) -> None:
    addresses = own(tmp_path, host="0.0.0.0")
    assert "127.0.0.1" in addresses
    assert "127.8.9.10" in addresses
    assert "::1" not in addresses
    assert "::1" in own(tmp_path, host="::")


@pytest.mark.parametrize(("allow", "inside"), [("127.0.0.0/8", True), ("127.0.0.1/32", False), ("127.0.0.2/32", True)])
def test_an_address_is_lifted_out_by_its_own_entry_and_by_no_network(tmp_path: Path, allow: str, inside: bool) -> None:
    assert ("127.0.0.1" in own(tmp_path, host="127.0.0.1", allow=(allow,))) is inside


@pytest.mark.parametrize("recipient", ["ann@circle.example", "ann@bare.example", "ann@[127.0.0.1]"])
async def test_mail_does_not_run_in_a_circle_through_our_own_door(
    prepared: Prepared, tmp_path: Path, peer: Peer, recipient: str
) -> None:
    smtp = {"host": "127.0.0.1", "inbound_port": peer.port}  # the peer stands where our door would
    async with running_outbox(prepared, tmp_path, port=peer.port, smtp=smtp) as outbox:
        set_exchangers(outbox.dns, "circle.example", "127.0.0.1")
        outbox.dns.set("bare.example", "A", "127.0.0.1")
        await _is_refused(outbox, recipient)
    assert peer.sessions == []


async def test_a_better_exchanger_gets_the_mail_and_our_own_door_never(
    prepared: Prepared, tmp_path: Path, peer: Peer
) -> None:
    smtp = {"host": "127.0.0.9", "inbound_port": peer.port}
    async with running_outbox(prepared, tmp_path, port=peer.port, smtp=smtp) as outbox:
        set_exchangers(outbox.dns, "example.org", "127.0.0.1", "127.0.0.9")
        [delivery_id] = await outbox.submit("ann@example.org")
        await outbox.deliver()
        assert await outbox.state(delivery_id) == ("DELIVERED", "DELIVERED")
        set_exchangers(outbox.dns, "example.com", "127.0.0.9", "127.0.0.1")
        await _is_refused(outbox, "ann@example.com")
    assert len(peer.taken) == 1


async def _is_refused(outbox: Outbox, recipient: str) -> None:
    [delivery_id] = await outbox.submit(recipient)
    await outbox.deliver()
    row = await outbox.delivery(delivery_id)
    assert row["state"] == "BOUNCED"
    assert row["last_reply"].startswith("554 5.4.6 ")
    assert "this server itself" in row["last_reply"]
