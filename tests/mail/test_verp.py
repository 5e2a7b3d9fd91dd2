"""Is an address of ours known again, and only an address of ours?"""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plunk_relay.ids import new_id
from plunk_relay.mail.verp import ReturnAddress, ReturnKind, make_return_address, read_return_address

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def _local(kind: ReturnKind = "bounce", delivery_id: str = ID) -> str:
    return make_return_address(kind, delivery_id, domain="acme.test", key=KEY).partition("@")[0]


def test_the_address_is_on_the_bounce_host_and_short_enough_for_smtp() -> None:
    address = make_return_address("bounce", ID, domain="acme.test", key=KEY)
    assert re.fullmatch(r"b-[a-z2-7]{42}@bounce\.acme\.test", address)
    assert re.fullmatch(r"f-[a-z2-7]{42}", _local("complaint"))
    assert len(_local()) <= 64


@given(st.uuids(), st.sampled_from(["bounce", "complaint"]))
def test_what_was_made_is_read_again_in_any_case(identity: uuid.UUID, kind: ReturnKind) -> None:
    local = _local(kind, str(identity))
    expected = ReturnAddress(kind, str(identity))
    assert read_return_address(local, key=KEY) == expected
    assert read_return_address(local.upper(), key=KEY) == expected


def test_a_token_of_another_key_is_forged() -> None:
    assert read_return_address(_local(), key=OTHER_KEY) is None


def test_the_token_of_one_use_is_not_good_for_the_other() -> None:
    assert read_return_address("f" + _local()[1:], key=KEY) is None
    assert read_return_address("b" + _local("complaint")[1:], key=KEY) is None


def test_the_mac_of_one_delivery_is_not_good_for_another() -> None:
    mine, other = _local(), _local(delivery_id=new_id())
    assert read_return_address(other[:28] + mine[28:], key=KEY) is None


@pytest.mark.parametrize("place", range(2, 44))
def test_no_letter_of_the_token_can_be_changed(place: int) -> None:
    local = _local()
    for letter in "ab":
        changed = local[:place] + letter + local[place + 1 :]
        # the last letter has two bits that carry nothing: it may read as the same delivery, never as another
        assert changed == local or read_return_address(changed, key=KEY) in (None, read_return_address(local, key=KEY))
        assert place == 43 or changed == local or read_return_address(changed, key=KEY) is None


@pytest.mark.parametrize(
    "local", ["", "b-", "b", "b-x", "postmaster", "b-" + "1" * 42, "b-" + "\u00e9" * 42, "b-" + "=" * 42]
)
def test_what_is_no_token_is_none(local: str) -> None:
    assert read_return_address(local, key=KEY) is None


@given(st.text(max_size=60))
def test_any_text_never_raises(local: str) -> None:
    assert read_return_address(local, key=KEY) is None
    assert read_return_address(f"b-{local}", key=KEY) is None
