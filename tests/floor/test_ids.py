"""What is a new thing called, and can its name be guessed?"""

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from plunk_relay.ids import hash_secret, is_id, new_api_key, new_id, same_secret


def test_an_id_is_a_uuid_of_version_7_made_now() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= after + 1  # many ids of one millisecond run into the next


def test_ids_are_in_the_order_they_were_made_in() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_several_threads_are_all_different() -> None:
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda _: [new_id() for _ in range(3000)], range(4)))
    assert len({one for batch in batches for one in batch}) == 12_000


def test_62_bits_of_an_id_are_random() -> None:
    tails = [uuid.UUID(new_id()).int & (1 << 62) - 1 for _ in range(2000)]
    for bit in range(62):
        assert 700 < sum(tail >> bit & 1 for tail in tails) < 1300, bit


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("0195f3c2-7a00-7000-8000-0123456789ab", True),
        ("0195F3C2-7A00-4000-8000-0123456789AB", True),
        ("0195f3c27a00700080000123456789ab", False),
        ("0195f3c2-7a00-7000-8000-0123456789abc", False),
        ("0195f3c2-7a00-7000-8000-0123456789ab\n", False),
        ("", False),
    ],
)
def test_what_is_written_like_an_id(text: str, fits: bool) -> None:
    assert is_id(text) is fits


def test_an_api_key_has_its_prefix_and_32_random_bytes() -> None:
    keys = {new_api_key("sk_") for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk_[0-9a-f]{64}", key) for key in keys)


def test_a_secret_is_looked_up_by_its_sha_256() -> None:
    assert hash_secret("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(("given", "same"), [("sécret", True), ("secret", False), ("", False), ("sécret ", False)])
def test_secrets_are_the_same_or_not(given: str, same: bool) -> None:
    assert same_secret(given, "sécret") is same
