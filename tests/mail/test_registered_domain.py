"""Which part of a name is registered, and which is a public suffix?"""

import pytest

from plunk_relay.mail.registered_domain import public_suffix, registered_domain


@pytest.mark.parametrize(
    ("name", "registered", "suffix"),
    [
        ("example.com", "example.com", "com"),
        ("a.b.example.co.uk", "example.co.uk", "co.uk"),
        ("co.uk", "co.uk", None),
        ("com", "com", None),
        ("example.con", "example.con", None),
        ("a.example.nowhere", "example.nowhere", None),
        ("xn--bcher-kva.example.de", "example.de", "de"),
    ],
)
def test_a_name_is_split_by_the_list_of_public_suffixes(name: str, registered: str, suffix: str | None) -> None:
    assert registered_domain(name) == registered
    assert public_suffix(name) == suffix
