"""What could people and conditions be? Anything; but from few words, so that conditions often hold and often do not."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from plunk_relay.conditions import ACTIVITIES, OPERATORS
from tests.segments.audience import NOW, Json, Person, ago

STATIC, TRACKED, UNTRACKED, NESTED = "the-static-one", "the-tracked-one", "the-untracked-one", "the-nested-one"
_TABLES = (STATIC, TRACKED)

_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
_keys = st.sampled_from(["x", "y", "x.y", "y.x", ".", "", 'q"', "b\\", "c\n", "é❤", "0", "x y"])
_scalars = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 1.0, 5, -5, 0.1, 2**53, 1e300, "1", "true", "null", "pro", "Pro", "", "[1]"]),
    st.sampled_from(["2026-02-28", "2026-02-28T10:00:00.000Z", "2026-02-28T23:30:00-05:00", "2026-03-01", "2026-13-45T"]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=6
)
_moments = st.sampled_from([ago(days) for days in (0, 0.5, 1, 1.5, 7, 30, 400)]) | st.datetimes(
    min_value=(NOW - timedelta(days=3)).replace(tzinfo=None), max_value=NOW.replace(tzinfo=None)
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=NOW.tzinfo))
_events = st.sampled_from(["signup", "order.placed", "email.sent", 'x"'])
_columns = st.sampled_from(sorted(set(ACTIVITIES.values())))
_addresses = st.sampled_from(["ann", "ann.a", "joann", "bob", "ünal", "a%b", "a_b"])

people = st.builds(
    Person,
    subscribed=st.booleans(),
    data=st.none() | st.dictionaries(_keys, values, max_size=4),
    created_at=_moments,
    updated_at=_moments,
    email=_addresses.map(lambda name: f"{name}@example.com"),
    events=st.lists(st.tuples(_events, _moments), max_size=3),
    mails=st.lists(st.dictionaries(_columns, _moments, max_size=3), max_size=2),
    segments=st.lists(st.sampled_from(_TABLES), unique=True),
)
crowds = st.lists(people, min_size=1, max_size=5, unique_by=lambda person: person.email)

_windows = st.tuples(st.sampled_from([0, 0.5, 1, 1.5, 7, 30, 1000]), st.sampled_from(["days", "hours", "minutes"]))
_dates = st.sampled_from(
    ["2026-02-28", "2026-02-28T10:00:00Z", "2026-02-28T23:30:00-05:00", "2026-02-28 12:00", 1772280000000, "9999-12-31"]
)
_paths = st.lists(_keys, min_size=1, max_size=3).map(".".join).filter(bool)


def _operators(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(OPERATORS[kind]))  # type: ignore[index]  # a kind


@st.composite
def filters(draw: st.DrawFn, *, segments: tuple[str, ...]) -> Json:
    """Draw a filter that is allowed; it names these segments."""
    kind = draw(st.sampled_from([*(kind for kind in OPERATORS if kind != "segment" or segments), "data"]))
    operator = draw(_operators(kind))
    field = {
        "email": st.just("email"),
        "subscribed": st.just("subscribed"),
        "date": st.sampled_from(["createdAt", "updatedAt"]),
        "data": _paths.map("data.{}".format),
        "event": _events.map("event.{}".format),
        "activity": st.sampled_from(sorted(ACTIVITIES)).map("email.{}".format),
        "segment": st.sampled_from(segments or ("none",)).map("segment.{}".format),
    }[kind]
    return {"field": draw(field), "operator": operator} | draw(_comparands(kind, operator))


@st.composite
def _comparands(draw: st.DrawFn, kind: str, operator: str) -> Json:
    """Draw what a field is compared with."""
    if operator in ("within", "olderThan", "triggeredWithin", "triggeredOlderThan", "notTriggeredWithin"):
        value, unit = draw(_windows)
        return {"value": value, "unit": unit}
    compared: st.SearchStrategy[Any] = st.none()
    if kind == "email":
        compared = st.sampled_from(["ANN@example.com", " bob@example.com", "an", "Ü", "%", "_", ""])
    elif kind == "date":
        compared = _dates
    elif kind == "subscribed":
        compared = st.sampled_from([True, False, "true", "false", 1, None])
    elif operator in ("contains", "notContains"):
        compared = st.sampled_from(["", "p", "P", "1", "2026-02"]) | _texts
    elif operator in ("equals", "notEquals"):
        compared = values
    elif operator.startswith(("greater", "less")):
        compared = _scalars.filter(lambda value: value is not None and not isinstance(value, bool))
    return {"value": draw(compared)}


def conditions(segments: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Draw conditions, up to three deep."""
    inner: st.SearchStrategy[Json] | None = None
    for _ in range(3):
        inner = _condition(filters(segments=segments), inner)
    assert inner is not None
    return inner


def _condition(one: st.SearchStrategy[Json], nested: st.SearchStrategy[Json] | None) -> st.SearchStrategy[Json]:
    plain = st.fixed_dictionaries({"filters": st.lists(one, min_size=1, max_size=3)})
    group: st.SearchStrategy[Json] = plain
    if nested is not None:
        group |= st.fixed_dictionaries({"filters": st.lists(one, max_size=2), "conditions": nested})
    logic = st.sampled_from(["AND", "OR"])
    return st.fixed_dictionaries({"logic": logic, "groups": st.lists(group, min_size=1, max_size=3)})
