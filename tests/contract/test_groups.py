"""Is every test of mail in a group, and is the table of groups about tests that are there?"""

import tomllib
from fnmatch import fnmatch

import pytest

from tests.groups import FILE_TESTS, GROUPS, TESTS, groups_of
from tests.kit.tools import repository

FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*") if path.is_file())
NOT_ABOUT_MAIL = {"process/test_dev.py", "process/test_import_kill.py", "process/test_log.py"}
PATTERNS = [(group, pattern) for group, patterns in GROUPS.items() for pattern in patterns]


@pytest.mark.parametrize(("group", "pattern"), PATTERNS)
def test_a_pattern_of_the_table_fits_a_test(group: str, pattern: str) -> None:
    fitting = [file for file in FILES if fnmatch(file, pattern)]
    assert fitting
    assert not [file for file in fitting if file in FILE_TESTS], f"{group} names the files, not the module that runs them"


@pytest.mark.parametrize("folder", ["smtp/dialogs/*.dialog", "delivery/peers/*.peer"])
def test_every_dialog_and_every_peer_file_is_in_a_group(folder: str) -> None:
    assert [file for file in FILES if fnmatch(file, folder) and not groups_of(file)] == []


@pytest.mark.parametrize("folder", ["smtp/test_*.py", "delivery/test_*.py", "process/test_*.py"])
def test_every_test_of_the_doors_the_deliverer_and_the_process_is_in_a_group(folder: str) -> None:
    elsewhere = {*FILE_TESTS, *NOT_ABOUT_MAIL}
    assert [file for file in FILES if fnmatch(file, folder) and not groups_of(file) and file not in elsewhere] == []


def test_every_group_is_a_marker_and_in_the_readme() -> None:
    pytest_options = tomllib.loads((repository() / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = [line.partition(":")[0] for line in pytest_options["markers"]]
    readme = (TESTS / "README.md").read_text()
    assert [group for group in GROUPS if group not in markers or f"`{group}`" not in readme] == []
