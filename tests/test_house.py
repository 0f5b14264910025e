"""The house is in order: what import contracts cannot say, held for every file of both packages."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parents[1]
ARRAY_TYPES = "astroml_plugin/core/typing.py"
DOORS = re.compile(r"workflows/(cli\.py|verbs/)")
"""Files that may import our own modules within functions, so that `--help` is fast."""
EXCEPTIONS = json.loads(Path(__file__).with_name("house_exceptions.json").read_text())
"""Rule -> what does not keep it yet. The list only shrinks: an entry that is needed no longer fails its test."""

TEXTS = house.sources(ROOT)
Found = Iterator[str]


@cache
def trees() -> dict[str, ast.Module]:
    """Syntax trees by path: made where a test asks, since each process that collects tests imports this file."""
    return {path: ast.parse(text) for path, text in TEXTS.items()}


def loose_modules() -> Found:
    """Modules at the root of the package."""
    for path in TEXTS:
        if re.fullmatch(r"astroml_plugin/\w+\.py", path) and not path.endswith("__init__.py"):
            yield path


def long_files() -> Found:
    """Files of more lines than a reader takes in."""
    for path, text in TEXTS.items():
        workflow = re.fullmatch(r"workflows/\w+\.py", path) is not None
        if text.count("\n") > (house.LONG_WORKFLOW if workflow else house.LONG_FILE):
            yield path


def many_parameters() -> Found:
    """Public functions of more parameters than one remembers."""
    for path, function in _public():
        if house.parameters(function) > house.MANY_PARAMETERS:
            yield f"{path}:{function.name}"


def undocumented() -> Found:
    """Public functions without a docstring."""
    for path, function in _public():
        if ast.get_docstring(function) is None:
            yield f"{path}:{function.name}"


def riddles() -> Found:
    """Files with docstrings that only their neighbours explain."""
    for path, tree in trees().items():
        if house.riddles(tree):
            yield path


def array_aliases() -> Found:
    """Files that name a kind of array, beside the one that names them all."""
    for path, tree in trees().items():
        if path != ARRAY_TYPES and house.array_aliases(tree):
            yield path


def lazy_imports_of_our_own() -> Found:
    """Files that import our own modules within functions."""
    for path, tree in trees().items():
        if not DOORS.match(path):
            names = {name.split(".")[0] for name in house.lazy_imports(tree)}
            if names & set(house.PACKAGES):
                yield path


def packages_without_all() -> Found:
    """Packages that do not say which names they give."""
    for path, text in TEXTS.items():
        if path.startswith("astroml_plugin/") and path.endswith("__init__.py") and "__all__" not in text:
            yield path


def leaning_on_benchmarks() -> Found:
    """Tests and their helpers that lean on benchmarks."""
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if any(name.split(".")[0] == "benchmarks" for name in house.imported(node)):
                yield file.name


RULES = (
    loose_modules,
    long_files,
    many_parameters,
    undocumented,
    riddles,
    array_aliases,
    lazy_imports_of_our_own,
    packages_without_all,
    leaning_on_benchmarks,
)


def _public() -> Iterator[tuple[str, house.Function]]:
    for path, tree in trees().items():
        for function in house.functions(tree):
            if house.is_public(function):
                yield path, function


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule: Callable[[], Found]) -> None:
    allowed, found = set(EXCEPTIONS.get(rule.__name__, ())), set(rule())
    assert not found - allowed, rule.__doc__
    assert not allowed - found, "take these out of tests/house_exceptions.json: they are in order now"


def test_riddles_and_aliases_are_seen() -> None:
    tree = ast.parse(
        '"""Of it."""\nF = NDArray[np.float64]\nX = 1\n"""What it is."""\ndef f():\n    """Sum, of it."""\n'
    )
    assert house.riddles(tree) == ["Of it.", "What it is."]
    assert house.array_aliases(tree) == ["F"]


if __name__ == "__main__":
    left = {rule.__name__: sorted({*rule()}) for rule in RULES}
    text = json.dumps({name: paths for name, paths in left.items() if paths}, indent=1)
    Path(__file__).with_name("house_exceptions.json").write_text(text + "\n")
