"""The tutorials run, and are kept with the outputs of a whole run."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 200_000
"""Bytes of a notebook: pictures are small."""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_those_of_one_whole_run(notebook: Path) -> None:
    assert notebook.stat().st_size < LARGEST
    code = _code(notebook)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs), "there is nothing to look at"
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not re.search(r"/(home|root|work|Users)/", json.dumps([_words(output) for output in outputs]))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_names_that_a_tutorial_imports_are_there(notebook: Path) -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        for cell in _code(notebook):
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("workflows", "astroml_plugin"):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="needs the extra docs")
@pytest.mark.parametrize("data", ["drawn", "real"])
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_tutorial_runs(
    notebook: Path, data: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sim" in (cell := "".join(_code(notebook)[0]["source"])) and "simulate" in cell:
        pytest.importorskip("galsim")
        if data == "real":
            pytest.skip("it simulates its data")
    folder = tmp_path if data == "drawn" else request.getfixturevalue("shared_data")
    monkeypatch.setenv("ASTROML_TEST_DATA", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(FOLDER))
    run = importlib.import_module("execute").executed(notebook, timeout=1500)
    assert all(cell.execution_count for cell in run.cells if cell.cell_type == "code")


def _code(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def _words(output: dict[str, Any]) -> Any:
    return [output.get("text"), output.get("data", {}).get("text/plain")]
