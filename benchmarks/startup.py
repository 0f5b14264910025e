"""How long the command takes before it does anything."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.harness import Section, interleave, median_iqr, timed
from tests.pages import table


def run() -> Section:
    """`astroml-plugin --help` and the import of `infer` in fresh processes, against an empty Python."""
    python = sys.executable

    def command(*arguments: str) -> None:
        subprocess.run([python, *arguments], check=True, stdout=subprocess.DEVNULL)

    timings = interleave(
        {
            "empty": timed(lambda: command("-c", "pass")),
            "help": timed(lambda: command("-m", "workflows.cli", "--help")),
            "infer": timed(lambda: command("-c", "import workflows.infer")),
        },
        repeats=9,
    )
    rows = [
        ["python -c pass, s", median_iqr(timings["empty"])],
        ["astroml-plugin --help, s", median_iqr(timings["help"])],
        ["import workflows.infer, s", median_iqr(timings["infer"])],
    ]
    medians = {name: float(np.median(timings[name])) for name in ("help", "infer")}
    return Section("Start-up", f"{run.__doc__}\n\n" + table(["what", "value"], rows), medians)
