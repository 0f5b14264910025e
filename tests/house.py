"""Measures of the code as text and syntax trees, for tests/test_house.py and `python -m benchmarks.house`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

PACKAGES = ("astroml_plugin", "workflows")
LONG_FILE = 400
LONG_WORKFLOW = 150
MANY_PARAMETERS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path) -> dict[str, str]:
    """Text of every Python file of both packages, by its path below `root`."""
    files = (file for package in PACKAGES for file in sorted((root / package).rglob("*.py")))
    return {str(file.relative_to(root)): file.read_text() for file in files}


def room(module: str) -> str:
    """The room of a dotted module: the name below `astroml_plugin`, or `workflows`."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGES[0] and len(parts) > 1 else parts[0]


def rooms(texts: dict[str, str]) -> tuple[int, int]:
    """Modules and folders at the root of `astroml_plugin`."""
    names = {Path(path).parts[1] for path in texts if path.startswith(PACKAGES[0])} - {"__init__.py"}
    return sum(name.endswith(".py") for name in names), sum(not name.endswith(".py") for name in names)


def imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement gives; none for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def functions(tree: ast.AST) -> Iterator[Function]:
    """Functions and methods that a reader of the module may call: none within another function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from functions(node)
        elif not isinstance(node, ast.Lambda):
            yield from functions(node)


def is_public(function: Function) -> bool:
    """Whether its name starts without an underscore."""
    return not function.name.startswith("_")


def parameters(function: Function) -> int:
    """Parameters without `self` and `cls`."""
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def lazy_imports(tree: ast.Module) -> list[str]:
    """Modules that are imported within functions."""
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, Function)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return [name for node in inside for name in imported(node)[:1]]


RIDDLE = re.compile(r"(The same|Of|As|What|Who|It|Its|Those|That)\b")
"""How a docstring begins that only its neighbours explain."""


def riddles(tree: ast.Module) -> list[str]:
    """Docstrings that begin as `RIDDLE` says."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return [text.partition("\n")[0] for text in texts + field_docstrings(tree) if RIDDLE.match(text)]


def field_docstrings(tree: ast.Module) -> list[str]:
    """Texts under constants and fields of classes."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)]
    pairs = [pair for body in bodies for pair in pairwise(body)]
    return [
        after.value.value
        for before, after in pairs
        if isinstance(before, ast.Assign | ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    ]


def array_aliases(tree: ast.Module) -> list[str]:
    """Names that a module gives to a kind of NumPy array."""
    return [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("NDArray[", "npt.NDArray["))
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
