"""Does the relay do as the files of the far end tell? One test a file; peers/README tells how to write one."""

from pathlib import Path

import pytest

from tests.kit.outbox import Prepared
from tests.kit.peer_file import read_peer_file
from tests.kit.peer_player import play

_PEERS = Path(__file__).parent / "peers"
_NAMES = sorted(path.stem for path in _PEERS.glob("*.peer"))


def test_there_are_files_for_every_step_of_a_delivery() -> None:
    assert {name.partition("-")[0] for name in _NAMES} >= {"banner", "ehlo", "mail", "rcpt", "data", "dot", "retry", "dns"}


@pytest.mark.parametrize("name", _NAMES)
async def test_the_relay_does_as_the_file_tells(prepared: Prepared, tmp_path: Path, name: str) -> None:
    story = read_peer_file((_PEERS / f"{name}.peer").read_text(), name=f"{name}.peer")
    await play(story, prepared, tmp_path)
