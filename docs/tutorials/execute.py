"""Run the notebooks of this folder and keep their outputs: `python docs/tutorials/execute.py [NAME …]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def executed(file: Path, timeout: int = 1500) -> Any:
    """A notebook, run from its first cell, with its outputs; what went to stderr is left out."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_told(output)]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _is_told(output: Any) -> bool:
    """Whether an output is of the notebook itself, and not of a library that logs or draws its own table."""
    plain = output.get("data", {}).get("text/plain", "")
    return output.get("name") != "stderr" and plain != "<IPython.core.display.HTML object>"


if __name__ == "__main__":
    for given in sys.argv[1:] or sorted(file.name for file in FOLDER.glob("*.ipynb")):
        target = FOLDER / Path(given).name
        nbformat.write(executed(target), target)
