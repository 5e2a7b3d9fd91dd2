"""What does each operator mean? Tables to read: operator and value, then what it holds for and what it does not."""

from typing import Any


class _Missing:
    def __repr__(self) -> str:
        """Return the same text in every run: names of tests are made of it."""
        return "missing"


MISSING = _Missing()
"""The contact has no such field."""
Row = tuple[str, Any, list[Any], list[Any]]

# data.x: a stored value of each kind is among those that match, or among those that do not.
DATA: list[Row] = [
    ("equals", 5, [5, 5.0], ["5", 6, -5, True, [5], {"x": 5}, MISSING]),
    ("equals", 0, [0, 0.0, -0.0], [False, "", "0", [], {}, MISSING]),
    ("equals", 1, [1, 1.0], [True, "1", [1], MISSING]),
    ("equals", 0.1, [0.1], [0.10000000000000002, "0.1", 1, MISSING]),
    ("equals", 2**53 + 1, [2**53 + 1], [2**53, float(2**53), MISSING]),
    ("equals", "5", ["5"], [5, "05", "5 ", MISSING]),
    ("equals", "pro", ["pro"], ["Pro", "PRO", "pro ", "professional", ["pro"], {"pro": "pro"}, True, MISSING]),
    ("equals", "İstanbul ❤", ["İstanbul ❤"], ["istanbul ❤", "İstanbul", MISSING]),
    ("equals", "[1]", ["[1]"], [[1], MISSING]),
    ("equals", "null", ["null"], [None, MISSING]),
    ("equals", True, [True], ["true", 1, "True", False, MISSING]),
    ("equals", False, [False], ["false", 0, True, None, MISSING]),
    ("equals", None, [None, MISSING], [False, 0, "null", [], {}]),
    ("equals", [1, "a"], [[1, "a"], [1.0, "a"]], [["a", 1], [1], [1, "a", 2], ["1", "a"], '[1,"a"]', 1, MISSING]),
    ("equals", [1, "[0]"], [[1, "[0]"]], [[True, "[0]"], ["1", "[0]"], [1, [0]], MISSING]),
    (
        "equals",
        {"a": 0, "b": True},
        [{"a": -0.0, "b": True}],
        [{"a": False, "b": True}, {"a": 0, "b": 1}, {"a": 0, "b": "true"}],
    ),
    ("equals", [], [[]], [{}, "[]", [0], [None], 0, False, MISSING]),
    ("equals", [None], [[None]], [[], [0], [False], MISSING]),
    ("equals", {"a": 1, "b": [True]}, [{"b": [True], "a": 1.0}], [{"a": 1}, {"a": 1, "b": [1]}, {"a": "1", "b": [True]}]),
    ("equals", {"a": 1}, [{"a": 1}], [{"a": 1, "b": None}, {"b": 1}, [1], '{"a":1}', MISSING]),
    ("equals", {}, [{}], [[], "{}", {"a": None}, "", MISSING]),
    ("equals", {'"': {"\\": None}}, [{'"': {"\\": None}}], [{'"': {"\\": 0}}, {'"': {}}, {'"': "\\"}, {}]),
    ("equals", "2026-05-06", ["2026-05-06", "2026-05-06T23:59:59Z"], ["2026-05-07", "2026-05-0", 20260506, MISSING]),
    ("equals", "2026-05-06T10:00:00Z", ["2026-05-06", "2026-05-06T00:00:00Z"], ["2026-05-05T10:00:00Z", MISSING]),
    ("equals", "2026-05-06T23:00:00-05:00", ["2026-05-07", "2026-05-07T01:00:00.000Z"], ["2026-05-06T23:00:00-05:00"]),
    ("equals", "2026-05-06 10:00", ["2026-05-06 10:00"], ["2026-05-06", "2026-05-06 10:01"]),
    ("equals", "2026-13-45", ["2026-13-45"], ["2026-13-45T00:00:00Z"]),
    ("notEquals", "pro", ["free", "Pro", 5, None, ["pro"], MISSING], ["pro"]),
    ("notEquals", 5, ["5", 6, True, MISSING], [5, 5.0]),
    ("notEquals", [1], [[2], [], 1, MISSING], [[1], [1.0]]),
    ("notEquals", None, [False, 0, "", "null", [], {}], [None, MISSING]),
    ("notEquals", "2026-05-06", ["2026-05-07", 5, MISSING], ["2026-05-06", "2026-05-06T23:59:59.999Z"]),
    ("contains", "ro", ["pro", "Euro", "ro"], ["PRO", "r o", ["ro"], {"ro": "ro"}, 5, None, MISSING]),
    ("contains", "", ["pro", ""], [5, True, ["pro"], MISSING]),
    ("contains", "%", ["100%"], ["100", "_", MISSING]),
    ("contains", "5", ["15"], [5, 15, [5], MISSING]),
    ("contains", "é❤", ["café❤"], ["cafe❤", "CAFÉ❤", MISSING]),
    ("notContains", "ro", ["PRO", "free", ["ro"], 5, None, MISSING], ["pro", "Euro"]),
    ("greaterThan", 5, [6, 5.1, 1e300], [5, 5.0, 4, -6, "6", "a", True, [6], None, MISSING]),
    ("greaterThanOrEqual", 5, [5, 5.0, 6], [4.9, "5", "6", True, MISSING]),
    ("lessThan", 5, [4, -6, 4.9, 0], [5, 5.0, 6, "4", False, None, [], MISSING]),
    ("lessThanOrEqual", 5, [5, 5.0, 4], [5.1, "5", "4", False, None, MISSING]),
    ("greaterThan", 0.1, [0.2, 1], [0.1, 0, -1, "1", MISSING]),
    ("greaterThan", "b", ["c", "ba", "ä", "❤"], ["b", "a", "B", "C", "", 99, True, ["c"], MISSING]),
    ("greaterThanOrEqual", "b", ["b", "c"], ["a", "C", 1, MISSING]),
    ("lessThan", "b", ["a", "B", "Z", "", "1"], ["b", "c", "ba", 1, None, MISSING]),
    ("lessThanOrEqual", "b", ["b", "a", "C"], ["ba", "c", 1, MISSING]),
    ("exists", None, [0, False, "x", "", [], {}], [None, MISSING]),
    ("notExists", None, [None, MISSING], [0, False, "x", "", [], {}]),
]

