"""What does a cell of a CSV file mean? Words and numbers become what they say (contract section 13)."""

import re

_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_LONGEST_WORD = 5
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?\Z")
_EXACT_INTEGERS = 2**53
_EXACT_DIGITS = 15  # that a double keeps, wherever the point stands
_YES = frozenset({"true", "1", "yes"})
Cell = bool | int | float | str


def read_cell(text: str) -> Cell:
    """Return true for `true` and `yes`, false for `false` and `no`, a number for a plain decimal one, else the text.

    A number that would lose digits stays text, as does one with leading zeros, an exponent or a plus sign.
    """
    if len(text) <= _LONGEST_WORD and (word := _WORDS.get(text.lower())) is not None:
        return word
    decimal = _DECIMAL.match(text)
    return text if decimal is None else _read_decimal(text, has_fraction=decimal[1] is not None)


def _read_decimal(text: str, *, has_fraction: bool) -> Cell:
    digits = len(text) - text.startswith("-") - has_fraction
    if has_fraction:
        return float(text) if digits <= _EXACT_DIGITS else text
    if digits > _EXACT_DIGITS + 1:
        return text
    number = int(text)
    return number if abs(number) <= _EXACT_INTEGERS else text


def read_subscribed(text: str) -> bool | None:
    """Return what a cell of the column `subscribed` says: true for `true`, `1` and `yes`; None for nothing, else false."""
    return text.lower() in _YES if text else None
