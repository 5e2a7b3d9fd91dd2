"""Is the tree that is drawn on top of `errors.py` the tree of the classes?"""

import inspect
import re
from dataclasses import dataclass

import pytest

from plunk_relay import errors
from plunk_relay.errors import ContactNotFound, FieldError, NotFound, RelayError, SetupError, ValidationFailed, describe

_LINE = re.compile(r"(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+) *(?P<rest>.*)")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One line of the tree; a column that is left empty is the parent's."""

    name: str
    parent: str | None
    code: str | None
    status: int | None
    smtp: tuple[int, str] | None


def _read_tree() -> dict[str, Drawn]:
    lines = [line[4:] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    tree: dict[str, Drawn] = {}
    above: list[tuple[int, str]] = []
    for line in lines:
        found = _LINE.fullmatch(line)
        assert found, line
        depth = len(found["branch"])
        above = [entry for entry in above if entry[0] < depth]
        parent = above[-1][1] if above else None
        above.append((depth, found["name"]))
        tree[found["name"]] = _drawn(found["name"], parent, found["rest"])
    return tree


def _drawn(name: str, parent: str | None, rest: str) -> Drawn:
    words = re.fullmatch(r"(?:([A-Z_]+)(?: +(\d{3}))?(?: +(?:-|(\d{3}) (\d\.\d\.\d)))?)?(?:  .*|\(.*)?", rest)
    assert words or parent is None, rest
    code, status, reply, enhanced = words.groups() if words else (None,) * 4
    return Drawn(name, parent, code, int(status) if status else None, (int(reply), str(enhanced)) if reply else None)


TREE = _read_tree()
CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, RelayError) and found.__module__ == errors.__name__
}


def test_every_class_is_drawn() -> None:
    assert set(TREE) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_drawn_below_its_parent_and_with_its_answers(name: str) -> None:
    drawn, found = TREE[name], CLASSES[name]
    assert drawn.parent == (None if found is RelayError else found.__bases__[0].__name__)
    if issubclass(found, SetupError) or found is RelayError:
        return
    parent = TREE[drawn.parent or ""]
    assert found.code == (drawn.code or parent.code)
    assert found.status == (drawn.status or parent.status)
    assert drawn.smtp in (None, found.smtp)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RelayError("Something"), "Something"),
        (NotFound.of("Project", "acme"), "Project not found: acme"),
        (ContactNotFound("Contact not found"), "Contact not found"),
        (
            ValidationFailed([FieldError("to.0", "No address", "x"), FieldError("from", "Missing", "x")]),
            "to.0: No address; from: Missing",
        ),
        (ValidationFailed([], "Nothing fits"), "Nothing fits"),
    ],
)
def test_an_error_is_one_line_for_an_operator(error: RelayError, line: str) -> None:
    assert describe(error) == line
