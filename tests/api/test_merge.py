"""What remains of incoming custom fields (contract section 7)?"""

from typing import Any

import pytest

from plunk_relay.contacts.merge import RESERVED_FIELDS, merge_data
from plunk_relay.errors import BadRequest

Data = dict[str, Any] | None


@pytest.mark.parametrize(
    ("stored", "incoming", "expected"),
    [
        pytest.param(None, None, None, id="nothing and nothing"),
        pytest.param(None, {}, None, id="nothing and an empty object"),
        pytest.param({"a": 1}, None, {"a": 1}, id="no change"),
        pytest.param(None, {"a": 1}, {"a": 1}, id="new key"),
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="other keys stay"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="a value is replaced"),
        pytest.param({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2}}, id="nested objects are replaced whole"),
        pytest.param({"a": 1}, {"a": ""}, {"a": 1}, id="empty text is skipped"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null deletes"),
        pytest.param({"a": 1}, {"a": None}, None, id="nothing left is none"),
        pytest.param({"a": 1}, {"b": None}, {"a": 1}, id="null of an unknown key"),
        pytest.param({"a": 1}, {"a": 0}, {"a": 0}, id="zero is a value"),
        pytest.param({"a": 1}, {"a": False}, {"a": False}, id="false is a value"),
        pytest.param({"a": 1}, {"a": []}, {"a": []}, id="an empty array is a value"),
        pytest.param({"a": 1}, {"a": {"value": 2, "persistent": False}}, {"a": 1}, id="not persistent"),
        pytest.param({"a": 1}, {"a": {"value": 2, "persistent": True}}, {"a": 2}, id="persistent stores the inner value"),
        pytest.param({"a": 1}, {"a": {"value": None, "persistent": True}}, None, id="persistent null deletes"),
        pytest.param({"a": 1}, {"a": {"value": "", "persistent": True}}, {"a": 1}, id="persistent empty text is skipped"),
        pytest.param({"a": 1}, {"a": {"value": None, "persistent": False}}, {"a": 1}, id="null that is not persistent"),
        pytest.param(None, {"a": {"value": 2}}, {"a": {"value": 2}}, id="a value alone is no wrapper"),
        pytest.param(None, {"a": {"persistent": False}}, {"a": {"persistent": False}}, id="persistent alone is no wrapper"),
        pytest.param(
            None,
            {"a": {"value": 2, "persistent": "no"}},
            {"a": {"value": 2, "persistent": "no"}},
            id="persistent must be a boolean",
        ),
        pytest.param(None, {"locale": "de-AT"}, {"locale": "de-AT"}, id="locale"),
        pytest.param({"locale": "de"}, {"locale": None}, None, id="locale can be deleted"),
        pytest.param({"locale": "de"}, {"locale": ""}, {"locale": "de"}, id="an empty locale is skipped"),
    ],
)
def test_incoming_data_is_merged_key_by_key(stored: Data, incoming: Data, expected: Data) -> None:
    assert merge_data(stored, incoming) == expected


@pytest.mark.parametrize("key", sorted(RESERVED_FIELDS))
@pytest.mark.parametrize("value", ["x", None, 7])
def test_reserved_keys_are_skipped_whatever_their_value(key: str, value: object) -> None:
    assert merge_data({"a": 1, key: "stored"}, {key: value}) == {"a": 1, key: "stored"}


def test_every_name_of_the_system_is_reserved() -> None:
    names = "plunk_id plunk_email id email unsubscribeUrl subscribeUrl manageUrl subscribed createdAt updatedAt"
    assert frozenset(names.split()) == RESERVED_FIELDS


@pytest.mark.parametrize("value", [7, True, ["de"], {"value": "de"}, {"value": "de", "persistent": True}])
def test_locale_must_be_a_string(value: object) -> None:
    with pytest.raises(BadRequest):
        merge_data(None, {"locale": value})


def test_stored_data_is_not_changed_in_place() -> None:
    stored = {"a": 1}
    merge_data(stored, {"a": 2, "b": 3})
    assert stored == {"a": 1}