# data.x, now being 2026-03-01T12:00:00Z: operator, value and unit.
AGES: list[tuple[str, float, str, list[Any], list[Any]]] = [
    (
        "within",
        7,
        "days",
        ["2026-02-22T12:00:00.000Z", "2026-02-28", "2026-03-01T12:00:00.000Z", "2099-01-01"],
        ["2026-02-22T11:59:59.999Z", "2026-02-22", "2025-12-31", 1772366400000, 2026, True, None, MISSING],
    ),
    (
        "olderThan",
        7,
        "days",
        ["2026-02-22T11:59:59.999Z", "2026-02-22", "1999"],
        ["2026-02-22T12:00:00.000Z", "2026-02-23", "2099-01-01", 0, [], None, MISSING],
    ),
    ("within", 1.5, "hours", ["2026-03-01T10:30:00.000Z"], ["2026-03-01T10:29:59.999Z", "2026-03-01"]),
    ("olderThan", 30, "minutes", ["2026-03-01T11:29:59.999Z", "2026-03-01"], ["2026-03-01T11:30:00.000Z"]),
    ("within", 0, "minutes", ["2026-03-01T12:00:00.000Z"], ["2026-03-01T11:59:59.999Z"]),
    ("within", 1e9, "days", ["2000-01-01", "x"], ["1900-01-01", 5, MISSING]),
]

# The field stands for a place in `data`: field, data, whether `equals 1` holds.
PATHS: list[tuple[str, Any, bool]] = [
    ("data.a", {"a": 1}, True),
    ("data.A", {"a": 1}, False),
    ("data.a.b", {"a": {"b": 1}}, True),
    ("data.a.b.c", {"a": {"b": {"c": 1}}}, True),
    ("data.a.b", {"a": {"b": 2}}, False),
    ("data.a.b", {"a": 1}, False),
    ("data.a.b", {"b": 1}, False),
    ("data.a.b", {"a.b": 1}, True),
    ("data.a.b", {"a.b": 1, "a": {"b": 2}}, True),
    ("data.a.b", {"a.b": 2, "a": {"b": 1}}, False),
    ("data.a.b", {"a.b": None, "a": {"b": 1}}, False),
    ("data.a.b.c", {"a.b": {"c": 1}}, False),
    ("data.a.0", {"a": [1]}, False),
    ("data.a.0", {"a": {"0": 1}}, True),
    ("data.a.length", {"a": [1]}, False),
    ("data.a b", {"a b": 1}, True),
    ('data.a"b', {'a"b': 1}, True),
    ('data.a"b', {"a": {"b": 1}}, False),
    ("data.a'b", {"a'b": 1}, True),
    ("data.a\\b", {"a\\b": 1}, True),
    ("data.a\nb", {"a\nb": 1}, True),
    ("data.[0]", {"[0]": 1}, True),
    ("data.$", {"$": 1}, True),
    ("data.é❤", {"é❤": 1}, True),
    ('data.".b', {'"': {"b": 1}}, True),
    ('data.a."', {"a": {'"': 1}}, True),
    ('data.a."', {"a": '{"\\"":1}'}, False),
    ('data.a.".b', {"a": "text"}, False),
    ('data.a.".b', {"a": {'"': '{"b":1}'}}, False),
    ("data..", {"": {"": 1}}, True),
    ("data..", {".": 1}, True),
    ("data.email", {"email": 1}, True),
    ("data.a.b.c.d.e.f.g.h.i.j.k", {"a.b.c.d.e.f.g.h.i.j.k": 1}, True),
    ("data." + ".".join('"' * 300), {".".join('"' * 300): 1}, True),
    ("data." + ".".join('"' * 300), {'"': 1}, False),
    ("data.x", None, False),
    ("data.x", {}, False),
]

