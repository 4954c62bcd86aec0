"""The layout that the design fixes: short files that say what they are, no drawers for odds and ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "theworld").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 300
DRAWERS = {"utils", "common", "registry", "factory", "base"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_files_are_found():
    found = {name(path) for path in SOURCES + TESTS}
    assert {"theworld/types.py", "theworld/training/callbacks/throughput.py", "tests/test_architecture.py"} <= found


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name)
def test_a_file_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"found {lines} lines, expected at most {MAX_LINES}; split {name(path)}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name(path)} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_module_is_a_drawer(path):
    assert not DRAWERS & {path.stem, *path.relative_to(ROOT).parts}


def test_tests_mirror_the_package():
    """Every folder of tests below `tests/` is that of a folder of the package, or of the experiments."""
    for folder in {path.parent for path in TESTS} - {ROOT / "tests"}:
        mirrored = folder.relative_to(ROOT / "tests")
        assert (ROOT / "theworld" / mirrored).is_dir() or mirrored.parts[0] == "experiments", folder
