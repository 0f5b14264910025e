"""The state of the code in numbers: `python -m benchmarks.house [ROOT ...]` prints one column per checkout.

It reads the source as text and its syntax trees; only `--mypy` and `--times` start other programs. Two checkouts side
by side are a before and an after:

    git worktree add ../before v0.1.0
    python -m benchmarks.house ../before . --mypy --times
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.house import (
    LONG_FILE,
    LONG_WORKFLOW,
    MANY_PARAMETERS,
    PACKAGES,
    functions,
    imported,
    is_public,
    lazy_imports,
    parameters,
    riddles,
    room,
    rooms,
    sources,
)

RUN = 6
"""Lines that stand alike in two places before they count as repeated."""
TIMES = {
    "import astroml_plugin, s": ["-c", "import astroml_plugin"],
    "import workflows.infer, s": ["-c", "import workflows.infer"],
    "astroml-plugin infer --help, s": ["-m", "workflows.cli", "infer", "--help"],
}
REPEATS = 5


def arrows(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second."""
    found = set()
    for path, tree in trees.items():
        here = room(path.removesuffix(".py").replace("/", "."))
        for node in ast.walk(tree):
            for name in imported(node):
                if name.split(".")[0] in PACKAGES and room(name) != here:
                    found.add((here, room(name)))
    return found


def repeated_runs(texts: dict[str, str]) -> int:
    """Runs of at least `RUN` equal lines of code that stand in two places; imports and comments do not count."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, text in texts.items():
        lines = _code_lines(text)
        for start in range(len(lines) - RUN + 1):
            places[tuple(lines[start : start + RUN])].append((path, start))
    twice = {window: found for window, found in places.items() if len(found) > 1}
    starts = {(path, start) for found in twice.values() for path, start in found}
    return sum((path, start - 1) not in starts for path, start in starts)


def _code_lines(text: str) -> list[str]:
    kept = (line.strip() for line in text.splitlines())
    return [line for line in kept if re.search(r"\w", line) and not re.match(r"#|from |import |\"\"\"", line)]


def measures(root: Path) -> dict[str, float]:
    """The numbers of a checkout by name."""
    texts = sources(root)
    trees = {path: ast.parse(text) for path, text in texts.items()}
    loose, folders = rooms(texts)
    public = [function for tree in trees.values() for function in functions(tree) if is_public(function)]
    lazy = [name for tree in trees.values() for name in lazy_imports(tree)]
    joined = "\n".join(texts.values())
    sizes = {path: text.count("\n") for path, text in texts.items()}
    return {
        "modules at the root": loose,
        "rooms at the root": folders,
        "arrows between rooms": len(arrows(trees)),
        "lines": sum(sizes.values()),
        f"files over {LONG_FILE} lines": sum(size > LONG_FILE for size in sizes.values()),
        f"workflow files over {LONG_WORKFLOW} lines": sum(
            size > LONG_WORKFLOW for path, size in sizes.items() if re.fullmatch(r"workflows/\w+\.py", path)
        ),
        f"public functions over {MANY_PARAMETERS} parameters": sum(
            parameters(function) > MANY_PARAMETERS for function in public
        ),
        "most parameters": max(parameters(function) for function in public),
        "Any": len(re.findall(r"\bAny\b", joined)),
        "type: ignore": joined.count("type: ignore"),
        "lazy imports": len(lazy),
        "lazy imports of our own": sum(name.split(".")[0] in PACKAGES for name in lazy),
        f"repeated runs of {RUN} lines": repeated_runs(texts),
        "public functions without a docstring": sum(ast.get_docstring(function) is None for function in public),
        "riddles": sum(len(riddles(tree)) for tree in trees.values()),
        "modules with __all__": sum("__all__" in text for text in texts.values()),
    }


def strict_errors(root: Path) -> dict[str, float]:
    """Errors of mypy: as configured, and strict."""

    def errors(*options: str) -> int:
        run = subprocess.run([sys.executable, "-m", "mypy", *options], cwd=root, capture_output=True, text=True)
        return Counter(": error:" in line for line in run.stdout.splitlines())[True]

    return {"mypy errors": errors(), "mypy --strict errors": errors("--strict")}


def times(root: Path) -> dict[str, float]:
    """Median seconds of whole processes, after one that warms the files up."""
    environment = {**os.environ, "PYTHONPATH": str(root.absolute())}
    found = {}
    for name, arguments in TIMES.items():
        seconds = []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
        found[name] = round(statistics.median(seconds[1:]), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", type=Path, default=[Path()])
    parser.add_argument("--mypy", action="store_true", help="also count the errors of mypy")
    parser.add_argument("--times", action="store_true", help="also time imports and the help")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    settings = parser.parse_args()
    columns = []
    for root in settings.roots:
        columns.append(measures(root))
        columns[-1] |= strict_errors(root) if settings.mypy else {}
        columns[-1] |= times(root) if settings.times else {}
    if settings.json:
        print(json.dumps(columns, indent=1))
        return
    print(f"| | {' | '.join(str(root) for root in settings.roots)} |\n|---|{'---|' * len(columns)}")
    for name in columns[-1]:
        print(f"| {name} | {' | '.join(f'{column.get(name, 0):,}' for column in columns)} |")


if __name__ == "__main__":
    main()