EMAIL: list[Row] = [
    ("equals", "Ann@Example.COM", ["ann@example.com"], ["bann@example.com", "ann@example.co"]),
    ("equals", " ann@example.com ", ["ann@example.com"], ["bob@example.com"]),
    ("notEquals", "ANN@example.com", ["bob@example.com"], ["ann@example.com"]),
    ("contains", "@EXAMPLE", ["ann@example.com", "x@example"], ["ann@exampl.com"]),
    ("contains", "a%", ["a%b@example.com"], ["ab@example.com"]),
    ("contains", "a_b", ["a_b@example.com"], ["acb@example.com"]),
    ("notContains", "Ann", ["bob@example.com"], ["ann@example.com", "joann@example.com"]),
]

SUBSCRIBED: list[Row] = [
    ("equals", True, [True], [False]),
    ("equals", "true", [True], [False]),
    ("equals", False, [False], [True]),
    ("equals", "false", [False], [True]),
    ("equals", 1, [False], [True]),
    ("equals", None, [False], [True]),
    ("notEquals", True, [False], [True]),
    ("notEquals", "true", [False], [True]),
    ("notEquals", False, [True], [False]),
    ("notEquals", "false", [True], [False]),
]

# createdAt and updatedAt: times as ISO 8601.
DATES: list[Row] = [
    (
        "equals",
        "2026-05-06",
        ["2026-05-06T00:00:00Z", "2026-05-06T23:59:59.999Z"],
        ["2026-05-05T23:59:59.999Z", "2026-05-07"],
    ),
    ("equals", "2026-05-06T10:00:00Z", ["2026-05-06T00:00:00Z", "2026-05-06T23:59:59.999Z"], ["2026-05-07T00:00:00Z"]),
    ("equals", "2026-05-06T23:00:00-05:00", ["2026-05-07T00:00:00Z"], ["2026-05-06T23:00:00Z"]),
    ("equals", 1778061600000, ["2026-05-06T10:00:00Z"], ["2026-05-06T10:00:00.001Z", "2026-05-06T00:00:00Z"]),
    ("equals", "2026-05-06 10:00", ["2026-05-06T10:00:00Z"], ["2026-05-06T10:00:01Z"]),
    ("equals", "9999-12-31", ["9999-12-31T23:59:59.999Z"], ["2026-05-06T10:00:00Z"]),
    (
        "notEquals",
        "2026-05-06",
        ["2026-05-05T23:59:59.999Z", "2026-05-07"],
        ["2026-05-06T00:00:00Z", "2026-05-06T12:00:00Z"],
    ),
    ("notEquals", "2026-05-06 10:00", ["2026-05-06T10:00:01Z"], ["2026-05-06T10:00:00Z"]),
    ("greaterThan", "2026-05-06", ["2026-05-06T00:00:00.001Z"], ["2026-05-06T00:00:00Z", "2026-05-05"]),
    ("greaterThanOrEqual", "2026-05-06", ["2026-05-06T00:00:00Z", "2026-05-07"], ["2026-05-05T23:59:59.999Z"]),
    ("lessThan", "2026-05-06T10:00:00+02:00", ["2026-05-06T07:59:59.999Z"], ["2026-05-06T08:00:00Z"]),
    ("lessThanOrEqual", "2026-05-06T10:00:00Z", ["2026-05-06T10:00:00Z", "0900-01-01"], ["2026-05-06T10:00:00.001Z"]),
]

# createdAt and updatedAt, in days before now: operator, value and unit.
DATE_AGES: list[tuple[str, float, str, list[float], list[float]]] = [
    ("within", 7, "days", [7, 6.9, 0, -100], [7.001, 30]),
    ("within", 1, "days", [1, 0.5], [1.001]),
    ("within", 0.5, "days", [0.5], [0.51]),
    ("within", 36, "hours", [1.5], [1.51]),
    ("olderThan", 7, "days", [7.001, 30], [7, 6.9, 0, -100]),
    ("olderThan", 90, "minutes", [0.063], [0.0625, 0]),
]

# event.* and email.*: operator, value and unit; then histories, each a list of how many days ago it happened.
HISTORY: list[tuple[str, float | None, str | None, list[list[float]], list[list[float]]]] = [
    ("triggered", None, None, [[0], [1000], [1, 2, 3]], [[]]),
    ("notTriggered", None, None, [[]], [[0], [1000], [1, 2, 3]]),
    ("triggeredWithin", 7, "days", [[7], [0], [30, 1]], [[], [7.001], [30, 8]]),
    ("triggeredOlderThan", 7, "days", [[7.001], [30, 8]], [[], [7], [0], [30, 1]]),
    ("notTriggeredWithin", 7, "days", [[], [7.001], [30, 8]], [[7], [0], [30, 1]]),
    ("triggeredWithin", 1.5, "hours", [[0.0625]], [[0.063]]),
    ("triggeredOlderThan", 30, "minutes", [[0.021]], [[0.02]]),
]
